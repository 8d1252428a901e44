"""Augmentation: places against SciPy and NumPy, values against closed forms, and laws of examples."""

import warnings
from itertools import combinations
from math import exp, pi
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from dynunet.data import Augment
from dynunet.data.augmentation import geometry, values
from dynunet.data.augmentation.geometry import Move, in_plane
from dynunet.data.augmentation.presets import TASKS
from dynunet.training.order import seeded

_MODES = {"missing": "grid-constant", "border": "nearest", "reflection": "reflect", "circular": "grid-wrap"}
_ALL: dict[str, Any] = {
    "flip": 0,
    "scale": (0.7, 1.4),
    "stretch": (0.8, 1.2),
    "shift": 0.2,
    "elastic": 0.03,
    "gamma": (0.7, 1.5),
    "contrast": (0.5, 2),
    "brightness": 0.3,
    "noise": 0.2,
    "blur": 1.5,
    "resolution": 0.4,
    "gain": (-6, 6),
    "filter": 6,
    "erase": 0.4,
    "band_stop": 0.3,
}
_PLANES: dict[str, Any] = {"rotation": 40, "shear": 10}


def everything(n: int, **more: Any) -> Augment:
    """Every change there is at so many axes."""
    return Augment(preset=False, **{**_ALL, **(_PLANES if n > 1 else {}), **more})


def move(
    sizes: tuple[int, ...], matrix: Any = None, shift: Any = None, nodes: Any = None, **more: Any
) -> Move:
    n, flips = len(sizes), more.pop("flips", ())
    options = Augment(preset=False, **more).for_axes(n)
    matrix = np.eye(n) if matrix is None else matrix
    return Move(sizes, flips, matrix, np.zeros(n) if shift is None else np.asarray(shift), nodes, options)


