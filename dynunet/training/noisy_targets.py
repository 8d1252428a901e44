"""What can be learned where targets are noisy, see :mod:`dynunet.data.self_supervision`."""

from typing import Any

from ..data.augmentation import Augment
from ..diffusion import Bridge, Consistency
from ..diffusion.predictions import Sample

# What tells of the target's noise in what it is predicted from, or changes its mean; and what does so where
# noise has to be independent from entry to entry.
_NOT_OF_NOISE = ("gamma", "contrast")
_MIXING = ("rotation", "scale", "stretch", "shear", "shift", "elastic", "filter", "band_stop")


def check_model(model: Any, loss: Any, how: str | None) -> None:
    """Only the mean of noisy targets is that of clean ones, and only of a network that is not shown them.

    Args:
        model: that is trained.
        loss: of it.
        how: ``self_supervised`` of the data; None if their targets are clean.
    """
    if how is None:
        return
    if loss != "l2":
        raise ValueError(f"loss must be l2 with self_supervised={how!r}, got {loss!r}")
    if isinstance(model, Consistency):
        raise ValueError(f"model must be trained, and not distilled, with self_supervised={how!r}")
    config = getattr(model, "config", {})
    if isinstance(getattr(model, "schedule", None), Bridge):
        raise ValueError(
            f"schedule must be no bridge with self_supervised={how!r}, whose target the network would see, "
            f"got {config['schedule']!r}"
        )
    if not isinstance(getattr(model, "prediction", None), Sample):
        raise ValueError(
            f"prediction must be 'sample' with self_supervised={how!r}, got {config.get('prediction')!r}"
        )


def check_changes(augment: Augment, how: str | None) -> None:
    """Refuse changes after which a noisy target is no target."""
    wrong = {None: (), "noise2void": (*_NOT_OF_NOISE, *_MIXING)}.get(how, _NOT_OF_NOISE)
    for name in filter(augment.has, wrong):
        raise ValueError(
            f"augment must leave {name} out with self_supervised={how!r}: the noise of the target would no "
            f"longer be independent of what it is predicted from, got {getattr(augment, name)}"
        )
