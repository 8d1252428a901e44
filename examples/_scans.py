"""Scans of the example that segments: one with labels, another that is judged by region, and how to draw."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from _runs import debian, keep
from torch import Tensor
from torch.utils.data import Dataset

from dynunet.metrics import dice
from dynunet.plotting import slices

TEMPLATE = "datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
ATLAS = "usr/share/mricron/templates"
GREY = {  # regions of the atlas of automated anatomical labelling, by their numbers
    "cortex": (*range(1, 37), *range(43, 71), *range(79, 91)),
    "hippocampus, amygdala": range(37, 43),
    "caudate nucleus": range(71, 73),
    "putamen": range(73, 75),
    "pallidum": range(75, 77),
    "thalamus": range(77, 79),
    "cerebellum": range(91, 117),
}
AIR = -1.0  # what is outside of a brain

Label = Callable[[Tensor], Tensor]  # from a scan (1, X, Y, Z) to labels (X, Y, Z)


class Region(NamedTuple):
    """Where a scan is of a certain class."""

    inside: Tensor
    label: int


class Scans(NamedTuple):
    """A scan and its labels to learn from, and another scan of which some regions are known.

    ``copied`` are the labels as they lie on the other scan, if both are in the same space.
    """

    scan: Tensor
    labels: Tensor
    other: Tensor
    regions: dict[str, Region]
    copied: Tensor | None = None


def read(data: Path | None, spacing: float) -> Scans:
    """The template's tissues and one man's brain, or a folder's scans, with entries this many mm wide."""
    if data is not None:
        names = ("scan", "labels", "other", "other-labels")
        paths = [debian(f"{name}.nii.gz", packages="", data=data / f"{name}.nii.gz") for name in names]
        grids = [Grid.of(path, spacing) for path in paths[::2]]
        scan, labels = grids[0].read(paths[0]), grids[0].read(paths[1], order=0).long()
        other, found = grids[1].read(paths[2]), grids[1].read(paths[3], order=0).long()
        regions = {f"label {n}": Region(found == n, n) for n in found.unique().tolist() if n > 0}
        return Scans(scaled(scan), labels, scaled(other), regions)
    package = find_spec("nilearn")
    if package is None:
        raise SystemExit("the MNI152 template comes with nilearn: pip install nilearn")
    files = {kind: Path(str(package.origin)).parent / TEMPLATE.format(kind) for kind in ("t1", "gm", "wm")}
    atlas = debian(ATLAS, packages="mricron-data")
    own, others = Grid.of(files["t1"], spacing), Grid.of(atlas / "ch2bet.nii.gz", spacing)
    labels, copied = (_tissues(grid.read(files["gm"]), grid.read(files["wm"])) for grid in (own, others))
    parts = others.read(atlas / "aal.nii.gz", order=0)
    fibres = others.read(atlas / "JHU-WhiteMatter-labels-1mm.nii.gz", order=0) > 0
    regions = {
        name: Region(torch.isin(parts, torch.tensor([*numbers])) & ~fibres, 1)
        for name, numbers in GREY.items()
    }
    regions["fibre tracts"] = Region(fibres & (parts == 0), 2)
    other = scaled(others.read(atlas / "ch2bet.nii.gz"))
    return Scans(scaled(own.read(files["t1"])), labels, other, regions, copied)


def _tissues(grey: Tensor, white: Tensor) -> Tensor:
    """Labels of the likelier tissue from maps of 255 where it is certain: 0 where that is neither."""
    return torch.stack([255 - grey - white, grey, white]).argmax(0)


class Grid(NamedTuple):
    """Where the entries of a volume are: its shape, and the matrix from indices to mm."""

    shape: tuple[int, ...]
    affine: np.ndarray

    @classmethod
    def of(cls, path: Path, spacing: float) -> "Grid":
        image = _load(path)
        widths = np.array(image.header.get_zooms()[:3])
        affine = image.affine @ np.diag([*(spacing / widths), 1])
        return cls(tuple(int(n * w / spacing) for n, w in zip(image.shape, widths, strict=True)), affine)

    def read(self, path: Path, order: int = 1) -> Tensor:
        """A volume at the entries of this grid, float32; of order 0 by the nearest entry."""
        from scipy.ndimage import affine_transform

        image = _load(path)
        matrix = np.linalg.inv(image.affine) @ self.affine
        values = np.asarray(image.dataobj, dtype=np.float32)
        return torch.from_numpy(affine_transform(values, matrix, output_shape=self.shape, order=order))


def _load(path: Path) -> Any:
    import nibabel

    return nibabel.as_closest_canonical(nibabel.load(path))


