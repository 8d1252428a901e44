"""Classify images with the encoder of a U-Net: the same channel list, a pooled head instead of a decoder.

    python examples/classify_digits.py                       # half a minute on two CPU cores
    python examples/classify_digits.py --channels 16 32 64 --block convnext --norm layer

Every run writes into its own folder under runs/ and adds one line to runs/results.csv.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from _images import load_images
from _runs import new_folder, report, suggest
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm.auto import trange

from convnd.functional import pad
from dynunet import Encoder
from dynunet.nn.flags import network_options, with_flags
from dynunet.plotting import image_grid

NETWORK = {"channels": (32, 64, 128), "num_blocks": (1,), "block": ..., "norm": "batch", "dropout": (0.1,)}


@dataclass
class Options(with_flags(object, NETWORK)):
    """Train a classifier of small grey images and count what it gets right on held-out ones."""

    train_steps: int = 500
    """training steps"""
    batch_size: int = 128
    """images per training step"""
    lr: float = 4e-3
    """peak learning rate"""
    seed: int = 0
    """of everything random"""
    data: Path | None = None
    """an .npz file with `images` (N, H, W) and integer `labels` (N,); scikit-learn's digits if left out"""
    out: Path = Path("runs")
    """where the folders of the runs are"""
    name: str = ""
    """name of this run; digits-1, digits-2, ... if left out"""


def main(options: Options) -> None:
    torch.manual_seed(options.seed)
    images, labels = load_images(options.data)
    split = len(images) * 4 // 5  # the last fifth is held out
    try:
        encoder = Encoder(2, 1, int(labels.max()) + 1, **network_options(options))
    except ValueError as error:
        raise SystemExit(f"these options do not make a network: {error}") from None
    folder = new_folder(options.out, options.name, "digits", options)
    print(encoder.summary((1, *images.shape[1:])))

    start = time.time()
    train(encoder, images[:split], labels[:split], options)
    seconds = time.time() - start
    with torch.no_grad():
        found = encoder.eval()(images[split:]).argmax(1)
    right = (found == labels[split:]).float().mean().item()
    encoder.save_pretrained(folder)
    draw_mistakes(folder / "mistakes.png", images[split:], labels[split:], found)
    print(f"\n{right:.1%} of {len(found)} held-out images are classified right\n")
    report(folder, options, {"accuracy": f"{right:.4f}", "seconds": f"{seconds:.0f}"})
    print(f"\n{folder}/mistakes.png shows what it takes for something else. To try next:")
    suggest("--channels 16 32 64", "--block convnext --norm layer", "--train-steps 100")


def train(encoder: Encoder, images: Tensor, labels: Tensor, options: Options) -> None:
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=options.lr, weight_decay=0.05)
    steps = max(options.train_steps, 10)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.lr, steps, pct_start=0.2)
    for _ in (bar := trange(options.train_steps, desc="training")):
        batch = torch.randint(len(images), (options.batch_size,))
        loss = cross_entropy(encoder(shifted(images[batch])), labels[batch], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")


def shifted(images: Tensor) -> Tensor:
    """The batch moved by up to one pixel."""
    padded = pad(images, (1, 1, 1, 1), value=-1.0)
    down, right = torch.randint(3, (2,)).tolist()
    return padded[:, :, down : down + images.shape[2], right : right + images.shape[3]]


def draw_mistakes(path: Path, images: Tensor, labels: Tensor, found: Tensor) -> None:
    """Up to ten images that were taken for another class, or the first ten if there are none."""
    wrong = (found != labels).nonzero().flatten()
    shown = (wrong if len(wrong) else torch.arange(len(labels)))[:10]
    titles = [(i, i, f"{labels[s]}, not {found[s]}" if len(wrong) else "") for i, s in enumerate(shown)]
    image_grid(images[shown, 0].unsqueeze(0), path, row_labels=["mistakes"], column_titles=titles)


if __name__ == "__main__":
    main(tyro.cli(Options))
