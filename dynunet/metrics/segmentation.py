"""Metrics of label maps, for any number of axes.

Predictions and targets are int64 ``(N, *spatial)`` with labels from 0 to ``classes - 1``, or, where labels do
not exclude each other, bool ``(N, classes, *spatial)``. A metric has one value per sample and class, ``(N,
classes)`` in float64 on the CPU, and is NaN where it is not defined, as Dice of a class that is in neither.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._devices import moved
from ..arguments import integer, number, positive

__all__ = [
    "average_surface_distance",
    "class_counts",
    "confusion_matrix",
    "dice",
    "hausdorff_distance",
    "iou",
    "sensitivity",
    "specificity",
]


def dice(prediction: Tensor, target: Tensor, classes: int, mask: Tensor | None = None) -> Tensor:
    r"""Dice coefficient ``2 |P and T| / (|P| + |T|)``; NaN for a class that is in neither.

    Args:
        prediction, target: label maps alike in shape.
        classes: number of classes.
        mask: bool, ``(N, *spatial)``, True where a position counts.

    Returns:
        ``(N, classes)``.

    >>> dice(torch.tensor([[0, 1, 1]]), torch.tensor([[0, 0, 1]]), 3)
    tensor([[0.6667, 0.6667,    nan]], dtype=torch.float64)
    """
    both, found, there, _ = _doubles(prediction, target, classes, mask)
    return 2 * both / (found + there)


def iou(prediction: Tensor, target: Tensor, classes: int, mask: Tensor | None = None) -> Tensor:
    """Intersection over union (Jaccard index) ``|P and T| / |P or T|``; arguments as of :func:`dice`."""
    both, found, there, _ = _doubles(prediction, target, classes, mask)
    return both / (found + there - both)


def sensitivity(prediction: Tensor, target: Tensor, classes: int, mask: Tensor | None = None) -> Tensor:
    """Share of a class that is found (recall), ``|P and T| / |T|``; arguments as of :func:`dice`."""
    both, _, there, _ = _doubles(prediction, target, classes, mask)
    return both / there


def specificity(prediction: Tensor, target: Tensor, classes: int, mask: Tensor | None = None) -> Tensor:
    """Share of the rest that is not taken for a class, ``|not P and not T| / |not T|``; see :func:`dice`."""
    both, found, there, total = _doubles(prediction, target, classes, mask)
    return (total - found - there + both) / (total - there)


def confusion_matrix(prediction: Tensor, target: Tensor, classes: int, mask: Tensor | None = None) -> Tensor:
    """How often each class was taken for each, over all samples.

    Args:
        prediction, target: label maps of classes that exclude each other.
        classes, mask: as of :func:`dice`.

    Returns:
        ``(classes, classes)`` int64, rows by the target and columns by the prediction.

    >>> confusion_matrix(torch.tensor([[0, 1, 1]]), torch.tensor([[0, 0, 1]]), 2)
    tensor([[1, 1],
            [0, 1]])
    """
    prediction, target, counted = _checked(prediction, target, classes, mask)
    if target.dtype == torch.bool:
        raise TypeError("target must have one label per position for a confusion matrix, got torch.bool")
    index = (target * classes + prediction)[counted]
    return torch.bincount(index, minlength=classes**2).view(classes, classes)


def hausdorff_distance(
    prediction: Tensor,
    target: Tensor,
    classes: int,
    *,
    spacing: float | Sequence[float] = 1.0,
    percentile: float = 95.0,
) -> Tensor:
    """Hausdorff distance of the surfaces: the farthest that one lies from the other, or nearly so.

    The greater of the percentiles of the distances from either surface to the other. A surface is made of the
    entries of a class that lie at the border or have a neighbour along an axis that is not of the class.

    Args:
        prediction, target, classes: as of :func:`dice`.
        spacing: of the entries, one number or one per axis; distances have its unit.
        percentile: of the distances, 100 for the farthest.

    Returns:
        ``(N, classes)``: NaN for a class that is in neither, infinite for one that is in one of them.
    """
    share = number(percentile, "percentile", 0, 100)
    return _by_distances(
        prediction,
        target,
        classes,
        spacing,
        lambda there, back: max(np.percentile(there, share), np.percentile(back, share)),
    )


def average_surface_distance(
    prediction: Tensor, target: Tensor, classes: int, *, spacing: float | Sequence[float] = 1.0
) -> Tensor:
    """Mean distance of the entries of either surface from the other; as :func:`hausdorff_distance`."""
    return _by_distances(
        prediction, target, classes, spacing, lambda there, back: np.concatenate([there, back]).mean()
    )


def _by_distances(
    prediction: Tensor,
    target: Tensor,
    classes: int,
    spacing: float | Sequence[float],
    figure: Callable[[Any, Any], Any],
) -> Tensor:
    prediction, target, counted = _checked(prediction, target, classes, None)
    n = counted.ndim - 1
    if n < 1:
        raise ValueError(f"target must have spatial axes for distances, got {tuple(target.shape)}")
    given = [spacing] * n if isinstance(spacing, (int, float)) else list(spacing)
    if len(given) != n:
        raise ValueError(f"spacing must be one number or one for each of the {n} axes, got {spacing!r}")
    steps = [positive(step, "spacing") for step in given]
    rows = [
        [_distance(_of_class(a, c), _of_class(b, c), steps, figure) for c in range(classes)]
        for a, b in zip(prediction.cpu().numpy(), target.cpu().numpy(), strict=True)
    ]
    return torch.tensor(rows, dtype=torch.float64).view(len(rows), classes)


def _distance(a: Any, b: Any, spacing: Sequence[float], figure: Callable[[Any, Any], Any]) -> float:
    ndimage = _ndimage()
    if not a.any() and not b.any():
        return float("nan")
    if not a.any() or not b.any():
        return float("inf")
    (box,) = ndimage.find_objects((a | b).astype(np.uint8))  # which has both, and all that is between them
    edges = [x[box] & ~ndimage.binary_erosion(x[box]) for x in (a, b)]
    to_a, to_b = (np.asarray(ndimage.distance_transform_edt(~edge, sampling=spacing)) for edge in edges)
    return float(figure(to_b[edges[0]], to_a[edges[1]]))


def _ndimage() -> Any:
    try:
        from scipy import ndimage
    except ImportError as error:
        raise ImportError("distances need the package scipy: pip install scipy") from error
    return ndimage


def _of_class(sample: Any, c: int) -> Any:
    """Where a sample has a class, of labels or of a bool for each class."""
    return sample[c] if sample.dtype == bool else sample == c


def class_counts(
    prediction: Tensor, target: Tensor, classes: int, mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Counts from which the overlaps are computed; they can be added over samples and batches.

    Args:
        prediction, target, classes, mask: as of :func:`dice`.

    Returns:
        Positions in both, predicted, and in the target, ``(N, classes)`` each, and of all that count,
        ``(N, 1)``: int64 on the device of ``target``.
    """
    prediction, target, counted = _checked(prediction, target, classes, mask)
    total = counted.unsqueeze(1).flatten(1).sum(1, keepdim=True)
    if target.dtype == torch.bool:
        found, there = (x & counted.unsqueeze(1) for x in (prediction, target))
        both, found, there = (x.unsqueeze(2).flatten(2).sum(2) for x in (found & there, found, there))
        return both, found, there, total
    right = counted & (prediction == target)
    both, there = (_tally(target, where, classes) for where in (right, counted))
    return both, _tally(prediction, counted, classes), there, total


