"""The folder of an exported model: the program of its network, what it does with it, and a runner."""

import json
import os
from pathlib import Path
from shutil import copyfile
from typing import Any

from ..arguments import check_counts, choice
from ..checkpoints import load
from ..data.errors import shown
from ..diffusion import Diffusion
from ..hub import run_folder
from ..jsonable import plain
from ..runs import averaged
from ..supervised import Supervised
from ..writing import making
from .about import about
from .network import FILES, check, inputs, needed, standalone, write

__all__ = ["export"]

ABOUT, RUNNER = "export.json", "run.py"
_OWN = frozenset({*FILES.values(), FILES["onnx"] + ".data", ABOUT, RUNNER})


def export(
    model: Path | str | Diffusion | Supervised,
    folder: Path | str,
    to: str = "onnx",
    *,
    steps: int | None = None,
    spacing: str = "uniform",
    length: float | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a model as a program that needs none of this package.

    Args:
        model: the folder of a run, ``"owner/name"`` of one on the Hub, or a model, on any device. Its network
            is a :class:`dynunet.UNet` or a :class:`dynunet.Encoder`; it is exported in float32, for any batch
            and sizes.
        folder: for the files, a new or an empty one.
        to: ``"onnx"``, with a runner, or ``"torch"``, an archive of :func:`torch.export.save`.
        steps, spacing: of the sampler, see :meth:`dynunet.Diffusion.sample`. By default 20 steps, 1 of a
            model that restores (20 if it predicts the noise), and its own of a model of few steps.
        length: of the average of the weights, for a run with several, see :func:`dynunet.average`.
        overwrite: replace a model that was exported to the folder before.

    Returns:
        The folder, with ``model.onnx`` or ``model.pt2``, ``export.json`` and, for ONNX, ``run.py``.

    Raises:
        ValueError, TypeError: naming the argument or the option of the network, the rule and the value
            received; or the program does not give what the network gives.
        ImportError: a package is not installed that writes or runs ONNX.
    """
    folder = Path(folder)
    choice(to, tuple(FILES), "to")
    check_counts(steps=steps)
    found = averaged(model, length, "cpu")
    found = load(run_folder(found)) if isinstance(found, (str, Path)) else found
    _check_model(found, steps)
    network = check(found.model)
    _check_folder(folder, overwrite)
    needed(to)
    document = about(found, inputs(network), FILES[to], steps, spacing)
    place = folder.with_name(f".tmp-{os.getpid()}-{folder.name}")
    needs = sum(p.numel() * 4 for p in network.parameters())
    with making(folder, place, needs):
        document["outputs"] = write(standalone(network), to, place)
        text = json.dumps(plain(document), indent=1, ensure_ascii=False)
        (place / ABOUT).write_text(text + "\n", encoding="utf-8")
        if to == "onnx":
            copyfile(Path(__file__).with_name(RUNNER), place / RUNNER)
        _remove(folder)
    return folder


def _check_model(model: Any, steps: int | None) -> None:
    if not isinstance(model, (Diffusion, Supervised)):
        raise TypeError(f"model must be a Diffusion or a Supervised, got a {type(model).__name__}")
    if isinstance(model, Supervised) and steps is not None:
        raise ValueError(f"steps must be left out: the model predicts and is not sampled, got {steps}")


def _check_folder(folder: Path, overwrite: bool) -> None:
    """Refuse a folder with anything else than an exported model, which is replaced if that is asked for."""
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise ValueError(f"folder must be a new or empty folder, got {shown(folder)}, which is none")
    found = sorted(path.name for path in folder.iterdir())
    foreign = [name for name in found if name not in _OWN]
    if foreign:
        raise ValueError(f"folder must be new or empty, got {shown(folder)} with {shown(foreign[0])}")
    if found and not overwrite:
        raise FileExistsError(
            f"folder: {shown(folder)} holds an exported model; choose another folder or give overwrite=True"
        )


def _remove(folder: Path) -> None:
    """Remove an empty folder, or what was exported to it."""
    if folder.is_dir():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
