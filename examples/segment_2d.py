"""Find what is drawn on a picture: a 2-D U-Net learns from pictures and their masks, file by file.

    python examples/segment_2d.py
    python examples/segment_2d.py --peer                 # and MONAI's DynUNet for as many seconds
    python examples/segment_2d.py --data folder/         # with learn and judge, each with images and masks

Pictures with masks are in no package that this one needs, so they are made: handwritten digits on crops
of a photograph, both real and scikit-learn's, as png files to look at. It is judged on digits that it has not
seen, on another photograph. Every run has a folder of its own under runs/ and a line in runs/results.csv.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import tyro
from _pairs import judge, make, read, threshold
from _peers import fit_all, monai_unet
from _runs import NetworkOptions, begin, explained, report, suggest
from torch import Tensor

from dynunet import Supervised, UNet
from dynunet.defaults import LABEL_MAPS
from dynunet.nn.flags import with_flags


@dataclass
class Options(with_flags(NetworkOptions, {"channels": (16, 32, 64, 64), **LABEL_MAPS})):
    """Train a 2-D network on pictures with masks and judge it on others. --data is a folder of both."""

    augment: bool = True
    """turn, resize, brighten, blur, ... the pictures to learn from, as the Augment of segmentation does"""
    peer: bool = False
    """train MONAI's DynUNet, too, for as many seconds"""
    train_steps: int = 1200
    """of training"""
    batch_size: int = 8
    """pictures per step"""
    lr: float = 2e-3
    """peak learning rate"""


def main(options: Options) -> None:
    options, folder = begin(options, "masks")
    with explained(folder):
        source = options.data or folder / "data"
        if options.data is None and not source.exists():
            make(source)
        learn, judged = read(source)
        print(learn.report())
        data, held_out = ([part[i] for i in range(len(part))] for part in (learn, judged))
        torch.manual_seed(options.seed)
        unet = UNet(2, learn.channels, 2, **options.network())
        about: dict[str, Any] = {"classes": learn.classes, "data": learn.units}
        models = {"network": Supervised(unet, **about)}
        if options.peer:
            models["monai"] = Supervised(monai_unet(2, learn.channels, 2, options.channels), **about)
    print(unet.summary((1, *data[0]["x0"].shape)))
    training: dict[str, Any] = {"steps": options.train_steps, "batch_size": options.batch_size}
    training |= {"lr": options.lr, "seed": options.seed, "ema": 0.98, "sample_every": 0}
    training["augment"] = options.augment
    models, figures = fit_all(models, data, folder, **training)

    def label(model: Supervised, picture: Tensor) -> Tensor:
        return model.predict(picture.unsqueeze(0))[0]

    methods = {"threshold": threshold} | {name: partial(label, model) for name, model in models.items()}
    figures |= judge(methods, held_out, folder / "found.png")
    print()
    report(folder, options, figures)
    print(f"\nLook at {folder}/found.png. To try next:")
    suggest(
        "--no-augment",
        "--channels 16 32 64 --attention none none full",
        "--block convnext --norm layer",
        "--peer",
    )


if __name__ == "__main__":
    main(tyro.cli(Options))
