"""Images for the examples: digits, clothes or a user's own; judged, and drawn beside real ones."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from _runs import debian
from einops import rearrange
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.neural_network import MLPClassifier
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from dynunet.data import FolderDataset, find
from dynunet.metrics import frechet_distance
from dynunet.plotting import image_grid

FASHION = "usr/share/datasets/fashion-mnist"
JUDGED = 5000  # real images at most that train the classifier, and as many held-out ones to compare with


class Images(NamedTuple):
    """Images ``(N, C, H, W)`` in [-1, 1]; if they have classes, labels ``(N,)`` and the classes' names."""

    x: Tensor
    labels: Tensor | None
    names: tuple[str, ...] | None

    @classmethod
    def of(cls, dataset: Any) -> "Images":
        """Up to so many of a dataset, picked at random, always the same."""
        some = np.random.default_rng(0).permutation(len(dataset))[:JUDGED].tolist()
        if isinstance(dataset, TensorDataset):
            x, labels = dataset[some]
            return cls(x, labels, tuple(map(str, range(int(dataset.tensors[1].max()) + 1))))
        items = [dataset[i] for i in some]
        names = dataset.units["classes"]
        labels = torch.stack([item["class_labels"] for item in items]) if names else None
        return cls(torch.stack([item["x0"] for item in items]), labels, tuple(names) if names else None)

    @property
    def classes(self) -> int | None:
        return None if self.names is None else len(self.names)


def image_sets(data: Path | None, size: int | None) -> tuple[Dataset[Any], Dataset[Any]]:
    """Training images and held-out ones, of what an example was asked for with ``--data``."""
    if data is None or data.suffix == ".npz":
        images, labels = load_images(data)
        half = len(images) // 2
        return TensorDataset(images[:half], labels[:half]), TensorDataset(images[half:], labels[half:])
    fashion = data == Path("fashion-mnist") and not data.exists()
    folder = debian(FASHION, packages="dataset-fashion-mnist", data=None if fashion else data)
    inside = any(idx in path.name for idx in ("ubyte", "_batch") for path in find(folder))
    nested = folder.is_dir() and any(path.is_dir() for path in folder.iterdir())
    resized: dict[str, Any] = {} if size is None else {"size": (size,), "resize": True}
    dataset = FolderDataset(folder, 2, labels="file" if inside else "folder" if nested else None, **resized)
    print(dataset.report())
    held_out = dataset.validation()
    if held_out is None or min(len(dataset), len(held_out)) < 2:
        raise SystemExit(f"--data: {folder} has too few images to hold some out: {len(dataset)}")
    return dataset, held_out


def load_images(path: Path | None) -> tuple[Tensor, Tensor]:
    """Images ``(N, 1, H, W)`` scaled to [-1, 1] and labels ``(N,)``, in a fixed random order."""
    if path is None:
        images, labels = load_digits(return_X_y=True)
        images = images.reshape(-1, 8, 8)
    elif not path.is_file():
        raise SystemExit(f"--data: looked for an .npz file with `images` and `labels` at {path}: none there")
    else:
        with np.load(path) as file:
            if not {"images", "labels"} <= set(file.files):
                raise SystemExit(f"--data: {path} must hold `images` and `labels`, it holds {file.files}")
            images, labels = file["images"], file["labels"]
    if images.ndim != 3 or labels.shape != images.shape[:1] or len(images) < 20:
        raise SystemExit(
            "--data: images must be (N, H, W) and labels (N,) with N at least 20, got shapes "
            f"{images.shape} and {labels.shape}"
        )
    order = np.random.default_rng(0).permutation(len(images))
    low, high = float(images.min()), float(images.max())
    scaled = torch.tensor((images[order] - low) / (high - low) * 2 - 1, dtype=torch.float32)
    return scaled.unsqueeze(1), torch.tensor(labels[order], dtype=torch.int64)


