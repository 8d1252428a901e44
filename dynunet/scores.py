"""How good the predictions for files are, beside their targets: overlaps of classes, accuracy, errors.

Files are predicted whole, as ``dynunet predict`` does, and compared on their own grid. A figure of a class is
its mean over the files in which it is defined: Dice and IoU of a class that is in neither the target nor the
prediction of a file are NaN there, and NaN in all if it is in none. So is the distance of surfaces of a class
that is not in both.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .data.dataset import FolderDataset
from .data.errors import count, shown
from .metrics.segmentation import class_counts, confusion_matrix, hausdorff_distance
from .prediction import Predictor
from .progress import Bar

__all__ = ["Scores", "score"]


@dataclass(frozen=True)
class Scores:
    """Figures of quality of predictions.

    Attributes:
        figures: by name, such as ``Dice liver``, ``Dice`` (the mean over classes but the background),
            ``HD95 liver``, ``accuracy``, ``MAE`` and ``RMSE``.
        rows: of a table of figures, with its names of columns first.
        files: lines for each file, with their names of columns first.
    """

    figures: dict[str, float]
    rows: list[list[str]]
    files: list[list[str]]


def score(use: Predictor, dataset: FolderDataset, numbers: Sequence[int], distances: bool = False) -> Scores:
    """Compare predictions with targets.

    Args:
        use: the model.
        dataset: files with targets, read as the model learned them.
        numbers: of the examples to predict.
        distances: of label maps the Hausdorff distance, too, at 95 %.

    Raises:
        ValueError: distances are of label maps, and there are none.
        ImportError: SciPy is missing, which computes them.
    """
    if distances and (use.model.task != "segmentation" or not use.learned.maps):
        raise ValueError("distances are of label maps, which the model does not predict: leave it out")
    examples = _examples(use, dataset, numbers)
    if use.model.task == "regression":
        return _errors(use, examples)
    return _overlaps(use, examples, distances) if use.learned.maps else _hits(use, examples)


def _examples(
    use: Predictor, dataset: FolderDataset, numbers: Sequence[int]
) -> Iterator[tuple[str, Any, np.ndarray, np.ndarray]]:
    """Name, header, output of the network and target of each example; a file of several is read once."""
    last: tuple[Path, Any, list[np.ndarray]] | None = None
    for number in Bar(numbers, desc="predicting", leave=False):
        path, place, target = dataset.truth(number)
        if last is None or last[0] != path:
            header, outputs, _ = use.outputs(path)
            last = path, header, outputs
        name = shown(path) + (f"[{place}]" if last[1].series else "")
        yield name, last[1], last[2][place], target


def _overlaps(
    use: Predictor, examples: Iterator[tuple[str, Any, np.ndarray, np.ndarray]], distances: bool
) -> Scores:
    """Dice and IoU of each class, and with distances how far its surfaces lie from those of the target."""
    classes, figures_of_files = use.names, []
    kinds = {"dice": "Dice", "iou": "IoU"} | ({"hd95": "HD95"} if distances else {})
    files = [["file", "class", *kinds, "predicted", "present"]]
    for name, header, output, target in examples:
        prediction, truth = (torch.from_numpy(x.astype(np.int64)) for x in (use.maps(output, header), target))
        counts = class_counts(prediction, truth.clamp(min=0), len(classes), truth >= 0)[:3]
        both, found, present = (part[0].double() for part in counts)
        parts = [2 * both / (found + present), both / (found + present - both)]
        parts += [_distances(prediction, truth, len(classes), header)] if distances else []
        figures_of_files.append(torch.stack([*parts, present]))
        files += [
            [name, each, *(_text(part[i]) for part in parts), f"{found[i]:.0f}", f"{present[i]:.0f}"]
            for i, each in enumerate(classes)
        ]
    *parts, present = torch.stack(figures_of_files, 1)
    first = 0 if use.model.include_background or len(classes) == 1 else 1
    means = dict(zip(kinds.values(), (part.nanmean(0) for part in parts), strict=True))
    figures, rows = {}, [["class", *means, *["HD95 of"] * distances, "files with it"]]
    for i, each in enumerate(classes):
        figures |= {f"{kind} {each}": float(mean[i]) for kind, mean in means.items()}
        cells = [_text(mean[i]) for mean in means.values()]
        cells += [_of(parts[-1][:, i].isfinite())] if distances else []
        rows.append([each, *cells, _of(present[:, i] > 0)])
    figures |= {kind: float(mean[first:].nanmean()) for kind, mean in means.items()}
    without = f"mean without {classes[0]}" if first else "mean"
    rows.append([without, *(_text(figures[kind]) for kind in means), *[""] * (1 + distances)])
    return Scores(figures, rows, files)


def _distances(prediction: torch.Tensor, truth: torch.Tensor, classes: int, header: Any) -> torch.Tensor:
    """Hausdorff distances at 95 %, in the unit of the file's spacing; without one, in entries."""
    prediction, truth = (torch.where(truth >= 0, x, classes) for x in (prediction, truth))
    steps = [step if step > 0 else 1.0 for step in header.spacing or (1.0,) * len(header.shape)]
    found = hausdorff_distance(prediction, truth, classes + 1, spacing=steps)[0, :classes]
    return torch.where(found.isfinite(), found, torch.nan)


