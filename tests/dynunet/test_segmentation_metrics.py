"""Figures of label maps beside MONAI's, torchmetrics', SciPy's and plain definitions."""

from typing import Any

import numpy as np
import pytest
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.meandice import compute_dice
from monai.metrics.meaniou import compute_iou
from monai.metrics.surface_distance import compute_average_surface_distance
from scipy.spatial.distance import cdist
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_confusion_matrix,
    multiclass_recall,
    multiclass_specificity,
)

from dynunet.metrics import (
    average_surface_distance,
    confusion_matrix,
    dice,
    hausdorff_distance,
    iou,
    sensitivity,
    specificity,
)

CLASSES = 3
RANKS = (1, 2, 3, 4)


def maps(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 40) if n == 1 else (2, *range(5, 5 + n))
    target = torch.randint(CLASSES, shape, generator=generator)
    other = torch.randint(CLASSES, shape, generator=generator)
    return torch.where(torch.rand(shape, generator=generator) < 0.7, target, other), target


def one_hot(labels: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(labels, CLASSES).movedim(-1, 1)


@pytest.mark.parametrize("n", [2, 3])
def test_overlaps_are_monais(n: int) -> None:
    prediction, target = maps(n)
    hot: Any = one_hot(prediction), one_hot(target)
    torch.testing.assert_close(dice(prediction, target, CLASSES), compute_dice(*hot).double())
    torch.testing.assert_close(iou(prediction, target, CLASSES), compute_iou(*hot).double())


@pytest.mark.parametrize("n", RANKS)
def test_counts_are_torchmetrics(n: int) -> None:
    prediction, target = maps(n)
    matrix = multiclass_confusion_matrix(prediction, target, CLASSES)
    assert torch.equal(confusion_matrix(prediction, target, CLASSES), matrix)
    for ours, theirs in ((sensitivity, multiclass_recall), (specificity, multiclass_specificity)):
        rows = [theirs(p, t, CLASSES, average=None) for p, t in zip(prediction, target, strict=True)]
        torch.testing.assert_close(ours(prediction, target, CLASSES), torch.stack(rows).double())


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of MONAI about itself
@pytest.mark.parametrize("n", [2, 3])
def test_distances_are_monais(n: int) -> None:
    """Without a spacing, which makes MONAI take surfaces between the entries."""
    prediction, target = maps(n)
    hot: Any = one_hot(prediction), one_hot(target)
    expected = compute_hausdorff_distance(*hot, include_background=True, percentile=95).float()
    torch.testing.assert_close(hausdorff_distance(prediction, target, CLASSES).float(), expected)
    expected = compute_average_surface_distance(*hot, include_background=True, symmetric=True).float()
    torch.testing.assert_close(average_surface_distance(prediction, target, CLASSES).float(), expected)


@pytest.mark.parametrize("n", RANKS)
def test_distances_by_all_pairs(n: int) -> None:
    prediction, target = maps(n)
    spacing = (0.5, 2.0, 1.5, 1.0)[:n]

    def surface(x: Any) -> Any:
        inside = np.pad(x, 1)
        neighbours = [np.roll(inside, step, axis) for axis in range(n) for step in (-1, 1)]
        edge = inside & ~np.logical_and.reduce(neighbours)
        return (np.argwhere(edge) - 1) * spacing

    for c in range(CLASSES):
        for i in range(2):
            points = [surface((x[i] == c).numpy()) for x in (prediction, target)]
            pairs = cdist(*points)
            there, back = pairs.min(1), pairs.min(0)
            farthest = hausdorff_distance(prediction, target, CLASSES, spacing=spacing, percentile=100)
            assert farthest[i, c].item() == pytest.approx(max(there.max(), back.max()))
            mean = average_surface_distance(prediction, target, CLASSES, spacing=spacing)
            assert mean[i, c].item() == pytest.approx(np.concatenate([there, back]).mean())


FIGURES = (dice, iou, sensitivity, specificity, hausdorff_distance, average_surface_distance)


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("n", RANKS)
def test_laws(n: int, figure: Any) -> None:
    """An axis of one entry, labels as bools and another order of the axes change nothing."""
    prediction, target = maps(n)
    value = figure(prediction, target, CLASSES)
    assert value.shape == (2, CLASSES)
    hot = one_hot(prediction).bool(), one_hot(target).bool()
    torch.testing.assert_close(figure(*hot, CLASSES), value)
    swapped = figure(prediction.transpose(1, n), target.transpose(1, n), CLASSES)
    torch.testing.assert_close(swapped, value)
    if figure not in (hausdorff_distance, average_surface_distance):  # all of one slice is surface
        torch.testing.assert_close(figure(prediction.unsqueeze(1), target.unsqueeze(1), CLASSES), value)


@pytest.mark.parametrize("figure", FIGURES[:4])
def test_positions_that_do_not_count_have_no_influence(figure: Any) -> None:
    prediction, target = maps(2)
    mask = torch.rand(target.shape, generator=torch.Generator().manual_seed(1)) > 0.3
    expected = [
        figure(p[m][None], t[m][None], CLASSES) for p, t, m in zip(prediction, target, mask, strict=True)
    ]
    torch.testing.assert_close(figure(prediction, target, CLASSES, mask), torch.cat(expected))


def test_classes_that_are_not_there() -> None:
    prediction, target = torch.tensor([[0, 0, 1]]), torch.tensor([[0, 0, 0]])
    assert dice(prediction, target, 3)[0].tolist()[1:] == pytest.approx([0.0, float("nan")], nan_ok=True)
    distances = hausdorff_distance(prediction, target, 3)[0].tolist()
    assert distances[1:] == pytest.approx([float("inf"), float("nan")], nan_ok=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction": torch.zeros(2, 5)}, "prediction must be a tensor of labels"),
        ({"prediction": torch.zeros(2, 4, dtype=torch.long)}, "prediction must be like target"),
        ({"classes": 0}, "classes must be at least 1"),
        ({"mask": torch.ones(2, 5)}, "mask must be bool"),
        ({"target": [1]}, "target must be a tensor of labels"),
        (
            {"target": torch.full((2, 5), 2)},
            r"target must have labels from 0 to 1 .* got \[2\]",
        ),
        ({"prediction": torch.full((2, 5), -1)}, "prediction must have labels from 0 to 1"),
    ],
)
def test_bad_arguments_are_refused(change: dict[str, Any], message: str) -> None:
    labels = torch.zeros(2, 5, dtype=torch.long)
    arguments = {"prediction": labels, "target": labels, "classes": 2, "mask": None, **change}
    with pytest.raises((ValueError, TypeError), match=message):
        dice(**arguments)
    with pytest.raises(ValueError, match="spacing must be one number or one for each"):
        hausdorff_distance(labels, labels, 2, spacing=(1, 1))
