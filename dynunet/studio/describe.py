"""What a network is, before anything is computed: what the Design tab shows of what is typed in."""

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass
from math import prod
from typing import Any

import torch

from ..arguments import integer
from ..cli.catalogue import Flag
from ..defaults import GENERATION, LABEL_MAPS, channels_for
from ..diffusion import Diffusion
from ..nn.encoder import Encoder
from ..nn.flags import as_call, as_flags, fields_to_type_in, flag_help, typed_in
from ..nn.unet import UNet
from ..planning.memory import training_memory
from ..runs import chosen_device, out_of_memory
from ..summary import Summary
from ..supervised import Supervised
from ..writing import amount

__all__ = ["NETWORKS", "Described", "describe", "memory_of", "network_flags", "usual"]

NETWORKS = {"UNet": UNet, "Encoder": Encoder}
_FIRST = ("spatial_dims", "in_channels")  # that have fields of their own
_STRIDES = {1: "4"}
_FEATURES = 10  # of an encoder, which has no default
# That dynunet train chooses by the data and the machine: where they are left blank, the line says them.
_CHOSEN = ("channels", "strides", *LABEL_MAPS, *GENERATION)


@dataclass(frozen=True)
class Described:
    """A network in words and numbers.

    Attributes:
        summary: its drawing and its parts.
        python: the line that builds it.
        command: the line that trains it.
        apart: options that the command line does not have, in words; empty if there are none.
    """

    summary: Summary
    python: str
    command: str
    apart: str


def network_flags(of: str) -> list[Flag]:
    """The options of a network as fields of a form, from their one specification."""
    found = []
    for option_field in fields_to_type_in(of):
        option, default = option_field.metadata["option"], option_field.default
        if option_field.name in _FIRST:
            continue
        several = bool(option.per) or isinstance(default, tuple)
        text = "" if default is MISSING else "none" if default is None else _text(default)
        kind = bool if isinstance(default, bool) and option.kind is bool else option.kind or str
        known = () if several else option.known
        found.append(Flag(option_field.name, "network", flag_help(option), kind, several, known, text, False))
    return found


def usual(spatial_dims: int, of: str = "UNet") -> dict[str, str]:
    """What ``dynunet train`` takes here for data of so many axes, to begin with."""
    gpu = chosen_device(None).type != "cpu"
    found: dict[str, Any] = {
        "channels": channels_for(spatial_dims, gpu),
        "strides": _STRIDES.get(spatial_dims, 2),
    }
    found |= {"time_embedding": True} if of == "UNet" else {"out_features": _FEATURES}
    found |= {} if gpu else GENERATION
    return {name: _text(value) for name, value in found.items()}


def describe(texts: Mapping[str, str], shape: Mapping[str, str]) -> Described:
    """What a network is and costs.

    Args:
        texts: by the name of the option, as they are typed in.
        shape: ``spatial_dims``, ``size``, ``in_channels`` and ``batch_size``, and ``of``, the class.

    Raises:
        ValueError, TypeError: naming the option, the rule and the value received, as the constructor does.
    """
    of, arguments = shape.get("of", "UNet"), typed_in(texts, shape.get("of", "UNet"))
    dims, channels, batch, size = _place(shape)
    with _on_meta():
        summary = NETWORKS[of](dims, channels, **arguments).summary((batch, channels, *size))
    known = [f.name for f in fields_to_type_in(of)]
    blanks = {name: _default(name, of) for name in _CHOSEN if not texts.get(name, "").strip()}
    flags = as_flags({name: text for name, text in {**blanks, **texts}.items() if name in known})
    axes = ["--spatial-dims", str(dims), "--size", *map(str, size)]
    targets = ["--targets", "TARGETS"] if of == "Encoder" else []
    command = ["dynunet", "train", "FOLDER", *axes, *targets, *flags]
    return Described(
        summary, as_call(of, (dims, channels), arguments), shlex.join(command), _apart(texts, of)
    )


