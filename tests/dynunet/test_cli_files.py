"""What the commands do to folders of files: each is worked on, or named; nothing is done twice, or lost."""

import errno
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from PIL import Image

from dynunet import Diffusion, SpectralMask, UNet
from dynunet.cli import main
from dynunet.cli.train import Train
from dynunet.cli.words import as_flags, flags_of_command
from dynunet.data import FolderDataset
from dynunet.diffusion import SymmetricBridge, shifted

from .data_writers import flac, idx, nii, png, truncated, wav
from .test_data_broken import ODD, record
from .test_data_exact import KINDS


def untrained(run: Path, source: Path, **options: Any) -> Path:
    """A model of files that has learned nothing, as a run's folder has it."""
    data = FolderDataset(source, validation=0, **options)
    torch.manual_seed(0)
    unet = UNet(
        len(data.shape) - 1, data.channels, channels=(4, 8), num_blocks=1, num_groups=2, time_embedding=True,
        cond_channels=data.cond_channels, num_classes=data.num_classes,
    )  # fmt: skip
    prediction = "sample" if data.options.restores else "v_prediction"
    Diffusion(unet, prediction=prediction, data=data.units).save_pretrained(run)
    return run


def run(*words: object) -> None:
    main([str(word) for word in words])


def ends(code: int, *words: object) -> None:
    with pytest.raises(SystemExit) as error:
        run(*words)
    assert error.value.code == code


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def restorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Restores sound of one channel at 8000 Hz."""
    folder = tmp_path_factory.mktemp("restorer")
    wav(folder / "data" / "a.wav", 256)
    return untrained(folder / "run", folder / "data", coloured=True, size=128)


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes grey pictures of two classes."""
    folder = tmp_path_factory.mktemp("painter")
    for kind in ("a", "b"):
        png(folder / "data" / kind / "0.png", np.arange(64, dtype=np.uint8).reshape(8, 8))
    return untrained(folder / "run", folder / "data", labels="folder")


def masks_of(run: Path) -> Any:
    return Diffusion.from_pretrained(run).model


