"""Learning from noisy examples alone: the laws by which that is learning from clean ones, and the commands.

Both ways of making a pair are linear in the example and the noise that is drawn, so that on Gaussian data
second moments are closed forms: matrices are had by giving the functions the columns of the identity.
"""

import json
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from dynunet import Diffusion, Trainer
from dynunet.data import Augment, DataOptions, FolderDataset
from dynunet.data.self_supervision import blinded, recorrupted
from dynunet.diffusion import Consistency
from dynunet.diffusion.losses import ERRORS, mean_loss
from dynunet.evaluation import data_of_run, evaluate
from dynunet.exporting import export
from dynunet.restoration import restore

from .data_writers import RNG, nii, npy, png, wav
from .test_cli_files import ends, run, untrained
from .trainers import QUIET, unet

SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=4).filter(lambda s: prod(s) <= 32).map(tuple)
SEEDS = st.integers(0, 99)


def covariance(n: int) -> Tensor:
    root = torch.randn(n, n, dtype=torch.float64)
    return root @ root.mT / n + 0.1 * torch.eye(n, dtype=torch.float64)


def matrices(function: Callable[[Tensor, Tensor], tuple[Tensor, ...]], sizes: tuple[int, ...]) -> Any:
    """Of a function that is linear in an example and in noise, for each result those of both."""
    n = prod(sizes)
    basis, none = torch.eye(n, dtype=torch.float64).view(n, *sizes), torch.zeros(n, *sizes).double()
    columns = function(basis, none), function(none, basis)
    return [[part.flatten(1).mT for part in parts] for parts in zip(*columns, strict=True)]


@given(sizes=SIZES, scale=st.floats(0.2, 3), seed=SEEDS)
def test_recorrupted_targets_teach_what_clean_ones_do(
    sizes: tuple[int, ...], scale: float, seed: int
) -> None:
    """Of any linear estimator the error is the clean one and a constant, whatever the colour of the noise."""
    torch.manual_seed(seed)
    n = prod(sizes)
    data, noise, estimator = covariance(n), covariance(n), torch.randn(n, n).double()
    (of_target, drawn), (of_cond, added) = matrices(lambda y, z: recorrupted(y, z, scale), sizes)

    def error(target: Tensor, of_noise: Tensor, of_draw: Tensor) -> Tensor:
        """E |estimator cond - target|^2, by what both are of the data, their noise and the draw."""
        parts = (
            (estimator @ of_cond - target, data),
            (estimator @ of_cond - of_noise, noise),
            (estimator @ added - of_draw, noise),
        )
        return sum((torch.trace(m @ law @ m.mT) for m, law in parts), torch.zeros(()).double())

    one, none = torch.eye(n).double(), torch.zeros(n, n).double()
    constant = (1 + 1 / scale**2) * torch.trace(noise)
    torch.testing.assert_close(error(of_target, of_target, drawn), error(one, none, none) + constant)


@given(sizes=SIZES, reach=st.integers(1, 3), share=st.floats(0.05, 0.9), seed=SEEDS)
def test_what_is_hidden_is_nowhere_else(sizes: tuple[int, ...], reach: int, share: float, seed: int) -> None:
    torch.manual_seed(seed)
    n = prod(sizes)
    y = torch.arange(2.0 * n).view(2, *sizes)
    cond, mask = blinded(y, share, reach, there := (torch.rand(2, *sizes) < 0.8))
    assert torch.equal(mask[0], mask[1])
    assert not (mask & ~there).any()
    assert torch.equal(cond[~mask], y[~mask])
    assert not torch.isin(y[mask], cond).any()
    places = mask[0].nonzero()
    taken = cond[0][mask[0]].long()
    others = torch.stack(torch.unravel_index(taken, sizes), 1)
    assert ((places - others).abs() <= reach).all()
    assert there[:, *others.T].all()


