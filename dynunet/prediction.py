"""Files segmented, classified or regressed by a model that was trained on targets.

Maps have the grid of their file: outputs are resampled once, from the model's grid to the file's, class by
class, and the most probable class is chosen there. Labels are written in the files' own values. Labels and
values of whole examples are lines of a table.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import Module

from .data.channel_files import case_of
from .data.classes import class_values
from .data.errors import shown
from .data.files import stem
from .data.formats import Header
from .data.loading import load
from .data.maps import class_map, label_dtype, map_name, write_array, write_map
from .data.spec import DataSpec
from .data.target_spec import TargetSpec
from .data.targets import in_file_units
from .data.values import Scale, resized
from .result_table import ResultTable
from .results import Outcome, Results, is_made
from .runs import Sizes, batch_size, conditions, predictor, windows
from .supervised import Supervised

__all__ = ["Predictor", "predict"]

_TABLE = "predictions.csv"


def predict(
    model: Path | str | Supervised,
    source: Path | str,
    out: Path | str,
    *,
    window: Sizes = None,
    overlap: Sizes = None,
    mirror: bool = False,
    probabilities: bool = False,
    device: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Outcome:
    """Predict labels or values of files, as ``dynunet predict`` does.

    A file that cannot be read is named in the outcome, and the others are predicted. Results that are there
    are kept, so that the same call goes on where it was interrupted.

    Args:
        model: the folder of a run, or a model that was trained from files with targets.
        source: a file, or a folder with all below it.
        out: a folder for maps, with the names of the files, or for one file also the file to write. For whole
            examples a table, or a folder for one called ``predictions.csv``.
        window, overlap: of maps, as in :func:`dynunet.restoration.restore`.
        mirror: average over reflections along all axes.
        probabilities: write those of all classes, too, beside each label map: ``NAME-probabilities.npy``,
            float32 ``(classes, *shape)`` on the file's grid. A table always has them.
        device, overwrite, progress: as in :func:`dynunet.restoration.restore`.

    Raises:
        FileNotFoundError: there is no such source.
        ValueError, TypeError: naming the argument, the rule and the value received.
        dynunet.writing.DiskFull: at the first result that does not fit on the disk.
        KeyboardInterrupt: the message says what is done, which is kept.
    """
    use = Predictor.of(model, device, window, overlap, mirror, progress)
    if probabilities and not use.model.classes:
        raise ValueError("probabilities are of classes, and the model predicts values: leave it out")
    make = _maps if use.learned.maps else _table
    return make(use, Path(source), Path(out), probabilities, overwrite, progress)


@dataclass(frozen=True)
class Predictor:
    """A model that was trained on targets, and how it is used."""

    model: Supervised
    spec: DataSpec
    learned: TargetSpec
    how: dict[str, Any]

    @classmethod
    def of(
        cls,
        model: Path | str | Module,
        device: str | None,
        window: Sizes,
        overlap: Sizes,
        mirror: bool,
        progress: bool = False,
    ) -> "Predictor":
        supervised, spec = predictor(model, device)
        learned = spec.learned
        assert learned is not None
        if not learned.maps and (window is not None or overlap is not None):
            raise ValueError(f"window must be left out: the model predicts whole examples, got {window}")
        sizes = windows(spec, window, overlap) if learned.maps else {}
        return cls(supervised, spec, learned, {**sizes, "mirror": mirror, "progress": progress})

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.model.classes or ())

    @property
    def dtype(self) -> str:
        """The type that maps are stored in, of files of the model's kind."""
        if self.model.classes is not None:
            return label_dtype(class_values(self.model.classes), self.learned.stored, self.spec.kind)
        alike = self.learned.kind == self.spec.kind == "images"
        return self.learned.stored if alike else "float32"

    def outputs(self, path: Path) -> tuple[Header, list[np.ndarray], tuple[str, ...]]:
        """Probabilities or standardised values of each example of a file, and what of it is not seen."""
        loaded = load(path, self.spec)
        several = loaded.x.ndim == self.spec.spatial_dims + 2
        xs = loaded.x if several else loaded.x.unsqueeze(0)
        masks = loaded.mask if several or loaded.mask is None else loaded.mask.unsqueeze(0)
        size = 1 if self.learned.maps else batch_size(xs.shape[1:])
        found: list[np.ndarray] = []
        for n in range(0, len(xs), size):
            found += [*self._outputs(xs[n : n + size], None if masks is None else masks[n : n + size])]
        return loaded.source.header, found, loaded.lost

    def _outputs(self, x: Tensor, mask: Tensor | None) -> np.ndarray:
        options = {**self.how, **conditions(self.spec, x.shape), "mask": mask}
        classes = self.model.task != "regression"
        return self.model.predict(x, probabilities=classes, **options).numpy()

    def maps(self, output: np.ndarray, header: Header) -> np.ndarray:
        """Numbers of classes ``(1, *shape)``, or values ``(C, *shape)``, on the grid of a file."""
        if self.model.classes is not None:
            return class_map(output, header.shape)[None]
        values = Scale(*self.learned.scales[0]).to_file(output)
        return values if values.shape[1:] == header.shape else resized(values, header.shape)

    def cells(self, output: np.ndarray) -> list[str]:
        """The result for a whole example: the class and its probabilities, or values."""
        if self.model.classes is not None:
            return [self.names[int(output.argmax())], *(f"{p:.6g}" for p in output)]
        return [f"{value:.6g}" for value in self.values(output)]

    def values(self, output: np.ndarray) -> np.ndarray:
        """Those of a whole example, in the units of the table."""
        return in_file_units(self.learned, output)

    @property
    def columns(self) -> list[str]:
        """The names of :meth:`cells`."""
        if self.model.classes is not None:
            return ["label", *(f"p({name})" for name in self.names)]
        return list(self.learned.columns or ())


