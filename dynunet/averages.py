r"""Averages of the weights of any length, chosen after training (Karras et al. 2024, section 3).

A power-function average gives the weights of step s out of t a share of

    (s / t)^(g + 1) - ((s - 1) / t)^(g + 1),        the integral of p(u) ~ u^g from s - 1 to s,

so that its width is a fixed part of the training so far. Its *length* is the standard deviation of p in parts
of t, of which the exponent g follows (algorithm 2 of the paper). In training

    average <- b average + (1 - b) weights,         b = (1 - 1 / t)^(g + 1)

keeps it up. Training with ``ema_lengths`` does that for a few lengths and stores them now and then in the
folder ``averages`` of the run. An average of another length is the combination of all that are stored whose p
is nearest in the mean square to that of its own (algorithm 3): a linear system of their products, which are
known in closed form. Unlike in the paper their coefficients add up to 1, so that the error is one of when
weights count, not of how large they are together.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .arguments import average_length, integer
from .checkpoints import load, named_weights
from .data.errors import shown
from .hub import run_folder
from .writing import replacing

__all__ = ["average", "decay", "exponent", "interval", "shares", "store", "stored", "tensors"]

FOLDER = "averages"
_FIRST, _MOST = 16, 16  # steps between the first averages that are stored, and how many are kept
_FAR = 0.1  # relative error of p that is warned of
_NAME = re.compile(r"step-(\d{8,18})\.safetensors")


def average(run: Path | str, length: float, *, step: int | None = None, device: Any = None) -> Any:
    """The model of a run with an average of its weights of any length, chosen after training.

    Args:
        run: the folder of a run that was trained with ``ema_lengths``.
        length: the standard deviation of the average, in parts of the steps up to its end: above 0 (the last
            weights) and below 0.289 (the mean of all). With the stored lengths 0.05 and 0.10 those from about
            0.04 to 0.2 are met to a few percent.
        step: the end of the average, one of those that are stored; by default the last.
        device: of the model, the CPU by default.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    Warns:
        If the stored averages give one of this length to no better than 10 percent.
    """
    average_length(length, "length")
    folder = run_folder(run)
    files = stored(folder)
    if not files:
        raise ValueError(f"run must have stored averages, of training with ema_lengths, got {shown(run)}")
    step = max(files) if step is None else integer(step, "step")
    if step not in files:
        raise ValueError(f"step must be one of {', '.join(map(str, files))}, got {step}")
    files = {t: path for t, path in files.items() if t <= step}
    lengths = {t: _lengths(path) for t, path in files.items()}
    ends = [t for t in files for _ in lengths[t]]
    found, error = shares(ends, [value for t in files for value in lengths[t]], step, length)
    if error > _FAR:
        warn(
            f"length {length:g} is far from those stored, {', '.join(f'{v:g}' for v in lengths[step])}: its "
            f"weights over the steps are met to {error:.0%}",
            stacklevel=2,
        )
    model = load(folder)  # sums are in float64, which not every device has
    weights = iter(found.tolist())
    _combine(model, [(path, [next(weights) for _ in lengths[t]]) for t, path in files.items()])
    return model if device is None else model.to(device)


def exponent(length: float) -> float:
    """The exponent g of a length: the root of ``(g + 1) / ((g + 2)^2 (g + 3)) = length^2``."""
    wanted = length**-2
    return float(np.roots([1, 7, 16 - wanted, 12 - wanted]).real.max())


def decay(length: float, step: int) -> float:
    """b of the step with this number, counted from 1: 0 in the first."""
    return (1 - 1 / step) ** (exponent(length) + 1)


def shares(
    ends: Sequence[int], lengths: Sequence[float], end: int, length: float
) -> tuple[np.ndarray[Any, Any], float]:
    """The combination of averages that is nearest to another one.

    Args:
        ends, lengths: of the averages that there are.
        end, length: of the one wanted.

    Returns:
        Their coefficients, which add up to 1, and the error of p, in the mean square, relative to its size.
    """
    t, g = np.array(ends, float), np.array([exponent(value) for value in lengths])
    wanted = np.array([float(end)]), np.array([exponent(length)])
    products = _product(t[:, None], g[:, None], t, g)
    against, size = _product(t, g, *wanted), _product(*wanted, *wanted)
    nearest, shift = np.linalg.solve(products, np.stack([against, np.ones_like(against)], 1)).T
    found = nearest + (1 - nearest.sum()) / shift.sum() * shift
    error = size[0] - 2 * found @ against + found @ products @ found
    return found, float(np.sqrt(max(0.0, error / size[0])))


def _product(t: Any, g: Any, u: Any, h: Any) -> Any:
    """The integral of the product of two p, up to t with the exponent g, and up to u with h."""
    low_power = np.where(t < u, h, g)
    ratio = np.minimum(t, u) / np.maximum(t, u)
    return (g + 1) * (h + 1) / (g + h + 1) * ratio**low_power / np.maximum(t, u)


def interval(step: int) -> int:
    """Steps between the averages that are kept at a step: doubled whenever they become too many."""
    every = _FIRST
    while step // every > _MOST:
        every *= 2
    return every


def stored(run: Path) -> dict[int, Path]:
    """The files of averages in the folder of a run, by the step that they end with, in order."""
    found = {int(m[1]): path for path in (run / FOLDER).glob("*") if (m := _NAME.fullmatch(path.name))}
    return dict(sorted(found.items()))


def store(run: Path, step: int, models: Mapping[float, nn.Module]) -> None:
    """Write the averages of a step, by their length, and remove those that are no longer kept.

    There are then at most 17 files, of as many copies of the weights as there are lengths each.
    """
    path = run / FOLDER / f"step-{step:08d}.safetensors"
    path.parent.mkdir(exist_ok=True)
    held = {f"{i}.{k}": t.contiguous() for i, m in enumerate(models.values()) for k, t in tensors(m).items()}
    with replacing(path, needs=sum(t.nbytes for t in held.values())) as (file,):
        save_file(held, file, {"lengths": json.dumps([*models])})
    for end, old in stored(run).items():
        if end != step and end % interval(step):
            old.unlink()


def cut(run: Path, step: int) -> None:
    """Remove those of later steps, which a killed run has left."""
    for end, path in stored(run).items():
        if end > step:
            path.unlink()


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a model by the names they are saved with; those that are shared once."""
    seen: dict[Any, tuple[str, Tensor]] = {}
    for name, t in named_weights(model).items():
        place = t.untyped_storage().data_ptr(), t.storage_offset(), t.shape, t.stride()
        seen.setdefault(place if t.numel() else name, (name, t))
    return dict(seen.values())


