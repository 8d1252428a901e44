"""Writing results as files: in the units, and on the grid, of the file they were made from.

    written      from                          how
    audio        wav, flac, ...                sample rate, length and subtype (24 bits stay 24 bits)
    images       png, jpg, ...                 size, bit depth, opacity and colour profile
    volumes      nii, nii.gz                   grid, axes, affine, header and type of numbers
    arrays       npy, npz                      channel axis, type of numbers and what else is in an npz

Channels are those of the file, see :mod:`dynunet.data.channels`. Whole numbers are rounded and limited to
their range. What was missing in the source is missing again. The suffix says which format is written;
without a source the units say the rest.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..writing import replacing
from .cache import Cache
from .files import READERS
from .loading import Source
from .numbers import Numbers
from .options import missing_value
from .regridding import to_file
from .resizing import resized
from .scaling import present, scale_of
from .sources import Units, shown
from .writers import Writer, writer_of

_CHANGED = (".jpg", ".jpeg", ".ogg")  # which do not give back what is written


def save(
    path: Path | str,
    x: Tensor,
    units: "dict[str, Any] | Units",
    like: Source | None = None,
    *,
    only: Tensor | None = None,
    overwrite: bool = False,
) -> None:
    """Write what a network made.

    Args:
        path: the file to write; its suffix is one of :data:`dynunet.data.SUFFIXES`.
        x: ``(C, *spatial)`` in the network's units; of a file of several examples ``(N, C, *spatial)``.
        units: ``dataset.units``, which a trained model has as ``diffusion.data``.
        like: the source of the file that x was made from: ``load(...).source``.
        only: bool, of the shape of x: where it is False, the numbers of ``like`` are kept as they are stored,
            but for those that are missing.
        overwrite: replace a file that is there already.

    Raises:
        FileExistsError: there is a file, and overwrite is False.
        ValueError, TypeError: naming the argument, the rule and the value received.
        OSError: it cannot be written, such as :class:`dynunet.writing.DiskFull`; nothing is left of it.
    """
    path, units = Path(path), Units.of(units)
    holes = None
    if only is not None:
        if like is None or tuple(only.shape) != like.shape:
            raise ValueError(
                f"only must have the shape of x, which was read from a file, got {tuple(only.shape)}"
            )
        holes = _on_file_grid(only, like)
    write(path, x, units, like, holes, overwrite)


def write(
    path: Path,
    x: Tensor,
    units: Units,
    like: Source | None,
    holes: np.ndarray | None,
    overwrite: bool = False,
) -> None:
    """As :func:`save`, with what is to be replaced on the grid of the file, bool ``(N, channels, *shape)``.

    All else is as it is stored, to the bit, if the format that is written has such numbers.
    """
    check_free(path, overwrite)
    values = _in_units(_checked(x, units, like), units, like)
    writer, channels = writer_of(path), values.shape[1]
    writer.check(path, units, channels, like)
    numbers = writer.numbers(path, units, channels, like)
    stored = numbers.stored(values)
    if like is not None and channels == like.info.channels:
        stored = _kept(stored, numbers, units, like, holes)
    elif holes is not None:
        raise ValueError(f"only needs a result with the channels of the source, got {channels}")
    made = writer.encoded(path, stored, numbers, units, like)
    with replacing(path, needs=len(made)) as (partial,):
        partial.write_bytes(made)
        check_free(path, overwrite)


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse to replace what is not to be replaced.

    Raises:
        FileExistsError: there is a file and overwrite is False, or what is there is no file.
    """
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_file():
        raise FileExistsError(f"path: {shown(path)} is there and is no regular file")
    if not overwrite:
        raise FileExistsError(f"path: {shown(path)} exists; overwrite=True would replace it")


