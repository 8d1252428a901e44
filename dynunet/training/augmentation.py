"""Augmentation as a model and its data need it."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

from ..data.augmentation import Augment
from ..data.spec import self_supervised_by
from ..jsonable import plain
from .noisy_targets import check_changes
from .order import example

Change = Callable[[dict[str, Any]], dict[str, Any]]


def fitted(augment: Any, model: Any, dataset: Any) -> Change | None:
    """The changes of training examples: with the task of the model, and the spacing of the data.

    Args:
        augment: an Augment, True for its preset, None or False for none, or any function, left as it is.
        model: a :class:`dynunet.Diffusion`, a :class:`dynunet.Supervised` or any other.
        dataset: of training.

    Raises:
        ValueError, TypeError: the options do not fit the data; or the model makes new data, and its network
            cannot be told what was changed.
    """
    if augment is None or augment is False:
        return None
    augment = Augment() if augment is True else augment
    if not isinstance(augment, Augment):
        if not callable(augment):
            raise TypeError(f"augment must be an Augment, or a function of an example, got {augment!r}")
        return cast(Change, augment)
    n = len(example(dataset)["x0"].shape) - 1
    units = getattr(dataset, "units", None) or {}
    made = replace(augment, **_from_data(augment, model, units)).for_axes(n)
    check_changes(made, self_supervised_by(units))
    if made.tells:
        _check_told(getattr(model, "model", model), made.num_features(n))
    return made


def recorded(augment: Change | None) -> Any:
    """Options as JSON holds them; of any other function its name."""
    if augment is None or isinstance(augment, Augment):
        return plain(augment)
    return getattr(augment, "__qualname__", type(augment).__name__)


def _from_data(augment: Augment, model: Any, units: Mapping[str, Any]) -> dict[str, Any]:
    """What was left out, and follows from the model and the units of the data."""
    given = augment.given_channels
    if given is None:
        coordinates = units["spatial_dims"] if units.get("coordinates") else 0
        given = units["cond_channels"] - coordinates if units.get("restoration") else 0
    makes = "restoration" if given else "generation"
    task = augment.task or getattr(model, "task", makes if hasattr(model, "sample") else None)
    step = None if units.get("resize") else units.get("step")
    return {"task": task, "given_channels": given, "spacing": augment.spacing or step}


def _check_told(network: Any, wanted: int) -> None:
    """Refuse a network that is not told what was changed: its samples would look like changed data."""
    have = getattr(network, "cond_features", wanted if _takes_features(network) else None)
    if have != wanted:
        raise ValueError(
            f"the network must have cond_features={wanted} to be told how its data were changed, got {have}; "
            "without that (condition=False, --no-augment-condition) its samples look like changed data"
        )


def _takes_features(network: Any) -> bool:
    known = inspect.signature(getattr(network, "forward", network)).parameters
    return "features" in known or any(p.kind is p.VAR_KEYWORD for p in known.values())
