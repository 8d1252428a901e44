"""The functions that commands call: a model and the folder of its run are the same, and counts add up."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from dynunet import Diffusion
from dynunet.data import FolderDataset
from dynunet.evaluation import data_of_run, evaluate
from dynunet.generation import generate
from dynunet.restoration import fill_gaps, restore
from tests.dynunet.test_cli_files import untrained
from tests.dynunet.test_saved_runs import opened

QUIET: dict[str, Any] = {"progress": False}


@pytest.fixture(name="voice")
def _voice(tmp_path: Path) -> tuple[Path, Path]:
    return opened("voice", tmp_path)


@pytest.fixture(name="digits")
def _digits(tmp_path: Path) -> tuple[Path, Path]:
    return opened("digits", tmp_path)


def test_files_are_restored_and_counted(
    voice: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, files = voice
    (files / "broken.wav").write_bytes(b"RIFF....")
    first = restore(run, files, tmp_path / "out", device="cpu", **QUIET)
    assert (first.done, first.kept, first.total) == (6, 0, 7)
    assert list(first.failed) == [files / "broken.wav"]
    assert str(first).startswith(f"6 of 7 files restored, in {tmp_path / 'out'}; 1 skipped")
    (tmp_path / "out/0.wav").unlink()
    model = Diffusion.from_pretrained(run)
    again = restore(model, str(files), str(tmp_path / "out"), **QUIET)
    assert (again.done, again.kept, len(again.failed)) == (1, 5, 1)
    assert capsys.readouterr() == ("", "")
    a, b = (soundfile.read(tmp_path / f"out/{n}.wav")[0] for n in (0, 1))
    assert len(a) == len(b) == 400
    with pytest.raises(ValueError, match=r"sigma must be left out, the model knows its noise, got 0\.1"):
        restore(model, files, tmp_path / "no", sigma=0.1)
    wrongs: list[dict[str, Any]] = [{"steps": 0}, {"window": 0}, {"window": 8, "overlap": 8}]
    for wrong in wrongs:
        with pytest.raises(ValueError, match=f"{list(wrong)[-1]} must be"):
            restore(model, files, tmp_path / "no", **wrong)


def test_a_model_that_restores_is_evaluated(voice: tuple[Path, Path]) -> None:
    run, files = voice
    model, held = Diffusion.from_pretrained(run), data_of_run(run, files)
    found = evaluate(model, held, num=3, batch_size=2)
    again = evaluate(run, held, num=3, batch_size=3, device="cpu")
    assert again.figures == pytest.approx(found.figures, abs=1e-4)  # dB, in single precision
    assert found.figures.keys() == {"SNR", "SI-SDR", "SNR before", "SI-SDR before"}
    assert str(found).splitlines()[0].startswith(f"SNR     {found.figures['SNR before']:.2f} dB before")
    louder = evaluate(model, data_of_run(run, files, snr=(40, 40)), num=3)
    assert louder.figures["SNR before"] == pytest.approx(40, abs=1)  # of the deviation from the mean
    with pytest.raises(ValueError, match="dataset must be given with a model"):
        evaluate(model)
    with pytest.raises(ValueError, match="num must be at least 2, got 1"):
        evaluate(model, held, num=1)


def test_examples_of_which_a_figure_says_nothing_are_left_out_and_counted(tmp_path: Path) -> None:
    """The means are those over the others, whose power is that of speech, in closed form."""
    random = np.random.default_rng(0)
    names = ("a", "b", "c", "silent", "hushed", "clean")
    clean = {name: random.uniform(-0.5, 0.5, 200) for name in names}
    noisy = {name: x + 0.1 * random.uniform(-0.5, 0.5, 200) for name, x in clean.items()}
    clean["silent"], clean["hushed"], noisy["clean"] = np.zeros(200), clean["hushed"] * 1e-4, clean["clean"]
    for folder, signals in {"clean": clean, "noisy": noisy}.items():
        (tmp_path / folder).mkdir()
        for name, x in signals.items():
            soundfile.write(tmp_path / folder / f"{name}.wav", x, 8000, "FLOAT")
    source, pairs = tmp_path / "clean", tmp_path / "noisy"
    run = untrained(tmp_path / "run", source, pairs=pairs)
    found = evaluate(run, data_of_run(run, source, pairs=pairs), num=6)
    ratios = [10 * np.log10((clean[n] ** 2).sum() / ((noisy[n] - clean[n]) ** 2).sum()) for n in "abc"]
    assert found.figures["SNR before"] == pytest.approx(np.mean(ratios), abs=1e-3)
    assert found.left_out == 3
    assert "of 3 of 6 examples\n" in str(found)
    assert "left out  2 of 6 silent, 1 of 6 as clean as can be" in str(found)
    for name in "abc":
        (source / f"{name}.wav").unlink()
    none = evaluate(run, data_of_run(run, source, pairs=pairs), num=3)
    assert np.isnan(none.figures["SNR before"]) == (none.left_out == 3)


@pytest.mark.parametrize("name", ["voice", "digits"])
def test_the_folder_of_a_model_alone_is_evaluated(name: str, tmp_path: Path) -> None:
    run, files = opened(name, tmp_path)
    for path in run.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    data = data_of_run(run, files)
    assert data.units == Diffusion.from_pretrained(run).data
    assert evaluate(run, data, num=3, steps=1).rows
    with pytest.raises(ValueError, match=r"source must be given: .* holds a model alone"):
        data_of_run(run)


def test_new_data_is_made_kept_and_made_more_of(digits: tuple[Path, Path], tmp_path: Path) -> None:
    run, _ = digits
    two = generate(run, tmp_path / "out", num=2, steps=1, device="cpu", **QUIET)
    assert [path.name for path in two.files] == ["sample-0-kind0.png", "sample-1-kind1.png"]
    assert two.picture == tmp_path / "out-overview.png"
    before = two.files[0].read_bytes()
    model = Diffusion.from_pretrained(run)
    more = generate(model, tmp_path / "out", num=3, steps=1, **QUIET)
    assert (len(more.files), more.kept, more.files[0].read_bytes()) == (3, 2, before)
    assert "2 of 3 samples there already and kept" in str(more)
    one = generate(model, tmp_path / "one", num=1, steps=1, classes=["kind1"], size=(6, 8), **QUIET)
    with Image.open(one.files[0]) as image:
        assert (one.files[0].name, image.size) == ("sample-0-kind1.png", (8, 6))
    wrongs: dict[str, dict[str, Any]] = {
        "size must be one number or 2, at least 1": {"size": (1, 2, 3)},
        "classes must be of kind0, kind1, got 'x'": {"classes": ["x"]},
        "num must be at least 1, got 0": {"num": 0},
    }
    for message, wrong in wrongs.items():
        with pytest.raises(ValueError, match=message):
            generate(model, tmp_path / "no", **wrong)


def test_a_model_of_clean_data_fills_gaps_and_is_evaluated(digits: tuple[Path, Path], tmp_path: Path) -> None:
    run, files = digits
    model = Diffusion.from_pretrained(run)
    masks = tmp_path / "masks" / "kind0"
    masks.mkdir(parents=True)
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(masks / "0.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(masks / "2.png")
    done = fill_gaps(model, files, tmp_path / "out", mask=tmp_path / "masks", steps=1, **QUIET)
    assert (done.done, len(done.passed_over), len(done.failed), done.total) == (1, 1, 6, 8)
    assert "there is no mask of its name" in done.failed[files / "kind1/1.png"]
    figures = evaluate(model, FolderDataset(files, labels="folder", split="all"), num=2, steps=1).figures
    assert figures.keys() == {"loss", "Fréchet distance", "floor"}
    with pytest.raises(ValueError, match="the classes must be kind0, kind1, got none"):
        evaluate(model, FolderDataset(files, split="all"), num=2)
    with pytest.raises(ValueError, match="one of missing and mask"):
        fill_gaps(model, files, tmp_path / "no")
    with pytest.raises(ValueError, match="snr is for a model that restores, which this one is not"):
        data_of_run(run, files, snr=(0, 1))
