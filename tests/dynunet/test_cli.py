"""The command line on small real files: one command after the other, in this process."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import tyro
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dynunet import Diffusion, UNet
from dynunet.cli import main
from dynunet.cli.main import parsed
from dynunet.cli.summary import _most
from dynunet.cli.train import MARKERS, Train, flags_of
from dynunet.jsonable import flat
from dynunet.planning import training_memory
from dynunet.training.record import read_flags

SMALL = "--num-blocks 1 --num-groups 4 --no-tensorboard --cpu --sample-every 0 --validation-samples 4".split()


def run(*words: object) -> None:
    main([str(word) for word in words])


def fails(capsys: pytest.CaptureFixture[str], code: int, *words: object) -> str:
    """The one line on stderr with which a command ends."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as error:
        run(*words)
    assert error.value.code == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings and noise, and a model trained to tell them apart."""
    folder = tmp_path_factory.mktemp("voice")
    (folder / "clean/deeper").mkdir(parents=True)
    (folder / "noise").mkdir()
    generator = np.random.default_rng(0)
    for i in range(12):
        time = np.arange(3000 + 100 * i) / 8000
        tone = 0.3 * np.sin(2 * np.pi * (200 + 50 * i) * time)
        soundfile.write(folder / f"clean/{'deeper/' * (i % 2)}{i}.wav", tone, 8000)
    soundfile.write(folder / "noise/hiss.wav", 0.1 * generator.standard_normal(8000), 8000)
    run(
        "train", folder / "clean", "--spatial-dims", 1, "--noise", folder / "noise", "--snr", 0, 10,
        "--out", folder / "run", "--size", 1024, "--channels", 8, 16, "--steps", 100, "--batch-size", 4,
        "--lr", 5e-3, "--ema", 0.9, *SMALL,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two classes, and a model of them."""
    folder = tmp_path_factory.mktemp("pictures")
    for kind in ("bright", "dark"):
        (folder / "data" / kind).mkdir(parents=True)
        for i in range(8):
            image = np.full((10, 12), 220 if kind == "bright" else 30, np.uint8)
            image[i % 8, :] = 128
            Image.fromarray(image).save(folder / "data" / kind / f"{i}.png")
    train = [
        "train",
        folder / "data",
        "--spatial-dims",
        2,
        "--labels",
        "folder",
        "--size",
        8,
        "--channels",
        8,
        16,
    ]
    run(*train, "--out", folder / "run", "--steps", 4, "--batch-size", 4, *SMALL)
    return folder


def test_training_to_restore_denoises_files_and_folders(voice: Path, tmp_path: Path) -> None:
    clean, _ = soundfile.read(voice / "clean/0.wav")
    noise, _ = soundfile.read(voice / "noise/hiss.wav")
    noisy = clean + noise[: len(clean)]
    (tmp_path / "noisy/a").mkdir(parents=True)
    soundfile.write(tmp_path / "noisy/a/0.wav", noisy, 8000, subtype="PCM_24")
    soundfile.write(tmp_path / "noisy/1.flac", noisy, 8000)
    run("denoise", voice / "run", tmp_path / "noisy", "--out", tmp_path / "out", "--device", "cpu")
    for name in ("a/0.wav", "1.flac"):
        restored, rate = soundfile.read(tmp_path / "out" / name)
        assert (len(restored), rate) == (len(clean), 8000)
        assert np.mean((restored - clean) ** 2) < 0.5 * np.mean((noisy - clean) ** 2)
    assert soundfile.info(tmp_path / "out/a/0.wav").subtype == "PCM_24"

    one = tmp_path / "one.wav"
    run("denoise", voice / "run", tmp_path / "noisy/a/0.wav", "--out", one, "--device", "cpu")
    assert (soundfile.read(one)[0] == soundfile.read(tmp_path / "out/a/0.wav")[0]).all()