def scaled(x: Tensor) -> Tensor:
    """``(1, X, Y, Z)``: AIR, and from the first to the last percentile of the brain -0.7 to 0.7."""
    inside = x > 0.05 * x.max()
    low, high = np.percentile(x[inside].numpy(), (1, 99))
    return torch.where(inside, ((x - low) / (high - low)).clamp(-0.1, 1.2) * 1.4 - 0.7, AIR).unsqueeze(0)


class Crops(Dataset[dict[str, Tensor]]):
    """Crops with some brain in them."""

    def __init__(self, scan: Tensor, labels: Tensor, size: int) -> None:
        self.scan, self.labels, self.size = scan, labels, size

    def __len__(self) -> int:
        return 10_000

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        while True:
            starts = [int(torch.randint(max(n - self.size, 0) + 1, ())) for n in self.labels.shape]
            at = tuple(slice(start, start + self.size) for start in starts)
            if (self.scan[:, *at] > AIR).float().mean() > 0.2:
                return {"x0": self.scan[:, *at], "target": self.labels[at]}


def held_out(labels: Tensor, number: int, size: int) -> Tensor:
    """True in blocks with tissue at random places, and in their mirror images along the first axis."""
    hidden = torch.zeros_like(labels, dtype=torch.bool)
    size = min(size, *labels.shape)
    for _ in range(1000):
        starts = [int(torch.randint(n - size + 1, ())) for n in labels.shape]
        at = tuple(slice(start, start + size) for start in starts)
        if (labels[at] > 0).float().mean() > 0.5:
            hidden[at], number = True, number - 1
        if number == 0:
            return hidden | hidden.flip(0)
    raise ValueError("the labels must fill more than half of some block, found none that they do")


def mixture(scan: Tensor, classes: int) -> Tensor:
    """Labels by a Gaussian mixture of the scan's own values, the classical answer: fluid, grey, white."""
    from sklearn.mixture import GaussianMixture

    values = scan[0][scan[0] > AIR].unsqueeze(1).numpy()
    fitted: Any = GaussianMixture(classes, n_init=2, random_state=0).fit(values[::5])
    rank = np.argsort(np.argsort(fitted.means_[:, 0]))
    labels = torch.zeros(scan.shape[1:], dtype=torch.long)
    labels[scan[0] > AIR] = torch.from_numpy(rank[fitted.predict(values)])
    return labels


def judge(methods: Mapping[str, Label], scans: Scans, hidden: Tensor, folder: Path) -> dict[str, str]:
    """Print what each method finds where nothing was learnt; draw the other scan; return the figures."""
    classes = int(scans.labels.max()) + 1
    own = {name: label(scans.scan) for name, label in methods.items()}
    others = {name: label(scans.other) for name, label in methods.items()}
    figures = {}
    print(f"\nDice of {int(hidden.sum()):,} held-out entries of the scan that the rest was learnt from:\n")
    print(f"{'':24}" + "".join(f"{name:>10}" for name in methods))
    for n in range(1, classes):
        each = [dice(x[None], scans.labels[None], classes, hidden[None])[0, n].item() for x in own.values()]
        _row({0: "", 1: "grey matter", 2: "white matter"}.get(n, f"label {n}"), each)
        figures |= {f"{name} {n}": f"{x:.3f}" for name, x in zip(methods, each, strict=True)}
    print(
        "\nAnother scan, which nothing was learnt from: the share of a region that is found to be its class\n"
    )
    if scans.copied is not None:
        print(f"{'':24}" + "".join(f"{name:>10}" for name in (*methods, "copied")))
        others["copied"] = scans.copied
    for name, region in scans.regions.items():
        _row(name, [_share(x, [region]) for x in others.values()])
    regions = [r for r in scans.regions.values() if r.inside.any()]
    kinds = [[r for r in regions if r.label == n] for n in range(1, classes)]
    for mean, groups in {"regions": [[r] for r in regions], "classes": [k for k in kinds if k]}.items():
        each = [np.mean([_share(x, group) for group in groups]) for x in others.values()]
        _row(f"mean of the {mean}", each)
        figures |= {f"{name} other, {mean}": f"{x:.3f}" for name, x in zip(others, each, strict=True)}
    volumes = {"the other scan": scans.other[0]}
    volumes |= {name: 2 * x / (classes - 1) - 1 for name, x in others.items()}
    slices(torch.stack([*volumes.values()]).unsqueeze(1), folder / "other.png", labels=[*volumes])
    atlas = sum((r.label * r.inside.long() for r in regions), torch.zeros_like(scans.other[0]))
    keep(folder, scan=scans.other[0], found=others["network"], atlas=atlas)
    return figures


def _share(labels: Tensor, regions: Sequence[Region]) -> float:
    """The share of the entries in regions of one class that have its label."""
    return torch.cat([(labels == region.label)[region.inside] for region in regions]).double().mean().item()


def _row(name: str, values: Sequence[Any]) -> None:
    print(f"{name:24}" + "".join(f"{value:10.3f}" for value in values))
