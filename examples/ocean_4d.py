"""Look below the surface of the ocean: a 4-D U-Net completes temperatures where only the surface is known.

    python examples/ocean_4d.py                   # the World Ocean Atlas, four minutes of one core

Satellites see the surface and little else, so boxes of 20 by 32 degrees are held out below it, all year, and
others are hidden to learn from. A linear regression guesses from what is around a box and how wrong that is
at the surface; the network learns what is left of its errors. The mean that it expects is the answer, and the
spread of its samples says how sure it is. Months and longitudes are periodic: their padding is circular.
--resume goes on with a run after Ctrl-C.
"""

from dataclasses import dataclass

import torch
import tyro
from _ocean import (
    Regression,
    below,
    boxes,
    from_around,
    judge,
    judge_intervals,
    mean_of_parallel,
    mirrored,
    read,
)
from _runs import NetworkOptions, begin, explained, fit, keep, report, suggest
from torch import Tensor
from torch.utils.data import Dataset

from dynunet import Diffusion, Trainer, UNet
from dynunet.diffusion import EDM, LogNormal, RePaint, coordinates
from dynunet.nn.flags import with_flags
from dynunet.operators import Mask

PADDING = ("circular", "zeros", "zeros", "circular")  # of months, depths, latitudes and longitudes
STD = 0.5  # of what the network learns
TERMS = 8  # of the conditions, which the regression is of


@dataclass
class Options(with_flags(NetworkOptions, {"channels": (8, 16, 32), "num_groups": 4})):
    """Train a 4-D network to complete the ocean. --data is a netCDF-3 file; an atlas if left out."""

    every: tuple[int, int, int, int] = (3, 3, 2, 2)
    """take every so many months, depths, latitudes and longitudes of the file"""
    box: tuple[int, int] = (5, 8)
    """latitudes and longitudes of a box"""
    train_steps: int = 300
    """of training, with one example each"""
    lr: float = 4e-3
    """peak learning rate"""
    num_samples: int = 32
    """of what may be in the boxes"""
    sample_steps: int = 8
    """of the sampler"""


def question(x: Tensor, known: Tensor, water: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """A first guess where a field is not known but at its surface, and what the network is shown."""
    guess, other = from_around(x, known, water), from_around(x, known, water, (3, 5))
    wrong, other_wrong = ((x - answer)[:, :1].expand_as(x) for answer in (guess, other))  # at the surface
    yearly, season = wrong.mean(0, keepdim=True).expand_as(x), guess - guess.mean(0, keepdim=True)
    mean = mean_of_parallel(x, known)
    unusual = (x - mean)[:, :1].expand_as(x)
    shown = [wrong / 2, yearly / 2, guess / 15, season / 4]
    shown += [(other - guess) / 2, other_wrong / 2, (guess - mean) / 3, unusual / 3]
    return guess, torch.stack([(channel * water).float() for channel in (*shown, known, water, *place)])


class Boxes(Dataset[dict[str, Tensor]]):
    """Bands of 16 latitudes, all around the Earth and the year, with some boxes hidden below the surface.

    Half of them are mirrored. Items are what a regression leaves of the errors of a guess.
    """

    def __init__(self, *parts: Tensor, box: tuple[int, int]) -> None:
        self.parts, self.box = parts, box
        drawn = (self.drawn(int(torch.randint(len(self), ()))) for _ in range(40))
        self.regression = Regression.fit(drawn, TERMS)

    def __len__(self) -> int:
        return max(self.parts[0].shape[2] - 15, 1)

    def drawn(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Errors of a guess, what is shown, and where the field is hidden."""
        parts = [part[..., index : index + 16, :] for part in self.parts]
        if torch.rand(()) < 0.5:
            parts = list(map(mirrored, parts))
        x, known, water, place = parts
        hidden = known & boxes(x.shape[2:], 12, self.box)
        guess, cond = question(x, known & ~hidden, water, place)
        return x - guess, cond, hidden & below(x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        error, cond, mask = self.drawn(index)
        x0 = (error - self.regression(cond)) * STD / self.regression.spread
        return {"x0": x0.unsqueeze(0), "cond": cond, "mask": mask.unsqueeze(0)}


def main(options: Options) -> None:
    options, folder = begin(options, "ocean")
    torch.manual_seed(options.seed)
    with explained(folder):
        field, water = read(options.data, options.every)
        tests = boxes(field.shape[2:], 20, options.box, across=True)
        known, held_out = water & ~tests, water & below(field) & tests
        seen, place = field * ~held_out, coordinates((1, 1, *field.shape))[0, 1:3]  # depth and latitude
        place[1] = 2 * place[1].abs() - 1  # the equator and the poles, on both hemispheres alike
        data = Boxes(seen, known, water, place, box=options.box)
        strides = [(2, 2, 2, 2), *[(1, 2, 2, 1)] * 9][: len(options.channels) - 1]
        kernels = [(1, 1, 3, 3), (1, 3, 3, 3), *[3] * 9][: len(options.channels)]
        how = {"strides": strides, "padding_mode": PADDING, "time_embedding": True, **options.network()}
        unet = UNet(4, 1, cond_channels=TERMS + 4, kernel_size=kernels, **how)
        # What is not known is smooth: its large parts are seen in noise of several times their size.
        weighting = LogNormal(mean=0.3, std=1.2, sigma_data=STD)
        diffusion = Diffusion(unet, EDM(0.05, 10), "edm", weighting, sigma_data=STD)
    print(unet.summary((1, *data[0]["x0"].shape)))
    training = {"steps": options.train_steps, "batch_size": 1, "lr": options.lr, "seed": options.seed}
    training |= {"ema": 0.98, "sample_every": 0}
    model, seconds = fit(Trainer(diffusion, data, folder / "model", **training), folder)

    guess, cond = question(seen, known, water, place)
    regression, spread = guess + data.regression(cond), data.regression.spread
    # The guess is right but where it is asked about; the network knows the rest by its conditions.
    right, answers = torch.zeros(1, 1, *field.shape), Mask(~held_out[None, None])
    how = {"method": RePaint(1), "sampler": "dpmpp_2m", "spacing": "log_snr"}
    how |= {"batch_size": 4, "cond": cond.unsqueeze(0)}

    def ask(num_samples: int, steps: int) -> Tensor:
        x0 = model.reconstruct(right, answers, num_samples=num_samples, steps=steps, **how)[:, 0, 0]
        return regression + spread / STD * x0

    samples = ask(options.num_samples, options.sample_steps)
    mean = ask(8, 1).mean(0)  # a single step from pure noise is to the mean of all that may be
    filled = {"climatology": mean_of_parallel(seen, known), "interpolated": guess}
    filled |= {"regression": regression, "a sample": samples[0], "network": mean}
    keep(folder, field=field, water=water, held_out=held_out, **filled)
    figures = judge(filled, field, water, held_out, folder)
    figures |= judge_intervals(samples, regression, spread, field, held_out)
    report(folder, options, {"seconds": seconds, **figures})
    print(f"\nLook at {folder}/*.png. To try next:")
    suggest("--box 8 12", "--norm rms", "--channels 8 16 32 64")


if __name__ == "__main__":
    main(tyro.cli(Options))
