"""Of what a card speaks: the data of a model, and the run that trained it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..data.formats.format import times
from ..data.spec import DataSpec
from .words import listed, number

_NOISY = {
    "r2r": "Gaussian noise of known law (R2R)",
    "noise2void": "noise that is independent from entry to entry (Noise2Void)",
}
_KINDS = {"audio": "recordings", "images": "images", "volumes": "volumes", "arrays": "arrays"}


def kind_of(spec: DataSpec) -> str:
    """The data in a word."""
    return _KINDS.get(spec.kind, spec.kind)


def data_rows(spec: DataSpec, classes: Any = None) -> Iterator[tuple[str, str]]:
    """What the numbers of the data mean.

    Args:
        classes: of a model that predicts them, names or a mapping from names.
    """
    axes = "axis" if spec.spatial_dims == 1 else "axes"
    yield "data", f"{kind_of(spec)} with {spec.spatial_dims} spatial {axes}"
    yield "channels", str(spec.channels)
    how = "resized" if spec.resize else "crops or whole files"
    yield "size of an example", "" if spec.size is None else f"{times(spec.size)}, {how}"
    yield "sample rate", f"{spec.sample_rate} Hz" if spec.sample_rate else ""
    yield "spacing", "x".join(f"{step:g}" for step in spec.spacing or ())
    yield "stored as", spec.stored
    if spec.range is not None:
        low, high = map(number, spec.range)
        yield "values", f"{low} becomes -1 and {high} becomes 1"
    if spec.percentiles is not None and spec.kind == "volumes":
        low, high = map(number, spec.percentiles)
        yield "scale", f"of each file the percentiles {low} and {high} become -1 and 1"
    yield "missing values", spec.missing or ""
    yield "coordinates", "of every entry are given to the network" if spec.coordinates else ""
    yield "classes", listed(spec.classes or ())
    yield "restores", _restored(spec.restoration)
    if spec.learned is not None:
        yield "predicts", spec.learned.task
        yield "classes predicted", listed(classes or ())
        yield "columns predicted", listed(spec.learned.columns or ()) if not classes else ""


def _restored(how: Mapping[str, Any] | None) -> str:
    if how is None:
        return ""
    if how.get("pairs"):
        return "what was recorded in pairs, degraded and clean"
    if how.get("self_supervised"):
        return f"{_NOISY[how['self_supervised']]}, learned without clean examples"
    low, high = map(number, how.get("snr", (0, 0)))
    noises = [name for name, field in (("recorded", "noise"), ("coloured", "coloured")) if how.get(field)]
    return f"{' and '.join(noises)} noise, {low} to {high} dB"


def run_rows(run: Path) -> list[tuple[str, str]]:
    """How a run trained, and how good its model was on held-out data; nothing without its record.

    Args:
        run: its folder.
    """
    from ..training.folder import LOG  # which import this package
    from ..training.record import RUN, read_record
    from ..training.run import read_log

    try:
        record = read_record(run / RUN)
    except (OSError, ValueError):  # a model is saved whatever became of the record beside it
        return []
    for again in record.get("resumed", ()):  # says what was other than before
        record = {**record, **again}
    return [*_options(record), *_figures(read_log(run / LOG), record["options"])]


def _options(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    options, versions = record["options"], record["versions"]
    name, _, examples = record["dataset"].rpartition(" of ")
    yield "examples to train on", examples if name and examples.isdigit() else ""
    parts = [options.get(name, 1) for name in ("batch_size", "accumulate")]
    if all(isinstance(part, int) for part in parts):
        yield "examples in a step", str(parts[0] * parts[1] * record["processes"])
    for name, title in (("lr", "learning rate"), ("ema", "decay of the average of weights")):
        yield title, f"{options[name]:g}" if isinstance(options.get(name), float) else ""
    yield "seed", str(record["seed"])
    made = (f"{name} {versions[name]}" for name in ("dynunet", "torch") if versions.get(name))
    yield "with", f"{', '.join(made)} on {record['device'].partition(':')[0]}, {record['started'][:10]}"


def _figures(rows: list[dict[str, str]], options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if rows:
        yield "steps", f"{rows[-1]['step']} of {options.get('steps', rows[-1]['step'])}"
    for row in reversed(rows):
        found = {name: value for name, value in row.items() if name.startswith("validation_") and value}
        if found:
            for name, value in found.items():
                title = f"{name.removeprefix('validation_')} on held-out data"
                yield title, f"{number(float(value))} after step {row['step']}"
            return
