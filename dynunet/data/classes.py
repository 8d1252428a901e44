"""Classes: their names and values, from a JSON file or from the labels that there are."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..rules import read_json
from .errors import UnreadableError, shown
from .target_spec import Classes
from .values import greatest, resized

__all__ = ["IGNORED", "class_values", "names_of", "numbered", "one_hot_resized", "read_classes"]

IGNORED = -1  # the number of labels that do not count
_LISTED = 5  # labels that are named in an error


def read_classes(file: Path) -> tuple[Classes, int | None]:
    """The classes in a JSON file, and the value that is ignored, if it has one named ``ignore``.

    The file has an object of names and values, ``{"background": 0, "liver": 1}``, or of values and names, or
    a list of names; or such an object as its field ``labels``, as nnU-Net's and the Medical Segmentation
    Decathlon's ``dataset.json``.

    Raises:
        ValueError: naming the file, the rule and the value.
    """
    found = read_json(file)
    if isinstance(found, dict) and isinstance(found.get("labels"), (dict, list)):
        found = found["labels"]
    classes = _classes_of(found)
    ignored = classes.pop("ignore", None) if isinstance(classes, dict) else None
    values = list(class_values(classes))
    if not values or len(set(classes)) < len(values) or any(type(v) is not int for v in values):
        raise ValueError(
            f"class_names: {shown(file)} must have different names with a whole number each, such as "
            f'{{"background": 0, "liver": 1}}, got {found!r}'
        )
    if len(set(values)) < len(values):
        raise ValueError(f"class_names: {shown(file)} must have a different value for each name, got {found}")
    return classes, ignored


def _classes_of(found: Any) -> Any:
    """Names, or names and what should be their values; empty for what has neither."""
    if isinstance(found, list):
        return tuple(found) if all(isinstance(name, str) for name in found) else {}
    if not isinstance(found, dict):
        return {}
    if all(isinstance(name, str) for name in found.values()):
        return {name: _whole(value) for value, name in found.items()}
    return dict(found)


def _whole(text: str) -> int | None:
    return int(text) if text.lstrip("-").isdecimal() else None


def class_values(classes: Classes) -> tuple[int, ...]:
    """The values of the classes in label maps, in the order of their numbers."""
    return tuple(classes.values()) if isinstance(classes, Mapping) else tuple(range(len(classes)))


def names_of(values: Iterable[int]) -> dict[str, int]:
    """Classes whose names are their values, in order."""
    return {str(value): value for value in sorted(values)}


def numbered(labels: np.ndarray, classes: Classes, ignored: int | None) -> np.ndarray:
    """Labels as the numbers of their classes, int16; :data:`IGNORED` for what does not count.

    Raises:
        UnreadableError: a label is none of the classes.
    """
    values = np.array(class_values(classes), np.int64)
    order = np.argsort(values)
    labels = labels.astype(np.int64)
    at = np.minimum(np.searchsorted(values[order], labels), len(values) - 1)
    known = values[order][at] == labels
    unheeded = np.zeros_like(known) if ignored is None else labels == ignored
    if not (known | unheeded).all():
        wrong = np.unique(labels[~(known | unheeded)])
        more = ", ..." if len(wrong) > _LISTED else ""
        raise UnreadableError(
            f"it has the labels {', '.join(map(str, wrong[:_LISTED]))}{more}, which are none of the classes "
            f"{described(classes)}"
        )
    return np.where(unheeded, IGNORED, order[at]).astype(np.int16)


def described(classes: Classes) -> str:
    """The classes in words: names, and values where these are others."""
    if not isinstance(classes, Mapping):
        return ", ".join(classes)
    return ", ".join(name if name == str(value) else f"{name} ({value})" for name, value in classes.items())


def one_hot_resized(labels: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """Labels ``(1, *spatial)`` on a grid of other sizes: each is resized linearly, the greatest wins."""
    if labels.shape[1:] == sizes:
        return labels
    found = np.unique(labels)
    shares = (resized((labels == label).astype(np.float32), sizes) for label in found)
    return found[greatest(shares, (1, *sizes))]
