"""Runs in files of an earlier version: they load, are resumed to the same weights, sample and restore.

``saved_runs.tar.xz`` has in ``NAME/`` the folder of a run of two steps that ``dynunet train SOURCE
*TRAINED[NAME]`` of dynunet 0.1.0 wrote (torch 2.13, CPU), without its pictures and its first checkpoint.
``CONTINUED`` is what the same version made of it by ``--resume RUN --steps 4``, see :func:`figures`.
"""

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from dynunet import Diffusion
from dynunet.cli import main
from dynunet.data import load

SAVED = Path(__file__).with_name("saved_runs.tar.xz")
_COMMON = (
    "--channels 2 --num-blocks 1 --num-groups 1 --steps 2 --batch-size 2 --save-every 2 --lr 0.01 --warmup 0 "
    "--decay constant --sample-every 0 --validate-every 0 --log-every 1 --no-tensorboard --cpu"
).split()
TRAINED = {
    "voice": [*"--coloured --snr 0 10 --size 64 --coordinates".split(), *_COMMON],
    "digits": [*"--labels folder --prediction v_prediction --flips 1".split(), *_COMMON],
}


def figures(model: Diffusion) -> list[float]:
    """Eight sums over all weights, which between them count each once."""
    weights = torch.cat([w.double().flatten() for w in model.state_dict().values()])
    return [weights[i::8].sum().item() for i in range(8)]


def whole_numbers(n: int, seed: int) -> np.ndarray:
    """From 0 to 255, the same on every machine."""
    return np.array([(i * i * (2 * seed + 3) + 31 * i + 17 * seed) % 256 for i in range(n)])


def recordings(folder: Path) -> Path:
    folder.mkdir()
    for n in range(6):
        slow = np.repeat(whole_numbers(40, n) - 128, 10)
        soundfile.write(folder / f"{n}.wav", (slow * 100).astype(np.int16), 8000, "PCM_16")
    return folder


def pictures(folder: Path) -> Path:
    for n in range(8):
        (folder / f"kind{n % 2}").mkdir(parents=True, exist_ok=True)
        pixels = whole_numbers(64, n).reshape(8, 8).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"kind{n % 2}" / f"{n}.png")
    return folder


FILES: dict[str, Callable[[Path], Path]] = {"voice": recordings, "digits": pictures}

CONTINUED = {
    "voice": [
        2.014484455459751, 4.84401513953344, 5.257019601820502, 3.5793446771567687,
        2.102229140466079, 4.041317251743749, 1.434821723261848, 5.564976907175151,
    ],
    "digits": [
        4.857829336724535, 2.9786032413749126, 4.285120521031786, 3.3636604720377363,
        -1.501597073947778, 0.7885520671843551, 3.177307801437564, 4.348369504412403,
    ],
}  # fmt: skip
RESTORED = [91.77227783203125, 91.01116943359375]  # by it, of the first recordings: sums of absolute values


@pytest.fixture
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    return opened(request.param, tmp_path)


def opened(name: str, folder: Path) -> tuple[Path, Path]:
    """The folders of a run and of its files."""
    with tarfile.open(SAVED) as archive:
        archive.extractall(folder, filter="data")
    return folder / name, FILES[name](folder / "files")


def run(*args: object) -> None:
    main([*map(str, args)])


@pytest.mark.parametrize("saved", TRAINED, indirect=True)
def test_a_run_is_resumed_to_the_same_weights(saved: tuple[Path, Path]) -> None:
    folder, files = saved
    run("train", files, "--resume", folder, "--steps", 4)
    # Equal to the bit on the machine that wrote them. On others a rounding differs, which changes a weight by
    # much less than the 0.01 of a step; without the moments of Adam these sums differ by more than 0.01.
    assert figures(Diffusion.from_pretrained(folder)) == pytest.approx(CONTINUED[folder.name], abs=1e-3)


@pytest.mark.parametrize("saved", TRAINED, indirect=True)
def test_a_new_run_of_the_same_flags_has_the_same_weights(saved: tuple[Path, Path]) -> None:
    """Of four steps those that were resumed, of two those that were saved, which are others."""
    folder, files = saved
    run("train", files, "--out", folder.with_name("new"), *TRAINED[folder.name], "--steps", 4)
    again = figures(Diffusion.from_pretrained(folder.with_name("new")))
    assert again == pytest.approx(CONTINUED[folder.name], abs=1e-3)
    run("train", files, "--config", folder / "run.json", "--out", folder.with_name("two"))
    two = figures(Diffusion.from_pretrained(folder.with_name("two")))
    assert two == pytest.approx(figures(Diffusion.from_pretrained(folder)), abs=1e-3)
    assert two != pytest.approx(CONTINUED[folder.name], abs=1e-2)


@pytest.mark.parametrize("saved", ["voice"], indirect=True)
def test_a_run_restores(saved: tuple[Path, Path], tmp_path: Path) -> None:
    folder, files = saved
    run("train", files, "--resume", folder, "--steps", 4)
    run("denoise", folder, files, "--out", tmp_path / "out", "--device", "cpu")
    units = Diffusion.from_pretrained(folder).data
    assert units is not None
    sums = [load(tmp_path / "out" / f"{n}.wav", units).x.abs().sum().item() for n in range(2)]
    assert sums == pytest.approx(RESTORED, abs=400 / 2**15 / 2)  # half a step of 16 bits for each sample
    run("evaluate", folder, "--num", 2, "--device", "cpu")


@pytest.mark.parametrize("saved", ["digits"], indirect=True)
def test_a_run_samples_and_fills_in(saved: tuple[Path, Path], tmp_path: Path) -> None:
    folder, files = saved
    run("sample", folder, "--out", tmp_path / "new", "--num", 2, "--steps", 2, "--device", "cpu")
    names = sorted(p.name for p in (tmp_path / "new").iterdir())
    assert names == ["sample-0-kind0.png", "sample-1-kind1.png"]
    assert (tmp_path / "new-overview.png").is_file()
    picture, mask = files / "kind0" / "0.png", tmp_path / "mask.png"
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(mask)
    run("inpaint", folder, picture, "--mask", mask, "--out", tmp_path / "filled.png", "--steps", 2)
    before, after = (np.asarray(Image.open(p)).astype(int) for p in (picture, tmp_path / "filled.png"))
    assert np.array_equal(before[~np.eye(8, dtype=bool)], after[~np.eye(8, dtype=bool)])
    run("evaluate", folder, files, "--num", 2, "--steps", 2, "--device", "cpu")
