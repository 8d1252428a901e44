"""Look below the surface of the ocean: a 4-D U-Net completes temperatures where only the surface is known.

    python examples/ocean_4d.py                   # the World Ocean Atlas, seven minutes of one core

Satellites see the surface and little else, so boxes of 20 by 32 degrees are held out below it, all year, and
others are hidden to learn from. The network is shown a first guess from west and east and how wrong it is at
the surface, and learns how wrong it may be below. Of its samples the mean is the answer, and their spread
says how sure it is. All is learnt from one atlas, so more boxes are held out to see how sure one may be.
Months and longitudes are periodic: their padding is circular. --resume goes on with a run after Ctrl-C.
"""

from dataclasses import dataclass

import torch
import tyro
from _ocean import below, boxes, from_around, judge, judge_intervals, mean_of_parallel, read, regression
from _runs import NetworkOptions, begin, explained, fit, keep, report, suggest
from torch import Tensor
from torch.utils.data import Dataset

from dynunet import Diffusion, Trainer, UNet
from dynunet.diffusion import RePaint, coordinates
from dynunet.nn.flags import with_flags
from dynunet.operators import Mask

PADDING = ("circular", "zeros", "zeros", "circular")  # of months, depths, latitudes and longitudes
SCALE = 3.0  # degrees C, what becomes 1 for the network


@dataclass
class Options(with_flags(NetworkOptions, {"channels": (8, 16, 32), "num_groups": 4})):
    """Train a 4-D network to complete the ocean. --data is a netCDF-3 file; an atlas if left out."""

    every: tuple[int, int, int, int] = (3, 3, 2, 2)
    """take every so many months, depths, latitudes and longitudes of the file"""
    box: tuple[int, int] = (5, 8)
    """latitudes and longitudes of a box"""
    train_steps: int = 400
    """of training, with one example each"""
    lr: float = 1e-3
    """peak learning rate"""
    num_samples: int = 32
    """of what may be in the boxes"""
    sample_steps: int = 8
    """of the sampler"""


def question(x: Tensor, known: Tensor, water: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """A first guess where a field is not known but at its surface, and what the network is shown."""
    guess = from_around(x, known, water)
    wrong = (x - guess)[:, :1].expand_as(x)  # by so much, at the surface
    yearly, season = wrong.mean(0, keepdim=True).expand_as(x), guess - guess.mean(0, keepdim=True)
    shown = wrong / 2, yearly / 2, guess / 15, season / 4, known, water, *place
    return guess, torch.stack([(channel * water).float() for channel in shown])


class Boxes(Dataset[dict[str, Tensor]]):
    """Bands of 16 latitudes, all around the Earth and the year, with some boxes hidden below the surface."""

    def __init__(self, *parts: Tensor, box: tuple[int, int]) -> None:
        self.parts, self.box = parts, box

    def __len__(self) -> int:
        return max(self.parts[0].shape[2] - 15, 1)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        x, known, water, place = (part[..., index : index + 16, :] for part in self.parts)
        hidden = known & boxes(x.shape[2:], 6, self.box)
        guess, cond = question(x, known & ~hidden, water, place)
        x0, mask = (x - guess) / SCALE, hidden & below(x)
        return {"x0": x0.unsqueeze(0), "cond": cond, "mask": mask.unsqueeze(0)}


def main(options: Options) -> None:
    options, folder = begin(options, "ocean")
    torch.manual_seed(options.seed)
    with explained(folder):
        field, water = read(options.data, options.every)
        tests, others = (boxes(field.shape[2:], 15, options.box, across=across) for across in (True, False))
        known, hidden = water & ~(tests | others), water & below(field)
        held_out, others = hidden & tests, hidden & others & ~tests
        unknown = held_out | others
        seen, place = field * ~unknown, coordinates((1, 1, *field.shape))[0, 1:3]  # depth and latitude
        data = Boxes(seen, known, water, place, box=options.box)
        strides = [(2, 2, 2, 2), *[(1, 2, 2, 1)] * 9][: len(options.channels) - 1]
        how = {"strides": strides, "padding_mode": PADDING, "time_embedding": True, **options.network()}
        unet = UNet(4, 1, cond_channels=8, **how)
        # What is not known is smooth: much noise leaves its large parts to be seen, hence the shift to more.
        diffusion = Diffusion(unet, prediction="sample", shift=5)
    print(unet.summary((1, *data[0]["x0"].shape)))
    training = {"steps": options.train_steps, "batch_size": 1, "lr": options.lr, "seed": options.seed}
    model, seconds = fit(Trainer(diffusion, data, folder / "model", sample_every=0, **training), folder)

    guess, cond = question(seen, known, water, place)
    # The guess is right but where it is asked about; the network knows the rest by its conditions.
    right, answers = torch.zeros(1, 1, *field.shape), Mask(~unknown[None, None])
    how = {"method": RePaint(1), "steps": options.sample_steps, "batch_size": 4, "cond": cond.unsqueeze(0)}
    samples = (
        guess + SCALE * model.reconstruct(right, answers, num_samples=options.num_samples, **how)[:, 0, 0]
    )
    filled = {"climatology": mean_of_parallel(seen, known), "interpolated": guess}
    filled |= {"regression": guess + regression(data, cond), "a sample": samples[0]}
    filled |= {"network": samples.mean(0)}
    keep(folder, field=field, water=water, held_out=unknown, **filled)
    figures = judge(filled, field, water, held_out, unknown, folder)
    figures |= judge_intervals(samples, filled["regression"], field, held_out, others)
    report(folder, options, {"seconds": seconds, **figures})
    print(f"\nLook at {folder}/*.png. To try next:")
    suggest("--box 8 12", "--norm rms", "--channels 8 16 32 64")


if __name__ == "__main__":
    main(tyro.cli(Options))
