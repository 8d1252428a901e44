"""Brains: read, cut, asked about and judged."""

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")

import _brain
import _runs
import _scans


def volume(path: Path, x: np.ndarray, affine: np.ndarray) -> None:
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(x.astype("f4"), affine), path)


def test_scans_are_read_where_they_are(tmp_path: Path) -> None:
    """The same places, whatever the order, direction, width and origin of the axes in the files."""
    x = 100 + np.arange(10 * 12 * 14).reshape(10, 12, 14) % 17.0
    volume(tmp_path / "a.nii.gz", x, np.diag([2.0, 2, 2, 1]))
    turned = np.diag([-2.0, 2, 2, 1])
    turned[0, 3] = 18
    volume(tmp_path / "b.nii.gz", x[::-1], turned)
    grid = _scans.Grid.of(tmp_path / "a.nii.gz", 4)
    assert grid.shape == (5, 6, 7)
    for name in "ab":
        for order in (0, 1):
            read = grid.read(tmp_path / f"{name}.nii.gz", order)
            assert torch.equal(read, torch.from_numpy(x[::2, ::2, ::2].astype("f4")))


def test_brains_are_read_where_they_are(tmp_path: Path) -> None:
    """What is learnt from lies on the grid of the other scan, too, by the mm of both files."""
    steps = np.meshgrid(*[np.arange(20.0)] * 3, indexing="ij")
    x = 100 + steps[0] + 2 * steps[1] + 3 * steps[2]
    turned = np.diag([-1.0, 1, 1, 1])
    turned[:3, 3] = 23, 2, 6
    volume(tmp_path / "scan.nii.gz", x, np.eye(4))
    volume(tmp_path / "other.nii.gz", x, turned)
    brains = _brain.read(tmp_path, 2.0)
    assert brains.teacher.shape == brains.other.shape == brains.atlas.shape == (1, 10, 10, 10)
    places = torch.stack(torch.meshgrid(*[torch.arange(7)] * 3, indexing="ij"))
    for found, (first, second, third) in {"teacher": (0, 0, 0), "atlas": (4, 2, 6)}.items():
        millimetres = 2 * places + torch.tensor([first, second, third]).view(3, 1, 1, 1) + 0.5
        wanted = 100 + torch.tensordot(torch.tensor([1.0, 2, 3]), millimetres, 1)
        values = (getattr(brains, found)[0, :7, :7, :7] + 1) / 2 * 211  # the greatest mean of eight
        assert torch.allclose(values, wanted, rtol=1e-4)


def test_values_become_those_of_another_scan() -> None:
    like = torch.rand(1, 20, 20, 20, generator=torch.Generator().manual_seed(0)) + 0.5
    like[:, :3] = 0
    assert torch.allclose(_brain.matched(9 * like**2, like), like, atol=0.003)


def test_crops_with_blocks_lie_on_tissue_and_apart() -> None:
    scan = torch.full((1, 20, 24, 28), -1.0)
    scan[:, 2:18, 2:22, 2:26] = torch.rand(1, 16, 20, 24)
    torch.manual_seed(0)
    x, middles, places = _brain.choose(scan, 8, 4, 20, 2)
    taken = torch.zeros_like(scan, dtype=torch.int)
    for crop, middle, place in zip(x, middles, places, strict=True):
        assert torch.equal(crop, scan[:, *place])
        assert all(part.start % 2 == 0 for part in place)
        taken[:, *place] += middle.int()
    assert taken.sum() == 20 * 4**3
    assert taken.max() == 1
    assert (scan[taken > 0] > _brain.EMPTY).float().mean() > 0.9
    with pytest.raises(ValueError, match="find no place"):
        _brain.choose(torch.full_like(scan, -1), 8, 4, 1)
    with pytest.raises(ValueError, match="at most 20, as the scan, got 24"):
        _brain.choose(scan, 24, 4, 1)


def test_other_heads_differ_from_what_is_told() -> None:
    scans = torch.rand(1, 12, 12, 12), -torch.rand(1, 9, 10, 11)
    data = _brain.Heads(scans, (2.0, 4.0), 8)
    for index in range(2):
        item = data[index]
        assert item["x0"].shape == item["cond"].shape == (1, 8, 8, 8)
        assert not torch.equal(item["x0"], item["cond"])
        assert torch.isin(item["cond"], scans[index]).all()


