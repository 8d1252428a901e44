"""Find grey and white matter: a 3-D U-Net learns from one labelled scan and is judged on another person's.

    python examples/segment_brain_3d.py
    python examples/segment_brain_3d.py --peer           # and MONAI's DynUNet for as many seconds
    python examples/segment_brain_3d.py --data folder/   # with scan, labels, other and other-labels.nii.gz

The MNI152 template, the average of 152 people, comes with maps of its tissues. Some blocks of it are held
out, but the question is what is found in a scan that nothing was learnt from: one man's, in which atlases say
where grey matter is and where fibres run. The crops to learn from are changed as heads and scanners are.
Every run has a folder of its own under runs/ and a line in runs/results.csv.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import tyro
from _peers import fit_all, monai_unet
from _runs import NetworkOptions, begin, explained, report, suggest
from _scans import Crops, held_out, judge, mixture, read
from torch import Tensor

from dynunet import Supervised, UNet
from dynunet.data import Augment
from dynunet.defaults import LABEL_MAPS
from dynunet.nn.flags import with_flags

NETWORK = {"channels": (8, 16, 32), **LABEL_MAPS}


@dataclass
class Options(with_flags(NetworkOptions, NETWORK)):
    """Train a 3-D network to label one scan and judge it on another."""

    spacing: float = 2.0
    """size of an entry in mm; the scans are resampled to it"""
    size: int = 32
    """entries of a crop along each axis"""
    removed: int = 20
    """entries along each axis of the six blocks that are held out"""
    augment: bool = True
    """change the crops as other heads and scanners are"""
    peer: bool = False
    """train MONAI's DynUNet, too, for as many seconds"""
    train_steps: int = 1200
    """of training"""
    batch_size: int = 2
    """crops per step"""
    lr: float = 4e-3
    """peak learning rate"""


def main(options: Options) -> None:
    options, folder = begin(options, "segment")
    torch.manual_seed(options.seed)
    with explained(folder):
        scans = read(options.data, options.spacing)
        hidden = held_out(scans.labels, 6, options.removed)
        data = Crops(scans.scan, scans.labels.masked_fill(hidden, -1), options.size)
        classes = int(scans.labels.max()) + 1
        unet = UNet(3, 1, classes, **options.network())
        models = {"network": Supervised(unet, ignore_index=-1)}  # what is held out does not count
        if options.peer:
            models["monai"] = Supervised(monai_unet(3, 1, classes, options.channels), ignore_index=-1)
    print(unet.summary((1, *data[0]["x0"].shape)))
    training: dict[str, Any] = {"steps": options.train_steps, "batch_size": options.batch_size}
    training |= {"lr": options.lr, "seed": options.seed, "ema": 0.98, "sample_every": 0}
    if options.augment:  # left for right, but not upside down
        training["augment"] = Augment(flip=0, rotation=15, probability=0.5)
    models, figures = fit_all(models, data, folder, **training)

    def label(model: Supervised, scan: Tensor) -> Tensor:
        return model.predict(scan.unsqueeze(0), window=3 * options.size // 2)[0]

    methods = {"mixture": partial(mixture, classes=classes)}
    methods |= {name: partial(label, model) for name, model in models.items()}
    figures |= judge(methods, scans, hidden, folder)
    print()
    report(folder, options, figures)
    print(f"\nLook at {folder}/other.png. To try next:")
    suggest("--no-augment", "--channels 8 16 32 64 --attention none none none full", "--peer")


if __name__ == "__main__":
    main(tyro.cli(Options))