def _maps(
    use: Predictor, source: Path, out: Path, probabilities: bool, overwrite: bool, progress: bool
) -> Outcome:
    """Write a map for each file, and beside it probabilities if they are asked for."""
    classes = use.model.classes
    values = None if classes is None else np.array(class_values(classes))
    channels = 1 if classes is not None else use.learned.channels

    def files(to: Path) -> tuple[Path, ...]:
        return (to.with_name(f"{stem(to, to.parent)}-probabilities.npy"), to) if probabilities else (to,)

    def one(path: Path, to: Path) -> tuple[str, ...]:
        header, found, lost = use.outputs(path)
        made = np.stack([use.maps(output, header) for output in found])
        made = made if values is None else values[made]
        to.parent.mkdir(parents=True, exist_ok=True)
        for file in files(to):
            if file.is_file() and not overwrite:
                continue  # of a call that was interrupted, or asked for less
            if file == to:
                write_map(to, made, use.dtype, use.spec, header, overwrite)
            else:
                write_array(file, found if header.series else found[0], header, overwrite)
        return lost

    def there(path: Path, to: Path) -> bool:
        return all(is_made(path, file) for file in files(to))

    results = Results(
        source,
        out,
        "predicted",
        overwrite,
        lambda path: map_name(path, use.dtype, channels),
        progress=progress,
        channels=use.spec.channel_files,
    )
    return results.make(one, there)


def _table(
    use: Predictor, source: Path, out: Path, probabilities: bool, overwrite: bool, progress: bool
) -> Outcome:
    """Write lines of a table, which appears whole: what is done so far, now and then and in the end."""
    path = out if out.suffix.lower() == ".csv" else out / _TABLE
    names = use.spec.channel_files
    results = Results(source, path, "predicted", overwrite, progress=progress, lines=True, channels=names)
    table = ResultTable.at(path, ["file", *use.columns], overwrite)
    root = source if source.is_dir() else source.parent

    def one(file: Path, to: Path) -> tuple[str, ...]:
        header, found, lost = use.outputs(file)
        table.add(name(file), [use.cells(output) for output in found], header.series)
        return lost

    def name(file: Path) -> str:
        return shown(case_of(file.relative_to(root), names).as_posix())

    try:
        return results.make(one, lambda file, to: name(file) in table.files)
    finally:
        table.write()
