"""What training takes where it is told nothing: for files of any rank, with and without a GPU."""

import json
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dynunet import Diffusion
from dynunet.cli import main
from dynunet.data.formats import of_kind
from dynunet.defaults import batch_that_fits, channels_for, examples_for

SMALL = "--steps 1 --num-blocks 1 --num-groups 4 --no-tensorboard --cpu --sample-every 0".split()
SMALL += ["--validate-every", "0"]


def run(*words: object) -> None:
    main([str(word) for word in words])


@st.composite
def folders(draw: st.DrawFn) -> list[tuple[int, ...]]:
    dims = draw(st.integers(1, 5))
    axis = st.integers(1, {1: 10**6, 2: 5000, 3: 300}.get(dims, 60))
    return draw(st.lists(st.tuples(*[axis] * dims), min_size=1, max_size=30))


@given(folders(), st.booleans(), st.booleans())
def test_examples_are_of_the_files_and_of_bounded_size(
    grids: list[tuple[int, ...]], gpu: bool, crops: bool
) -> None:
    dims = len(grids[0])
    kind = {1: "audio", 2: "images", 3: "volumes"}.get(dims, "arrays")
    own = of_kind(kind)
    found = examples_for(grids, own, gpu, crops)
    assert found == examples_for(grids[::-1], own, gpu, crops), "the order does not matter"
    size = found.size or grids[0]
    assert len(size) == dims
    assert min(size) >= 1
    assert prod(size) <= {1: 2**14, 2: 2**13, 3: 2**17}.get(dims, 2**16)
    if found.size is None:
        assert len(set(grids)) == 1
    elif not found.resize:
        most = [max(axis) for axis in zip(*grids, strict=True)]
        assert all(s <= m for s, m in zip(size, most, strict=True))
        large = sum(all(s <= g for s, g in zip(size, grid, strict=True)) for grid in grids)
        assert large >= (1 - 0.1 * dims) * len(grids) or own.pads, "few files are too small for it"
    assert found.resize <= (kind == "images" and not crops)
    assert prod(examples_for(grids, own, False, crops).size or size) <= 1.25 * prod(size)


@given(folders(), st.booleans())
def test_a_batch_fits(grids: list[tuple[int, ...]], gpu: bool) -> None:
    channels = channels_for(len(grids[0]), gpu)
    batch = batch_that_fits(grids[0], channels, gpu)
    assert batch in [2**k for k in range(7)]
    assert batch <= 16 or batch * prod(grids[0]) <= 2**15
    assert batch == 1 or batch * prod(grids[0]) * channels[0] * 160 <= 8e9
    assert batch_that_fits([2 * n for n in grids[0]], channels, gpu) <= batch
    assert len(channels) == len(channels_for(len(grids[0]), not gpu))


def chosen(folder: Path) -> list[Any]:
    flags = json.loads((folder / "run.json").read_text())["flags"]
    return [flags[name] for name in ("size", "resize", "channels", "batch_size")]


def test_a_folder_alone_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cats").mkdir()
    for i in range(6):
        Image.fromarray(np.full((60 + i, 120), 40 * i, np.uint8)).save(f"cats/{i}.png")
    run("train", "cats", *SMALL)
    said = capsys.readouterr().out
    assert (
        "chosen for these files and a machine without a GPU: --size 24 44 --resize (the files have 6 " in said
    )
    assert "--channels 32 64 128, --batch-size 16" in said
    assert chosen(Path("runs/cats")) == [[24, 44], True, [32, 64, 128], 16]
    run("train", "--resume", "runs/cats", "--steps", 2)
    assert "chosen" not in capsys.readouterr().out
    run("train", "cats", "--from", "runs/cats", "--out", "more", "--batch-size", 2, *SMALL[:2], *SMALL[6:])
    assert "(as in runs/cats)" in capsys.readouterr().out
    assert chosen(Path("more"))[:2] == [[24, 44], True]
    with pytest.raises(SystemExit):
        run("train", "cats", *SMALL)
    assert "runs/cats holds a run already" in capsys.readouterr().err


def test_what_is_given_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    for i in range(4):
        soundfile.write(tmp_path / f"in/{i}.wav", np.sin(np.arange(9000 + i) / (5 + i)) / 3, 8000)
    small = [*SMALL, "--coloured"]
    run("train", tmp_path / "in", "--out", tmp_path / "a", "--size", 64, *small)
    assert (
        "chosen for these files and a machine without a GPU: --channels 16 32 64 128, "
        in capsys.readouterr().out
    )
    assert chosen(tmp_path / "a") == [[64], False, [16, 32, 64, 128], 64]
    given = "--size 64 --channels 4 8 --batch-size 3".split()
    run("train", tmp_path / "in", "--out", tmp_path / "b", *given, *small)
    assert "chosen" not in capsys.readouterr().out
    run("train", tmp_path / "in", "--out", tmp_path / "c", "--channels", 4, 8, *small)
    assert chosen(tmp_path / "c") == [[4096], False, [4, 8], 16]


def test_masks_have_a_network_and_crops_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i in range(4):
        soundfile.write(tmp_path / f"in/{i}.wav", np.sin(np.arange(5000) / (5 + i)) / 3, 8000)
    masks = ["--spectral-mask", 512, "--coloured", *SMALL]
    for flags, channels in ((), [32, 64, 128]), (("--patch-size", 0, 0), [256, 256, 256]):
        out = tmp_path / f"{len(flags)}"
        run("train", tmp_path / "in", "--out", out, *flags, *masks)
        size, _, of_levels, batch = chosen(out)
        assert (of_levels, batch) == (channels, 16)
        assert size == [5000], "whole files, where a network on the waveform has crops of 4096"


def test_a_lighter_network_without_a_gpu_unless_some_of_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    for i in range(4):
        Image.fromarray(np.full((8, 8), 60 * i, np.uint8)).save(f"in/{i}.png")
    few = ["--steps", 1, "--channels", 8, 16, "--sample-every", 0]

    def network(out: str, *flags: Any) -> tuple[Any, ...]:
        run("train", "in", "--out", out, *few, *flags)
        return network_of(out)

    def network_of(out: str) -> tuple[Any, ...]:
        unet: Any = Diffusion.from_pretrained(out).model
        return unet.levels[0].num_blocks, unet.spec.skips, unet.spec.mid_blocks, unet.spec.num_groups

    assert network("a") == (1, "level", 0, 8)
    assert "--num-blocks 1 --skips level --mid-blocks 0 --num-groups 8" in capsys.readouterr().out
    assert network("b", "--num-groups", 4) == (2, "block", 2, 4)
    run("train", "--resume", "a", "--steps", 2)
    run("train", "--config", "b/run.json", "--out", "c")
    assert network_of("c") == (2, "block", 2, 4)