def test_every_neighbour_is_as_likely() -> None:
    """At a corner, an edge and inside, against the list of the box without the place itself."""
    torch.manual_seed(0)
    sizes, found = (3, 4), {(0, 0): [0] * 12, (1, 3): [0] * 12, (1, 1): [0] * 12}
    y = torch.arange(12.0).view(1, *sizes)
    for _ in range(1500):
        cond, mask = blinded(y, 0.1, 1)
        for place, counts in found.items():
            if mask[0, *place]:
                counts[int(cond[0, *place])] += 1
    for place, counts in found.items():
        box = [max(abs(i // 4 - place[0]), abs(i % 4 - place[1])) == 1 for i in range(12)]
        share = np.array(counts) / sum(counts)
        np.testing.assert_allclose(share, np.array(box) / sum(box), atol=0.08)


@given(sizes=SIZES.filter(lambda s: prod(s) > 1), seed=SEEDS)
def test_hidden_entries_teach_what_clean_ones_do(sizes: tuple[int, ...], seed: int) -> None:
    """The normal equations of linear estimators are those of clean targets, if noise is independent; and the
    value that is there in place of a hidden one is no estimate: the identity's loss is above the least.
    """
    torch.manual_seed(seed)
    n = prod(sizes)
    data, white, coloured = covariance(n), torch.diag(torch.rand(n).double() + 0.5), covariance(n)
    identity = torch.eye(n, dtype=torch.float64).view(n, *sizes)
    cond, mask = blinded(identity, 0.5)
    made = cond.flatten(1).mT  # cond = made y
    for place in mask[0].flatten().nonzero().flatten():
        y = data + white
        moments, clean = made @ y @ made.mT, made @ data[:, place]
        torch.testing.assert_close(made @ y[:, place], clean)
        identity_loss = (moments[place, place] - 2 * (made @ y[:, place])[place] + y[place, place]).item()
        least = y[place, place] - clean @ torch.linalg.pinv(moments, rcond=1e-10) @ clean
        assert identity_loss > least + white[place, place] * 0.1
        with_colour = made @ (data + coloured)[:, place]  # of which cond says something
        torch.testing.assert_close(with_colour - clean, made @ coloured[:, place])


def test_the_mean_is_learnt_of_noisy_targets_by_the_squared_error_alone() -> None:
    """Noise that is -1 three times of four and else 3 has the mean 0, and the median -1."""
    targets = torch.tensor([[[-1.0, -1.0, -1.0, 3.0]]])
    estimates = torch.linspace(-2, 2, 17)
    for name, best in (("l2", 0.0), ("l1", -1.0), ("huber", -2 / 3)):
        losses = [mean_loss(x.expand(1, 1, 4), targets, loss=ERRORS[name]).item() for x in estimates]
        assert abs(float(estimates[int(np.argmin(losses))]) - best) <= 0.125, name


# Writes a file, and by how much its numbers change where those of the network change by 1.
KINDS: dict[str, tuple[Callable[[Path], Any], Callable[[np.ndarray], float]]] = {
    ".wav": (wav, lambda x: 1.0),
    ".png": (png, lambda x: 127.5),
    ".nii": (nii, lambda x: (np.percentile(x, 99.5) - np.percentile(x, 0.5)) / 2),
    ".npy": (npy, lambda x: (x.max() - x.min()) / 2),
}


@pytest.mark.parametrize("suffix", KINDS)
def test_files_of_any_kind_are_recorrupted_in_their_own_units(tmp_path: Path, suffix: str) -> None:
    write, gain = KINDS[suffix]
    values = np.asarray(write(tmp_path / "data" / f"a{suffix}"))
    std = 0.1 * values.std()
    plain = FolderDataset(tmp_path / "data", split="all")[0]["x0"]
    data = FolderDataset(tmp_path / "data", split="all", self_supervised="r2r", noise_std=std)
    assert (data.cond_channels, data.units["restoration"]) == (
        data.channels,
        {"self_supervised": "r2r", "noise_std": std},
    )
    torch.manual_seed(0)
    items = [data[0] for _ in range(40)]
    for item in items:
        torch.testing.assert_close((item["x0"] + item["cond"]) / 2, plain, atol=1e-5, rtol=1e-5)
    added = torch.stack([item["cond"] - plain for item in items])
    assert float(added.std()) * gain(values) == pytest.approx(std, rel=0.05)
    hidden = FolderDataset(tmp_path / "data", split="all", self_supervised="noise2void")[0]
    assert torch.equal(hidden["x0"], plain)
    assert torch.equal(hidden["cond"] == plain, ~hidden["mask"] | (hidden["cond"] == plain))
    assert 0 < hidden["mask"].float().mean() < 0.25
    assert "by noise2void" in FolderDataset(tmp_path / "data", self_supervised="noise2void").report()


def test_recorded_noise_is_drawn_with_its_level_and_colour(tmp_path: Path) -> None:
    """Neighbours of the sum of two white noises correlate by a half, with the power of the recording."""
    white = RNG.normal(size=20001) * 0.02
    for name, x in (("data", RNG.uniform(-0.5, 0.5, 400)), ("noise", white[1:] + white[:-1])):
        (tmp_path / name).mkdir()
        sf.write(tmp_path / name / "a.wav", x, 8000, "FLOAT")
    data = FolderDataset(tmp_path / "data", split="all", self_supervised="r2r", noise=tmp_path / "noise")
    plain = FolderDataset(tmp_path / "data", split="all")[0]["x0"]
    assert data.units["restoration"] == {"self_supervised": "r2r", "noise": True}
    torch.manual_seed(0)
    z = torch.stack([(data[0]["cond"] - plain)[0] for _ in range(50)]).double()
    near, far = ((z[:, k:] * z[:, : z.shape[1] - k]).mean() for k in (1, 5))
    assert z.square().mean().item() == pytest.approx(2 * 0.02**2, rel=0.05)
    assert near.item() == pytest.approx(0.02**2, rel=0.1)
    assert abs(far.item()) < 0.1 * 0.02**2
    sf.write(tmp_path / "noise" / "a.wav", np.zeros(500), 8000)
    silent = FolderDataset(tmp_path / "data", split="all", self_supervised="r2r", noise=tmp_path / "noise")
    with pytest.raises(ValueError, match="noise must be that in the files, and no segment of it has any"):
        silent[0]


def test_missing_entries_and_short_recordings_stay_out(tmp_path: Path) -> None:
    values = RNG.normal(size=(6, 5)).astype(np.float32)
    values[2:4, 1:3] = np.nan
    npy(tmp_path / "maps" / "a.npy", values)
    gone = torch.from_numpy(np.isnan(values))[None]
    options: dict[str, Any]
    for options in ({"self_supervised": "r2r", "noise_std": 0.1}, {"self_supervised": "noise2void"}):
        item = FolderDataset(tmp_path / "maps", 2, split="all", missing="nan", **options)[0]
        assert not item["mask"][gone].any()
        assert not item["x0"][gone].any()
        assert not item["cond"][gone].any()
    wav(tmp_path / "sound" / "a.wav", 50)
    for options in ({"self_supervised": "r2r", "noise_std": 0.1}, {"self_supervised": "noise2void"}):
        item = FolderDataset(tmp_path / "sound", size=64, split="all", level=0.25, **options)[0]
        assert not item["mask"][:, 50:].any()
        assert float(item["cond"][:, :50].square().mean().sqrt()) == pytest.approx(0.25, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"self_supervised": "n2v"}, "self_supervised must be one of"),
        ({"self_supervised": "r2r"}, "needs to know the noise: give either noise_std.* got neither"),
        ({"self_supervised": "r2r", "noise_std": 1, "noise": "x"}, "give either noise_std.* got both"),
        ({"self_supervised": "r2r", "noise_std": 0}, "noise_std must be positive"),
        ({"self_supervised": "noise2void", "noise_std": 1}, "needs no noise: leave out noise and noise_std"),
        ({"self_supervised": "noise2void", "pairs": "x"}, "noisy files alone: leave out pairs and coloured"),
        ({"self_supervised": "noise2void", "coloured": True}, "leave out pairs and coloured"),
        ({"self_supervised": "noise2void", "targets": "x"}, "leave out noise, .*self_supervised"),
        ({"self_supervised": "noise2void", "resize": True, "size": 4}, "leave out resize and spacing"),
        ({"self_supervised": "noise2void", "spacing": 2.0}, "leave out resize and spacing"),
        ({"self_supervised": "noise2void", "snr": (0, 5)}, r"leave out snr, got \(0.0, 5.0\)"),
        ({"noise_std": 1}, "noise_std needs self_supervised='r2r', got 1 without it"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataOptions(**options)


def test_files_whose_noise_would_be_changed_are_skipped(tmp_path: Path) -> None:
    for i in range(3):
        wav(tmp_path / f"{i}.wav", 400)
    wav(tmp_path / "other-rate.wav", 800, rate=16000)
    wav(tmp_path / "stereo.wav", 400, channels=2)
    data = FolderDataset(tmp_path, size=100, split="all", self_supervised="noise2void")
    why = {path.name: reason for path, reason in data.skipped.items()}
    assert len(data) == 3
    assert "it would be resampled" in why["other-rate.wav"]
    assert "it would be converted to 1 channels" in why["stereo.wav"]


def test_noise_that_would_be_changed_is_skipped(tmp_path: Path) -> None:
    noise = tmp_path / "noise"
    for path in (tmp_path / "sound" / "a.wav", noise / "a.wav"):
        wav(path, 400)
    wav(noise / "other-rate.wav", 800, rate=16000)
    wav(noise / "stereo.wav", 400, channels=2)
    options: dict[str, Any] = {"size": 16, "split": "all", "self_supervised": "r2r", "noise": noise}
    why = {p.name: w for p, w in FolderDataset(tmp_path / "sound", **options).skipped.items()}
    assert why.keys() == {"other-rate.wav", "stereo.wav"}
    for name, kind in (("grey", np.uint8), ("deep", np.uint16)):
        image = Image.fromarray(np.full((16, 16), np.iinfo(kind).max, kind))
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / "a.png")
    with pytest.raises(ValueError, match="its numbers are uint16, those of the noisy files uint8"):
        FolderDataset(tmp_path / "grey", **{**options, "noise": tmp_path / "deep"})


def test_noise_without_numbers_is_refused_and_not_taken_as_none(tmp_path: Path) -> None:
    npy(tmp_path / "data" / "a.npy", RNG.normal(size=(6, 5)).astype(np.float32))
    npy(tmp_path / "noise" / "a.npy", np.full((6, 5), np.nan, np.float32))
    for how in (None, "r2r"):
        options: dict[str, Any] = {"split": "all", "noise": tmp_path / "noise", "self_supervised": how}
        with pytest.raises(ValueError, match=r"noise must be files that can be read.*got .*NaN"):
            FolderDataset(tmp_path / "data", 2, **options)[0]


def test_an_entry_without_neighbours_is_refused(tmp_path: Path) -> None:
    npy(tmp_path / "a.npy", RNG.normal(size=(3, 3)))
    with pytest.raises(ValueError, match=r"size must be above 1 along an axis .*got \(1, 1\)"):
        FolderDataset(tmp_path, 2, size=1, split="all", self_supervised="noise2void")
    FolderDataset(tmp_path, 2, size=(1, 2), split="all", self_supervised="noise2void")


def test_models_that_would_not_learn_the_mean_are_refused(tmp_path: Path) -> None:
    npy(tmp_path / "data" / "a.npy", np.arange(9.0))
    noisy = FolderDataset(tmp_path / "data", 1, split="all", self_supervised="noise2void")
    network, out = unet(cond_channels=1).model, tmp_path / "run"
    good = Diffusion(network, prediction="sample")
    for model, message in (
        (Diffusion(network, "bridge", "sample"), "schedule must be no bridge .*noise2void.*, got 'bridge'"),
        (Diffusion(network, prediction="epsilon"), "prediction must be 'sample' .*noise2void.*got 'epsilon'"),
        (Consistency.of(good), "model must be trained, and not distilled, with self_supervised='noise2void'"),
    ):
        with pytest.raises(ValueError, match=message):
            Trainer(model, noisy, out, **QUIET)
    Trainer(good, noisy, out, **QUIET)


def test_other_losses_and_changes_of_values_are_refused(tmp_path: Path) -> None:
    for i in range(3):
        wav(tmp_path / "data" / f"{i}.wav", 64)
    model = Diffusion(unet(cond_channels=1).model, prediction="sample")
    options: tuple[dict[str, Any], ...] = (
        {"self_supervised": "r2r", "noise_std": 0.1},
        {"self_supervised": "noise2void"},
    )
    made = [FolderDataset(tmp_path / "data", 1, size=32, split="all", **how) for how in options]
    for data, how in zip(made, ("r2r", "noise2void"), strict=True):
        for loss in ("l1", "huber", "l1+stft"):
            with pytest.raises(ValueError, match=f"loss must be l2 with self_supervised='{how}', got '"):
                Trainer(model, data, tmp_path / "run", loss=loss, **QUIET)
        with pytest.raises(ValueError, match=f"augment must leave gamma out with self_supervised='{how}'"):
            Trainer(model, data, tmp_path / "run", augment=Augment(preset=False, gamma=(0.5, 2.0)), **QUIET)
        Trainer(
            model,
            data,
            tmp_path / "run",
            augment=Augment(preset=False, flip=0, gain=(-6, 6), noise=0.1),
            **QUIET,
        )
    Trainer(model, made[0], tmp_path / "run", augment=Augment(preset=False, scale=(0.9, 1.1)), **QUIET)
    with pytest.raises(ValueError, match="augment must leave scale out with self_supervised='noise2void'"):
        Trainer(model, made[1], tmp_path / "run", augment=Augment(preset=False, scale=(0.9, 1.1)), **QUIET)


@pytest.mark.parametrize("how", [["r2r", "--noise-std", 0.1], ["noise2void"]])
def test_the_command_trains_from_noisy_files_and_restores(tmp_path: Path, how: list[Any]) -> None:
    for name in ("noisy", "clean"):
        for i in range(4):
            npy(tmp_path / name / f"{i}.npy", RNG.normal(size=(6, 6)).astype(np.float32))
    noisy, clean, made = tmp_path / "noisy", tmp_path / "clean", tmp_path / "run"
    small = "--channels 4 --num-groups 2 --steps 2 --cpu --sample-every 0 --no-tensorboard".split()
    train = ["train", noisy, "--self-supervised", *how, "--spatial-dims", 2, *small]
    ends(2, *train, "--out", tmp_path / "no", "--prediction", "flow")
    ends(2, *train, "--out", tmp_path / "no", "--loss", "l1")
    run(*train, "--out", made)
    model = Diffusion.from_pretrained(made)
    assert model.config["shift"] == 1000
    assert json.loads((made / "run.json").read_text())["flags"]["self_supervised"] == how[0]
    assert "without clean examples" in (made / "README.md").read_text()
    run("denoise", made, noisy, "--out", tmp_path / "out")
    assert np.load(tmp_path / "out" / "0.npy").shape == (6, 6)
    ends(2, "denoise", made, noisy, "--out", tmp_path / "out", "--steps", 3)
    ends(2, "evaluate", made)
    run("evaluate", made, clean, "--pairs", noisy)
    figures = evaluate(made, data_of_run(made, clean, pairs=noisy), num=4).figures
    given = FolderDataset(clean, 2, split="all", pairs=noisy, value_range=(model.data or {})["range"])
    ratios = [10 * np.log10(4 / (i["cond"] - i["x0"]).square().mean().item()) for i in given]
    assert figures["PSNR before"] == pytest.approx(np.mean(ratios), abs=1e-4)
    with pytest.raises(ValueError, match="dataset must have clean examples to compare with"):
        evaluate(made, FolderDataset(noisy, 2, split="all", self_supervised="noise2void"), num=2)


def test_one_step_is_all_that_is_taken(tmp_path: Path) -> None:
    wav(tmp_path / "data" / "a.wav", 64)
    made = untrained(tmp_path / "run", tmp_path / "data", self_supervised="noise2void", size=32)
    assert restore(made, tmp_path / "data", tmp_path / "out", progress=False).done == 1
    with pytest.raises(
        ValueError, match="steps must be 1 of a model that was trained without clean examples"
    ):
        restore(made, tmp_path / "data", tmp_path / "out", steps=2, overwrite=True)
    with pytest.raises(ValueError, match="steps must be 1 of a model that was trained without clean"):
        export(made, tmp_path / "exported", steps=2)