def _tally(labels: Tensor, where: Tensor, classes: int) -> Tensor:
    """How often each label is at the given positions of each sample, ``(N, classes)``; others are ignored."""
    where = where & (labels >= 0) & (labels < classes)
    first = classes * torch.arange(len(labels), device=labels.device).view(-1, *(1,) * (labels.ndim - 1))
    index = torch.where(where, labels + first, 0).flatten()
    counts = torch.zeros(len(labels) * classes, dtype=torch.int64, device=labels.device)
    return counts.scatter_add(0, index, where.flatten().long()).view(-1, classes)


def _doubles(*arguments: Any) -> tuple[Tensor, ...]:
    """:func:`class_counts`, in float64 on the CPU: not every device has it."""
    return tuple(count.cpu().double() for count in class_counts(*arguments))


def _checked(prediction: Any, target: Any, classes: int, mask: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Both on the device of the target, and where they count."""
    classes = integer(classes, "classes")
    _check_alike(prediction, target, classes)
    prediction = moved(prediction, target.device)
    if target.dtype == torch.bool:
        return prediction, target, _counted(mask, target[:, 0])
    prediction, target = prediction.long(), target.long()
    counted = _counted(mask, target)
    if target.device.type == "cpu":  # elsewhere it would wait for the device
        _check_range(prediction[counted], classes, "prediction")
        _check_range(target[counted], classes, "target")
    return prediction, target, counted


def _check_alike(prediction: Any, target: Any, classes: int) -> None:
    """Refuse what are not two label maps, or two with a bool for each class."""
    _check_labels(prediction, "prediction")
    _check_labels(target, "target")
    several = target.dtype == torch.bool
    if prediction.shape != target.shape or (prediction.dtype == torch.bool) != several:
        raise ValueError(
            f"prediction must be like target, {target.dtype} {tuple(target.shape)}, "
            f"got {prediction.dtype} {tuple(prediction.shape)}"
        )
    if target.ndim < 1 + several or (several and target.shape[1] != classes):
        shape = "(N, classes, *spatial)" if several else "(N, *spatial)"
        raise ValueError(f"target must be {shape} with classes={classes}, got {tuple(target.shape)}")


def _check_labels(value: Any, name: str) -> None:
    if not isinstance(value, Tensor) or value.is_floating_point() or value.is_complex():
        got = f"dtype {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} must be a tensor of labels or of bools, got {got}")


def _counted(mask: Any, like: Tensor) -> Tensor:
    """The mask, True everywhere by default, on the device of a map of its shape."""
    if mask is None:
        return torch.ones_like(like, dtype=torch.bool)
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != like.shape:
        got = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"mask must be bool {tuple(like.shape)}, got {got}")
    return moved(mask, like.device)


def _check_range(labels: Tensor, classes: int, name: str) -> None:
    wrong = labels[(labels < 0) | (labels >= classes)].unique().tolist()
    if wrong:
        raise ValueError(f"{name} must have labels from 0 to {classes - 1} where it counts, got {wrong[:10]}")
