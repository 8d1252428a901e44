"""Masks as files: what is to be made anew in another file, for :func:`dynunet.data.loading.marks_of`."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from .errors import UnreadableError, attempt, shown
from .formats import of_kind
from .loading import header_of
from .saving import save
from .spec import DataSpec

__all__ = ["save_mask", "shape_of"]


def shape_of(path: Path, spec: DataSpec) -> tuple[int, ...]:
    """The spatial sizes of a file, on its own grid.

    Raises:
        ValueError: it cannot be read, naming it and saying why.
    """
    try:
        return attempt(lambda: header_of(path, spec)).shape
    except UnreadableError as error:
        raise ValueError(f"{shown(path)}: {error}") from error


def save_mask(beside: Path, mask: np.ndarray, like: Path, spec: DataSpec) -> Path:
    """Write a mask of a file, which is not 0 (of images: bright) where it is True, and give its path.

    Args:
        beside: its path, without a suffix; one that is there is replaced.
        mask: bool, of the shape of the file.
        like: the file.
        spec: of the data.

    Raises:
        ValueError: the mask has another shape, or the file cannot be read.
    """
    shape = shape_of(like, spec)
    if mask.shape != shape:
        raise ValueError(f"mask must be of {shape}, the shape of {shown(like)}, got {mask.shape}")
    import torch

    own = of_kind(spec.kind)
    apart = dict.fromkeys(("percentiles", "range", "spacing", "size", "missing", "classes", "target"))
    stored = "uint8" if spec.kind == "images" else "PCM_16" if spec.kind == "audio" else "float32"
    plain = replace(spec, channels=1, stored=stored, resize=False, **apart)
    if spec.kind == "audio":
        plain = replace(plain, sample_rate=header_of(like, spec).sample_rate)
    scale = own.scale(plain)
    x = scale.to_model(np.where(mask, scale.high, 0.0)[None])
    path = beside.with_name(beside.name + own.new)
    save(path, torch.from_numpy(x), plain, overwrite=True)
    return path
