"""What the commands share: the model of a run, its conditions, and where results go."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from itertools import takewhile
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints import CONFIG
from ..data import SUFFIXES
from ..data.errors import shown
from ..data.memory import total
from ..data.spec import DataSpec
from ..diffusion import Diffusion, coordinates
from ..diffusion.windows import check_windows
from ..unet import UNet
from ..writing import amount

# What new data is written as; results for given files are written in their own format.
_SUFFIX = {"audio": ".wav", "images": ".png", "volumes": ".nii.gz", "arrays": ".npy"}
_COPIES = 4  # of samples: their noise, where they are, the estimate, the one before
_FEATURES = 2  # of the size of the data that a level has at once: input and output of a convolution
_NO_MEMORY = ("allocate memory", "not enough memory", "out of memory", "Storage size", "overflow")
_ONE_STEP = ("sample", "v_prediction", "flow", "edm")  # that say at t = 1 what the data is


def load_run(run: Path, device: str | None) -> tuple[Diffusion, DataSpec]:
    """A trained model on its device, and what its numbers mean.

    Raises:
        ValueError: if the folder holds no model, or one that was not trained from files.
    """
    if not run.is_dir():
        raise ValueError(f"run must be the folder of a run, got {shown(run)}, which is none")
    diffusion = Diffusion.from_pretrained(run, device=chosen_device(device))
    if diffusion.data is None:
        raise ValueError(
            f"run must hold a model trained by dynunet train, got {shown(run)}, which knows no files"
        )
    try:
        units = DataSpec.of(diffusion.data)
        _check_model(units, diffusion.model)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{shown(run / CONFIG)}: data: {error}") from None
    return diffusion, units


def _check_model(units: DataSpec, model: Any) -> None:
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


def print_any_name() -> None:
    """Let names be printed that the terminal's encoding does not have, rather than fail at the first."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def chosen_device(device: str | None) -> torch.device:
    """The device asked for, or the fastest there is."""
    if device is None:
        found = torch.accelerator.current_accelerator(check_available=True)
        return found or torch.device("cpu")
    try:
        found = torch.zeros(1, device=device)
        found.item()  # a device without memory, such as meta, has no values
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device must be one of this machine, got {device!r}: {error}") from None
    return found.device


def check_counts(**flags: int | None) -> None:
    """Refuse flags that count something and are below 1."""
    for name, value in flags.items():
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}")


def check_seed(seed: int) -> None:
    """Refuse a seed that no generator takes; samples have those that follow."""
    if not -(2**63) <= seed < 2**63:
        raise ValueError(f"--seed must be a whole number of 64 bits, from -2^63 to 2^63 - 1, got {seed}")


def check_memory(diffusion: Diffusion, shape: Sequence[int], in_windows: bool) -> None:
    """Refuse what cannot fit in memory: several copies of the data, and of the first features of the network.

    Raises:
        ValueError: saying what it would take.
    """
    device = next(diffusion.parameters()).device
    there = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else total()
    features = _FEATURES * diffusion.model.stem.out_channels if isinstance(diffusion.model, UNet) else 0
    entries = shape[0] * prod(shape[2:])
    needed = 4 * entries * (_COPIES * shape[1] + (0 if in_windows else features))
    if needed > there:
        raise ValueError(
            f"{'x'.join(map(str, shape[2:]))} takes at least {amount(needed)} of memory, and {device} has "
            f"{amount(there)}; choose a smaller --size or --batch-size"
        )


def restores(units: DataSpec) -> bool:
    """Whether a model was trained to restore."""
    return units.restoration is not None


def restoration_steps(diffusion: Diffusion, steps: int | None) -> int:
    """One step gives the mean of what the clean data may be, the least squared error."""
    if steps is not None:
        return steps
    return 1 if diffusion.config.get("prediction") in _ONE_STEP else 20


def conditions(units: DataSpec, shape: Sequence[int], degraded: Tensor | None = None) -> dict[str, Any]:
    """What the network is given beside data of a shape ``(N, C, *spatial)``, as in training."""
    parts = [] if degraded is None else [degraded]
    if units.coordinates:
        parts.append(coordinates(shape, device=None if degraded is None else degraded.device))
    return {"cond": torch.cat(parts, 1)} if parts else {}


def windows(
    units: DataSpec, window: tuple[int, ...] | None, overlap: tuple[int, ...] | None
) -> dict[str, Any]:
    """Windows of the size the model was trained on, if it was trained on crops.

    Raises:
        ValueError, TypeError: naming the flag, the rule and the value received.
    """
    if window is None and (units.size is None or units.resize):
        if overlap is not None:
            raise ValueError(f"overlap must be left out without window, got {overlap}")
        return {}
    sizes = check_windows(_spread(window or units.size), _spread(overlap), units.spatial_dims)
    return dict(zip(("window", "overlap"), sizes, strict=True))


def _spread(sizes: tuple[int, ...] | None) -> int | tuple[int, ...] | None:
    return sizes[0] if sizes is not None and len(sizes) == 1 else sizes


def new_suffix(units: DataSpec) -> str:
    return _SUFFIX[units.kind]


def known_suffix(path: Path) -> bool:
    """Whether a path names a file of a known format, not a folder."""
    return path.name.lower().endswith(tuple(s for suffixes in SUFFIXES.values() for s in suffixes))


def result_of(source: Path, out: Path, name: str | None = None) -> Path:
    """Where the result for one file goes: ``out`` itself if it names a file, else into that folder."""
    return out if known_suffix(out) and not out.is_dir() else out / (name or source.name)


@contextmanager
def out_of_memory(what: str) -> Iterator[None]:
    """Memory that there is not, in one line: on a CPU, torch has no kind of error of its own for it."""
    try:
        yield
    except (MemoryError, OverflowError, RuntimeError) as error:
        text = str(error)
        if isinstance(error, RuntimeError) and not any(words in text for words in _NO_MEMORY):
            raise
        raise ValueError(f"{what} takes more memory than there is: {text or 'no more said'}") from error


def bounded(shape: Sequence[int], most: int = 2**24) -> int:
    """How many samples to compute at once: about as many numbers as fit a small GPU."""
    return max(1, most // (64 * prod(shape)))


def unboxed(text: str) -> str:
    """What is inside the box that tyro draws around an error."""
    lines = [line.strip("│ ") for line in text.splitlines() if line[:1] not in "╭╰"]
    told = takewhile(lambda line: "full helptext" not in line, lines)
    return " ".join(line for line in told if line.strip("─"))