def test_a_network_that_masks_spectrograms_is_trained_and_restores(sounds: Path, tmp_path: Path) -> None:
    made, data = (
        tmp_path / "run",
        ("train", sounds, "--spatial-dims", 1, "--size", 128, "--spectral-mask", 32),
    )
    network = ("--channels", 4, 4, "--num-groups", 2, "--steps", 1, "--cpu", "--sample-every", 0)
    run(*data, *network, "--coloured", "--loss", "l1+stft", "--out", made)
    masks = masks_of(made)
    assert isinstance(masks, SpectralMask)
    assert masks.model.in_channels == 2 * 8
    assert masks.model.spatial_dims == 2
    run("denoise", made, sounds, "--out", tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.wav"))) == 4
    ends(2, *data, *network, "--out", tmp_path / "other")  # which makes new data
    ends(2, *data, *network, "--coloured", "--coordinates", "--out", tmp_path / "other")
    live = ("--patch-size", 3, 6, "--causal", "True", "--lookahead", 2, "--norm", "layer")
    run(*data, *network, "--coloured", *live, "--out", tmp_path / "live")
    causal = masks_of(tmp_path / "live")
    assert causal.model.causal_axes == (True, False)
    assert causal.lookaheads == (31 + 8 * (3 * 3 - 1),)
    whole = tmp_path / "whole"
    run(*data, *network, "--coloured", "--patch-size", 0, 0, "--out", whole)
    assert masks_of(whole).model.in_channels == 17
    record = json.loads((whole / "run.json").read_text())
    del record["flags"]["patch_size"]  # as it was before there were patches
    (whole / "run.json").write_text(json.dumps(record))
    run("train", "--resume", whole, "--steps", 2)
    run("train", "--config", whole / "run.json", "--out", tmp_path / "again")
    assert masks_of(tmp_path / "again").model.in_channels == 17
    run(*data, *network, "--coloured", "--spectral-mask", 8, "--out", tmp_path / "short")
    assert masks_of(tmp_path / "short").patch_size == (2, 5)
    for patch in ((2, 0), (-1, 8)):
        ends(2, *data, *network, "--coloured", "--patch-size", *patch, "--out", tmp_path / "other")
    ends(2, *data[:-2], *network, "--coloured", "--patch-size", 2, 8, "--out", tmp_path / "other")
    ends(2, *data, *network, "--coloured", "--strides", "2", "--causal", "True", "False", "--out", "other")


def test_a_bridge_is_trained_and_restores(sounds: Path, tmp_path: Path) -> None:
    made, data = (
        tmp_path / "run",
        ("train", sounds, "--spatial-dims", 1, "--size", 64, "--schedule", "bridge"),
    )
    network = ("--channels", 4, 4, "--num-groups", 2, "--steps", 1, "--cpu", "--sample-every", 0)
    run(*data, *network, "--coloured", "--coordinates", "--shift", 0.5, "--out", made)
    assert Diffusion.from_pretrained(made).schedule == shifted(SymmetricBridge(), 0.5)
    for seed in (0, 1):  # restored without noise
        run("denoise", made, sounds, "--steps", 2, "--seed", seed, "--out", tmp_path / f"out{seed}")
    first, second = ([path.read_bytes() for path in out.glob("*.wav")] for out in tmp_path.glob("out?"))
    assert len(first) == 4
    assert sorted(first) == sorted(second)
    ends(2, *data, *network, "--out", tmp_path / "other")  # which makes new data
    ends(2, *data, "--coloured", "--spectral-mask", 32, "--out", tmp_path / "other")


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    for i in range(4):
        wav(tmp_path / "in" / f"{i}.wav", 200)
    return tmp_path / "in"


def damage(path: Path) -> None:
    path.write_bytes(b"RIFF....")


# What else is in a folder of recordings; whether it is restored.
AMONG: dict[str, tuple[str, Callable[[Path], Any], bool]] = {
    "damaged": ("b.wav", damage, False),
    "truncated": ("b.flac", truncated(flac), False),
    "a link to nowhere": ("b.wav", lambda p: p.symlink_to("nowhere"), False),
    "a pipe": ("b.wav", os.mkfifo, False),
    "a picture": ("b.png", png, False),
    "MNIST": ("b-idx3-ubyte", idx, False),
    "too long at one sample in a second": ("b.wav", lambda p: wav(p, 100_000, rate=1), False),
    "no text": ("b.txt", Path.touch, True),
    "stereo": ("b.wav", lambda p: wav(p, channels=2), True),
    "of a higher rate": ("b.wav", lambda p: wav(p, rate=44100), True),
    "a long name": ("n" * 251 + ".wav", wav, True),
    "another format": ("b.flac", flac, True),
    "a run": ("run", lambda p: (record(p), wav(p / "x.wav")), True),
    **{case: (f"b{name[1:]}", write, True) for case, (write, name) in ODD.items() if "streamed" in case},
}


@pytest.mark.parametrize("case", AMONG)
def test_denoise_names_what_cannot_be_restored_and_does_the_rest(
    case: str, restorer: Path, sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, write, good = AMONG[case]
    write(sounds / name)
    denoise = ("denoise", restorer, sounds, "--out", tmp_path / "out")
    run(*denoise) if good else ends(1, *denoise)
    said = capsys.readouterr()
    files = sum(name.endswith((".wav", ".flac", ".ogg", ".png", "ubyte")) for name in os.listdir(sounds))
    assert f"{files - (not good)} of {files} files restored" in said.out
    assert (name in said.err) == (not good or case in ("of a higher rate", "a run"))
    results = {p.name for p in (tmp_path / "out").iterdir()}
    assert {f"{i}.wav" for i in range(4)} <= results
    assert len(results) == files - (not good)
    if name in results:
        before, after = sf.info(sounds / name), sf.info(tmp_path / "out" / name)
        assert (before.channels, before.samplerate) == (after.channels, after.samplerate)
    # And once more: what is there is kept, what is missing is made.
    first = contents(tmp_path / "out")
    (tmp_path / "out" / "2.wav").unlink()
    run(*denoise) if good else ends(1, *denoise)
    assert "1 of" in capsys.readouterr().out
    assert contents(tmp_path / "out") == first


class Interrupt:
    """Stands in for ``os.replace``: the user stops the program before the n-th file is in its place."""

    def __init__(self, after: int) -> None:
        self.left = after
        self.replace = os.replace

    def __call__(self, *paths: Any) -> None:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.replace(*paths)


def commands(restorer: Path, painter: Path, tmp_path: Path) -> Iterator[tuple[object, ...]]:
    for i in range(4):
        wav(tmp_path / "sounds" / f"{i}.wav", 300, 1 + i % 2)
        png(tmp_path / "pictures" / f"{i}.png")
    png(tmp_path / "mask.png", np.pad(np.full((3, 3), 255, np.uint8), ((2, 7), (3, 4))))
    yield "denoise", restorer, tmp_path / "sounds", "--steps", 2
    yield "inpaint", painter, tmp_path / "pictures", "--mask", tmp_path / "mask.png", "--steps", 2
    yield "sample", painter, "--num", 5, "--steps", 2, "--batch-size", 2


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_an_interrupted_command_goes_on_to_the_same_results(
    which: int, after: int, restorer: Path, painter: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    command = list(commands(restorer, painter, tmp_path))[which]
    run(*command, "--out", tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", Interrupt(after))
        ends(130, *command, "--out", tmp_path / "parts")
    assert f"{after} of " in capsys.readouterr().err
    assert len(contents(tmp_path / "parts")) == after, "nothing else is left, whole or half"
    run(*command, "--out", tmp_path / "parts")
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert ("kept" in capsys.readouterr().out) == (after > 0)


def test_more_samples_are_made_beside_those_that_are_there(painter: Path, tmp_path: Path) -> None:
    sample = ("sample", painter, "--steps", 2, "--batch-size", 2, "--out")
    run(*sample, tmp_path / "a", "--num", 3)
    three = contents(tmp_path / "a")
    run(*sample, tmp_path / "a", "--num", 6)
    run(*sample, tmp_path / "b", "--num", 6)
    six = contents(tmp_path / "b")
    assert three.items() <= contents(tmp_path / "a").items()
    for name in six:
        if name.startswith("sample-"):
            one, other = (np.asarray(Image.open(tmp_path / f / name)).astype(int) for f in "ab")
            np.testing.assert_allclose(one, other, atol=1)


def test_samples_of_two_calls_are_not_mixed(painter: Path, tmp_path: Path, capsys: Any) -> None:
    sample = ("sample", painter, "--steps", 1, "--out", tmp_path / "out", "--num")
    run(*sample, 3)
    run(*sample, 12)  # whose numbers are longer
    names = [p.name for p in (tmp_path / "out").glob("sample-*")]
    assert sorted(int(n.split("-")[1]) for n in names) == list(range(12))
    before = contents(tmp_path / "out")
    ends(2, *sample, 2, "--overwrite")
    assert "holds 10 samples of an earlier call" in capsys.readouterr().err
    assert contents(tmp_path / "out") == before
    run(*sample, 12, "--overwrite")


def test_a_picture_of_samples_has_a_column_for_each_class(
    painter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[dict[str, Any]] = []

    def pictures(x: Any, path: Path, rate: Any, **options: Any) -> None:
        drawn.append(options)
        path.touch()

    monkeypatch.setattr("dynunet.plotting.pictures", pictures)
    run("sample", painter, "--steps", 1, "--num", 3, "--out", tmp_path / "out")
    assert drawn == [{"columns": 2, "labels": ["a", "b", "a"]}]


def test_samples_are_guided_by_a_weaker_run(painter: Path, tmp_path: Path, capsys: Any) -> None:
    weaker = Diffusion.from_pretrained(painter)
    with torch.no_grad():
        for p in weaker.parameters():
            p.add_(0.1)
    weaker.save_pretrained(tmp_path / "weak")
    sample = ("sample", painter, "--steps", 2, "--num", 2, "--out")
    run(*sample, tmp_path / "a")
    run(*sample, tmp_path / "b", "--guide", tmp_path / "weak", "--guide-scale", 1)
    run(*sample, tmp_path / "c", "--guide", tmp_path / "weak")
    assert contents(tmp_path / "a") == contents(tmp_path / "b") != contents(tmp_path / "c")
    weaker.data = {**(weaker.data or {}), "range": (0.0, 1.0)}
    weaker.save_pretrained(tmp_path / "weak")
    ends(2, *sample, tmp_path / "d", "--guide", tmp_path / "weak")
    wrong = "--guide must be a model of the same data, with range None, got (0.0, 1.0)"
    assert wrong in capsys.readouterr().err
    ends(2, *sample, tmp_path / "d", "--guide", tmp_path / "none")
    assert "--guide must be the folder of a run" in capsys.readouterr().err


def test_a_run_inside_its_own_source_is_resumed_on_the_same_data(tmp_path: Path, capsys: Any) -> None:
    for i in range(4):
        png(tmp_path / f"{i}.png")
    small = "--channels 4 --num-groups 2 --batch-size 2 --sample-every 0 --no-tensorboard --cpu".split()
    run("train", tmp_path, *small, "--validation", 0, "--steps", 1, "--out", tmp_path / "run")
    first = capsys.readouterr().out
    png(tmp_path / "run" / "samples" / "step-1.png")
    run("train", "--resume", tmp_path / "run", "--steps", 2)
    assert "examples  4: 4 to train on" in first
    second = capsys.readouterr().out
    assert "examples  4: 4 to train on" in second
    assert "left out  1 folder without data\n  run: a run" in second


def test_what_is_there_must_be_such_samples(painter: Path, tmp_path: Path, capsys: Any) -> None:
    for name, write, why in (
        ("sample-1-b.png", lambda p: png(p, np.zeros((8, 9), np.uint8)), "is of 1x8x9, not of 1x8x8"),
        ("sample-1-b.png", Path.touch, "is empty"),
        ("sample-1-b.png", Path.mkdir, "is there and is no regular file"),
        ("../3-overview.png", lambda p: p.symlink_to("x"), "is there and is no regular file"),
    ):
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        out.mkdir()
        write(out / name)
        before = sorted(out.iterdir())
        ends(2, "sample", painter, "--num", 2, "--out", out)
        assert why in capsys.readouterr().err
        assert sorted(out.iterdir()) == before


def test_results_are_not_worked_on_again(restorer: Path, sounds: Path, capsys: Any) -> None:
    for _ in range(2):
        run("denoise", restorer, sounds, "--out", sounds / "cleaned")
    said = capsys.readouterr()
    assert said.out.splitlines()[-1].startswith("0 of 4 files restored")
    assert f"left out: {sounds / 'cleaned'}: the results" in said.err
    assert len(contents(sounds / "cleaned")) == 4


@pytest.mark.parametrize("flags", [(), ("--overwrite",)])
def test_no_input_is_replaced(flags: Any, restorer: Path, painter: Path, sounds: Path, capsys: Any) -> None:
    png(sounds / "p" / "a.png")
    png(sounds / "p" / "mask.png")
    (sounds / "linked").mkdir()
    os.link(sounds / "0.wav", sounds / "linked" / "1.wav")
    other = sounds.parent / "file"
    other.touch()
    before = contents(sounds)
    ends(2, "denoise", restorer, sounds, "--out", sounds, *flags)
    assert "another folder" in capsys.readouterr().err
    for out in (other, sounds.parent / "new.wav"):
        ends(2, "denoise", restorer, sounds, "--out", out, *flags)
        assert "out must be a folder" in capsys.readouterr().err
    for out in (sounds, sounds / "0.wav", sounds / "linked" / "1.wav"):
        ends(2, "denoise", restorer, sounds / "0.wav", "--out", out, *flags)
        assert "which is read" in capsys.readouterr().err
    mask = sounds / "p" / "mask.png"
    ends(2, "inpaint", painter, sounds / "p" / "a.png", "--mask", mask, "--out", mask, *flags)
    assert "which is read" in capsys.readouterr().err
    assert contents(sounds) == before


def test_inpaint_takes_folders_of_files_and_of_masks(painter: Path, tmp_path: Path, capsys: Any) -> None:
    for i in range(3):
        png(tmp_path / "in" / "deep" / f"{i}.png")
        Image.fromarray(np.eye(12, 10, k=i, dtype=np.uint8) * 255).save(tmp_path / f"mask-{i}.png")
    Image.open(tmp_path / "in/deep/0.png").save(tmp_path / "in/deep/3.jpg")
    Image.open(tmp_path / "in/deep/0.png").save(tmp_path / "in/deep/0.jpg")
    png(tmp_path / "in" / "deep" / "whole.png")
    (tmp_path / "masks" / "deep").mkdir(parents=True)
    for i, name in enumerate(("0", "1", "3")):
        (tmp_path / f"mask-{i}.png").rename(tmp_path / "masks" / "deep" / f"{name}.png")
    png(tmp_path / "masks" / "deep" / "whole.png", np.zeros((12, 10), np.uint8))
    inpaint = ("inpaint", painter, tmp_path / "in", "--steps", 1, "--mask")
    ends(1, *inpaint, tmp_path / "masks", "--out", tmp_path / "out")
    said = capsys.readouterr()
    assert "3 of 6 files filled in" in said.out
    assert "0.png: its result has the name of that for" in said.err
    assert "2.png: there is no mask of its name" in said.err
    assert "passed over" in said.err
    names = [p.name for p in sorted((tmp_path / "out" / "deep").iterdir())]
    assert names == ["0.png", "1.png", "3.png"]
    for i, name in enumerate(("0.jpg", "1.png", "3.jpg")):
        before = np.asarray(Image.open(tmp_path / "in" / "deep" / name))
        after = np.asarray(Image.open(tmp_path / "out" / "deep" / names[i]))
        changed = (before != after).any(-1)
        assert changed.any()
        assert not (changed & ~np.eye(12, 10, k=i, dtype=bool)).any()
    ends(2, *inpaint, tmp_path / "masks" / "deep" / "nothing.png", "--out", tmp_path / "other")
    # Masks that lie among the files are not among what is filled in.
    (tmp_path / "masks").rename(tmp_path / "in" / "masks")
    ends(1, *inpaint, tmp_path / "in" / "masks", "--out", tmp_path / "out")
    said = capsys.readouterr()
    assert "0 of 6 files filled in" in said.out
    assert "3 there already" in said.out


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
def test_files_that_are_read_alone_become_others(suffix: str, painter: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(np.zeros((12, 10, 3), np.uint8)).save(tmp_path / "in" / f"a{suffix}")
    run("denoise", painter, tmp_path / "in", "--sigma", 0.1, "--steps", 1, "--out", tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.png"]


@pytest.mark.parametrize("kind", ["flac of a higher rate", "resized RGBA", "nii.gz at another spacing"])
def test_inpaint_changes_nothing_but_what_is_marked(kind: str, tmp_path: Path) -> None:
    of, options = KINDS[kind]
    path, to, mask = (tmp_path / f"{name}{of.suffix}" for name in ("a", "b", "mask"))
    of.make(path)
    model = untrained(tmp_path / "run", path, **options)
    marked = np.zeros(of.shape, bool)
    marked[(0, *(slice(1, 3) for _ in of.shape[1:]))] = True
    of.mask(mask, marked)
    mask = next(p for p in tmp_path.glob("mask.*"))
    run("inpaint", model, path, "--mask", mask, "--steps", 1, "--out", to)
    before, after = of.numbers(path), of.numbers(to)
    marked = np.broadcast_to(marked, before.shape)
    np.testing.assert_array_equal(after[~marked], before[~marked])
    assert (after[marked] != before[marked]).any()


def test_inpaint_refuses_before_it_samples(
    painter: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    png(tmp_path / "a.png")
    png(tmp_path / "mask.png", np.full((12, 10), 255, np.uint8))
    png(tmp_path / "small.png", np.full((2, 2), 255, np.uint8))
    Image.open(tmp_path / "a.png").save(tmp_path / "a.jpg")
    monkeypatch.setattr(Diffusion, "inpaint", lambda *_, **__: pytest.fail("sampled"))
    for source, mask, out, why in (
        ("a.png", "mask.png", "b.jpg", "changes all around it"),
        ("a.jpg", "mask.png", "b.jpg", "changes all around it"),
        ("a.png", "small.png", "b.png", "must have the size of the file, 12x10, and has 2x2"),
        ("a.png", "mask.png", "b.wav", "of a format with 2 spatial axes"),
    ):
        out = tmp_path / out
        ends(1, "inpaint", painter, tmp_path / source, "--mask", tmp_path / mask, "--out", out)
        assert why in capsys.readouterr().err
        assert not out.exists()


def test_a_full_disk_ends_it_with_one_line(
    restorer: Path, sounds: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    def full(path: Path, data: Any) -> None:
        with open(path, "wb") as file:
            file.write(data[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    ends(2, "denoise", restorer, sounds, "--out", tmp_path / "out")
    said = capsys.readouterr().err
    assert (
        f"{tmp_path}/out/0.wav could not be written: No space left on device; it takes about 444 bytes"
        in said
    )
    assert said.count("\n") == 1
    assert not contents(tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("sample --size 1000000", "1000000x1000000 takes at least 16 TB of memory"),
        ("sample --seed 99999999999999999999", "--seed must be a whole number of 64 bits"),
        ("sample --device meta", "device must be one"),
        ("sample --device cpu:x", "device must be one of this machine"),
        ("sample --num 0", "--num must be at least 1"),
        ("sample --batch-size 0", "--batch-size must be at least 1"),
        ("summary --spatial-dims 2 --size 100000000000", "takes more memory than there is"),
        ("summary --spatial-dims 1000000000 --size 8", "--spatial-dims must be at most 62"),
        ("summary --spatial-dims 2 --size 8 --memory inf", "memory must be positive and finite, got inf"),
        ("denoise x --steps 0 --sigma 1", "--steps must be at least 1"),
        ("denoise x --window 0 --sigma 1", "window must be at least 1"),
        ("denoise x --window 4 --overlap 4 --sigma 1", "overlap must be less than window"),
        ("inpaint x --missing none", "missing must be 'nan' or a number"),
        ("inpaint x --missing nan --window 2 3 4", "window"),
        ("inpaint x --missing nan --resamplings 0", "--resamplings must be at least 1"),
        ("denoise x --seed=-99999999999999999999", "--seed must be a whole number"),
        ("inpaint x --missing nan --seed 99999999999999999999", "--seed must be a whole number"),
        ("evaluate --seed 99999999999999999999", "--seed must be a whole number"),
        ("evaluate --batch-size 0", "--batch-size must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    words: str, why: str, painter: Path, tmp_path: Path, capsys: Any
) -> None:
    command, *rest = words.split()
    model = [] if command == "summary" else [painter]
    out = [] if command in ("summary", "evaluate") else ["--out", tmp_path / "out"]
    ends(2, command, *model, *rest, *out)
    said = capsys.readouterr().err
    assert why in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("train IN --resize", "resize needs a size to resize to, got no --size"),
        ("train IN --size 99 --batch-size 1", "--resize would enlarge it"),
        ("train IN --size 9 --batch-size 0", "--batch-size must be at least 1"),
        ("train IN --size 9 --value-range 2 1", "--value-range must be finite"),
        ("summary --spatial-dims 2 --size 8 --batch-size 0", "--batch-size must be at least 1"),
    ],
)
def test_the_library_is_quoted_in_the_words_of_the_command(
    words: str, why: str, tmp_path: Path, capsys: Any
) -> None:
    png(tmp_path / "in" / "a.png")
    out = ["--out", tmp_path / "run"] if words.startswith("train") else []
    ends(2, *(tmp_path / "in" if word == "IN" else word for word in words.split()), *out)
    said = capsys.readouterr().err
    assert why in said
    assert "=True" not in said


def test_keywords_become_flags_and_other_words_stay() -> None:
    flags = flags_of_command(Train)
    assert "source" not in flags
    for text, expected in {
        "resize=True or fit(resume=True)": "--resize or --resume",
        "missing='nan' would, overwrite=False not": "--missing nan would, --no-overwrite not",
        "size=(3, 4) and lr=0.5 instead of 0.1": "--size (3, 4) and --lr 0.5 instead of 0.1",
        "clip must be 1; a clip, --batch-size": "--clip must be 1; a clip, --batch-size",
        "a smaller batch_size": "a smaller --batch-size",
        "/tmp/batch_size/x 'batch_size' my_batch_size": "/tmp/batch_size/x 'batch_size' my_batch_size",
    }.items():
        assert as_flags(text, flags) == expected


def test_of_thousands_of_files_ten_are_named(restorer: Path, tmp_path: Path, capsys: Any) -> None:
    wav(tmp_path / "in" / "a.wav", 200)
    for i in range(25):
        (tmp_path / "in" / f"b{i}.wav").touch()
    report = FolderDataset(tmp_path / "in", size=50).report()
    assert report.count("it is empty") == 10
    assert "skipped   25 files" in report
    assert "  and 15 more" in report
    ends(1, "denoise", restorer, tmp_path / "in", "--out", tmp_path / "out")
    said = capsys.readouterr()
    assert said.err.count("it is empty") == 10
    assert "skipped: 15 more" in said.err
    assert "1 of 26 files restored" in said.out
    (tmp_path / "in" / "a.wav").unlink()
    ends(2, "train", tmp_path / "in", "--out", tmp_path / "run")
    *_, first, second = capsys.readouterr().err.splitlines()
    assert first == "dynunet train: none of 25 files can be used:"
    assert second.endswith("b0.wav and 24 more: it is empty (0 bytes)")


@pytest.mark.parametrize("name", ["clean.mp3", "clean.txt", "deep/clean.m4a"])
def test_a_result_for_one_file_is_of_a_format_that_is_written(
    name: str, restorer: Path, sounds: Path, tmp_path: Path, capsys: Any
) -> None:
    ends(2, "denoise", restorer, sounds / "0.wav", "--out", tmp_path / name)
    assert "path must end with one of .wav" in capsys.readouterr().err
    assert not (tmp_path / name).exists()
    run("denoise", restorer, sounds / "0.wav", "--out", tmp_path / "v1.0")
    assert (tmp_path / "v1.0" / "0.wav").is_file()


def test_what_nibabel_logs_names_the_file_once(tmp_path: Path, caplog: Any, monkeypatch: Any) -> None:
    nii(tmp_path / "a.nii")
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[80:84] = bytes(4)  # pixdim[1]
    (tmp_path / "a.nii").write_bytes(data)
    caplog.set_level(logging.WARNING, "nibabel.global")
    monkeypatch.setattr(logging.getLogger("nibabel.global"), "propagate", True)
    FolderDataset(tmp_path)[0]
    (said,) = caplog.messages
    assert said.startswith(f"{tmp_path / 'a.nii'}: pixdim")


def test_names_are_printed_in_any_encoding_and_steer_nothing(restorer: Path, tmp_path: Path) -> None:
    name = "\x1b[31mred \u00e9 \u4e2d.wav"
    wav(tmp_path / "in" / name)
    (tmp_path / "in" / f"not {name}").touch()
    out = tmp_path / "out \x1b[32m \u00e9"
    call = subprocess.run(
        [sys.executable, "-m", "dynunet", "denoise", restorer, tmp_path / "in", "--out", out],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}, capture_output=True,
    )  # fmt: skip
    assert call.returncode == 1, call.stderr
    assert b"1 of 2 files restored" in call.stdout
    assert b"\x1b" not in call.stdout + call.stderr.replace(b"\x1b[A", b"")
    assert b"Traceback" not in call.stderr
    assert (out / name).is_file()
