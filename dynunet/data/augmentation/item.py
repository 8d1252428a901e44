"""An example in which everything that has places moves alike, and values change."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from . import geometry, values
from .options import Augment

_PLACES = ("x0", "cond", "mask", "target")  # entries that may have places


def num_features(options: Augment, n: int) -> int:
    """How many parameters the changes of an example have, by the options for n axes."""
    return geometry.num_features(options) + values.num_features(options, n)


def augmented(example: Mapping[str, Any], augment: Augment) -> dict[str, Any]:
    """A changed copy of an example, see :class:`dynunet.data.Augment`."""
    item = _tensors(example)
    x = item["x0"]
    options = augment.for_axes(x.ndim - 1)
    move, parameters = geometry.draw(options, tuple(x.shape[1:]))
    item |= _masked(item, options)
    if move is not None:
        item |= _moved(item, move)
    changed, more = _with_other_values(item, options)
    item |= changed
    if options.tells:
        if item.get("features") is not None:
            raise ValueError(
                "features must be left out of examples: with condition=True they say what changed"
            )
        item["features"] = x.new_tensor([*parameters, *more])
    return item


def _tensors(example: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with a tensor for everything that may have places; ``x0`` must be one that can be changed."""
    item = dict(example)
    item |= {name: torch.as_tensor(item[name]) for name in _PLACES if item.get(name) is not None}
    x = item.get("x0")
    if x is None or x.ndim < 2 or not x.is_floating_point():
        got = "none" if x is None else f"{x.dtype} of shape {tuple(x.shape)}"
        raise ValueError(f"x0 must be floating-point (C, *spatial) to be augmented, got {got}")
    return item


def _with_other_values(item: Mapping[str, Any], options: Augment) -> tuple[dict[str, Tensor], list[float]]:
    """``x0`` and what is given of it in ``cond``, with other values; and the parameters of the change."""
    x, there = item["x0"], item.get("mask")
    there = None if there is None or bool(there.all()) else there.expand_as(x)
    cond, count = item.get("cond"), options.given_channels or 0
    given = None if cond is None or count == 0 else cond[:count]
    x, changed, parameters = values.changed(options, x, given, there)
    if cond is None or changed is None or changed is given:
        return {"x0": x}, parameters
    return {"x0": x, "cond": torch.cat([changed, cond[count:]])}, parameters


def _masked(item: Mapping[str, Any], options: Augment) -> dict[str, Tensor]:
    """The mask, with all spatial axes; one of its own where what comes in is missing."""
    mask, sizes = item.get("mask"), item["x0"].shape[1:]
    if mask is not None:
        return {"mask": mask.expand(mask.shape[0], *sizes)}
    made = item["x0"].new_ones((1, *sizes), dtype=torch.bool)
    return {"mask": made} if "missing" in options.padding else {}


def _moved(item: Mapping[str, Any], move: geometry.Move) -> dict[str, Tensor]:
    """Everything that has places, moved."""
    x, mask, cond, target = item["x0"], item.get("mask"), item.get("cond"), item.get("target")
    if mask is not None and mask.all() and "missing" not in move.options.padding:
        mask = None  # and stays so
    moved = {"x0": move.values(x, None if mask is None else mask.expand_as(x))}
    if mask is not None:
        moved["mask"] = move.flags(mask)
    if cond is not None:
        moved["cond"] = move.values(cond)
    if target is not None and target.ndim >= x.ndim - 1:
        moved["target"] = _moved_target(target, x.ndim, move)
    return moved


def _moved_target(target: Tensor, axes: int, move: geometry.Move) -> Tensor:
    if target.is_floating_point():
        if target.ndim < axes:  # values to regress, without places
            return target
        there = ~target.isnan()
        moved = move.values(target, there)
        return moved.masked_fill(~move.flags(there), torch.nan)
    channels = target if target.ndim == axes else target[None]
    moved = move.flags(channels) if target.dtype == torch.bool else move.labels(channels)
    return moved if target.ndim == axes else moved[0]
