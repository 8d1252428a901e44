"""Augmentation in training: repeatable, resumed to the bit, of no held-out data, and without a leak."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from dynunet import Diffusion, Supervised, UNet
from dynunet.checkpoints import Checkpoint
from dynunet.data import Augment, FolderDataset
from dynunet.data.degradation import coloured_noise
from dynunet.training import Trainer, loop
from dynunet.training.augmentation import fitted
from dynunet.training.order import Stream

from .test_cli import SMALL, fails, run
from .trainers import QUIET, Random, assert_resumes, assert_same, trainer

real = loop.Pictures
pytestmark = pytest.mark.usefixtures("without_the_curve")


class Scans(Dataset[Any]):
    """Volumes and the labels of their entries."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        g = torch.Generator().manual_seed(i)
        x = torch.rand(1, 6, 6, 5, generator=g)
        return {"x0": x, "target": (2 * x[0]).long(), "mask": torch.rand(1, 6, 6, 5, generator=g) > 0.1}


def segmenter() -> Supervised:
    torch.manual_seed(0)
    return Supervised(UNet(3, 1, 2, channels=(4, 8), num_blocks=1, num_groups=2))


def segmenting(out: Path, **options: Any) -> Trainer:
    augment = Augment(rotation=20, elastic=0.02, probability=0.7)
    options = {"augment": augment, "steps": 4, "batch_size": 2, "lr": 1e-2, **QUIET, **options}
    return Trainer(segmenter(), Scans(), out, **options)


# Repeatable


def test_workers_change_no_bit(tmp_path: Path) -> None:
    runs = [segmenting(tmp_path / str(n), workers=n).fit() for n in (0, 2)]
    assert_same(*runs)
    other = segmenting(tmp_path / "without", augment=None).fit()
    assert any(not torch.equal(a, b) for a, b in zip(other.parameters(), runs[0].parameters(), strict=True))