def _hits(use: Predictor, examples: Iterator[tuple[str, Any, np.ndarray, np.ndarray]]) -> Scores:
    """Accuracy, and how much of each class is found."""
    classes = use.names
    files = [["file", "target", *use.columns]]
    predictions, truths = [], []
    for name, _, output, target in examples:
        predictions.append(int(output.argmax()))
        truths.append(int(target))
        files.append([name, classes[int(target)], *use.cells(output)])
    confusion = confusion_matrix(torch.tensor(predictions), torch.tensor(truths), len(classes)).numpy()
    right, present, given = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    with np.errstate(invalid="ignore"):
        recall, precision = right / present, right / given
    accuracy = float(right.sum() / present.sum())
    figures = {"accuracy": accuracy} | {f"recall {n}": float(r) for n, r in zip(classes, recall, strict=True)}
    figures |= {f"precision {n}": float(p) for n, p in zip(classes, precision, strict=True)}
    rows = [["class", "recall", "precision", "examples"]]
    rows += [
        [n, _text(r), _text(p), str(k)]
        for n, r, p, k in zip(classes, recall, precision, present, strict=True)
    ]
    rows.append(
        ["accuracy", f"{accuracy:.4f}", "", f"{right.sum()} of {count(int(present.sum()), 'example')}"]
    )
    return Scores(figures, rows, files)


def _errors(use: Predictor, examples: Iterator[tuple[str, Any, np.ndarray, np.ndarray]]) -> Scores:
    """Errors of values, in the units of the files; entries that are missing in a target do not count."""
    columns = list(use.learned.columns or ["value"])
    files = [["file", *(f"{kind} {c}" for c in columns for kind in ("target", "predicted"))]]
    if use.learned.maps:
        files = [["file", "MAE", "RMSE"]]
    sums = np.zeros((3, len(columns)))  # number, absolute and squared errors
    for name, header, output, target in examples:
        found = use.maps(output, header) if use.learned.maps else use.values(output)
        if found.shape != target.shape:
            raise ValueError(f"targets must have {found.shape[0]} channels, got {target.shape[0]} for {name}")
        error = np.where(np.isnan(target), np.nan, found - target).reshape(len(columns), -1)
        number = np.isfinite(error).sum(1)
        squares, absolute = np.nansum(error**2, 1), np.nansum(np.abs(error), 1)
        sums += number, absolute, squares
        if use.learned.maps:
            each = max(int(number[0]), 1)
            files.append([name, f"{absolute[0] / each:.6g}", f"{(squares[0] / each) ** 0.5:.6g}"])
        else:
            files.append([name, *(f"{v:.6g}" for pair in zip(target, found, strict=True) for v in pair)])
    return Scores(*_mean_errors(columns, sums), files)


def _mean_errors(columns: Sequence[str], sums: np.ndarray) -> tuple[dict[str, float], list[list[str]]]:
    """Figures and rows of the table, from the number, absolute and squared errors of each column."""
    with np.errstate(invalid="ignore"):
        mean, root = sums[1] / sums[0], (sums[2] / sums[0]) ** 0.5
    figures: dict[str, float] = {}
    rows = [["", "MAE", "RMSE", "values"]]
    for i, column in enumerate(columns):
        title = f" {column}" if len(columns) > 1 else ""
        figures |= {f"MAE{title}": float(mean[i]), f"RMSE{title}": float(root[i])}
        rows.append([column, f"{mean[i]:.5g}", f"{root[i]:.5g}", f"{sums[0, i]:.0f}"])
    return figures, rows


def _of(which: torch.Tensor) -> str:
    return f"{int(which.sum())} of {len(which)}"


def _text(value: Any) -> str:
    return f"{float(value):.4f}"
