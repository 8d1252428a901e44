"""Small data sets with targets, in files of every rank: blobs of known labels in noise."""

import csv
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import soundfile as sf
import torch
from PIL import Image

from dynunet import Encoder, Supervised, UNet
from dynunet.cli import main
from dynunet.data import FolderDataset

RANKS = [1, 2, 3, 4]
SIZE = {1: 64, 2: 8, 3: 8, 4: 6}  # of examples
VALUES = (0, 7, 200)  # of the labels
TINY = (
    "--channels 4 8 --num-blocks 1 --num-groups 2 --steps 3 --batch-size 2 --sample-every 0 --no-tensorboard "
    "--cpu --validation-samples 2"
).split()
NETWORK: dict[str, Any] = {"channels": (4, 8), "num_blocks": 1, "num_groups": 2}
SUFFIXES = {1: ".wav", 2: ".png", 3: ".nii.gz", 4: ".npy"}
MAPS = {**SUFFIXES, 1: ".npy"}
AFFINE = np.array([[0, -2, 0, 9], [1.5, 0, 0, -4], [0, 0, 3, 1], [0, 0, 0, 1.0]])  # axes turned and mirrored


def run(*words: object) -> None:
    main([str(word) for word in words])


def table(path: Path) -> list[dict[str, str]]:
    """The lines of a table (CSV), by the names of its columns."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, values: np.ndarray, palette: bool = False) -> Path:
    """Values in the format of a path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".wav":
        sf.write(path, values / 256, 8000, "FLOAT")
    elif path.suffix in (".png", ".tif"):
        image = Image.fromarray(values)
        if palette:
            image.putpalette([n for i in range(256) for n in (i, 255 - i, i // 2)])
        with path.open("wb") as file:
            image.save(file, "PNG" if path.suffix == ".png" else "TIFF")
    elif path.suffix == ".npy":
        np.save(path, values)
    else:
        nib.save(nib.Nifti1Image(values, AFFINE), path)
    return path


def label_map(rank: int, seed: int, values: tuple[int, ...] = VALUES) -> np.ndarray:
    """A box of each label in the first one, uint8, of odd sizes."""
    rng = np.random.default_rng(seed)
    sizes = {1: (301,), 2: (21, 18), 3: (13, 12, 11), 4: (9, 8, 7, 8)}[rank]
    labels = np.full(sizes, values[0], np.uint8)
    for number, value in enumerate(values[1:], start=1):
        half = [n // (len(values) - 1) if axis == 0 else n for axis, n in enumerate(sizes)]
        corner = [(number - 1) * half[0] + 1, *(int(rng.integers(1, n // 2)) for n in sizes[1:])]
        labels[tuple(slice(c, c + max(h // 2, 2)) for c, h in zip(corner, half, strict=True))] = value
    return labels


def scan_of(labels: np.ndarray, seed: int) -> np.ndarray:
    """Labels seen through noise, uint8."""
    noise = np.random.default_rng(seed).normal(0, 10, labels.shape)
    return np.clip(labels.astype(float) + 20 + noise, 0, 255).astype(np.uint8)


def folder(root: Path, rank: int, number: int = 4) -> Path:
    """``scans`` and ``masks`` of a rank, and the tables ``classes.csv`` and ``values.csv``."""
    classes, values = ["file,label"], ["file,age,size"]
    for i in range(number):
        labels = label_map(rank, i)
        place = Path("deep" if i % 2 else ".", str(i))
        write(root / "scans" / f"{place}{SUFFIXES[rank]}", scan_of(labels, i))
        write(root / "masks" / f"{place}{MAPS[rank]}", labels, palette=True)
        field = labels if rank == 2 else labels.astype(np.float32) / 3
        write(root / "fields" / f"{place}{MAPS[rank]}", field)
        classes.append(f"{place},{'cat' if i % 2 else 'dog'}")
        values.append(f"{place}{SUFFIXES[rank]},{i * 10},{i - 2.5}")
    for name, lines in {"classes": classes, "values": values}.items():
        (root / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return root


def untrained(run: Path, dataset: FolderDataset) -> Path:
    """A model of files with targets that has learned nothing, as a run's folder has it."""
    torch.manual_seed(0)
    target, classes, dims = dataset.target, dataset.classes, len(dataset.shape) - 1
    assert target is not None
    kind = UNet if target.maps else Encoder
    net = kind(dims, dataset.channels, target.channels if classes is None else len(classes), **NETWORK)
    Supervised(net, target.task, classes=classes, data=dataset.units).save_pretrained(run)
    return run
