"""What the examples share: a folder for each run, one table of all runs, and small images."""

import csv
import json
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor


def new_folder(out: Path, name: str, kind: str, options: Any) -> Path:
    """Make a folder of its own for a run and keep its options there; an existing one is never touched."""
    number = 1
    while not name and (out / f"{kind}-{number}").exists():
        number += 1
    folder = out / (name or f"{kind}-{number}")
    if folder.exists():
        raise SystemExit(f"--name: {folder} exists already and is left as it is; choose another name")
    folder.mkdir(parents=True)
    chosen = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(options).items()}
    (folder / "options.json").write_text(json.dumps(chosen, indent=2) + "\n")
    return folder


def report(folder: Path, options: Any, figures: dict[str, str]) -> None:
    """Add a line with the figures and the flags of a run to results.csv; print it below earlier ones."""
    flags = [
        f"--{f.name.replace('_', '-')} {_text(getattr(options, f.name))}"
        for f in fields(options)
        if f.name not in ("out", "name") and getattr(options, f.name) != f.default
    ]
    row = {"run": folder.name, **figures, "flags": " ".join(flags)}
    table = folder.parent / "results.csv"
    earlier: list[dict[str, str]] = []
    names = list(row)
    if table.exists():
        with table.open(newline="") as file:
            reader = csv.DictReader(file)
            earlier = list(reader)
            names = list(dict.fromkeys([*(reader.fieldnames or ()), *row]))
    with table.open("w" if earlier and list(earlier[0]) != names else "a", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        if not earlier or file.mode == "w":
            writer.writeheader()
            writer.writerows(earlier)
        writer.writerow(row)
    rows = [{name: name for name in row}, *earlier[-9:], row]
    widths = {name: max(len(r.get(name) or "") for r in rows) for name in row}
    for r in rows:
        print("  ".join((r.get(name) or "").ljust(width) for name, width in widths.items()).rstrip())


def load_images(path: Path | None) -> tuple[Tensor, Tensor]:
    """Images ``(N, 1, H, W)`` scaled to [-1, 1] and labels ``(N,)``, in a fixed random order."""
    if path is None:
        images, labels = load_digits(return_X_y=True)
        images = images.reshape(-1, 8, 8)
    elif not path.is_file():
        raise SystemExit(f"--data: looked for an .npz file with `images` and `labels` at {path}: none there")
    else:
        with np.load(path) as file:
            if not {"images", "labels"} <= set(file.files):
                raise SystemExit(f"--data: {path} must hold `images` and `labels`, it holds {file.files}")
            images, labels = file["images"], file["labels"]
    if images.ndim != 3 or labels.shape != images.shape[:1] or len(images) < 20:
        raise SystemExit(
            "--data: images must be (N, H, W) and labels (N,) with N at least 20, got shapes "
            f"{images.shape} and {labels.shape}"
        )
    order = np.random.default_rng(0).permutation(len(images))
    low, high = float(images.min()), float(images.max())
    scaled = torch.tensor((images[order] - low) / (high - low) * 2 - 1, dtype=torch.float32)
    return scaled.unsqueeze(1), torch.tensor(labels[order], dtype=torch.int64)


def suggest(*flags: str) -> None:
    """Commands to try next."""
    for text in flags:
        print(f"  python {sys.argv[0]} {text}")


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