def test_what_cannot_be_read_is_named_and_the_rest_is_restored(
    voice: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(voice / "clean/0.wav", tmp_path / "in")
    (tmp_path / "in/broken.wav").write_bytes(b"RIFF....")
    with pytest.raises(SystemExit) as error:
        run("denoise", voice / "run", tmp_path / "in", "--out", tmp_path / "out")
    assert error.value.code == 1
    said = capsys.readouterr()
    assert "skipped: " in said.err
    assert "broken.wav" in said.err
    assert "1 of 2 files restored" in said.out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["0.wav"]


def test_results_are_never_overwritten_unasked(
    voice: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(voice / "clean/0.wav", tmp_path / "kept.wav")
    before = (tmp_path / "kept.wav").read_bytes()
    denoise = ["denoise", voice / "run", voice / "clean/2.wav", "--out", tmp_path / "kept.wav"]
    assert "exists already" in fails(capsys, 2, *denoise)
    assert (tmp_path / "kept.wav").read_bytes() == before
    run(*denoise, "--overwrite")
    assert (tmp_path / "kept.wav").read_bytes() != before


def test_evaluate_prints_figures_before_and_after(voice: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("evaluate", voice / "run", "--num", 6, "--batch-size", 4)
    first = capsys.readouterr().out
    run("evaluate", voice / "run", "--num", 6, "--batch-size", 1)
    assert capsys.readouterr().out == first  # whatever the size of a batch
    assert "held out from training" in first
    snr = next(line for line in first.splitlines() if line.startswith("SNR"))
    before, after, gain = (float(word) for word in snr.split() if word.strip("+-").replace(".", "").isdigit())
    assert 0 < before < 10
    assert gain == pytest.approx(after - before, abs=0.011)
    assert gain > 1
    assert "SI-SDR" in first


def test_noise_of_another_level_can_be_evaluated(voice: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("evaluate", voice / "run", voice / "clean/deeper", "--num", 4, "--snr", 20, 20)
    said = capsys.readouterr().out
    assert "all there are" in said
    assert "SNR     20.00 dB before" in said


def test_samples_are_files_of_the_runs_kind_and_a_picture(pictures: Path, tmp_path: Path) -> None:
    run("sample", pictures / "run", "--num", 3, "--steps", 2, "--out", tmp_path / "a")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["sample-0-bright.png", "sample-1-dark.png", "sample-2-bright.png"]
    assert (tmp_path / "a-overview.png").is_file()
    with Image.open(tmp_path / "a/sample-1-dark.png") as image:
        assert (image.size, image.mode) == ((8, 8), "L")
    options = [
        "--num",
        2,
        "--steps",
        2,
        "--classes",
        "dark",
        1,
        "--batch-size",
        1,
        "--size",
        6,
        20,
        "--seed",
        5,
    ]
    run("sample", pictures / "run", *options, "--out", tmp_path / "b")
    with Image.open(tmp_path / "b/sample-1-dark.png") as image:
        assert image.size == (20, 6)


def test_samples_do_not_depend_on_the_batch(pictures: Path, tmp_path: Path) -> None:
    for size in (1, 3):
        run(
            "sample",
            pictures / "run",
            "--num",
            3,
            "--steps",
            2,
            "--batch-size",
            size,
            "--out",
            tmp_path / str(size),
        )
    for path in (tmp_path / "1").glob("sample-*"):
        with Image.open(path) as one, Image.open(tmp_path / "3" / path.name) as other:
            assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() <= 1


def test_training_is_resumed_with_its_flags_to_the_same_weights(pictures: Path, tmp_path: Path) -> None:
    train = [
        "train",
        pictures / "data",
        "--spatial-dims",
        2,
        "--labels",
        "folder",
        "--size",
        8,
        "--channels",
        8,
        16,
    ]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = ["--batch-size", 4, "--decay", "constant", "--warmup", 0, *SMALL]
    run(*train, *options, "--out", whole, "--steps", 6)
    run(*train, *options, "--out", parts, "--steps", 3)
    run("train", "--resume", parts, "--steps", 6)
    a, b = (Diffusion.from_pretrained(folder).state_dict() for folder in (whole, parts))
    assert all(torch.equal(a[name], b[name]) for name in a)
    # Resumed once more, it is the longer run that is gone on with.
    assert flags_of(parts / "run.json").training.steps == 6


def test_a_run_is_resumed_with_its_own_data_in_its_own_folder(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    shutil.copytree(pictures / "run", out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != ".lock"}
    for words, told in {
        ("--steps", 3): "steps must be at least the 4 that are done already",
        ("--size", 4): "--size [4] instead of [8]",
        ("--flips", 1, "--data-seed", 3): "--flips [1] instead of []; --data-seed 3 instead of 0",
        ("--coloured",): "--coloured True instead of False",
        ("--lr", 0.5): "--lr 0.5 instead of 0.004",
        ("--channels", 4): "channels",
        ("--out", tmp_path): "leave out --out",
        ("--overwrite",): "leave one of them out",
    }.items():
        assert told in fails(capsys, 2, "train", "--resume", out, *words), words
    assert {path: path.read_bytes() for path in before} == before
    assert {*before} == {path for path in out.rglob("*") if path.is_file() and path.name != ".lock"}

    moved = tmp_path / "moved"
    shutil.copytree(pictures / "data", moved)
    run("train", moved, "--resume", out, "--steps", 5, "--cache", 0.5)
    assert f"source: {moved}, which was {pictures / 'data'}" in capsys.readouterr().err
    assert flags_of(out / "run.json").source == moved


def test_a_run_that_holds_what_it_is_to_read_is_not_overwritten(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder = tmp_path / "run"
    shutil.copytree(pictures / "run", run_folder)
    (run_folder / "samples").mkdir()
    for i in range(3):  # which a run may have written
        shutil.copy(pictures / "data/dark/0.png", run_folder / f"samples/step-0000000{i}.png")
    (tmp_path / "link").symlink_to(run_folder)
    size = ["--size", 8, "--steps", 1, "--overwrite", "--out"]
    for words, told in (
        ((run_folder / "samples", *size, run_folder), "--out must not hold the source"),
        ((tmp_path / "link/samples", *size, run_folder), "--out must not hold the source"),
        ((run_folder, *size, tmp_path / "link"), "--out must not hold the source"),
        ((pictures / "data", "--pairs", run_folder, *size, run_folder), "--out must not hold the pairs"),
        ((pictures / "data", "--noise", run_folder, *size, run_folder), "--out must not hold the noise"),
    ):
        assert told in fails(capsys, 2, "train", *words), words
    assert len([*(run_folder / "samples").iterdir()]) == 3
    assert (run_folder / "model.safetensors").exists()


@pytest.mark.filterwarnings("ignore:.* is skipped")
@pytest.mark.parametrize("workers", [0, 1])
def test_data_that_vanish_end_training_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    from dynunet.training import loop

    (tmp_path / "data").mkdir()
    for i in range(4):
        np.save(tmp_path / f"data/{i}.npy", np.random.default_rng(i).normal(size=(6, 6)))

    def vanish(*_: object) -> None:
        shutil.rmtree(tmp_path / "data", ignore_errors=True)

    monkeypatch.setattr(loop.Loop, "_show", vanish)
    flags = ["--spatial-dims", 2, "--size", 4, "--channels", 4, "--cache", 0, "--workers", workers, *SMALL]
    train = ["train", tmp_path / "data", "--out", tmp_path / "run", "--steps", 50, *flags]
    with pytest.raises(SystemExit) as error:
        run(*train)
    assert error.value.code == 1
    said = capsys.readouterr().err
    assert "dynunet train: no file can be read any more, such as" in said
    assert "Once files are there again, the run can be resumed" in said
    assert "Traceback" not in said


@pytest.mark.skipif(sys.platform != "linux", reason="looks at what the process has loaded in /proc")
def test_ctrl_c_while_all_is_imported_gives_no_traceback() -> None:
    command = [sys.executable, "-m", "dynunet", "summary", "--spatial-dims", "2", "--size", "8"]
    # In the background of a shell SIGINT is ignored, and children inherit that.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stderr=pipe, stdout=pipe, text=True, preexec_fn=heard)
    maps = Path(f"/proc/{process.pid}/maps")
    while process.poll() is None and "libtorch" not in maps.read_text():
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert said == ""
    assert process.returncode == -signal.SIGINT


def test_the_flags_of_a_run_can_be_used_again(pictures: Path, tmp_path: Path) -> None:
    record = pictures / "run/run.json"
    run("train", "--config", record, "--out", tmp_path / "again", "--channels", 4, 8, "--steps", 1)
    old, new = flags_of(record), flags_of(tmp_path / "again/run.json")
    assert new.network.channels == (4, 8)
    assert new.training.steps == 1
    assert new.data == old.data
    assert Diffusion.from_pretrained(tmp_path / "again").config["model"]["channels"] == [4, 8]


def test_every_flag_survives_the_way_through_json(tmp_path: Path) -> None:
    line = """--spatial-dims 3 --size 8 9 10 --coordinates --flips 0 2 --spacing 1 1 2.5 --percentiles 1 99
        --missing=-1e9 --value-range -5 5 --pairs other --validation 0.2 --channels 4 8 --strides 1x2x2
        --attention none full+channel --dropout 0.1 --gradient-checkpointing --data-channels 2 --data-seed 4
        --seed 3 --prediction flow --loss-weighting min_snr --clip inf --no-tensorboard --precision bf16"""
    asked = tyro.cli(Train, args=line.split(), config=MARKERS)
    assert (asked.data.channels, asked.data.seed, asked.training.seed) == (2, 4, 3)
    (tmp_path / "flags.json").write_text(json.dumps(flat(asked)))
    assert flags_of(tmp_path / "flags.json") == asked


def test_a_run_records_the_command_that_made_it(pictures: Path) -> None:
    recorded = read_flags(pictures / "run/run.json")
    assert recorded["source"] == str(pictures / "data")
    assert recorded["labels"] == "folder"
    assert recorded["channels"] == [8, 16]


def test_evaluate_tells_how_far_samples_are_from_data(
    pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("evaluate", pictures / "run", pictures / "data", "--num", 4, "--steps", 2)
    said = capsys.readouterr().out
    figures = {line.split("  ")[0].strip(): line.split("  ")[-1].split()[0] for line in said.splitlines()[1:]}
    assert float(figures["Fréchet distance"]) > float(figures["its floor"]) > 0
    assert float(figures["loss"]) > 0


def test_inpaint_fills_what_the_mask_marks_and_nothing_else(pictures: Path, tmp_path: Path) -> None:
    source = pictures / "data/bright/0.png"
    before = np.asarray(Image.open(source)).copy()
    marked = np.zeros_like(before)
    marked[3:6, 2:9] = 255
    Image.fromarray(marked).save(tmp_path / "mask.png")
    inpaint = ["inpaint", pictures / "run", source, "--mask", tmp_path / "mask.png", "--steps", 2]
    run(*inpaint, "--out", tmp_path / "filled.png")
    after = np.asarray(Image.open(tmp_path / "filled.png"))
    assert (after[marked == 0] == before[marked == 0]).all()
    assert (after[marked > 0] != before[marked > 0]).any()


def test_a_4d_array_with_gaps_is_trained_on_filled_and_sampled(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for i in range(4):
        field = generator.uniform(0, 30, (6, 6, 6, 6)).astype(np.float32)
        field[:, :2] = -1e10
        np.save(tmp_path / f"data/{i}.npy", field)
    run(
        "train", tmp_path / "data", "--spatial-dims", 4, "--missing=-1e10", "--size", 4, "--coordinates",
        "--channels", 4, 8, "--steps", 1, "--batch-size", 2, "--out", tmp_path / "run", *SMALL,
    )  # fmt: skip
    source = tmp_path / "data/0.npy"
    run("inpaint", tmp_path / "run", source, "--missing=-1e10", "--steps", 1, "--out", tmp_path / "filled")
    before, after = np.load(source), np.load(tmp_path / "filled/0.npy")
    known = before > -1e9
    np.testing.assert_allclose(after[known], before[known], atol=1e-5)
    assert (np.abs(after[~known]) < 1e3).all()
    run("sample", tmp_path / "run", "--num", 1, "--steps", 1, "--out", tmp_path / "samples")
    assert np.load(tmp_path / "samples/sample-0.npy").shape == (4, 4, 4, 4)


def test_summary_counts_parameters_batch_precision_and_checkpointing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def memory(*words: object) -> dict[str, float]:
        run("summary", "--spatial-dims", 2, "--channels", 16, 32, "--size", 64, *words)
        lines = [line for line in capsys.readouterr().out.splitlines() if line.endswith(" GiB")]
        return {line.split()[0].rstrip(","): float(line.split()[-2]) for line in lines}

    one, many = memory("--batch-size", 100), memory("--batch-size", 200)
    assert many["gradients"] == pytest.approx(2 * one["gradients"], rel=0.01)
    assert many["weights"] == one["weights"]
    mixed = memory("--batch-size", 200, "--precision", "bf16")
    assert mixed["gradients"] == pytest.approx(5 / 6 * many["gradients"], abs=0.01)
    less = memory("--batch-size", 200, "--gradient-checkpointing")
    assert less["gradients"] < 0.7 * many["gradients"]
    assert less["training"] == pytest.approx(less["weights"] + less["gradients"], abs=0.02)
    unet = UNet(2, 1, channels=(16, 32), time_embedding=True)
    planned = training_memory(Diffusion(unet), {"x0": torch.empty(200, 1, 64, 64)})
    assert many["training"] == pytest.approx(planned.tensors / 2**30, abs=0.01)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 10**4)), min_size=1, max_size=4),
    st.integers(0, 10**8),
)
def test_the_batch_of_the_summary_fits(lines: list[tuple[int, int]], budget: int) -> None:
    """Never too many; and one more does not, where memory is a line."""

    def memory(examples: int) -> int:
        return max(first + each * examples for first, each in lines)

    most = _most(memory, budget)
    assert most >= 0
    assert most == 0 or memory(most) <= budget
    if most == 0 or len(lines) == 1:
        assert memory(most + 1) > budget


def test_summary_draws_the_network_of_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    run("summary", *"--spatial-dims 4 --channels 16 32 64 --size 16 16 16 16".split())
    said = capsys.readouterr().out
    assert "1 x 16 x 16 x 16 x 16 x 16" in said
    assert "Into 24 GiB fit at most about" in said


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "Expected one of {train, distill, sample, denoise, inpaint, reconstruct, predict, evaluate, "),
        ("trian x", "Unrecognized options: trian"),
        ("train", "the folder of files to train on is missing"),
        ("train x", "source: there is no file or folder x"),
        ("train x --out y --stepz 3", "--stepz"),
        ("train x --out y --steps many", "--steps"),
        ("train x --out y --steps 0", "steps must be at least 1, got 0"),
        ("train x --out y --seed 99999999999999999999", "seed must have at most 64 bits"),
        ("train x --out y --data-seed 99999999999999999999", "seed must have at most 64 bits"),
        ("train x --out y --snr 5 1", "snr must be"),
        ("train x --out y --noise a --pairs b", "pairs"),
        ("train nowhere --out y", "nowhere"),
        ("train --resume nowhere", "nowhere/run.json: cannot be read"),
        ("train --resume a --config b", "leave out --config"),
        ("train --config nowhere.json", "nowhere.json: cannot be read"),
        ("train . --targets . --schedule flow --out y", "--schedule is of a diffusion model, and here"),
        ("train . --class-weights 1 2 --out y", "--class-weights is of targets, and here none are learned"),
        ("train . --device cuda:77 --out y", "--device must be one of this machine, got 'cuda:77': "),
        ("sample nowhere --out y", "run must be the folder of a run, got nowhere"),
        ("denoise nowhere x", "--out"),
        ("inpaint nowhere x --out y", "one of --missing and --mask"),
        ("evaluate nowhere --num 1", "--num must be at least 2, got 1"),
        ("summary --spatial-dims 2", "--spatial-dims and --size must be given, or the folder of a run"),
        ("summary --spatial-dims 2 --size 8 8 8", "size must be one number or 2"),
        ("summary --spatial-dims 2 --size 8 --channels 8 16 --strides 2y2", "strides must be numbers"),
        ("summary --spatial-dims 2 --size 8 --norm grup", "norm"),
    ],
)
def test_errors_are_one_line(
    line: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in fails(capsys, 2, *line.split())


def test_models_are_used_for_what_they_were_trained_for(
    voice: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", tmp_path / "out"]
    assert "dynunet denoise" in fails(capsys, 2, "sample", voice / "run", *out)
    assert "give --sigma" in fails(capsys, 2, "denoise", pictures / "run", pictures / "data", *out)
    assert "sigma must be left out" in fails(capsys, 2, "denoise", voice / "run", "x", "--sigma", 1, *out)
    inpaint = ["inpaint", voice / "run", "x", "--missing", "nan"]
    assert "was trained to restore" in fails(capsys, 2, *inpaint, *out)
    assert "must be of bright, dark" in fails(capsys, 2, "sample", pictures / "run", "--classes", "red", *out)
    assert "which" in fails(capsys, 2, "evaluate", pictures / "run", "--snr", 0, 1)
    for device in ("abacus", "meta"):
        words = f"device must be one of this machine, got {device!r}"
        assert words in fails(capsys, 2, "sample", pictures / "run", *out, "--device", device)
    image = pictures / "data/dark/0.png"
    assert "nothing is missing" in fails(capsys, 2, "inpaint", pictures / "run", image, "--missing", 7, *out)
    assert not (tmp_path / "out").exists()


def test_white_noise_of_known_level_needs_no_noise_in_training(pictures: Path, tmp_path: Path) -> None:
    image = pictures / "data/dark/0.png"
    run("denoise", pictures / "run", image, "--sigma", 0.2, "--steps", 2, "--out", tmp_path)
    with Image.open(tmp_path / "0.png") as restored:
        assert restored.size == (12, 10)


def test_a_run_is_not_replaced_unasked(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (pictures / "run/model.safetensors").read_bytes()
    line = fails(capsys, 2, "train", pictures / "data", "--out", pictures / "run")
    assert "--resume" in line
    assert "--overwrite" in line
    assert (pictures / "run/model.safetensors").read_bytes() == before


def test_wrong_fields_of_a_config_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "flags.json"
    for text, message in (
        ('{"chanels": [8]}', "'chanels' is no flag; did you mean 'channels'?"),
        ('{"steps": "many"}', "must have values as flags have them"),
        ('{"steps": {"a": 1}}', "must be a value or a list"),
        ("[1]", "must be a JSON object"),
        ("{", "must be JSON"),
        ('{"options": {"steps": 1}}', "was not started by dynunet train"),
    ):
        file.write_text(text)
        assert message in fails(capsys, 2, "train", "--config", file)


def test_a_config_may_have_flags_of_the_other_kind_of_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run writes down all; version 0.1 a shift of 1, which is no longer the default."""
    file = tmp_path / "flags.json"
    file.write_text('{"shift": 1.0, "class_weights": [1, 2]}')
    line = ["train", tmp_path, "--config", file, "--out", tmp_path / "run"]
    for targets in ([], ["--targets", tmp_path]):
        parsed([*map(str, [*line, *targets])]).check()
    file.write_text(json.dumps({"targets": str(tmp_path)}))
    assert "--shift is of a diffusion model" in fails(capsys, 2, *line, "--shift", 1)


def test_an_interrupted_run_says_how_to_go_on(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dynunet.training import Interrupted, Trainer

    def fit(*_: object, **__: object) -> None:
        raise Interrupted("stopped")

    monkeypatch.setattr(Trainer, "fit", fit)
    with pytest.raises(SystemExit) as error:
        run("train", pictures / "data", "--size", 8, "--out", tmp_path / "run")
    assert error.value.code == 130
    assert f"dynunet train --resume {tmp_path / 'run'}" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["", "train", "sample", "denoise", "inpaint", "evaluate", "summary"])
def test_help_is_printed(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main([*command.split(), "--help"])
    assert not error.value.code
    said = capsys.readouterr().out
    assert f"usage: dynunet {command}".strip() in said
    assert "{None}" not in said


def test_the_arguments_of_the_process_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["dynunet", "summary", "--help"])
    with pytest.raises(SystemExit) as error:
        main()
    assert not error.value.code


def test_a_run_begins_with_the_weights_of_another_one(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With other data and another learning rate; so small a rate that the weights stay as they were."""
    for i in range(6):
        (tmp_path / "in" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 9), 40 * i, np.uint8)).save(tmp_path / "in" / "ab"[i % 2] / f"{i}.png")
    out, training = tmp_path / "run", "--no-tensorboard --cpu --sample-every 0 --batch-size 2".split()
    begin = "train", tmp_path / "in", "--from", pictures / "run", "--size", 8, *training
    run(*begin, "--labels", "folder", "--lr", 1e-20, "--steps", 2, "--out", out)
    before, after = (Diffusion.from_pretrained(folder) for folder in (pictures / "run", out))
    for (name, a), b in zip(before.state_dict().items(), after.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    assert (after.data or {})["classes"] == ["a", "b"]
    assert read_flags(out / "run.json")["from"] == str(pictures / "run")
    shutil.copytree(out, tmp_path / "moved")
    run("train", "--resume", out, "--steps", 3)
    for flags, why in {
        ("--channels", 8): "--from takes the model as it is in .*: leave out --channels",
        ("--schedule", "linear"): "leave out --schedule",
        (): "is for 2 classes, and the data have none",
    }.items():
        said = fails_last(capsys, *begin, *flags, "--out", tmp_path / "no")
        assert re.search(why, said), said
    assert "--from must be the folder of a run" in fails_last(
        capsys, "train", tmp_path / "in", "--from", tmp_path / "nowhere", "--out", tmp_path / "no"
    )


def fails_last(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The last line on stderr of a command that is refused."""
    with pytest.raises(SystemExit) as error:
        run(*words)
    assert error.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]
