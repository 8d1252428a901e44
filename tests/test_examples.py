"""The code that the examples share, and the learner's path: without training."""

import inspect
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import toeplitz
from scipy.signal import lfilter
from torch import Tensor, nn

from dynunet import Diffusion, Supervised, UNet
from dynunet.metrics import si_sdr

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
pytest.importorskip("tyro")
pytest.importorskip("matplotlib")

import _brain
import _layer
import _ocean
import _pairs
import _peers
import _repair
import _runs
import _scans
import _spectral
import _voices
import gallery
import learn_convolution
import learn_diffusion
import learn_unet
import tyro
from _learn import value_of, words

EXAMPLES = Path(learn_unet.__file__).parent


@dataclass
class Options(_runs.NetworkOptions):
    steps: int = 10


def test_scripts_of_the_readme_exist() -> None:
    named = set(re.findall(r"examples/(\w+\.py)", (EXAMPLES / "README.md").read_text()))
    assert named >= {path.name for path in EXAMPLES.glob("[!_]*.py")}
    assert all((EXAMPLES / name).is_file() for name in named)


@pytest.mark.parametrize("kernel", ["smooth", "edges", "slope"])
def test_convolution_draws(kernel: Any, tmp_path: Path) -> None:
    out = tmp_path / "new" / "x.png"
    learn_convolution.main(learn_convolution.Options((1, 2, 3, 4), kernel, size=7, out=out))
    assert out.stat().st_size > 0


def test_unet_draws(tmp_path: Path) -> None:
    unet = UNet(3, 2, channels=(4, 8), num_groups=2, time_embedding=True, cond_channels=1, deep_supervision=1)
    learn_unet.main(unet, 7, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 0


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction", "flow", "edm"])
def test_every_prediction_gives_the_same_points(
    prediction: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learn_diffusion.main(learn_diffusion.Options(prediction=prediction, out=tmp_path / "x.png"))
    assert "0.109" in capsys.readouterr().out


def test_unet_has_a_flag_for_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tyro.cli(learn_unet.main, args=["--help"], config=(tyro.conf.OmitArgPrefixes,), registry=words())
    shown = capsys.readouterr().out
    for name in inspect.signature(UNet).parameters:
        flag = f"--{name.replace('_', '-')}"
        fixed = name in ("in_layer", "out_layer")  # modules
        assert re.search(rf"{flag} (WORD|INT|FLOAT|STR|\[INT)|{flag},", shown) is not None or fixed, flag


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("none", None),
        ("true", True),
        ("3", 3),
        ("1,2,2", (1, 2, 2)),
        ("0.5", 0.5),
        ("full+channel", "full+channel"),
    ],
)
def test_words(text: str, value: object) -> None:
    assert value_of(text) == value
    assert type(value_of(text)) is type(value)


def test_network_options_are_those_of_a_unet() -> None:
    given = Options(attention=("none", "full"), norm="none", channels=(4, 8), num_groups=2).network()
    assert given["attention"] == [None, "full"]
    assert given["norm"] is None
    UNet(1, 1, **given)


def test_data_is_looked_for_and_never_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        SystemExit, match=r"(?s)data/usr/share/no-such.* /usr/share/no-such.*apt-get download a b && "
    ):
        _runs.debian("usr/share/no-such", packages="a b")
    with pytest.raises(SystemExit, match="--noise: looked for a file or a folder mine"):
        _runs.debian("usr/share/no-such", packages="a b", data=Path("mine"), flag="--noise")
    unpacked = Path("data/usr/share/no-such")
    unpacked.mkdir(parents=True)
    assert _runs.debian("usr/share/no-such", packages="a b") == unpacked
    assert _runs.debian("usr/share/no-such", packages="a b", data=tmp_path) == tmp_path


