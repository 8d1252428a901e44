"""Trained runs: a model, what its numbers mean, and how it is used on data like that of training."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from ._devices import moved
from .averages import average
from .checkpoints import load
from .config import read, saved_class
from .data.errors import shown
from .data.formats.format import times
from .data.memory import total
from .data.spec import DataSpec, self_supervised_by
from .data.target_spec import Classes
from .diffusion import Bridge, Consistency, Diffusion, coordinates
from .hub import CONFIG, run_folder
from .jsonable import plain
from .nn.unet import UNet
from .supervised import Supervised
from .windows import check_windows
from .writing import amount

Sizes = int | Sequence[int] | None  # one for all axes, or one for each

_COPIES = 4  # of samples: their noise, where they are, the estimate, the one before
_FEATURES = 2  # of the size of the data that a level has at once: input and output of a convolution
_NO_MEMORY = ("allocate memory", "not enough memory", "out of memory", "Storage size", "overflow")
_WORDS = {  # for arguments of a network
    "spatial_dims": "spatial axes",
    "in_channels": "channels",
    "cond_channels": "channels of conditions",
    "num_classes": "classes",
}
_ONE_STEP = ("sample", "v_prediction", "flow", "edm")  # that say at t = 1 what the data is


def trained(model: Path | str | Module, device: str | None = None) -> tuple[Diffusion, DataSpec]:
    """A trained model on a device, and the spec of its data.

    Args:
        model: the folder of a run, ``"owner/name"`` of one on the Hub, or a model that was trained from
            files.
        device: ``"cpu"``, ``"cuda"``, ...; by default the fastest for a folder, and for a model where it is.

    Raises:
        ValueError: the folder holds no model, or one that was not trained from files.
    """
    diffusion, spec, place = _loaded(model, device, Diffusion, "it predicts: dynunet predict")
    wanted = {
        "spatial_dims": spec.spatial_dims,
        "in_channels": spec.channels,
        "cond_channels": spec.cond_channels,
        "num_classes": None if spec.classes is None else len(spec.classes),
    }
    _check_units(diffusion, wanted, place)
    return diffusion, spec


def averaged(model: Any, length: float | None, device: str | None) -> Any:
    """A model or the folder of its run as it is or, with a length, the run's average of this length."""
    if length is None:
        return model
    if isinstance(model, Module):
        raise ValueError(f"length must be left out with a model: it is of a run's averages, got {length}")
    return average(model, length, device=chosen_device(device))


def predictor(model: Path | str | Module, device: str | None = None) -> tuple[Supervised, DataSpec]:
    """A model that was trained on targets, on a device, and the spec of its data; as :func:`trained`."""
    supervised, spec, place = _loaded(model, device, Supervised, "it was trained without targets")
    wanted = {
        "spatial_dims": spec.spatial_dims,
        "in_channels": spec.channels,
        "cond_channels": spec.cond_channels,
    }
    _check_units(supervised, wanted, place)
    learned = spec.learned
    if learned is None or learned.task != supervised.task:
        raise ValueError(f"{place}: data: the units must have a target, of the model's task")
    return supervised, spec


def _loaded(model: Any, device: str | None, kind: Any, instead: str) -> tuple[Any, DataSpec, str]:
    """A model of a class, the spec of its data, and the place where that comes from, for errors."""
    if isinstance(model, kind):
        found, place = (model if device is None else model.to(chosen_device(device))), "model"
    else:
        folder = run_folder(model)
        config = folder / CONFIG
        place = shown(config)
        saved = saved_class(config) if config.is_file() else kind
        if not issubclass(saved, kind):
            raise ValueError(f"run must hold a model of another kind than that in {shown(model)}: {instead}")
        found = saved.from_pretrained(folder, device=chosen_device(device))
    return found, _checked(found.data, called(model), place), place


def begun_with(run: Path | str, dataset: Any) -> Any:
    """The model of a run, to be trained further with other data of its kind.

    Args:
        run: its folder, or its name on the Hub.
        dataset: a :class:`dynunet.data.FolderDataset`, whose meaning of the numbers the trainer gives to it.

    Raises:
        ValueError: the data have other axes, channels, conditions or numbers of classes.
    """
    model = load(run_folder(run))
    wanted = {
        "spatial_dims": len(dataset.shape) - 1,
        "in_channels": dataset.channels,
        "cond_channels": dataset.cond_channels,
        "num_classes": dataset.num_classes,
    }
    for name, have, value in _misfits(model, wanted):
        there = f"the data have {value or 'none'}"
        raise ValueError(f"the model in {shown(run)} is for {have or 'no'} {_WORDS[name]}, and {there}")
    task = None if dataset.target is None else dataset.target.task
    for name, value in (("task", task), ("classes", plain(dataset.classes))):
        have = getattr(model, "config", {}).get(name)
        if have != value:
            raise ValueError(f"the model in {shown(run)} is for {name}={have}, and the data have {value}")
    return model


def _check_units(model: Any, wanted: Mapping[str, Any], place: str) -> None:
    for name, have, value in _misfits(model, wanted):
        raise ValueError(f"{place}: data: the units must fit the network, {name}={have}, got {value}")