def _lengths(path: Path) -> list[float]:
    """Those of the averages in a file, in their order there."""
    try:
        with safe_open(path, "pt") as file:
            found = json.loads((file.metadata() or {})["lengths"])
        return [average_length(value, "a length") for value in found]
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{shown(path)} must hold averages with their lengths: {error}") from None


def _combine(model: nn.Module, parts: Sequence[tuple[Path, Sequence[float]]]) -> None:
    """Give a model the sum of averages in files, each times its coefficient; counters are of the last."""
    own = tensors(model)
    total = {k: torch.zeros_like(t, dtype=torch.float64) for k, t in own.items() if t.is_floating_point()}
    for path, coefficients in parts:
        with safe_open(path, "pt") as file:
            if sorted(file.keys()) != sorted(f"{i}.{k}" for i in range(len(coefficients)) for k in own):
                raise ValueError(f"{shown(path)} must hold averages of the model beside it, got others")
            for i, coefficient in enumerate(coefficients):
                for k, t in own.items():
                    value = file.get_tensor(f"{i}.{k}")
                    if value.shape != t.shape:
                        raise ValueError(
                            f"{shown(path)}: {k} must be of shape {tuple(t.shape)}, got {tuple(value.shape)}"
                        )
                    if k in total:
                        total[k] += coefficient * value.double()
                    else:
                        t.copy_(value)
    for k, value in total.items():
        own[k].copy_(value)