def test_a_run_is_begun_once_and_resumed_with_its_options(tmp_path: Path) -> None:
    given = Options(out=tmp_path / "runs", channels=(4, 8), data=Path("x"), steps=3)
    options, folder = _runs.begin(given, "kind")
    assert (options, folder) == (given, tmp_path / "runs" / "kind-1")
    assert _runs.begin(given, "kind")[1] == tmp_path / "runs" / "kind-2"
    assert _runs.begin(Options(resume=folder), "kind") == (given, folder)
    with pytest.raises(SystemExit, match="leave out --num-blocks"):
        _runs.begin(Options(resume=folder, num_blocks=2), "kind")
    with pytest.raises(SystemExit, match="looked for"):
        _runs.begin(Options(resume=tmp_path), "kind")
    with pytest.raises(SystemExit, match="exists already"):
        _runs.begin(replace(given, name="kind-1"), "kind")


def test_what_cannot_be_built_leaves_no_folder(tmp_path: Path) -> None:
    _, folder = _runs.begin(Options(out=tmp_path), "kind")
    with pytest.raises(SystemExit, match="channels must"), _runs.explained(folder):
        UNet(1, 1, channels=())
    assert not folder.exists()


def fill(runs: Path, *kinds: str) -> None:
    """Runs of these kinds, with random values of odd sizes in place of what the examples keep."""
    volume, field = torch.rand(1, 9, 11, 10), torch.rand(2, 3, 7, 8)
    kept = {
        "audio": {name: torch.randn(1, 999) for name in ("noisy", "denoised", "clean")},
        "images": {"made": torch.randn(3, 6, 3, 5, 4)},
        "volume": dict.fromkeys(("measured", "mean", "one sample", "truth"), volume),
        "segment": {"scan": volume[0], "found": volume[0] > 0.5, "atlas": 2 * (volume[0] > 0.7)},
        "ocean": {"field": field, "network": -field, "water": field > 0.2, "held_out": field > 0.8},
    }
    kept["audio"]["sample_rate"] = torch.tensor(800)
    for kind in kinds:
        (runs / f"{kind}-1").mkdir(parents=True)
        _runs.keep(runs / f"{kind}-1", **kept[kind])


def test_gallery_draws_what_the_examples_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, *(row.kind for row in gallery.ROWS))
    out = tmp_path / "new" / "x.png"
    gallery.main(gallery.Options(tmp_path, out))
    assert "no finished run" not in capsys.readouterr().out
    assert 0 < out.stat().st_size < 500_000


def test_gallery_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = gallery.Options(tmp_path, tmp_path / "x.png")
    fill(tmp_path, "ocean", "images", "segment")
    gallery.main(options)
    said = capsys.readouterr().out
    for row in gallery.ROWS:
        assert (f"python examples/{row.script}" in said) == (row.kind in ("audio", "volume"))
    with pytest.raises(SystemExit, match="nothing to draw"):
        gallery.main(replace(options, runs=tmp_path / "none"))


def test_the_newest_run_is_drawn(tmp_path: Path) -> None:
    for number in (2, 10):
        (tmp_path / f"ocean-{number}").mkdir()
        _runs.keep(tmp_path / f"ocean-{number}", field=torch.zeros(1))
    (tmp_path / "ocean-11").mkdir()  # not finished
    assert gallery.newest(tmp_path, "ocean") == tmp_path / "ocean-10" / _runs.SHOWN
    assert gallery.newest(tmp_path, "volume") is None


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


