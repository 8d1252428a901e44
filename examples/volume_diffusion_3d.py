"""Make and complete brain scans: a 3-D diffusion model learns crops of one brain and where they are.

    python examples/volume_diffusion_3d.py               # eleven minutes on two cores
    python examples/volume_diffusion_3d.py --channels 16 32 64 96 --attention none none none full
    python examples/volume_diffusion_3d.py --data scan.nii.gz --spacing 2

It draws new crops from noise, a whole brain in overlapping windows, and what may have been in blocks that
are removed. It learns from one brain, the average of 152 people: that shows the mechanics and what it knows
by heart, not how well it would do on another brain. So some blocks (and their mirror images: the template is
symmetric) are never shown to it; the figures there are printed beside those of blocks that it has seen.
Every run has a folder of its own under runs/ and a line in runs/results.csv. --resume goes on after Ctrl-C.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import tyro
from _brain import Waves, around, biharmonic, choose, compare, crops, draw, mean, read, where
from _runs import NetworkOptions, begin, explained, fit, keep, report, suggest
from einops import rearrange

from dynunet import Diffusion, FolderDataset, Trainer, UNet
from dynunet.nn.flags import with_flags
from dynunet.plotting import slices


@dataclass
class Options(with_flags(NetworkOptions, {"channels": (16, 32, 64), "num_groups": 4})):
    """Train a 3-D diffusion model on crops of a brain. --data is a nii file; a template if left out."""

    spacing: float = 4.0
    """size of an entry in mm; the scan is resampled to it"""
    size: int = 32
    """entries of a crop along each axis"""
    removed: int = 6
    """entries of a removed block along each axis"""
    train_steps: int = 1800
    """of training"""
    batch_size: int = 2
    """crops per step"""
    lr: float = 2e-3
    """peak learning rate"""
    sample_steps: int = 20
    """of the sampler"""


def main(options: Options) -> None:
    options, folder = begin(options, "volume")
    torch.manual_seed(options.seed)
    with explained(folder):
        brain = read(options.data, options.spacing)
        hidden = torch.zeros_like(brain, dtype=torch.bool)
        blocks = choose(brain, options.removed, 3, hidden)  # these are never seen
        np.save(folder / "brain.npy", torch.where(hidden, torch.nan, brain)[0])
        seen: dict[str, Any] = {"missing": "nan", "value_range": (-1, 1), "split": "all"}
        files = FolderDataset([folder / "brain.npy"], 3, size=(options.size,), coordinates=True, **seen)
        data = Waves(files)
        blocks += choose(brain, options.removed, 3, hidden.clone())  # these are
        how = {"time_embedding": True, "modulation": "scale_shift", **options.network()}
        unet = UNet(3, 1, cond_channels=len(data[0]["cond"]), **how)
        # The network is asked for the clean crop, and more often than not from much noise.
        diffusion = Diffusion(unet, prediction="sample", shift=3)
    print(unet.summary((1, *files.shape)))
    training: dict[str, Any] = {"steps": options.train_steps, "lr": options.lr, "seed": options.seed}
    training |= {"batch_size": options.batch_size, "sample_every": 0}
    model, seconds = fit(Trainer(diffusion, data, folder / "model", **training), folder)

    # New crops, beside the real ones of the same places, and a whole brain in windows.
    places = [around(block, options.size, brain.shape[1:]) for block in blocks]
    real, place = crops(brain, places), crops(where(brain), places)
    made = model.sample(real[:4].shape, options.sample_steps, cond=place[:4])
    names = [f"{kind} {n}" for n in range(1, 5) for kind in ("real", "new")]
    pairs = rearrange([real[:4], made], "pair n ... -> (n pair) ...")
    slices(pairs, folder / "samples.png", labels=names)
    window: dict[str, Any] = {"window": options.size, "overlap": options.size // 4}
    whole = model.sample((1, *brain.shape), options.sample_steps, cond=where(brain).unsqueeze(0), **window)
    slices(torch.stack([brain, whole[0]]), folder / "whole.png", labels=["real", "new"])
    keep(folder, real=brain, made=whole[0])

    # Removed blocks, filled in: one answer, and the mean of four, which has the lesser squared error.
    removed = torch.zeros_like(real, dtype=torch.bool)
    for n, (block, (x, y, z)) in enumerate(zip(blocks, places, strict=True)):
        inside = [slice(b.start - p.start, b.stop - p.start) for b, p in zip(block, (x, y, z), strict=True)]
        removed[n, 0, *inside] = True
    known = ~removed & ~crops(hidden, places)
    answers = [model.inpaint(real, known, options.sample_steps, resamplings=2, cond=place) for _ in range(4)]
    filled = {"mean": mean(real, known), "biharmonic": biharmonic(real, removed, known)}
    filled |= {"network": answers[0], "mean of 4": torch.stack(answers).mean(0)}
    figures = compare(filled, real, removed, 3)
    draw({"removed": torch.where(known, real, -1), **filled, "real": real}, folder / "inpainted.png")
    report(folder, options, {"seconds": seconds, **figures})
    print(f"\nLook at {folder}/*.png. To try next:")
    suggest("--removed 4", "--channels 16 32 64 96 --attention none none none full", "--spacing 3")


if __name__ == "__main__":
    main(tyro.cli(Options))