def check_result(path: Path, units: Units, like: Source, exact: bool = False) -> None:
    """Refuse a path before anything is computed, if a result cannot be written there.

    Args:
        exact: that it must hold the numbers of the file as they are.

    Raises:
        ValueError: the message says why.
    """
    writer: Writer = writer_of(path)
    channels = like.channels.results
    writer.check(path, units, channels, like)
    if not exact:
        return
    if like.info.lost is not None:
        raise ValueError(f"{like.info.lost}, so that it could not stay as it is; save it as npy")
    if path.suffix.lower() in _CHANGED:
        raise ValueError(
            f"path must be of a format that keeps what is not filled in, such as png or wav: {path.suffix} "
            f"changes all around it when it is written, got {shown(path)}"
        )
    if writer.numbers(path, units, channels, like) != like.info.numbers:
        raise ValueError(
            f"path must be of a format that holds what is in the file as it is ({like.info.stored}), got "
            f"{shown(path)}"
        )


def _checked(x: Any, units: Units, like: Source | None) -> np.ndarray:
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor, got {type(x).__name__}")
    if like is None:
        fits, rule = x.ndim == units.spatial_dims + 1, f"(C, *spatial) with {units.spatial_dims} spatial axes"
    else:
        channel = len(like.shape) - 1 - units.spatial_dims
        shape = tuple(x.shape)
        fits = len(shape) == len(like.shape) and shape[:channel] == like.shape[:channel]
        fits = fits and shape[channel + 1 :] == like.shape[channel + 1 :]
        rule = f"of the shape {like.shape} of what was read, up to its channels"
    if not fits:
        raise ValueError(f"x must be {rule}, got shape {tuple(x.shape)}")
    return x.detach().to("cpu", torch.float64).numpy()


def _in_units(x: np.ndarray, units: Units, like: Source | None) -> np.ndarray:
    """``(N, channels, *shape)`` on the grid, with the channels and in the units of the file to be written."""
    if like is None:
        return scale_of(None, units).to_file(x)[None]
    views = like.channels.views
    answers = x.reshape(-1, *x.shape[-1 - units.spatial_dims :])
    answers = [like.scales[n % views].to_file(a) for n, a in enumerate(answers)]
    answers = np.stack([to_file(a, like.info, units) for a in answers])
    examples = answers.reshape(-1, views, *answers.shape[1:])
    mixed = sum(like.channels.file) != like.info.channels
    if mixed or answers.shape[1] != sum(like.channels.answer):  # what Python users have made of it
        return examples.reshape(len(examples), -1, *answers.shape[2:])
    files = [like.info.numbers.values(s) for s in _stored(like)]
    return np.stack([like.channels.join(e, f) for e, f in zip(examples, files, strict=True)])


def _stored(like: Source) -> np.ndarray:
    """A whole file as it is stored, ``(N, channels, *shape)``."""
    reader, cache = READERS[like.info.format], Cache(float("inf"))
    return np.stack([reader.stored(like.info, n, like.units, cache) for n in range(like.info.entries)])


def _there(like: Source, stored: np.ndarray) -> np.ndarray:
    return present(like.info.numbers.values(stored), missing_value(like.units.missing))


def _kept(
    stored: np.ndarray, numbers: Numbers, units: Units, like: Source, holes: np.ndarray | None
) -> np.ndarray:
    """Numbers to be stored, but where those of the file are kept: outside of holes, or where it has none."""
    if holes is None and units.missing is None:
        return stored
    own = _stored(like)
    holes = _there(like, own) if holes is None else holes
    if numbers != like.info.numbers:
        own = numbers.stored(like.info.numbers.values(own))
    return np.where(holes, stored, own)


def _on_file_grid(only: Tensor, like: Source) -> np.ndarray:
    """Where a mask of the network's input, or what is missing, lies in the file."""
    views = only.cpu().numpy().astype(np.float32).reshape(-1, *like.shape[-1 - like.units.spatial_dims :])
    # On a finer grid an entry is new if any of those that it was made from is.
    marked = np.stack([resized(v, like.info.shape) > 1e-6 for v in views])
    marked = marked.reshape(like.info.entries, -1, *like.info.shape)
    own = _stored(like)
    if marked.shape[1] != own.shape[1]:
        marked = marked.any(1, keepdims=True)
    return marked | ~_there(like, own)
