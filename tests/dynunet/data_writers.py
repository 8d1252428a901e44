"""Small real files for the tests of dynunet.data, written by the formats' own libraries."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import soundfile as sf
from PIL import Image

RNG = np.random.default_rng(0)


def wav(
    path: Path, frames: int = 400, channels: int = 1, rate: int = 8000, subtype: str = "PCM_16"
) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    x = RNG.uniform(-0.5, 0.5, (frames, channels))
    with open(path, "wb") as file:  # not by name, which need not be UTF-8
        sf.write(file, x, rate, subtype, format="WAV")
    return x.T


def png(path: Path, pixels: np.ndarray | None = None, mode: str | None = None) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (12, 10, 3), dtype=np.uint8) if pixels is None else pixels
    image = Image.fromarray(pixels)
    with open(path, "wb") as file:
        (image if mode is None else image.convert(mode)).save(file, "PNG")
    return pixels


def nii(path: Path, values: np.ndarray | None = None, affine: np.ndarray | None = None) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = RNG.normal(100, 20, (9, 8, 7)).astype(np.float32) if values is None else values
    nib.save(nib.Nifti1Image(values, np.eye(4) if affine is None else affine), path)
    return values


def npy(path: Path, values: np.ndarray | None = None) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = RNG.normal(size=(6, 5)).astype(np.float32) if values is None else values
    np.save(path, values)
    return values


def truncate(path: Path, share: float = 0.6) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


Write = Callable[[Path], Any]


def truncated(write: Write, share: float = 0.6) -> Write:
    def both(path: Path) -> None:
        write(path)
        truncate(path, share)

    return both


def flac(path: Path) -> None:
    sf.write(path, RNG.uniform(-0.5, 0.5, 8000), 8000)


def jpg(path: Path) -> None:
    Image.fromarray(RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)


def idx(path: Path, count: int = 5, declared: int | None = None) -> None:
    pixels = RNG.integers(0, 256, (count, 4, 3), dtype=np.uint8)
    head = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (declared or count, 4, 3))
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wb") as file:
        file.write(head + pixels.tobytes())
