"""The text of a card."""

from pathlib import Path
from typing import Any

from ..data.spec import DataSpec
from ..summary import drawing
from .facts import data_rows, kind_of, run_rows
from .owner import sealed
from .uses import hub_task, network_of, task_of, use
from .words import plain, table

_FOLDER = "FOLDER"  # in place of a name
_DOES = {
    "generation": "makes {}",
    "restoration": "restores {}",
    "segmentation": "segments {}",
    "classification": "classifies {}",
    "regression": "predicts numbers of {}",
}


def card(model: Any, *, name: str | None = None, license: str | None = None, run: Path | None = None) -> str:
    """The card of a model.

    Args:
        model: a network, or a model around one.
        name: of its repository on the Hub, if that is known.
        license: that the card names; by default none.
        run: folder of the run whose weights the model has, if there is one.
    """
    spec = _spec(model)
    parts = [
        _head(model, spec, license),
        f"# {plain((name or type(model).__name__).rpartition('/')[2])}",
        _about(model, spec),
        *_network(model),
        *_data(model, spec),
        *_training(run),
        *_use(model, spec, name),
    ]
    return sealed("\n\n".join(parts) + "\n")


def _spec(model: Any) -> DataSpec | None:
    """That of the files that a model was trained on; its ``data`` may be somebody else's words."""
    try:
        return DataSpec.of(model.data)
    except (AttributeError, TypeError, ValueError):
        return None


def _head(model: Any, spec: DataSpec | None, license: str | None) -> str:
    """Fields that the Hub reads."""
    task, network = hub_task(model, spec), network_of(model)
    lines = ["library_name: dynunet"]
    lines += [] if license is None else [f"license: {license}"]
    lines += [] if task is None else [f"pipeline_tag: {task}"]
    tags = ["dynunet", *filter(None, [task_of(model, spec)])]
    if network is not None:
        tags += [type(network).__name__.lower(), f"{network.spatial_dims}d"]
    if task_of(model, spec) in ("generation", "restoration"):
        tags.append("diffusion")
    return "\n".join(["---", *lines, "tags:", *(f"- {tag}" for tag in tags), "---"])


def _about(model: Any, spec: DataSpec | None) -> str:
    task = task_of(model, spec)
    does = _DOES[task].format("data" if spec is None else kind_of(spec)) if task else ""
    return f"A model of dynunet (`{type(model).__name__}`){f' that {does}' if does else ''}."


def _network(model: Any) -> list[str]:
    network = network_of(model)
    count = sum(p.numel() for p in model.parameters())
    drawn = [f"```\n{drawing(network)}\n```"] if network is not None else []
    return ["## The network", *drawn, f"{count:,} parameters. `config.json` has all options."]


def _data(model: Any, spec: DataSpec | None) -> list[str]:
    if spec is None:
        return ["## Data", "What it was trained on was not recorded."]
    return ["## Data", table(data_rows(spec, getattr(model, "classes", None)))]


def _training(run: Path | None) -> list[str]:
    rows = [] if run is None else run_rows(run)
    return ["## Training", table(rows)] if rows else []


def _use(model: Any, spec: DataSpec | None, name: str | None) -> list[str]:
    found = use(model, spec, name or _FOLDER)
    parts = ["## Use", f"```python\n{found.python}\n```"]
    if found.command:
        parts += ["or at the prompt", f"```sh\n{found.command}\n```"]
    if name is None:
        parts.append(f"`{_FOLDER}` is the folder of this file, or the name of its repository on the Hub.")
    return [*parts, "The weights are safetensors and the options JSON: nothing in them is run."]
