"""Pictures and masks of the 2-D example that segments: made, read, answered by a threshold, and drawn."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image
from torch import Tensor

import convnd.functional as F
from dynunet.data import FolderDataset
from dynunet.metrics import dice, iou
from dynunet.plotting import image_grid

SIZE = 64  # of the pictures that are made
PARTS = {"learn": ("china.jpg", 400), "judge": ("flower.jpg", 100)}  # a photograph, and how many pictures

Pair = dict[str, Tensor]  # a picture (C, H, W) in [-1, 1] as "x0", and its labels (H, W) as "target"


def make(folder: Path, parts: Mapping[str, tuple[str, int]] | None = None) -> None:
    """Handwritten digits on photographs, ``learn`` and ``judge``, each with ``images`` and ``masks``.

    Digits and photographs are scikit-learn's. Those to judge by are others: the second half of the digits
    and another photograph. A digit is of any size and dark on what is bright on the whole, or the reverse.
    """
    rng = np.random.default_rng(0)
    digits = load_digits(return_X_y=True)[0].reshape(-1, 8, 8) / 16
    for part, (name, number) in (parts or PARTS).items():
        photo = load_sample_image(name).astype(float)
        of_part = digits[: len(digits) // 2] if part == "learn" else digits[len(digits) // 2 :]
        for kind in ("images", "masks"):
            (folder / part / kind).mkdir(parents=True)
        for i in range(number):
            picture, ink = _written(rng, photo, of_part[rng.integers(len(of_part))])
            Image.fromarray(picture).save(folder / part / "images" / f"{i:03}.png")
            Image.fromarray((255 * (ink > 0.5)).astype(np.uint8)).save(
                folder / part / "masks" / f"{i:03}.png"
            )


def _written(rng: np.random.Generator, photo: np.ndarray, digit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    size = int(rng.integers(24, SIZE - 8))
    large = F.interpolate(torch.from_numpy(digit)[None, None], (size, size), mode="cubic")[0, 0]
    top, left = rng.integers(SIZE - size, size=2)
    ink = np.zeros((SIZE, SIZE))
    ink[top : top + size, left : left + size] = large.clamp(0, 1).numpy()
    down, right = (int(rng.integers(n - SIZE)) for n in photo.shape[:2])
    picture = photo[down : down + SIZE, right : right + SIZE]
    colour = rng.uniform(0, 90, 3) if picture.mean() > 100 else rng.uniform(150, 255, 3)
    opaque = rng.uniform(0.6, 1) * ink[..., None]
    return ((1 - opaque) * picture + opaque * colour).astype(np.uint8), ink


def read(folder: Path) -> list[FolderDataset]:
    """The pictures of ``learn`` and of ``judge`` with their masks, which are of the same two classes."""
    parts: list[FolderDataset] = []
    how: dict[str, Any] = {"split": "all"}
    for part in PARTS:
        data = FolderDataset(folder / part / "images", 2, targets=folder / part / "masks", **how)
        if data.classes is None or len(data.classes) != 2:
            raise ValueError(f"--data: masks must have two values, got {list(data.classes or ())}")
        how |= {"channels": data.channels, "known": (data.target, data.classes)}
        parts.append(data)
    return parts


def threshold(x: Tensor) -> Tensor:
    """Otsu's threshold of the grey value of ``(C, H, W)``: label 1 where the fewer entries are."""
    grey = x.mean(0)
    levels = torch.linspace(float(grey.min()), float(grey.max()), 66)[1:-1]
    above = grey > levels.view(-1, 1, 1)
    share = above.double().mean((1, 2)).clamp(1e-6, 1 - 1e-6)
    means = [(grey * side).sum((1, 2)) / side.sum((1, 2)).clamp(min=1) for side in (above, ~above)]
    best = above[int((share * (1 - share) * (means[0] - means[1]) ** 2).argmax())]
    return (best if best.float().mean() < 0.5 else ~best).long()


def judge(
    methods: Mapping[str, Callable[[Tensor], Tensor]], pairs: Sequence[Pair], path: Path
) -> dict[str, str]:
    """Print and return the mean Dice and intersection over union of label 1; draw the first pictures."""
    print(f"\n{len(pairs)} held-out pictures:   Dice     IoU\n")
    figures = {}
    truth = [pair["target"] for pair in pairs]
    rows = {"picture": [pair["x0"].mean(0) for pair in pairs], "mask": truth}
    for name, label in methods.items():
        rows[name] = [label(pair["x0"]) for pair in pairs]
        means = []
        for metric in (dice, iou):
            each = [metric(p[None], t[None], 2)[0, 1] for p, t in zip(rows[name], truth, strict=True)]
            means.append(torch.stack(each).nanmean().item())
        print(f"  {name:20}{means[0]:8.3f}{means[1]:8.3f}")
        figures[name] = f"{means[0]:.3f}"
    if len({labels.shape for labels in truth[:8]}) == 1:
        shown = [torch.stack(row[:8]) for row in rows.values()]
        shown[1:] = [2.0 * labels - 1 for labels in shown[1:]]
        image_grid(torch.stack(shown), path, row_labels=[*rows])
    return figures
