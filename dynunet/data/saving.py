"""Writing results as files: in the units, and on the grid, of the file they were made from.

Channels are those of the file, see :mod:`dynunet.data.channel_mapping`. Whole numbers are rounded and limited
to their range. What was missing in the source is missing again. The suffix says which format is written, and
each file in :mod:`dynunet.data.formats` what it keeps of its source; without a source the spec says the rest.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..writing import replacing
from .errors import shown
from .formats import of_kind, to_write
from .formats.numbers import Numbers
from .loading import Source
from .memory import stacked
from .options import missing_value
from .spec import DataSpec
from .values import present, resized


def save(
    path: Path | str,
    x: Tensor,
    units: "dict[str, Any] | DataSpec",
    like: Source | None = None,
    *,
    only: Tensor | None = None,
    overwrite: bool = False,
) -> None:
    """Write what a network made.

    Args:
        path: the file to write; its suffix is one of ``dynunet.data.SUFFIXES``.
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
    path, spec = Path(path), DataSpec.of(units)
    holes = None
    if only is not None:
        if like is None or tuple(only.shape) != like.shape:
            raise ValueError(
                f"only must have the shape of x, which was read from a file, got {tuple(only.shape)}"
            )
        holes = _on_file_grid(only, like)
    write(path, x, spec, like, holes, overwrite)


def write(
    path: Path,
    x: Tensor,
    spec: DataSpec,
    like: Source | None,
    holes: np.ndarray | None,
    overwrite: bool = False,
) -> None:
    """Write as :func:`save` does, with the mask of what is replaced on the grid of the file.

    All else is as it is stored, to the bit, if the format that is written has such numbers.

    Args:
        holes: bool ``(N, channels, *shape)``.
    """
    check_free(path, overwrite)
    values = in_file_units(x, spec, like)
    header = None if like is None else like.header
    written, channels = to_write(path), values.shape[1]
    written.check_result(path, spec, channels, header)
    numbers = written.numbers(path, spec, channels, header)
    if like is None and np.dtype(numbers.dtype).kind in "iu":  # new data of whole numbers have their range
        scale = of_kind(spec.kind).scale(spec)
        values = values.clip(scale.low, scale.high)
    stored = numbers.stored(values)
    del values  # twice as large as what it was made from
    if like is not None and channels == like.header.channels:
        stored = _kept(stored, numbers, spec, like, holes)
    elif holes is not None:
        raise ValueError(f"only needs a result with the channels of the source, got {channels}")
    write_bytes(path, written.encode(path, stored, numbers, spec, header), overwrite)


def write_bytes(path: Path, made: bytes | memoryview, overwrite: bool) -> None:
    """Write a file that appears once it is whole, and in place of no other that has come meanwhile."""
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
        raise FileExistsError(f"path: {shown(path)} exists; overwrite would replace it")


def check_result(path: Path, spec: DataSpec, like: Source, exact: bool = False) -> None:
    """Refuse a path before anything is computed, if a result cannot be written there.

    Args:
        exact: that it must hold the numbers of the file as they are.

    Raises:
        ValueError: the message says why.
    """
    written, channels = to_write(path), like.channels.results
    written.check_result(path, spec, channels, like.header)
    if not exact:
        return
    if like.header.lost is not None:
        raise ValueError(f"{like.header.lost}, so that it could not stay as it is; save it as npy")
    if path.suffix.lower() in written.lossy:
        raise ValueError(
            f"path must be of a format that keeps what is not filled in, such as png or wav: {path.suffix} "
            f"changes all around it when it is written, got {shown(path)}"
        )
    if written.numbers(path, spec, channels, like.header) != like.header.numbers:
        raise ValueError(
            f"path must be of a format that holds what is in the file as it is ({like.header.stored}), got "
            f"{shown(path)}"
        )


def _checked(x: Any, spec: DataSpec, like: Source | None) -> np.ndarray:
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor, got {type(x).__name__}")
    if like is None:
        fits, rule = x.ndim == spec.spatial_dims + 1, f"(C, *spatial) with {spec.spatial_dims} spatial axes"
    else:
        channel = len(like.shape) - 1 - spec.spatial_dims
        shape = tuple(x.shape)
        fits = len(shape) == len(like.shape) and shape[:channel] == like.shape[:channel]
        fits = fits and shape[channel + 1 :] == like.shape[channel + 1 :]
        rule = f"of the shape {like.shape} of what was read, up to its channels"
    if not fits:
        raise ValueError(f"x must be {rule}, got shape {tuple(x.shape)}")
    return x.detach().to("cpu", torch.promote_types(x.dtype, torch.float32)).numpy()


def in_file_units(result: Tensor, spec: DataSpec, like: Source | None) -> np.ndarray:
    """``(N, channels, *shape)`` on the grid, with the channels and in the units of the file to be written."""
    x = _checked(result, spec, like)
    if like is None:
        return of_kind(spec.kind).scale(spec).to_file(x)[None]
    views = like.channels.views
    answers = x.reshape(-1, *x.shape[-1 - spec.spatial_dims :])
    answers = [like.scales[n % views].to_file(a) for n, a in enumerate(answers)]
    answers = stacked([like.header.format.to_file(a, like.header, spec) for a in answers])
    examples = answers.reshape(-1, views, *answers.shape[1:])
    mixed = sum(like.channels.file) != like.header.channels
    if mixed or answers.shape[1] != sum(like.channels.answer):  # what Python users have made of it
        return examples.reshape(len(examples), -1, *answers.shape[2:])
    if not like.channels.own:
        return stacked([like.channels.join(e) for e in examples])
    files = [like.header.numbers.values(s) for s in _stored(like)]
    return stacked([like.channels.join(e, f) for e, f in zip(examples, files, strict=True)])


def _stored(like: Source) -> np.ndarray:
    """A whole file as it is stored, ``(N, channels, *shape)``."""
    return like.header.format.all_stored(like.header, like.spec)


def _there(like: Source, stored: np.ndarray) -> np.ndarray:
    return present(like.header.numbers.values(stored), missing_value(like.spec.missing))


def _kept(
    stored: np.ndarray, numbers: Numbers, spec: DataSpec, like: Source, holes: np.ndarray | None
) -> np.ndarray:
    """Numbers to be stored, but where those of the file are kept: outside of holes, or where it has none."""
    if holes is None and spec.missing is None:
        return stored
    own = _stored(like)
    holes = _there(like, own) if holes is None else holes
    if numbers != like.header.numbers:
        own = numbers.stored(like.header.numbers.values(own))
    return np.where(holes, stored, own)


def _on_file_grid(only: Tensor, like: Source) -> np.ndarray:
    """Entries of the file in which a mask of the network's input lies, or which are missing."""
    views = only.cpu().numpy().astype(np.float32).reshape(-1, *like.shape[-1 - like.spec.spatial_dims :])
    # On a finer grid an entry is new if any of those that it was made from is.
    marked = np.stack([resized(v, like.header.shape) > 1e-6 for v in views])
    marked = marked.reshape(like.header.entries, -1, *like.header.shape)
    own = _stored(like)
    if marked.shape[1] != own.shape[1]:
        marked = marked.any(1, keepdims=True)
    return marked | ~_there(like, own)