class Coloured(Dataset[Any]):
    """Large enough for several threads, each of which takes a part of an array in its own way."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        noise = coloured_noise((1, 181, 193), 1.0)
        return {"x0": noise, "target": noise.exp() ** 1.3}


def test_threads_change_no_bit() -> None:
    augment = Augment(task="segmentation", filter=6, probability=1)
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 3):  # a process that reads ahead has one
            torch.set_num_threads(number)
            found.append([Stream(Coloured(), 0, change=augment)[n][1] for n in range(3)])
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a[name], b[name]) for a, b in zip(*found, strict=True) for name in a)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, workers: int) -> None:
    options: dict[str, Any] = {"steps": 10, "workers": workers, "log_every": 3}
    options["augment"] = Augment(task="regression", elastic=0.05, noise=0.1, erase=0.2, probability=0.6)
    assert_resumes(tmp_path, 7, **options)


def test_a_run_is_resumed_with_its_own_augmentation(tmp_path: Path) -> None:
    segmenting(tmp_path / "run", steps=1).fit()
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["augment"]["rotation"] == [20]
    assert record["augment"]["gamma"] == [0.7, 1.5]  # of the preset, as it was then
    for other in (None, Augment(rotation=21, elastic=0.02, probability=0.7)):
        with pytest.raises(ValueError, match=r"must be resumed with the options .* augment"):
            segmenting(tmp_path / "run", augment=other).fit(resume=True)
    segmenting(tmp_path / "run", steps=2).fit(resume=True)


def test_held_out_data_are_as_they_are(tmp_path: Path) -> None:
    seen = []

    def change(item: dict[str, Any]) -> dict[str, Any]:
        seen.append(item)
        return item | {"x0": item["x0"] * torch.nan}

    class Sees(Checkpoint, nn.Module):
        metric_names = ()

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def loss(self, x0: Tensor, target: Tensor, mask: Tensor) -> Tensor:
            assert x0.isnan().all() == self.training
            return self.weight**2

    options: dict[str, Any] = QUIET | {"steps": 1, "batch_size": 2, "validate_every": 1}
    Trainer(Sees(), Scans(), tmp_path / "run", validation=Scans(), augment=change, **options).fit()
    assert len(seen) == 2
    assert json.loads((tmp_path / "run" / "run.json").read_text())["augment"].endswith("change")


@pytest.mark.parametrize("validation", [None, Scans()])
def test_pictures_are_of_what_is_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, validation: Any
) -> None:
    streams = []
    monkeypatch.setattr(
        loop, "Pictures", lambda folder, stream, args: streams.append(stream) or real(folder, stream, args)
    )
    segmenting(tmp_path / "run", steps=1, validation=validation).fit()
    assert [stream.change for stream in streams] == [None]


# Without a leak


@pytest.mark.parametrize(("condition", "wanted"), [(True, 0.5), (False, 0.0)])
def test_samples_look_like_the_data_where_changes_are_told(
    tmp_path: Path, condition: bool, wanted: float
) -> None:
    # Data are high on the left; half of them are mirrored. The mean of what pure noise may have been is that
    # of the data at zero features, and that of the mixture, 0, without features.
    augment = Augment(preset=False, flip=0, probability=0.5, task="generation", condition=condition)
    torch.manual_seed(0)
    unet = UNet(1, 1, channels=(8,), num_groups=2, time_embedding=True, cond_features=augment.num_features(1))
    data = torch.tensor([0.5, 0.5, -0.5, -0.5]).view(1, 1, 4).expand(16, 1, 4)
    model = Diffusion(unet, prediction="sample", schedule="flow")
    options: dict[str, Any] = QUIET | {"steps": 100, "batch_size": 8, "lr": 1e-2, "warmup": 0, "ema": 0.9}
    model = Trainer(model, data, tmp_path, augment=augment, **options).fit()
    g = torch.Generator().manual_seed(0)
    mean = model.sample((64, 1, 4), steps=1, generator=g, progress=False).mean(0)[0]
    torch.testing.assert_close(mean, wanted * torch.tensor([1.0, 1, -1, -1]), atol=0.12, rtol=0)


def test_a_model_of_new_data_must_be_told(tmp_path: Path) -> None:
    def model(**options: Any) -> Diffusion:
        return Diffusion(UNet(2, 1, channels=(4,), num_groups=2, time_embedding=True, **options))

    data = torch.rand(4, 1, 6, 6)
    n = Augment(task="generation").num_features(2)
    assert n == 6  # a matrix and a shift
    with pytest.raises(ValueError, match=r"the network must have cond_features=6 .*condition=False"):
        Trainer(model(), data, tmp_path, augment=True)
    with pytest.raises(ValueError, match=r"cond_features=.* got None"):
        trainer(tmp_path, augment=True)  # a network of another kind, without features
    Trainer(model(cond_features=6), data, tmp_path, augment=True)
    Trainer(model(), data, tmp_path, augment=Augment(condition=False))
    with pytest.raises(
        TypeError, match="augment must be an Augment, or a function of an example, got 'flip'"
    ):
        Trainer(model(), data, tmp_path, augment="flip")  # type: ignore[arg-type]


def test_parameters_are_those_of_old_without_it() -> None:
    old = UNet(2, 1, channels=(4, 8), num_groups=2, time_embedding=True).state_dict()
    assert not [name for name in old if "feature" in name]


# Data in files


def test_the_spacing_of_volumes_and_their_pairs_are_known(tmp_path: Path) -> None:
    for folder in ("clean", "noisy"):
        (tmp_path / folder).mkdir()
        for i in range(3):
            x = np.random.default_rng(i).random((8, 8, 4)).astype(np.float32)
            nib.save(nib.Nifti1Image(x, np.diag([1, 1, 3.0, 1])), tmp_path / folder / f"{i}.nii")
    data = FolderDataset(tmp_path / "clean", size=4, pairs=tmp_path / "noisy", coordinates=True, split="all")
    unet = UNet(3, 1, channels=(4,), num_groups=2, time_embedding=True, cond_channels=4)
    made: Any = fitted(True, Diffusion(unet), data)
    assert (made.task, made.given_channels, made.spacing) == ("restoration", 1, (1.0, 1.0, 3.0))
    pairs = FolderDataset(tmp_path / "clean", size=4, coordinates=True, split="all")
    made = fitted(Augment(condition=False), Diffusion(unet), pairs)
    assert (made.task, made.given_channels, made.spacing) == ("generation", 0, (1.0, 1.0, 3.0))
    made = fitted(True, segmenter(), Scans())
    assert made.task == "segmentation"
    assert fitted(False, segmenter(), Scans()) is None


def test_random_numbers_of_reading_do_not_change_with_augmentation() -> None:
    plain, changed = (Stream(Random(), 3, change=c) for c in (None, Augment(preset=False, flip=0)))
    for n in range(7):
        a, b = plain[n][1]["x0"], changed[n][1]["x0"]
        assert torch.equal(a, b) or torch.equal(a, b.flip(1))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    for i in range(4):
        np.save(tmp_path / "data" / f"{i}.npy", np.random.default_rng(i).random((8, 8)))
    out = tmp_path / "run"
    train = ["train", tmp_path / "data", "--spatial-dims", 2, "--channels", 4, "--batch-size", 2, *SMALL]
    run(*train, "--num-groups", 2, "--out", out, "--steps", 2, "--augment", "--augment-scale", 0.9, 1.2)
    flags = json.loads((out / "run.json").read_text())["flags"]
    assert (flags["augment"], flags["augment_scale"], flags["augment_shear"]) == (True, [0.9, 1.2], None)
    config = json.loads((out / "config.json").read_text())
    assert config["model"]["cond_features"] == 6
    run("sample", out, "--num", 1, "--out", tmp_path / "samples", "--steps", 2)
    said = fails(capsys, 2, "train", "--resume", out, "--augment-shear", 3)
    assert "--augment-shear 3.0 instead of None" in said
    run("train", "--resume", out, "--steps", 3)
    for words, told in {
        ("--augment-rotation", 200): "--augment-rotation must be in [0, 180], got 200",
        ("--augment-flip", 2): "--augment-flip must be axes below 2, got (2,)",
        ("--augment-probability", "rotate=1"): "--augment-probability must be of flip, rotation,",
    }.items():
        assert told in fails(capsys, 2, *train, "--out", tmp_path / "other", *words)
    run(*train, "--num-groups", 2, "--out", tmp_path / "plain", "--steps", 1)
    assert json.loads((tmp_path / "plain/config.json").read_text())["model"].get("cond_features", 0) == 0
    assert json.loads((tmp_path / "plain/run.json").read_text())["augment"] is None


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_the_command_with_targets(tmp_path: Path, n: int) -> None:
    for name in ("data", "maps"):
        (tmp_path / name).mkdir()
    for i in range(4):
        x = np.random.default_rng(i).random((8,) * n).astype(np.float32)
        np.save(tmp_path / "data" / f"{i}.npy", x)
        np.save(tmp_path / "maps" / f"{i}.npy", (3 * x).astype(np.uint8) * 10)
    train = ["train", tmp_path / "data", "--targets", tmp_path / "maps", "--spatial-dims", n, "--channels", 4]
    options = ["--num-groups", 2, "--batch-size", 2, "--steps", 2, "--augment", "--augment-probability", 1]
    run(*train, *options, "--augment-padding", "missing", "--out", tmp_path / "run", *SMALL)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["augment"]["task"] == "segmentation"
    assert json.loads((tmp_path / "run/config.json").read_text())["model"].get("cond_features", 0) == 0