def test_pictures_are_read_with_their_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pairs, "PARTS", {"learn": ("china.jpg", 3), "judge": ("flower.jpg", 2)})
    _pairs.make(tmp_path)
    data, others = _pairs.read(tmp_path)
    assert (len(data), len(others)) == (3, 2)
    pair = data[1]
    raw = np.asarray(Image.open(tmp_path / "learn" / "images" / "001.png"))
    assert torch.equal((pair["x0"] + 1).mul(127.5).round().byte(), torch.tensor(raw).permute(2, 0, 1))
    mask = np.asarray(Image.open(tmp_path / "learn" / "masks" / "001.png"))
    assert torch.equal(pair["target"], torch.tensor(mask > 0).long())
    assert 0.01 < pair["target"].float().mean() < 0.5
    raw = np.asarray(Image.open(tmp_path / "judge" / "images" / "001.png"))
    (tmp_path / "judge" / "masks" / "000.png").unlink()  # the picture is left out
    Image.fromarray(np.full_like(mask, 255)).save(tmp_path / "judge" / "masks" / "001.png")
    others = _pairs.read(tmp_path)[1]
    assert len(others) == 1
    pair = others[0]
    assert torch.equal((pair["x0"] + 1).mul(127.5).round().byte(), torch.tensor(raw).permute(2, 0, 1))
    assert (pair["target"] == 1).all()  # by the classes of what is learnt from
    Image.fromarray(mask[:9]).save(tmp_path / "learn" / "masks" / "001.png")
    assert len(_pairs.read(tmp_path)[0]) == 2
    mask = mask.copy()
    mask[0, 0] = 7
    Image.fromarray(mask).save(tmp_path / "learn" / "masks" / "001.png")
    with pytest.raises(ValueError, match="masks must have two values"):
        _pairs.read(tmp_path)


def test_a_threshold_finds_the_smaller_side() -> None:
    labels = torch.zeros(16, 12, dtype=torch.long)
    labels[3:7, 4:9] = 1
    for sign in (-1, 1):
        x = sign * (0.8 * labels - 0.3) + 0.05 * torch.randn(3, 16, 12)
        assert torch.equal(_pairs.threshold(x), labels)


def test_speech_is_where_there_is_power() -> None:
    clean = torch.zeros(1, 4000)
    clean[:, 1000:3000] = torch.randn(2000)
    found = _voices.speaking(clean, 1000)
    assert found[1000:3000].all()
    assert not found[:985].any()  # half a frame before it
    assert not found[3015:].any()
    rows = [(clean, clean + noise * torch.randn(1, 4000)) for noise in (0.05, 0.1)]
    detect = _voices.threshold(rows, 1000)
    assert min(_voices.shares(detect(rows[0][1]), found)) > 0.95
    assert _voices.shares(torch.ones(4000, dtype=torch.bool), found) == (1, 0)


def test_the_mixed_layer_ends_where_the_temperature_changes() -> None:
    column = torch.tensor([20.0, 19.8, 19.0, 20.0])  # what is below another temperature does not count
    field = column.view(1, 4, 1, 1).expand(3, 4, 2, 5)
    water = torch.ones(field.shape, dtype=torch.bool)
    water[..., 0] = False
    labels = _layer.layer(field, water)
    assert labels[1, :, 1, 3].tolist() == [1, 1, 0, 0]
    assert (labels[..., 0] == -1).all()


def test_areas_go_around_the_earth() -> None:
    field = torch.arange(7.0).expand(2, 3, 4, 7)
    labels = (torch.arange(7) % 2).expand(2, 3, 4, 7)
    data = _layer.Areas(field, torch.ones_like(labels, dtype=torch.bool), labels, (3, 5), 1.0, 0.0)
    for index in range(5):
        item = data[index]
        assert item["x0"].shape == (9, 2, 3, 3, 5)
        columns = (15 * (item["x0"][0] + 1)).round()
        assert torch.equal(columns % 2, item["target"].float())
        assert set(columns.diff(dim=-1).unique().tolist()) <= {1, -6}
        others = set(range(7)) - set(columns.unique().tolist())  # whose labels say what is usual
        assert torch.allclose(item["x0"][5], torch.tensor(sum(n % 2 for n in others) - 1.0))


def test_floats_measure_columns_with_errors() -> None:
    field, water = torch.randn(6, 5, 30, 40), torch.rand(6, 1, 30, 40).expand(6, 5, 30, 40) < 0.7
    values, floats = _layer.measured(field, water, 0.2, 0.5)
    assert torch.equal(floats, floats[:, :1].expand_as(floats))
    assert not (floats & ~water).any()
    assert abs(floats[water].float().mean().item() - 0.2) < 0.03
    assert abs((values - field)[floats].std().item() - 0.5) < 0.03
    assert (values[~floats] == 0).all()
    assert not torch.equal(floats[0], floats[1] & water[0])


