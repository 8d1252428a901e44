"""Classify images with the encoder of a U-Net: the same channel list, a pooled head instead of a decoder.

    python examples/classify_digits.py
    python examples/classify_digits.py --channels 16 32 64 --block convnext --norm layer
    python examples/classify_digits.py --data pictures/ --size 32     # sub-folders are classes

Every run has a folder of its own under runs/ and a line in runs/results.csv. --resume goes on after Ctrl-C.
Afterwards ``dynunet predict runs/digits-1/model FILES --out table.csv`` classifies more of them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from _runs import NetworkOptions, begin, explained, fit, report, suggest
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import Dataset

from convnd.functional import pad
from dynunet import Encoder, FolderDataset, Supervised, Trainer
from dynunet.evaluation import evaluate
from dynunet.nn.flags import with_flags
from dynunet.plotting import image_grid
from dynunet.prediction import predict

NETWORK = {"channels": (32, 64, 128), "norm": "batch", "dropout": (0.1,)}


@dataclass
class Options(with_flags(NetworkOptions, NETWORK)):
    """Train a classifier of small images and count what it gets right on held-out ones."""

    data: Path | None = None
    """a folder of images whose sub-folders are classes, or an .npz file with `images` (N, H, W) and integer
    `labels` (N,); scikit-learn's digits if left out"""
    size: int | None = None
    """of images from a folder: they are resized to it"""
    train_steps: int = 500
    """training steps"""
    batch_size: int = 128
    """images per training step"""
    lr: float = 4e-3
    """peak learning rate"""


class Shifted(Dataset[dict[str, Tensor]]):
    """Images that are read once, and moved by up to one pixel each time."""

    def __init__(self, images: FolderDataset) -> None:
        self.items = [images[i] for i in range(len(images))]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        x = pad(self.items[index]["x0"], (1, 1, 1, 1), value=-1.0)
        down, right = torch.randint(3, (2,)).tolist()
        return {**self.items[index], "x0": x[:, down : down + x.shape[1] - 2, right : right + x.shape[2] - 2]}


def main(options: Options) -> None:
    options, folder = begin(options, "digits")
    torch.manual_seed(options.seed)
    with explained(folder):
        source = options.data or digits(folder / "digits.npz")
        labels = "file" if source.suffix == ".npz" else "folder"
        size: dict[str, Any] = {} if options.size is None else {"size": options.size, "resize": True}
        images = FolderDataset(source, 2, task="classification", labels=labels, validation=0.2, **size)
        held_out, classes = images.validation(), images.classes
        if held_out is None or classes is None:
            raise SystemExit(f"--data: {source} has too few images to hold some out: {len(images)}")
        encoder = Encoder(2, images.channels, len(classes), **options.network())
    print(images.report(), encoder.summary((1, *images.shape)), sep="\n\n")

    model = Supervised(encoder, "classification", classes=classes, data=images.units)
    training = {"steps": options.train_steps, "batch_size": options.batch_size, "lr": options.lr}
    training |= {"weight_decay": 0.05, "ema": 0.99, "seed": options.seed}
    training |= {"validate_every": 100, "validation_samples": len(held_out)}
    trainer = Trainer(model, Shifted(images), folder / "model", validation=held_out, **training)
    model, seconds = fit(trainer, folder)

    found = evaluate(model, held_out)
    print(f"\n{found}\n")
    print(predict(model, source, folder / "predictions.csv"))
    draw_mistakes(folder / "mistakes.png", model, held_out)
    report(folder, options, {"accuracy": f"{found.figures['accuracy']:.4f}", "seconds": seconds})
    print(f"\n{folder}/mistakes.png shows what it takes for something else. To try next:")
    suggest("--channels 16 32 64", "--block convnext --norm layer", "--train-steps 100")


def digits(file: Path) -> Path:
    """scikit-learn's digits in a file."""
    if not file.exists():
        images, labels = load_digits(return_X_y=True)
        np.savez_compressed(file, images=images.reshape(-1, 8, 8).astype(np.uint8), labels=labels)
    return file


def draw_mistakes(path: Path, model: Any, images: FolderDataset) -> None:
    """Up to ten images that were taken for another class, or the first ten if there are none."""
    items = [images[i] for i in range(len(images))]
    x, labels = (torch.stack([item[name] for item in items]) for name in ("x0", "target"))
    found, names = model.predict(x), list(model.classes)
    wrong = (found != labels).nonzero().flatten()
    shown = (wrong if len(wrong) else torch.arange(len(labels)))[:10]
    titles = [
        (i, i, f"{names[labels[n]]}, not {names[found[n]]}" if len(wrong) else "")
        for i, n in enumerate(shown)
    ]
    image_grid(x[shown, 0].unsqueeze(0), path, row_labels=["mistakes"], column_titles=titles)


if __name__ == "__main__":
    main(tyro.cli(Options))