def test_interpolation_by_hand_is_exact_where_it_can_be() -> None:
    x = torch.linspace(0, 1, 12).expand(1, 5, 6, 12)
    assert torch.allclose(_brain.cubic(x, 3), x, atol=1e-5)
    x = torch.full((1, 1, 9, 9, 9), 0.3)
    gap = torch.zeros_like(x, dtype=torch.bool)
    gap[..., 3:6, 3:6, 3:6] = True
    assert torch.allclose(_brain.biharmonic(x.masked_fill(gap, 9), gap), x, atol=1e-5)
    places = torch.stack(torch.meshgrid(*[torch.arange(9.0)] * 3, indexing="ij"), -1)
    kernels = [(places - torch.tensor(point)).norm(dim=-1) for point in ((4.0, 4.0, 4.0), (5.0, 7.0, 5.0))]
    x = (kernels[0] - kernels[1])[None, None]  # of two entries that are near
    gap = torch.zeros_like(x, dtype=torch.bool)
    gap[..., 4:6, 5:7, 4:6] = True
    assert torch.allclose(_brain.biharmonic(x.masked_fill(gap, 9), gap), x, atol=1e-4)


def test_roughness_is_of_neighbours_that_count() -> None:
    x = torch.arange(6.0).view(1, 1, 6, 1, 1).expand(1, 1, 6, 6, 6)
    everywhere = torch.ones_like(x, dtype=torch.bool)
    assert _brain.roughness(2 * x, everywhere) == pytest.approx(4 / 3)
    x = torch.cat([x[:, :, :3], x[:, :, :3] + 100], 2)
    everywhere[:, :, 3:] = False
    assert _brain.roughness(x, everywhere) == pytest.approx(72 / (72 + 90 + 90))


def test_held_out_blocks_have_tissue_and_mirror_images() -> None:
    labels = torch.zeros(20, 16, 18, dtype=torch.long)
    labels[2:18, 3:14, 3:15] = 1
    hidden = _scans.held_out(labels, 2, 5)
    assert torch.equal(hidden, hidden.flip(0))
    assert 5**3 <= int(hidden.sum()) <= 4 * 5**3
    assert labels[hidden].float().mean() > 0.5
    with pytest.raises(ValueError, match="labels must fill"):
        _scans.held_out(torch.zeros(9, 9, 9, dtype=torch.long), 1, 3)


def test_crops_are_of_the_scan_and_have_brain() -> None:
    scan = torch.rand(1, 12, 12, 12)
    scan[:, :6] = _scans.AIR
    data = _scans.Crops(scan, (1000 * scan[0]).round().long(), 5)
    for index in range(5):
        item = data[index]
        assert torch.equal((1000 * item["x0"][0]).round().long(), item["target"])
        assert (item["x0"] > _scans.AIR).float().mean() > 0.2


def test_a_mixture_orders_classes_by_value() -> None:
    labels = torch.arange(3).repeat_interleave(400).view(12, 10, 10)
    scan = (0.1 + 0.4 * labels + 0.01 * torch.randn(labels.shape)).unsqueeze(0)
    assert torch.equal(_scans.mixture(scan, 3), labels)
    scan[:, :2] = _scans.AIR
    assert not _scans.mixture(scan, 3)[:2].any()


def test_another_scan_is_judged_by_regions_and_by_classes(tmp_path: Path) -> None:
    """A small region counts as much as a large one in the one mean, by its size in the other."""
    labels = torch.zeros(8, 8, 8, dtype=torch.long)
    labels[1:7, 1:7, 1:4], labels[1:7, 1:7, 4:7] = 1, 2
    places = {"large": (slice(1, 4), 1), "small": (slice(4, 5), 1), "white": (slice(1, 7), 2)}
    regions = {
        name: _scans.Region(torch.zeros_like(labels, dtype=torch.bool), label)
        for name, (_, label) in places.items()
    }
    for name, (at, label) in places.items():
        regions[name].inside[at, 1:7, 1:4] = label == 1
        regions[name].inside[at, 1:7, 4:7] = label == 2
    regions["none"] = _scans.Region(torch.zeros_like(labels, dtype=torch.bool), 1)
    found = labels.clone()
    found[4:5] = 2  # all of the small region is taken for white matter
    scan = torch.rand(1, 8, 8, 8)
    scans = _scans.Scans(scan, labels, scan, regions)
    methods = {"exact": lambda scan: labels, "network": lambda scan: found}
    figures = _scans.judge(methods, scans, torch.ones_like(labels, dtype=torch.bool), tmp_path)
    assert {name: x for name, x in figures.items() if name.startswith("exact")} == {
        "exact 1": "1.000",
        "exact 2": "1.000",
        "exact other, regions": "1.000",
        "exact other, classes": "1.000",
    }
    assert figures["network other, regions"] == "0.667"  # (1 + 0 + 1) / 3
    assert figures["network other, classes"] == "0.875"  # (3 / 4 + 1) / 2
    with np.load(tmp_path / _runs.SHOWN) as kept:
        assert np.array_equal(kept["found"], found.numpy())