def test_means_around_are_those_of_a_loop() -> None:
    values, floats = torch.randn(4, 2, 5, 6), torch.rand(4, 1, 5, 6) < 0.4
    for reach in ((1, 1, 1), (3, 3, 5)):
        mean, share = _layer.mean_around(values * floats, floats, reach)
        for month, row, column in ((0, 0, 0), (3, 2, 5), (2, 4, 3)):
            near = [
                (m % 4, r, c % 6)
                for m in range(month - reach[0] // 2, month + reach[0] // 2 + 1)
                for r in range(row - reach[1] // 2, row + reach[1] // 2 + 1)
                for c in range(column - reach[2] // 2, column + reach[2] // 2 + 1)
                if 0 <= r < 5
            ]
            there = [values[m, :, r, c] for m, r, c in near if floats[m, 0, r, c]]
            expected = torch.stack(there).mean(0) if there else torch.zeros(2)
            torch.testing.assert_close(mean[month, :, row, column], expected)
            size = reach[0] * reach[1] * reach[2]
            assert abs(share[month, 0, row, column].item() - len(there) / size) < 1e-6


def test_the_layer_by_hand_is_exact_where_it_can_be() -> None:
    bottom = torch.randint(1, 5, (3, 1, 12, 1)).expand(3, 1, 12, 16)  # alike along a parallel
    field = torch.where(torch.arange(5).view(-1, 1, 1) < bottom, 20.0, 17.0)
    water = torch.ones_like(field, dtype=torch.bool)
    labels, known = _layer.layer(field, water), torch.rand(field.shape) < 0.9
    assert torch.equal(_layer.climatology(labels, known | (torch.arange(16) == 0)), labels)
    all_there = _layer.measured(field, water, 1.0, 0.1)
    found, how = _layer.best_smoothed(*all_there, labels, known)
    assert torch.equal(found, labels)
    assert how[0][:2] == (1, 1)  # neither other months nor other latitudes
    assert torch.equal(_layer.regression(*all_there, labels, known, how[0]), labels)
    none = _layer.measured(field, water, 0.0, 0.1)
    usual = torch.randint(2, labels.shape)
    assert torch.equal(_layer.smoothed(*none, usual, (1, 1, 1), 0.5), usual)


def test_equal_steps_are_in_proportion_to_costs() -> None:
    pytest.importorskip("monai")
    peer = Supervised(_peers.monai_unet(2, 1, 3, (4, 8, 8)))
    own = Supervised(UNet(2, 1, 3, channels=(16, 32), num_groups=4))
    data: Any = [{"x0": torch.randn(1, 32, 32), "target": torch.zeros(32, 32, dtype=torch.long)}] * 2
    there, back = (_peers.equal_steps(pair, data, 3, 1000) for pair in ((own, peer), (peer, own)))
    assert there > 1000 > back
    assert all(p.grad is None for p in peer.parameters())


def test_report_adds_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for steps in (3, 4):
        options, folder = _runs.begin(Options(out=tmp_path, steps=steps, channels=(4, 8)), "kind")
        _runs.report(folder, options, {"rmse": f"0.{steps}"})
    _runs.report(tmp_path / "other", Options(), {"psnr": "30.0"})
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert lines[0] == "run,rmse,flags,psnr"
    assert lines[2] == "kind-2,0.4,--channels 4 8 --steps 4,"
    assert "kind-2" not in capsys.readouterr().out.splitlines()[-1]


def test_the_score_of_a_normal_law_is_its_integral() -> None:
    errors, std = torch.tensor([-2.0, 0.0, 0.3, 4.0]).double(), torch.tensor([0.5, 1.0, 2.0, 1.0]).double()
    x = torch.linspace(-30, 30, 60_001).double()
    law = torch.distributions.Normal(errors.unsqueeze(1), std.unsqueeze(1))
    integral = torch.trapezoid((law.cdf(x) - (x > 0).double()).square(), x)
    torch.testing.assert_close(_ocean.gaussian_crps(errors, std), integral, rtol=0, atol=1e-3)


def test_unknown_entries_are_means_of_what_is_around() -> None:
    field, water = torch.randn(2, 3, 5, 12), torch.rand(2, 3, 5, 12) < 0.9
    field, known = field * water, water & (torch.rand(2, 3, 5, 12) < 0.6)
    mean = _ocean.mean_of_parallel(field, known)
    for reach in ((1, 9), (3, 5)):
        found = _ocean.from_around(field, known, water, reach, rounds=1)
        assert torch.equal(found[known], field[known])
        assert (found[~water] == 0).all()
        for m, d, row, column in (water & ~known).nonzero().tolist():
            total, count = 0.0, 0
            for r in range(max(row - reach[0] // 2, 0), min(row + reach[0] // 2 + 1, 5)):
                for c in (n % 12 for n in range(column - reach[1] // 2, column + reach[1] // 2 + 1)):
                    total += (field - mean)[m, d, r, c].item() * bool(known[m, d, r, c])
                    count += bool(water[m, d, r, c])
            expected = mean[m, d, row, column].item() + total / count
            assert abs(found[m, d, row, column].item() - expected) < 1e-5


def test_the_mirrored_earth_has_the_other_season() -> None:
    months, latitudes = torch.arange(4).view(-1, 1, 1, 1), torch.arange(3).view(-1, 1) - 1
    summer = (latitudes * (months - 1.5)).expand(4, 2, 3, 5)  # warm in the north in the second half
    odd = (summer < 0) & (torch.arange(5) == 1)
    turned = _ocean.mirrored(odd)
    assert turned[0, 0, 0, 1] == odd[2, 0, 2, 1]
    assert torch.equal(turned.any(-1), odd.any(-1))  # the same climate
    assert torch.equal(_ocean.mirrored(turned), odd)
    assert torch.equal(_ocean.mirrored(summer[:1]), summer[:1].flip(-2))  # what has no months, places


def test_a_regression_finds_a_linear_function_and_what_it_leaves() -> None:
    weights, spread = torch.randn(3, 2), torch.tensor([0.5, 1.0, 2.0]).view(-1, 1, 1)

    def example() -> tuple[Tensor, Tensor, Tensor]:
        cond, mask = torch.randn(4, 2, 3, 20, 20), torch.rand(2, 3, 20, 20) < 0.5
        error = torch.einsum("pmdij,dp->mdij", cond[:2], weights) + spread * torch.randn(2, 3, 20, 20)
        mask[:, 0] = False  # nothing is asked there
        return error.where(mask, 1e6), cond, mask

    found = _ocean.Regression.fit([example() for _ in range(20)], 2)
    torch.testing.assert_close(found.weights[1:].float(), weights[1:], rtol=0, atol=0.1)
    torch.testing.assert_close(found.spread[1:], spread[1:], rtol=0.05, atol=0)
    assert (found.spread[0], *found.weights[0]) == (1, 0, 0)
    _, cond, _ = example()
    expected = torch.einsum("pmdij,dp->mdij", cond[:2], found.weights.float())
    torch.testing.assert_close(found(cond), expected)


def test_intervals_are_judged_where_the_field_is_held_out(capsys: pytest.CaptureFixture[str]) -> None:
    field, spread = torch.randn(2, 3, 40, 40), torch.tensor([0.5, 1.0, 2.0]).view(-1, 1, 1)
    held_out = torch.rand(field.shape) < 0.5
    elsewhere = torch.where(held_out, 0, 1e6)
    centre = field + spread * torch.randn_like(field) + elsewhere
    samples = centre + spread * torch.randn(199, *field.shape)
    figures = _ocean.judge_intervals(samples, centre, spread, field, held_out)
    assert abs(float(figures["covered"]) - 0.9) < 0.04
    crps_of_normal = torch.pi**-0.5 * spread.mean().item()  # Gneiting and Raftery 2007, eq. 21, of its own
    assert abs(float(figures["regression CRPS"]) - crps_of_normal) < 0.05
    assert abs(float(figures["network CRPS"]) - crps_of_normal) < 0.05
    assert abs(float(figures["width"]) - 2 * 1.645 * spread.mean().item()) < 0.2
    covered = re.search(r"^regression +[\d.]+ +([\d.]+)%", capsys.readouterr().out, re.MULTILINE)
    assert covered is not None
    assert abs(float(covered[1]) - 90) < 4


def test_sines_are_repaired_by_their_own_model() -> None:
    time = torch.arange(1200) / 8000
    waves = [torch.sin(2 * torch.pi * f * time + f) for f in (211.0, 440.0, 1330.0)]
    clean = 0.2 * torch.stack([waves[0] + waves[1], waves[1] + waves[2]]).unsqueeze(1)
    for damage, least in ((_repair.with_gaps(clean, 8000), 30), (_repair.clipped(clean), 15)):
        for repair in (_repair.cubic, _repair.autoregressive):
            found = repair(damage)
            assert torch.equal(found.where(~damage.wrong, 0), damage.y.where(~damage.wrong, 0))
            if damage.kind == "clipped":
                assert (found.abs() >= damage.limit)[damage.wrong].all()
                assert abs(damage.wrong.float().mean().item() - _repair.CLIPPED) < 0.01
        assert si_sdr(_repair.autoregressive(damage), damage.clean).min() > least
    slow = _repair.clipped(0.2 * waves[0].view(1, 1, -1))
    assert si_sdr(_repair.cubic(slow), slow.clean).min() > 60  # 34 as it is


def test_crops_of_speech_are_heard() -> None:
    x = torch.zeros(1, 3000)
    x[:, 1000:2000] = torch.randn(1000)
    for _ in range(5):
        assert _repair.crop(x, 300).square().mean().sqrt() > _repair.LEVEL / 2
    item = _repair.Speech([x], 300)[0]
    assert item["x0"].shape == (1, 300)
    assert item["x0"].isfinite().all()
    assert 0.5 < item["spectrum"].mean() / item["x0"].square().mean() < 2


def test_spectrum_is_that_of_the_model() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 40_000)
    a = np.array([1, -1.2, 0.8])
    x = np.asarray(lfilter([1], a, noise))
    found, power = _spectral.model_of(x, 2)
    np.testing.assert_allclose(found, a, atol=0.02)
    np.testing.assert_allclose(power, 0.01, rtol=0.02)
    rows = _spectral.spectrum(torch.from_numpy(x[:1024]).view(1, 1, -1), 8)
    assert rows.shape == (1, 1025)
    np.testing.assert_allclose(rows.mean(), np.square(x[:1024]).mean(), rtol=0.02)
    largest = np.argmin(np.abs(np.fft.rfft(a, 2048)))
    assert abs(rows.argmax().item() - largest) < 40


def test_wiener_is_the_estimate_of_least_error() -> None:
    torch.manual_seed(0)
    white, x, y = torch.full((2, 33), 0.25), torch.randn(2, 1, 32), torch.randn(2, 1, 32)
    sigma = torch.tensor([0.5, 1.0]).view(2, 1, 1)
    estimate, error = _spectral.wiener(x, white, sigma)
    torch.testing.assert_close(estimate, x * 0.25 / (0.25 + sigma**2))
    torch.testing.assert_close(error**2, 0.25 * sigma**2 / (0.25 + sigma**2))
    coloured = torch.linspace(-4, 2, 257).exp().expand(64, -1)
    both = torch.fft.irfft(coloured.sqrt().unsqueeze(1) * torch.fft.rfft(torch.randn(64, 1, 512)))
    clean = both[..., :256]
    noisy, level = clean + 0.7 * torch.randn_like(clean), torch.full((64, 1, 1), 0.7)
    found, error = _spectral.wiener(noisy, coloured, level)
    assert abs((found - clean).square().mean().sqrt() / error[0, 0, 0] - 1) < 0.03
    for off in (0.8, 1.25):  # less noise than there is, and more
        assert (_spectral.wiener(noisy, coloured, off * level)[0] - clean).square().mean() > (
            found - clean
        ).square().mean()
    scale = 0.5 * torch.ones(2, 1, 1)
    there, back = (_spectral.wiener(v, coloured[:2, ::8], scale)[0] for v in (x, y))
    torch.testing.assert_close((there * y).sum(), (x * back).sum())


class Same(nn.Module):
    """A network that gives back what it sees of the noisy recording."""

    def forward(self, x: Tensor, t: Tensor, *, features: Tensor) -> Tensor:
        assert features.shape == (len(x), _spectral.BANDS)
        assert ((t >= 0) & (t <= 1)).all()
        return x[:, : _spectral.FOLD]


def test_correction_is_of_the_size_of_the_error_and_has_no_derivative_outside_training() -> None:
    torch.manual_seed(0)
    model, spectra = _spectral.Refined(Same()), torch.rand(2, 129) + 0.1
    x = torch.randn(2, 1, 128, requires_grad=True)
    t = torch.tensor([0.3, 0.7])
    sigma = _spectral.SCHEDULE(t.double())[1].float().view(2, 1, 1)
    estimate, error = _spectral.wiener(x, spectra, sigma)
    std = (spectra.mean(1).view(2, 1, 1) + sigma**2).sqrt()
    v = torch.randn_like(x)
    (linear,) = torch.autograd.grad(estimate, x, v, retain_graph=True)
    for training, more in ((True, 1), (False, 0)):
        found = model.train(training)(x, t, spectrum=spectra)
        torch.testing.assert_close(found, estimate + error * x / std)
        (gradient,) = torch.autograd.grad(found, x, v)
        torch.testing.assert_close(gradient, linear + more * error / std * v)


def test_two_opposite_samples_have_the_mean_of_a_gaussian_model() -> None:
    halves = _spectral.opposite(torch.Size((6, 1, 5)))
    torch.testing.assert_close(halves[:3], -halves[3:])
    length, sigma = 96, 1e-3
    a = np.poly([0.97 * np.exp(0.5j), 0.97 * np.exp(-0.5j), 0.9 * np.exp(1.7j), 0.9 * np.exp(-1.7j)]).real
    power = 1e-3 / np.abs(np.fft.rfft(a, 2 * length)) ** 2
    lags = np.fft.irfft(power)[:length]
    covariance = toeplitz(lags) + sigma**2 * np.eye(length)
    clean = np.linalg.cholesky(covariance) @ np.random.default_rng(0).normal(size=length)
    wrong = np.zeros(length, dtype=bool)
    wrong[44:52] = True
    right = np.linalg.solve(covariance[np.ix_(~wrong, ~wrong)], clean[~wrong])
    exact = torch.from_numpy(covariance[np.ix_(wrong, ~wrong)] @ right).float()
    y, gap = torch.from_numpy(clean).float().view(1, 1, -1), torch.from_numpy(wrong).view(1, 1, -1)
    damage = _repair.Damage("gaps", y.where(~gap, 0), y, gap)

    class Nothing(Same):
        def forward(self, x: Tensor, t: Tensor, *, features: Tensor) -> Tensor:
            return 0 * super().forward(x, t, features=features)

    model = Diffusion(_spectral.Refined(Nothing()), _spectral.SCHEDULE, "sample").eval()
    spectra = torch.from_numpy(power).float().unsqueeze(0)
    torch.manual_seed(0)
    samples = _repair.drawn(model, damage, spectra, num_samples=2, steps=20)
    assert torch.equal(samples.where(~gap, 0), damage.y.expand(2, -1, -1, -1))
    error = (samples.mean(0)[gap] - exact).norm() / exact.norm()
    assert error < 0.03
    assert (samples[0][gap] - exact).norm() / exact.norm() > 2 * error
