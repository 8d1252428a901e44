"""How a model is used: what kind it is, lines of Python, and a command."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from ..config import unwrapped
from ..data.spec import DataSpec
from ..diffusion import Diffusion
from ..nn.network import Network
from ..supervised import Supervised

_SIZE = 32  # of an example whose size nobody knows
_TASKS = {  # of the Hub, by what is done to which kind of data
    ("generation", "images"): "unconditional-image-generation",
    ("restoration", "images"): "image-to-image",
    ("restoration", "audio"): "audio-to-audio",
    ("segmentation", "images"): "image-segmentation",
    ("segmentation", "volumes"): "image-segmentation",
    ("classification", "images"): "image-classification",
    ("classification", "volumes"): "image-classification",
    ("classification", "audio"): "audio-classification",
}


class Use(NamedTuple):
    """Lines that use a model.

    Attributes:
        python: its lines.
        command: of the command line; none for a model that knows no files.
    """

    python: str
    command: str = ""


def network_of(model: Any) -> Any:
    """The network of this package that a model is, or is around; None if that is another one."""
    network = unwrapped(getattr(model, "model", model))
    return network if isinstance(network, Network) else None


def task_of(model: Any, spec: DataSpec | None) -> str:
    """What a model does in a word: generation, restoration, a task of Supervised; no word for a network."""
    if isinstance(model, Supervised):
        return model.task
    if isinstance(model, Diffusion):
        return "restoration" if spec is not None and spec.restoration is not None else "generation"
    return ""


def hub_task(model: Any, spec: DataSpec | None) -> str | None:
    """The Hub's name of what a model does, if it has one."""
    return _TASKS.get((task_of(model, spec), "" if spec is None else spec.kind))


def use(model: Any, spec: DataSpec | None, name: str) -> Use:
    """How a model is used.

    Args:
        name: of its folder or repository.
    """
    return _on_files(task_of(model, spec), name) if spec is not None else Use(_on_tensors(model, name))


def _on_files(task: str, name: str) -> Use:
    if task == "generation":
        python = f'from dynunet.generation import generate\n\ngenerate("{name}", "samples", num=16)'
        return Use(python, f"dynunet sample {name} --num 16 --out samples")
    module, function, command = ("prediction", "predict", "predict")
    if task == "restoration":
        module, function, command = "restoration", "restore", "denoise"
    python = f'from dynunet.{module} import {function}\n\n{function}("{name}", "files", "results")'
    return Use(python, f"dynunet {command} {name} files --out results")


def _on_tensors(model: Any, name: str) -> str:
    """On noise of the right shape."""
    kind = type(model).__name__
    home = "dynunet" if kind in ("Diffusion", "Supervised", "UNet", "Encoder") else type(model).__module__
    network = network_of(model)
    lines = [f"from {home} import {kind}", "", f'model = {kind}.from_pretrained("{name}")']
    if network is None:
        return "\n".join(lines)
    shape = (1, network.in_channels, *[_SIZE] * network.spatial_dims)
    given = [*_conditions(network, shape)]
    if isinstance(model, Diffusion):
        call = ", ".join([str(shape), *given])
        lines.append(f"samples = model.sample({call})")
    else:
        times = ["t=torch.rand(1)"] if network.time_embedding is not None else []
        call = ", ".join([f"torch.randn{shape}", *times, *given])
        function = "model.predict" if isinstance(model, Supervised) else "model"
        lines.append(f"y = {function}({call})")
    return "\n".join(["import torch"] * ("torch." in lines[-1]) + lines)


def _conditions(network: Network, shape: tuple[int, ...]) -> Iterator[str]:
    """Arguments that a network needs beside the data."""
    if network.num_classes is not None:
        yield "class_labels=torch.tensor([0])"
    if network.cond_channels:
        yield f"cond=torch.randn{(1, network.cond_channels, *shape[2:])}"
    if network.cond_features:
        yield f"features=torch.randn{(1, network.cond_features)}"
    if network.context_features is not None:
        yield f"context=torch.randn{(1, 1, network.context_features)}"