class Judge:
    """Says of samples whether they are of their class, and how far from real images.

    Its features are the hidden units of a classifier, trained on the real images alone; principal components
    where there are no classes.

    Args:
        train, held_out: real images.
    """

    def __init__(self, train: Images, held_out: Images) -> None:
        self.train, self.held_out = train, held_out
        if train.labels is None or held_out.labels is None:
            self.space, self.classifier = "the space of their principal components", None
            pixels = _pixels(train.x)
            self.features: Any = PCA(min(64, *pixels.shape)).fit(pixels).transform
        else:
            self.space, self.classifier = "its feature space", classifier_of(train.x, train.labels)
            self.features = partial(_hidden_units, self.classifier)
        self.floor = self.frechet(train.x)

    def frechet(self, samples: Tensor) -> float:
        """The Fréchet distance of samples ``(N, C, H, W)`` to held-out images."""
        a, b = (torch.from_numpy(self.features(_pixels(x)).astype(float)) for x in (samples, self.held_out.x))
        return frechet_distance(a, b)

    def agreement(self, samples: Tensor, asked: Tensor) -> float:
        """The share of samples that are of the class that was asked for, ``(N,)``."""
        return right(self.classifier, samples, asked)


def _pixels(x: Tensor) -> np.ndarray:
    return x.flatten(1).numpy()


def classifier_of(x: Tensor, labels: Tensor) -> MLPClassifier:
    """A classifier trained on images ``(N, C, H, W)`` of classes ``(N,)``."""
    classifier = MLPClassifier((64,), alpha=1e-3, max_iter=400, random_state=0)
    return classifier.fit(_pixels(x), labels.numpy())


def right(classifier: Any, x: Tensor, labels: Tensor) -> float:
    """The share of images that a classifier takes for what they are."""
    return float(np.mean(classifier.predict(_pixels(x)) == labels.numpy()))


def judge(samples: Tensor, asked: Tensor | None, train: Images, held_out: Images) -> dict[str, str]:
    """Print and return what is to be said of samples: whether they are of their class, and how far off.

    Args:
        samples: ``(N, C, H, W)``.
        asked: the classes they were asked to be of, ``(N,)``, None without classes.
        train, held_out: real images.
    """
    figures: dict[str, str] = {}
    of = Judge(train, held_out)
    if asked is not None and held_out.labels is not None and of.classifier is not None:
        accuracy, agreement = right(of.classifier, held_out.x, held_out.labels), of.agreement(samples, asked)
        figures["agreement"] = f"{agreement:.3f}"
        print(f"\nA classifier trained on real images ({accuracy:.1%} right on held-out ones) finds")
        print(f"{agreement:.1%} of {len(samples)} samples to be of the class that was asked for.")
    distance, floor = of.frechet(samples), of.floor
    print(f"In {of.space} the Fréchet distance of samples to held-out images is {distance:.3f},")
    print(f"{distance / floor:.1f} times that of training images to held-out ones ({floor:.3f}).\n")
    return figures | {"frechet": f"{distance:.3f}", "floor": f"{floor:.3f}"}


def _hidden_units(classifier: MLPClassifier, x: np.ndarray) -> np.ndarray:
    return np.maximum(x.astype(float) @ classifier.coefs_[0] + classifier.intercepts_[0], 0)


def draw_samples(path: Path, samples: Tensor, train: Images, held_out: Images) -> None:
    """A row for each class: held-out images, then samples, each beside the nearest training image.

    Args:
        path: the file to write.
        samples: ``(rows, columns, C, H, W)``.
        train, held_out: real images.
    """
    rows = []
    for row, made in enumerate(samples):
        nearest = train.x[torch.cdist(made.flatten(1), train.x.flatten(1)).argmin(1)]
        real = held_out.x[5 * row :] if held_out.labels is None else held_out.x[held_out.labels == row]
        blank = made.new_full((5, *made.shape[1:]), -1.0)
        rows.append(
            torch.cat(
                [torch.cat([real, blank])[:5], rearrange([made, nearest], "pair n ... -> (n pair) ...")]
            )
        )
    titles = [(i, i + 1, "sample | nearest") for i in range(5, len(rows[0]), 2)]
    names = (train.names or ())[: len(rows)]
    image_grid(torch.stack(rows), path, row_labels=names, column_titles=[(0, 4, "real, held out"), *titles])