def example(sizes: tuple[int, ...], seed: int = 0, classes: int = 4) -> dict[str, Tensor]:
    """With everything that has places; the condition is half as large."""
    g = torch.Generator().manual_seed(seed)
    return {
        "x0": torch.randn(2, *sizes, generator=g),
        "cond": torch.randn(3, *[-(-size // 2) for size in sizes], generator=g),
        "mask": torch.rand(1, *sizes, generator=g) > 0.2,
        "target": torch.randint(classes, sizes, generator=g) * 3 - 1,
    }


def coordinates(sizes: tuple[int, ...]) -> Tensor:
    """Entry numbers along every axis, ``(n, *sizes)``."""
    lines = [torch.arange(size).float() for size in sizes]
    return torch.stack(torch.meshgrid(*lines, indexing="ij"))


@st.composite
def moves(draw: Any, most: int = 4) -> tuple[Move, Tensor]:
    """A linear move of any kind, and an array to be moved."""
    n = draw(st.integers(1, most))
    sizes = tuple(draw(st.integers(2, 7 if n < 4 else 4)) for _ in range(n))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    matrix = np.eye(n) + rng.uniform(-0.35, 0.35, (n, n)) / max(n - 1, 1)
    spacing = tuple(rng.uniform(0.5, 2, n))
    padding = draw(st.sampled_from([*_MODES]))
    made = move(
        sizes, matrix, rng.uniform(-0.3, 0.3, n), spacing=spacing, padding=padding, interpolation="linear"
    )
    return made, torch.from_numpy(rng.standard_normal((2, *sizes)))


# Places


@given(moves())
def test_moves_are_scipys_affine_transforms(case: tuple[Move, Tensor]) -> None:
    made, x = case
    sizes, spacing = np.array(made.sizes), np.array(made.options.spacing)
    inverse = np.diag(1 / spacing) @ np.linalg.inv(made.matrix) @ np.diag(spacing)
    centre = (sizes - 1) / 2
    offset: Any = centre - inverse @ (centre + made.shift * sizes)
    mode = _MODES[made.options.padding[0]]
    wanted = [ndimage.affine_transform(c, inverse, offset, order=1, mode=mode) for c in x.numpy()]
    torch.testing.assert_close(made.values(x), torch.from_numpy(np.stack(wanted)), atol=2e-5, rtol=0)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_a_right_angle_is_rot90_in_every_plane(n: int) -> None:
    x = torch.randn(1, *(4,) * n)
    for i, j in combinations(range(n), 2):
        made = move((4,) * n, in_plane(n, i, j, pi / 2))
        wanted = np.rot90(x.numpy(), axes=(1 + i, 1 + j)).copy()
        torch.testing.assert_close(made.values(x), torch.from_numpy(wanted), atol=1e-5, rtol=0)


def test_a_right_angle_respects_the_spacing() -> None:
    thick = torch.randn(1, 4, 8)  # as long as wide, with entries twice as thick along the first axis
    made = move((4, 8), in_plane(2, 0, 1, pi / 2), spacing=(2.0, 1.0))
    fine = np.repeat(thick.numpy(), 2, axis=1)
    turned = np.rot90(fine, axes=(1, 2)).reshape(1, 4, 2, 8)
    wanted = torch.from_numpy(turned.mean(2))
    found = made.values(thick.double())
    # Between entries of the thick axis values are interpolated: at the ends of both axes they are not.
    assert torch.allclose(found[:, :, [0, -1]].float(), wanted[:, :, [0, -1]], atol=1e-5)


@given(st.integers(2, 5), st.integers(0, 2**32))
def test_random_rotations_are_rotations_within_their_angles(n: int, seed: int) -> None:
    options = Augment(preset=False, rotation=20, probability=1, axes=tuple(range(n))).for_axes(n)
    with seeded(seed):
        made, parameters = geometry.draw(options, (3,) * n)
    assert made is not None
    np.testing.assert_allclose(made.matrix @ made.matrix.T, np.eye(n), atol=1e-12)
    assert np.linalg.det(made.matrix) > 0
    np.testing.assert_allclose(np.reshape(parameters[: n * n], (n, n)), made.matrix - np.eye(n))
    if n == 2:
        assert np.degrees(np.arccos(made.matrix[0, 0])) <= 20


@given(moves())
def test_coordinates_go_with_what_they_are_of(case: tuple[Move, Tensor]) -> None:
    made, x = case
    n, sizes = len(made.sizes), made.sizes
    nodes = 0.05 * torch.randn(n, *(geometry._NODES,) * n, generator=torch.Generator().manual_seed(0))
    made = move(sizes, made.matrix, made.shift, nodes, padding="border", interpolation="linear")
    places = made.values(coordinates(sizes).double())
    wanted = [ndimage.map_coordinates(c, places.numpy(), order=1, mode="nearest") for c in x.numpy()]
    torch.testing.assert_close(made.values(x), torch.from_numpy(np.stack(wanted)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_one_displacement_everywhere_is_a_shift(n: int) -> None:
    sizes, x = (6, 7, 8, 5)[:n], torch.randn(1, *(6, 7, 8, 5)[:n])
    shift = torch.linspace(-0.3, 0.2, n)
    nodes = -shift.view(n, *(1,) * n).expand(n, *(geometry._NODES,) * n)
    torch.testing.assert_close(
        move(sizes, nodes=nodes).values(x), move(sizes, shift=shift.numpy()).values(x), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_mirroring_is_numpys_to_the_bit(n: int) -> None:
    sizes, item = (3, 4, 5, 2)[:n], example((3, 4, 5, 2)[:n])
    changed = Augment(preset=False, flip=(0, n - 1)[: min(n, 2)], probability=1)(item)
    axes = sorted({0, n - 1})
    for name in ("x0", "cond", "mask", "target"):
        wanted = np.flip(item[name].numpy(), tuple(axis + (name != "target") for axis in axes))
        np.testing.assert_array_equal(changed[name].numpy(), wanted, err_msg=name)
    assert changed["x0"].shape[1:] == sizes


@given(moves(3))
def test_labels_are_those_with_most_weight(case: tuple[Move, Tensor]) -> None:
    made, _ = case
    labels = torch.randint(-1, 3, made.sizes, generator=torch.Generator().manual_seed(1))
    weights = torch.stack([made.values((labels == label).float()[None])[0] for label in range(-1, 3)])
    found = made.labels(labels[None])[0]
    rank = (found + 1).long()
    assert set(found.unique().tolist()) <= set(labels.unique().tolist())
    torch.testing.assert_close(weights.gather(0, rank[None])[0], weights.max(0).values, atol=1e-6, rtol=0)


def test_of_equal_labels_the_least_is_taken() -> None:
    made = move((4,), shift=[1 / 8], padding="border")  # by half an entry
    assert made.labels(torch.tensor([[9, 2, 5, 3]])).tolist() == [[9, 2, 2, 3]]
    many = torch.arange(32).flip(0)[None]  # more than are looked at at once
    wanted = torch.minimum(many[:, 1:], many[:, :-1])
    assert torch.equal(move((32,), shift=[1 / 64], padding="border").labels(many)[:, 1:], wanted)


@given(moves(3), st.integers(0, 2**32))
def test_the_nearest_label_is_scipys(case: tuple[Move, Tensor], seed: int) -> None:
    made, _ = case
    labels = torch.randint(5, made.sizes, generator=torch.Generator().manual_seed(seed))
    made = move(
        made.sizes, made.matrix, made.shift, padding="border", labels="nearest", interpolation="linear"
    )
    places = made.values(coordinates(made.sizes).double()).numpy()
    found = made.labels(labels[None])[0].numpy()
    wanted = ndimage.map_coordinates(labels.numpy(), places, order=0, mode="nearest")
    halves = np.abs(places % 1 - 0.5).min(0) < 1e-3  # as near to one as to the other
    assert (found == wanted)[~halves].all()


def test_time_is_an_axis_like_others_and_not_turned() -> None:
    x = torch.randn(1, 6, 6, 6, 3)
    augment = Augment(preset=False, rotation=30, scale=(0.8, 1.2), elastic=0.03, probability=1)
    with seeded(3):
        whole = augment({"x0": x})["x0"]
        assert whole.shape == x.shape
    with seeded(3):
        made, _ = geometry.draw(augment.for_axes(4), (6, 6, 6, 3))
    assert made is not None
    assert made.nodes is not None
    alone = move((6, 6, 6), made.matrix[:3, :3], nodes=made.nodes[:3, ..., 0])
    each = torch.stack([alone.values(x[..., t]) for t in range(3)], -1)
    torch.testing.assert_close(whole, each, atol=1e-5, rtol=1e-5)


def test_what_comes_in_is_missing() -> None:
    made = Augment(preset=False, shift=0.5, probability=1, padding="missing")
    for seed in range(5):
        with seeded(seed):
            changed = made({"x0": torch.ones(1, 8, 8), "target": torch.full((8, 8), 2)})
        assert changed["mask"].shape == (1, 8, 8)
        assert not changed["mask"].all()
        assert torch.equal(changed["x0"], changed["mask"].float())
        assert (changed["target"] == 2).all()
    still = Augment(preset=False, shift=0.5, probability=0, padding="missing")({"x0": torch.ones(1, 8, 8)})
    assert still["mask"].all()


# Examples


@settings(deadline=None)
@given(st.integers(1, 5), st.sampled_from([*TASKS, None]), st.integers(0, 2**32))
def test_probability_0_changes_no_bit(n: int, task: str | None, seed: int) -> None:
    item = example((5, 4, 3, 4, 2)[:n], seed)
    for augment in (everything(n, task=task, probability=0), Augment(task=task, probability="0")):
        with seeded(seed):
            changed = augment(item)
        for name, value in item.items():
            assert torch.equal(changed[name], value), name
        if task == "generation":
            assert changed["features"].count_nonzero() == 0
            assert changed["features"].shape == (augment.num_features(n),)


@settings(deadline=None)
@given(st.integers(1, 5), st.sampled_from([*TASKS, None]), st.booleans(), st.integers(0, 2**32))
def test_examples_keep_their_shapes_and_labels(n: int, task: str | None, many: bool, seed: int) -> None:
    item = example((7, 6, 5, 4, 3)[:n], seed)
    augment = everything(n, task=task, probability=1) if many else Augment(task=task)
    changes = []
    for _ in range(2):
        with seeded(seed):
            changes.append(augment(item))
    for name, value in item.items():
        assert (changes[0][name].shape, changes[0][name].dtype) == (value.shape, value.dtype), name
        assert torch.equal(changes[0][name], changes[1][name]), f"{name} is random beyond the seed"
        assert changes[0][name].double().isfinite().all(), name
    assert set(changes[0]["target"].unique().tolist()) <= set(item["target"].unique().tolist())
    if many:
        assert not changes[0]["x0"][~changes[0]["mask"].expand_as(item["x0"])].any()


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(0, 2**32))
def test_missing_values_have_no_influence(n: int, seed: int) -> None:
    item = example((7, 6, 5, 4)[:n], seed)
    there = item["mask"].expand_as(item["x0"])
    found = []
    for fill in (0.0, 1e6, float("nan")):
        with seeded(seed):
            found.append(everything(n, probability=1)(item | {"x0": torch.where(there, item["x0"], fill)}))
    assert torch.equal(found[0]["x0"], found[1]["x0"])
    assert torch.equal(found[0]["x0"], found[2]["x0"])


@pytest.mark.parametrize("name", ["blur", "resolution", "shift", "elastic"])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_a_constant_with_gaps_stays_constant(n: int, name: str) -> None:
    item = example((7, 6, 5, 4)[:n])
    x = torch.where(item["mask"], 0.7, 0).expand_as(item["x0"])
    with seeded(0):
        changed = Augment(preset=False, probability=1, **{name: _ALL[name]})(item | {"x0": x})
    wanted = torch.where(changed["mask"], 0.7, 0).expand_as(x)
    torch.testing.assert_close(changed["x0"], wanted)


@settings(deadline=None)
@given(st.integers(1, 4), st.sampled_from([*_ALL, *_PLANES]), st.integers(0, 2**32))
def test_features_are_0_exactly_where_nothing_is_changed(n: int, name: str, seed: int) -> None:
    if n == 1 and name in _PLANES:
        return
    strength = {**_ALL, **_PLANES}[name]
    augment = Augment(preset=False, task="generation", probability=0.5, **{name: strength})
    x = example((8, 7, 6, 5)[:n], seed)["x0"]
    with seeded(seed):
        changed = augment({"x0": x})
    assert len(changed["features"]) == augment.num_features(n)
    assert bool(changed["features"].any()) == (not torch.equal(changed["x0"], x)), changed["features"]


def test_features_say_what_was_done() -> None:
    with seeded(0):
        found = Augment(preset=False, flip=(1,), shift=0.1, task="generation", probability=1)(example((4, 6)))
    matrix, shift = found["features"][:4].view(2, 2), found["features"][4:]
    assert matrix.tolist() == [[0, 0], [0, -2]]
    assert (shift != 0).all()
    assert (shift.abs() <= 0.1).all()


@pytest.mark.parametrize("task", ["segmentation", "classification", "regression", "restoration"])
def test_only_what_makes_new_data_is_told(task: str) -> None:
    assert "features" not in Augment(task=task)(example((8, 8)))
    assert Augment(task=task).num_features(2) == 0
    assert "features" not in Augment(task="generation", condition=False)(example((8, 8)))


def test_what_is_to_be_restored_changes_with_what_is_given() -> None:
    x = torch.rand(1, 8, 8)
    item = {"x0": x, "cond": torch.cat([2 * x, coordinates((8, 8))])}
    options: dict[str, Any] = {"preset": False, "probability": 1, "given_channels": 1}
    gain = Augment(gain=(-6, -6), **options)(item)
    assert torch.allclose(gain["x0"], x * 10 ** (-6 / 20))
    assert torch.allclose(gain["cond"][:1], 2 * x * 10 ** (-6 / 20))
    assert torch.equal(gain["cond"][1:], item["cond"][1:])
    beyond = torch.tensor([-1.0, 2.0]).view(1, 2, 1).expand(1, 2, 4)
    gamma = Augment(gamma=(2, 2), **options)({"x0": beyond.clamp(0, 1), "cond": beyond})
    torch.testing.assert_close(gamma["cond"], beyond * beyond.abs())  # odd below the least of x0
    noisy = Augment(noise=0.5, **options)(item)
    assert torch.equal(noisy["x0"], x)
    assert not torch.equal(noisy["cond"][:1], item["cond"][:1])


def test_targets_of_every_kind() -> None:
    options: dict[str, Any] = {"preset": False, "shift": 0.5, "probability": 1}
    x = torch.randn(1, 8, 6)
    missing = x.clone()
    missing[0, 3] = torch.nan
    for target in (x > 0, x.clone(), missing, torch.tensor(3), torch.randn(5)):
        with seeded(1):
            changed = Augment(**options)({"x0": x, "target": target})
        assert (changed["target"].shape, changed["target"].dtype) == (target.shape, target.dtype)
        if target.ndim < 2:
            assert torch.equal(changed["target"], target)
        elif target.dtype == torch.bool:
            assert torch.equal(changed["target"], move_like(options, 1, x).flags(target))
        elif not target.isnan().any():
            torch.testing.assert_close(changed["target"], changed["x0"])
        else:
            there = move_like(options, 1, x).flags(~target.isnan())
            assert torch.equal(changed["target"].isnan(), ~there)


def move_like(options: dict[str, Any], seed: int, x: Tensor) -> Move:
    with seeded(seed):
        made, _ = geometry.draw(Augment(**options).for_axes(x.ndim - 1), tuple(x.shape[1:]))
    assert made is not None
    return made


def test_masks_that_broadcast_get_all_places() -> None:
    item = {"x0": torch.randn(2, 4, 6), "mask": torch.ones(1, 4, 1, dtype=torch.bool)}
    for probability in (0, 1):  # examples of both kinds are in one batch
        changed = Augment(preset=False, shift=0.5, probability=probability)(item)
        assert changed["mask"].shape == (1, 4, 6)


# Values


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("sigma", [0.3, 1.7])
def test_blur_is_scipys(n: int, sigma: float) -> None:
    x = torch.randn(2, *(9, 6, 5, 4)[:n], dtype=torch.float64)
    wanted = np.stack([ndimage.gaussian_filter(c, sigma, mode="nearest") for c in x.numpy()])
    torch.testing.assert_close(values.gaussian(x, sigma), torch.from_numpy(wanted))


def test_values_change_as_they_should() -> None:
    x = torch.rand(2, 7, 5, dtype=torch.float64) * 3 - 1
    low, high, mean = x.min(), x.max(), x.mean()
    wanted = {
        "gamma": ((2, 2), low + (high - low) * ((x - low) / (high - low)) ** 2),
        "contrast": ((0.5, 0.5), mean + 0.5 * (x - mean)),
        "gain": ((20, 20), 10 * x),
    }
    for name, (strength, result) in wanted.items():
        options: dict[str, Any] = {name: strength}
        found = Augment(preset=False, probability=1, **options)({"x0": x})["x0"]
        torch.testing.assert_close(found, result, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_filters_change_waves_by_their_frequency(axis: int) -> None:
    n, count = 16, 3
    wave = torch.cos(2 * pi * count * torch.arange(n).double() / n).view(
        *(n if a == axis else 1 for a in range(3))
    )
    x = wave.expand(1, n, n, n)
    p, frequency = [0.5, -0.3, 0.9], 2 * count / n
    gain = exp(np.log(10) / 20 * 12 / 3 * sum(a * np.cos(pi * j * frequency) for j, a in enumerate(p, 1)))
    torch.testing.assert_close(values._filter(p, 12, x, None)(x, None), gain * x)
    stopped = values._band_stop([0.3, 0.1], 1, x, None)(x, None)
    passed = values._band_stop([0.4, 0.1], 1, x, None)(x, None)
    torch.testing.assert_close(stopped, torch.zeros_like(x))
    torch.testing.assert_close(passed, x)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_low_resolution_keeps_lines_and_loses_detail(n: int) -> None:
    sizes = (8, 12, 8, 4)[:n]
    flat = torch.full((1, *sizes), 0.7)
    torch.testing.assert_close(values.coarse(flat, 0.5), flat)
    detail = coordinates(sizes).sum(0, keepdim=True) % 2 - 0.5
    assert values.coarse(detail, 0.5).abs().max() < 0.26
    torch.testing.assert_close(values.coarse(detail, 1.0), detail)


# Options


@pytest.mark.parametrize(
    ("n", "options", "said"),
    [
        (1, {"rotation": 10}, "rotation must be left out with one axis, which has no plane, got"),
        (3, {"shear": 10, "axes": 1}, "shear must be left out with one axis"),
        (2, {"flip": (0, 2)}, "flip must be axes below 2, got"),
        (2, {"flip": (0, 0)}, "flip must have each axis once"),
        (3, {"rotation": (1, 2)}, "rotation must be one angle, or one for each of 3 planes of axes 0 1 2"),
        (3, {"padding": ("border", "circular")}, "padding must have one value per axis, 3"),
        (2, {"padding": "reflect"}, "padding must be one of 'reflection', 'border'"),
        (2, {"spacing": (1, 2, 3)}, "spacing must have one value per axis, 2"),
        (2, {"probability": "rotatoin=0.5"}, "did you mean 'rotation'"),
        (2, {"probability": 1.5}, r"probability must be in \[0, 1\]"),
        (2, {"scale": (2, 1)}, "scale must be finite, low at most high"),
        (2, {"resolution": 0}, "resolution must be in"),
        (2, {"task": "segment"}, "task must be one of 'segmentation'"),
        (2, {"labels": "cubic"}, "labels must be one of"),
    ],
)
def test_options_that_make_no_sense_are_refused(n: int, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Augment(preset=False, **options).for_axes(n)


@pytest.mark.parametrize("item", [{}, {"x0": torch.zeros(3)}, {"x0": torch.zeros(1, 4, dtype=torch.uint8)}])
def test_examples_without_places_are_refused(item: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"x0 must be floating-point \(C, \*spatial\) to be augmented"):
        Augment()(item)


def test_a_strength_that_changes_nothing_leaves_a_change_out() -> None:
    nothing: dict[str, Any] = dict.fromkeys([*_ALL, *_PLANES], 0) | {
        "flip": (),
        "resolution": 1,
        "gain": (0, 0),
    }
    nothing |= dict.fromkeys(["scale", "stretch", "gamma", "contrast"], (1, 1))
    assert not Augment(preset=False, **nothing).active
    item = example((6, 6))
    changed = Augment(task="segmentation", **nothing)(item)
    assert all(torch.equal(changed[name], item[name]) for name in item)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Augment(task="segmentation").for_axes(3).has("rotation")