def _misfits(model: Any, wanted: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Arguments of the network that are not as wanted: name, value, and the one wanted."""
    for name, value in wanted.items():
        have = getattr(model.model, name, value)
        if have != value:
            yield name, have, value


def spec_of_run(run: Path | str) -> DataSpec:
    """The spec of the data of a trained model, without its weights.

    Raises:
        ValueError: the folder holds no model, or one that was not trained from files.
    """
    file = run_folder(run) / CONFIG
    if not file.is_file():
        raise ValueError(f"run must be the folder of a run, got {shown(run)}, which holds no {CONFIG}")
    return _checked(read(file, saved_class(file)).get("data"), called(run), shown(file))


def predicts(model: Any) -> bool:
    """True for a model that was trained on targets, or the folder of its run."""
    if not isinstance(model, (str, Path)):
        return isinstance(model, Supervised)
    file = run_folder(model) / CONFIG
    return file.is_file() and issubclass(saved_class(file), Supervised)


def classes_of_run(run: Path | str) -> Classes | None:
    """The classes of a model that was trained on targets, without its weights."""
    found = read(run_folder(run) / CONFIG, Supervised).get("classes")
    return tuple(found) if isinstance(found, list) else found


def _checked(data: Any, name: str, place: str) -> DataSpec:
    if data is None:
        raise ValueError(f"run must hold a model trained by dynunet train, got {name}, which knows no files")
    try:
        return DataSpec.of(data)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{place}: data: {error}") from None


def called(model: Path | str | Module) -> str:
    """A model in words: the folder of its run, if it has one."""
    return "the model" if isinstance(model, Module) else shown(model)


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


def device_of(model: Module) -> torch.device:
    return next(model.parameters()).device


def restoration_steps(diffusion: Diffusion, steps: int | None) -> int:
    """Steps to restore in: one gives the mean of what the clean data may be, the least squared error.

    Raises:
        ValueError: there are to be more, of a model that has never seen clean data.
    """
    if steps not in (None, 1) and self_supervised_by(diffusion.data):
        raise ValueError(
            "steps must be 1 of a model that was trained without clean examples, for more would draw noise, "
            f"too, got {steps}"
        )
    if steps is not None:
        return steps
    if isinstance(diffusion, Consistency):
        return diffusion.steps
    return 1 if diffusion.config.get("prediction") in _ONE_STEP else 20


def restoration_sampler(diffusion: Diffusion) -> dict[str, Any]:
    """How :meth:`dynunet.Diffusion.sample` restores: on a bridge by the ODE without noise."""
    if isinstance(diffusion.schedule, Bridge) and not isinstance(diffusion, Consistency):
        return {"sampler": "ddim", "generator": torch.zeros}
    return {}


def conditions(
    spec: DataSpec,
    shape: Sequence[int],
    degraded: Tensor | None = None,
    device: torch.device | None = None,
) -> dict[str, Any]:
    """The conditions of the network beside data of a shape ``(N, C, *spatial)``, as in training.

    Args:
        device: that they are brought to; by default they stay where they are made.
    """
    parts = [] if degraded is None else [degraded]
    if spec.coordinates:
        parts.append(coordinates(shape, device=None if degraded is None else degraded.device))
    if not parts:
        return {}
    cond = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
    return {"cond": cond if device is None else moved(cond, device)}


def windows(spec: DataSpec, window: Sizes, overlap: Sizes) -> dict[str, Any]:
    """Windows as keywords of a sampler: of the size the model was trained on, if it was trained on crops.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.
    """
    if window is None and (spec.size is None or spec.resize):
        if overlap is not None:
            raise ValueError(f"overlap must be left out without window, got {overlap}")
        return {}
    sizes = check_windows(spec.size if window is None else window, overlap, spec.spatial_dims)
    return dict(zip(("window", "overlap"), sizes, strict=True))


def batch_size(shape: Sequence[int], most: int = 2**24) -> int:
    """Samples ``(C, *spatial)`` to compute at once: about as many numbers as fit a small GPU."""
    return max(1, most // (64 * prod(shape)))


def check_memory(diffusion: Diffusion, shape: Sequence[int], in_windows: bool) -> None:
    """Refuse what cannot fit in memory: several copies of the data, and of the first features of the network.

    Raises:
        ValueError: saying what it would take.
    """
    device = device_of(diffusion)
    there = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else total()
    features = _FEATURES * diffusion.model.stem.out_channels if isinstance(diffusion.model, UNet) else 0
    entries = shape[0] * prod(shape[2:])
    needed = 4 * entries * (_COPIES * shape[1] + (0 if in_windows else features))
    if needed > there:
        raise ValueError(
            f"{times(shape[2:])} takes at least {amount(needed)} of memory, and {device} has "
            f"{amount(there)}; choose a smaller size or batch_size"
        )


@contextmanager
def out_of_memory(what: str) -> Iterator[None]:
    """Say in one line that there is not enough memory: on a CPU, torch has no kind of error of its own."""
    try:
        yield
    except (MemoryError, OverflowError, RuntimeError) as error:
        text = str(error)
        if isinstance(error, RuntimeError) and not any(words in text for words in _NO_MEMORY):
            raise
        raise ValueError(f"{what} takes more memory than there is: {text or 'no more said'}") from error
