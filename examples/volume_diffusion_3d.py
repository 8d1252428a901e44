"""Complete a brain scan: a 3-D diffusion model learns one brain and is asked about another person's.

    python examples/volume_diffusion_3d.py               # thirteen minutes, with one thread
    python examples/volume_diffusion_3d.py --train-steps 800 --channels 16 32 64
    python examples/volume_diffusion_3d.py --data folder/   # with scan and other.nii.gz, without skulls

It learns crops of the MNI152 template, the average of 152 people, each changed as heads differ from each
other and told by what the template has at its place. Then it is asked about a man whom it has never seen,
Colin 27, in the same space and with his grey values on the template's scale by one curve: what was in blocks
that are removed, and what thick slices are the means of. It was trained for neither. The answers are samples
of what may be there: their mean stands beside classical interpolation, their spread says how sure it is.
Every run has a folder of its own under runs/ and a line in runs/results.csv. --resume goes on after Ctrl-C.
"""

from dataclasses import dataclass
from typing import Any

import torch
import tyro
from _brain import Heads, judge, of_blocks, of_slices, read
from _runs import NetworkOptions, begin, explained, fit, report, suggest

from dynunet import Diffusion, Trainer, UNet
from dynunet.diffusion import MMPS
from dynunet.nn.flags import with_flags


@dataclass
class Options(with_flags(NetworkOptions, {"channels": (8, 24, 64), "num_groups": 4})):
    """Train a 3-D diffusion model on one brain and complete another. --data is a folder; see above."""

    spacing: tuple[float, float] = (2.0, 4.0)
    """sizes of entries in mm, where slices are thick and where blocks are removed; it learns both"""
    size: int = 16
    """entries of a crop along each axis"""
    thickness: int = 2
    """entries of which a thick slice is the mean"""
    removed: int = 6
    """entries of a removed block along each axis"""
    crops: int = 12
    """of the other scan, for each question"""
    train_steps: int = 3000
    """of training"""
    batch_size: int = 4
    """crops per step"""
    lr: float = 2e-3
    """peak learning rate"""
    samples: int = 32
    """of what may be there"""
    sample_steps: int = 10
    """of the sampler"""


def main(options: Options) -> None:
    options, folder = begin(options, "volume")
    torch.manual_seed(options.seed)
    with explained(folder):
        fine, coarse = (read(options.data, spacing) for spacing in options.spacing)
        asked = [
            of_blocks(coarse, options.size, options.removed, options.crops),
            of_slices(fine, options.size, options.thickness, options.crops),
        ]
        data = Heads([fine.teacher, coarse.teacher], options.spacing, options.size)
        how = {"time_embedding": True, "modulation": "scale_shift", **options.network()}
        unet = UNet(3, 1, cond_channels=1, upsample="transpose", **how)
        diffusion = Diffusion(unet, shift=2)
    print(unet.summary((1, *data[0]["x0"].shape)))
    training: dict[str, Any] = {"steps": options.train_steps, "lr": options.lr, "seed": options.seed}
    training |= {"batch_size": options.batch_size, "ema": 0.99, "sample_every": 0}
    model, seconds = fit(Trainer(diffusion, data, folder / "model", **training), folder)

    figures = {"seconds": seconds}
    for question in asked:
        samples = model.reconstruct(
            question.operator(question.truth),
            question.operator,
            num_samples=options.samples,
            steps=options.sample_steps,
            method=MMPS(1),
            batch_size=4,
            cond=question.atlas,
        )
        figures |= judge(question, samples, folder)
    print()
    report(folder, options, figures)
    print(f"\nLook at {folder}/*.png. To try next:")
    suggest("--removed 8", "--thickness 4", "--channels 16 32 64 96 --attention none none none full")


if __name__ == "__main__":
    main(tyro.cli(Options))
