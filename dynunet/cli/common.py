"""What the commands share: the model of a run, its conditions, and where results go."""

from collections.abc import Iterable, Sequence
from itertools import takewhile
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints import CONFIG
from ..data import SUFFIXES
from ..data.sources import Units
from ..diffusion import Diffusion, coordinates

# What new data is written as; results for given files are written in their own format.
_SUFFIX = {"audio": ".wav", "images": ".png", "volumes": ".nii.gz", "arrays": ".npy"}
_ONE_STEP = ("sample", "v_prediction", "flow", "edm")  # that say at t = 1 what the data is


def load_run(run: Path, device: str | None) -> tuple[Diffusion, Units]:
    """A trained model on its device, and what its numbers mean.

    Raises:
        ValueError: if the folder holds no model, or one that was not trained from files.
    """
    if not run.is_dir():
        raise ValueError(f"run must be the folder of a run, got {run}, which is none")
    diffusion = Diffusion.from_pretrained(run, device=chosen_device(device))
    if diffusion.data is None:
        raise ValueError(f"run must hold a model trained by dynunet train, got {run}, which knows no files")
    try:
        units = Units.of(diffusion.data)
        _check_model(units, diffusion.model)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{run / CONFIG}: data: {error}") from None
    return diffusion, units


def _check_model(units: Units, model: Any) -> None:
    """Refuse a network that is not for such data."""
    wanted = {
        "spatial_dims": units.spatial_dims,
        "in_channels": units.channels,
        "cond_channels": units.cond_channels,
        "num_classes": None if units.classes is None else len(units.classes),
    }
    for name, value in wanted.items():
        if getattr(model, name, value) != value:
            raise ValueError(f"the units must fit the network, {name}={getattr(model, name)}, got {value}")


def chosen_device(device: str | None) -> torch.device:
    """The device asked for, or the fastest there is."""
    if device is None:
        found = torch.accelerator.current_accelerator(check_available=True)
        return found or torch.device("cpu")
    try:
        chosen = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device must be one of this machine, got {device!r}: {error}") from None
    if chosen.type == "meta":
        raise ValueError(f"device must be one that computes, got {device!r}")
    return chosen


def restores(units: Units) -> bool:
    """Whether a model was trained to restore."""
    return units.restoration is not None


def restoration_steps(diffusion: Diffusion, steps: int | None) -> int:
    """One step gives the mean of what the clean data may be, the least squared error."""
    if steps is not None:
        return steps
    return 1 if diffusion.config.get("prediction") in _ONE_STEP else 20


def conditions(units: Units, shape: Sequence[int], degraded: Tensor | None = None) -> dict[str, Any]:
    """What the network is given beside data of a shape ``(N, C, *spatial)``, as in training."""
    parts = [] if degraded is None else [degraded]
    if units.coordinates:
        parts.append(coordinates(shape, device=None if degraded is None else degraded.device))
    return {"cond": torch.cat(parts, 1)} if parts else {}


def windows(units: Units, window: tuple[int, ...] | None, overlap: tuple[int, ...] | None) -> dict[str, Any]:
    """Windows of the size the model was trained on, if it was trained on crops."""
    if window is None and (units.size is None or units.resize):
        return {}
    return {"window": window or units.size, "overlap": overlap}


def new_suffix(units: Units) -> str:
    return _SUFFIX[units.kind]


def known_suffix(path: Path) -> bool:
    """Whether a path names a file of a known format, not a folder."""
    return path.name.lower().endswith(tuple(s for suffixes in SUFFIXES.values() for s in suffixes))


def result_of(source: Path, out: Path) -> Path:
    """Where the result for one file goes: ``out`` itself if it names a file, else into that folder."""
    return out if known_suffix(out) and not out.is_dir() else out / source.name


def check_new(paths: Iterable[Path], overwrite: bool) -> None:
    """Refuse to replace files, before anything is computed."""
    there = [path for path in paths if path.exists()]
    if there and not overwrite:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise ValueError(f"out: {there[0]}{more} exists already; choose another folder or give --overwrite")


def bounded(shape: Sequence[int], most: int = 2**24) -> int:
    """How many samples to compute at once: about as many numbers as fit a small GPU."""
    return max(1, most // (64 * prod(shape)))


def unboxed(text: str) -> str:
    """What is inside the box that tyro draws around an error."""
    lines = [line.strip("│ ") for line in text.splitlines() if line[:1] not in "╭╰"]
    told = takewhile(lambda line: "full helptext" not in line, lines)
    return " ".join(line for line in told if line.strip("─"))
