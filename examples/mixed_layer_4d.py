"""Find the mixed layer of the ocean: a 4-D U-Net says from a few floats how deep the water is stirred.

    python examples/mixed_layer_4d.py             # the World Ocean Atlas, two minutes of one core

Wind and cooling keep the upper ocean at one temperature, to 10 m in summer and to hundreds in winter. Floats
dive at a tenth of the places, others every month, and what they measure is wrong by half a degree; the
network marks at every month, depth, latitude and longitude whether the water there is still of this layer.
Floats and errors are made up from the atlas. Labels of boxes of 20 by 32 degrees are held out. Every run has
a folder of its own under runs/ and a line in runs/results.csv. --resume goes on with a run after Ctrl-C.
"""

from dataclasses import dataclass
from typing import Any

import torch
import tyro
from _layer import Areas, best_smoothed, climatology, judge, layer, measured, regression, seen
from _ocean import boxes, mean_of_parallel, read
from _runs import NetworkOptions, begin, explained, fit, report, suggest

from dynunet import Supervised, Trainer, UNet
from dynunet.nn.flags import with_flags

NETWORK = {"channels": (8, 16), "num_groups": 4}


@dataclass
class Options(with_flags(NetworkOptions, NETWORK)):
    """Train a 4-D network to find the mixed layer. --data is a netCDF-3 file; an atlas if left out."""

    every: tuple[int, int, int, int] = (1, 1, 2, 2)
    """take every so many months, depths, latitudes and longitudes of the file"""
    depths: int = 10
    """of these the uppermost; in the atlas down to 200 m"""
    box: tuple[int, int] = (5, 8)
    """latitudes and longitudes of a box"""
    size: tuple[int, int] = (12, 24)
    """latitudes and longitudes of a training example"""
    share: float = 0.1
    """of the places where a float is"""
    noise: float = 0.5
    """degrees C, of what floats measure"""
    train_steps: int = 250
    """of training, with one example each"""
    lr: float = 6e-3
    """peak learning rate"""


def main(options: Options) -> None:
    options, folder = begin(options, "layer")
    torch.manual_seed(options.seed)
    with explained(folder):
        field, water = (part[:, : options.depths] for part in read(options.data, options.every))
        labels = layer(field, water)
        held_out = boxes(field.shape[2:], 12, options.box, across=True).expand_as(water)
        known = water & ~held_out
        floats = options.share, options.noise
        data = Areas(field, water, labels.masked_fill(held_out, -1), options.size, *floats)
        padding = ("circular", "zeros", "zeros", "zeros")  # months have no end
        unet = UNet(4, 9, 2, padding_mode=padding, **options.network())
        network = Supervised(unet, ignore_index=-1)  # nor do land and what is held out count
    print(unet.summary((1, *data[0]["x0"].shape)))
    training: dict[str, Any] = {"steps": options.train_steps, "batch_size": 1, "lr": options.lr}
    training |= {"seed": options.seed, "ema": 0.98, "sample_every": 0}
    model, seconds = fit(Trainer(network, data, folder / "model", **training), folder)

    window, asked = (*field.shape[:2], *options.size), measured(field, water, *floats)
    by_means, (reach, _) = best_smoothed(*asked, labels, known)
    usual = mean_of_parallel(labels.float(), known)
    answers = {"climatology": climatology(labels, known), "means": by_means}
    answers["regression"] = regression(*asked, labels, known, reach)
    answers["network"] = model.predict(seen(*asked, water, usual).unsqueeze(0), window=window)[0]
    figures = judge(answers, labels, held_out, folder)
    print()
    report(folder, options, {"seconds": seconds, **figures})
    print(f"\nLook at {folder}/layer.png. To try next:")
    suggest("--every 1 1 1 1", "--box 8 12", "--channels 8 16 32")


if __name__ == "__main__":
    main(tyro.cli(Options))