def memory_of(texts: Mapping[str, str], shape: Mapping[str, str]) -> str:
    """The memory of a step of training, as ``dynunet plan`` estimates it, in words; see :func:`describe`."""
    of, arguments = shape.get("of", "UNet"), typed_in(texts, shape.get("of", "UNet"))
    dims, channels, batch, size = _place(shape)
    with _on_meta():
        network = NETWORKS[of](dims, channels, **arguments)
        if isinstance(network, Encoder) and network.spec.time_embedding:
            return ""  # it is of noisy data, and trained by whoever uses it
        found = training_memory(*_task(network, batch, channels, size), "gpu")
    return (
        f"{amount(found.tensors)} to train on {batch} at a time: {amount(found.state)} for the weights, the "
        f"moments of Adam and the average, {amount(found.tensors - found.state)} for all that passes"
    )


@contextmanager
def _on_meta() -> Iterator[None]:
    with out_of_memory("this network, with data of this size,"), torch.device("meta"):
        yield


def _place(shape: Mapping[str, str]) -> tuple[int, int, int, tuple[int, ...]]:
    """Numbers of axes and channels, the batch, and the sizes."""
    dims, channels, batch = (_whole(shape, name) for name in ("spatial_dims", "in_channels", "batch_size"))
    return dims, channels, batch, _sizes(shape.get("size", ""), dims)


def _task(network: Any, batch: int, channels: int, size: tuple[int, ...]) -> tuple[Any, dict[str, Any]]:
    """A model around the network and a batch for it: that of a diffusion model, if it takes a time."""
    given = {"x0": torch.empty(batch, channels, *size)}
    if network.spec.cond_channels:
        given["cond"] = torch.empty(batch, network.spec.cond_channels, *size)
    if network.spec.cond_features:
        given["features"] = torch.empty(batch, network.spec.cond_features)
    if network.spec.context_features:
        given["context"] = torch.empty(batch, 1, network.spec.context_features)
    if network.spec.num_classes is not None:
        given["class_labels"] = torch.empty(batch, dtype=torch.int64)
    if isinstance(network, Encoder):
        given["target"] = torch.empty(batch, network.out_features)
        return Supervised(network, "regression"), given
    if network.spec.time_embedding:
        return Diffusion(network), given
    given["target"] = torch.empty(batch, network.out_channels, *size)
    return Supervised(network, "regression"), given


def _apart(texts: Mapping[str, str], of: str) -> str:
    """Options that are chosen and are no flags: they follow from the data there, or are of Python alone."""
    alone = [
        f.name
        for f in fields_to_type_in(of)
        if f.metadata["option"].kind is None and f.name != "time_embedding" and texts.get(f.name, "").strip()
    ]
    return f"in Python alone, or by the data: {', '.join(alone)}" if alone else ""


def _default(name: str, of: str) -> str:
    defaults = {f.name: f.default for f in fields_to_type_in(of)}
    return _text(defaults[name]) if name in defaults else ""


def _text(value: Any) -> str:
    values = value if isinstance(value, (tuple, list)) else (value,)
    return " ".join(str(v).lower() if isinstance(v, bool) else f"{v}" for v in values)


def _whole(shape: Mapping[str, str], name: str) -> int:
    text = shape.get(name, "").strip()
    if not text.lstrip("-").isdecimal():
        raise ValueError(f"{name} must be a whole number, got {text!r}")
    return integer(int(text), name)


def _sizes(text: str, dims: int) -> tuple[int, ...]:
    words = text.split()
    if not words or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise ValueError(f"size must be whole numbers of at least 1, got {text!r}")
    sizes = tuple(map(int, words)) * (dims if len(words) == 1 else 1)
    if len(sizes) != dims:
        raise ValueError(f"size must be one number or {dims}, got {text!r}")
    if prod(sizes) >= 2**48:
        raise ValueError(f"size must be of fewer than 2^48 entries, got {text!r}")
    return sizes
