"""What the studio needed of the library: masks as files, slices at a place, label maps in colours, films."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from dynunet import plotting
from dynunet.data import FolderDataset
from dynunet.data.loading import load_gaps, marks_of
from dynunet.data.maps import label_map
from dynunet.data.marking import save_mask
from dynunet.data.spec import DataSpec
from dynunet.generation import generate

from .data_writers import RNG, nii, npy, png, wav
from .trainers import trainer, unet

KINDS: dict[str, tuple[str, Any]] = {
    "audio": ("a.wav", lambda path: wav(path, 60)),
    "images": ("a.png", png),
    "volumes": ("a.nii.gz", lambda path: nii(path, RNG.normal(100, 20, (5, 4, 3)).astype(np.float32))),
    "arrays": ("a.npy", lambda path: npy(path, 5 + RNG.normal(size=(4, 3, 2, 2)).astype(np.float32))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_that_is_written_is_read_back(tmp_path: Path, kind: str) -> None:
    name, write = KINDS[kind]
    write(tmp_path / "data" / name)
    spec = DataSpec.of(FolderDataset(tmp_path / "data", split="all").units)
    shape = load_gaps(tmp_path / "data" / name, spec)[0].source.header.shape
    mask = RNG.random(shape) < 0.3
    path = save_mask(tmp_path / "m", mask, tmp_path / "data" / name, spec)
    _, gone = load_gaps(tmp_path / "data" / name, spec, marks_of(path, spec))
    assert np.array_equal(gone, np.broadcast_to(mask, gone.shape))
    with pytest.raises(ValueError, match="mask must be of"):
        save_mask(tmp_path / "m", mask[1:], tmp_path / "data" / name, spec)


def test_labels_are_read_as_they_are(tmp_path: Path) -> None:
    labels = RNG.integers(0, 4, (5, 4, 3)).astype(np.int16)
    nii(tmp_path / "l.nii.gz", labels)
    assert np.array_equal(
        label_map(tmp_path / "l.nii.gz", DataSpec("volumes", 3, 2, percentiles=(1, 99))), labels
    )
    Image.fromarray(labels[0].astype(np.uint8)).save(tmp_path / "l.png")
    assert np.array_equal(label_map(tmp_path / "l.png", DataSpec("images", 2, 3)), labels[0])
    (tmp_path / "l.npy").write_bytes(b"none")
    with pytest.raises(ValueError, match=r"l\.npy"):
        label_map(tmp_path / "l.npy", DataSpec("arrays", 2, 1))


@pytest.mark.parametrize("dims", [1, 2, 3, 4])
def test_labels_lie_in_colours_over_the_data(dims: int) -> None:
    x, labels = torch.rand(2, 2, *[3] * dims), torch.arange(2 * 3**dims).reshape(2, *[3] * dims) % 4 - 1
    drawn = plotting.overlay(x, labels, strength=1.0)
    grey = x.mean(1)
    for c in range(3):
        assert torch.equal(drawn[:, c][labels <= 0], grey[labels <= 0])
    first, second = (drawn.movedim(1, -1)[labels == n].unique(dim=0) for n in (1, 2))
    assert len(first) == len(second) == 1
    assert not torch.equal(first, second)
    with pytest.raises(ValueError, match="labels must be"):
        plotting.overlay(x, labels[:1])


def test_slices_cross_where_they_are_asked_to(tmp_path: Path) -> None:
    volume = -torch.ones(1, 1, 9, 9, 9)
    volume[..., 2, 5, 7] = 1.0
    bright = {}
    for at in ((2, 5, 7), (4, 4, 4)):
        plotting.slices(volume, tmp_path / "s.png", at=at)
        pixels = np.asarray(Image.open(tmp_path / "s.png").convert("L"))
        bright[at] = int((pixels[30:] > 200).sum())
    assert bright[2, 5, 7] > bright[4, 4, 4]
    plotting.slices(volume, tmp_path / "m.png")
    plotting.slices(volume, tmp_path / "n.png", at=(4, 4, 4))
    assert (tmp_path / "m.png").read_bytes() == (tmp_path / "n.png").read_bytes()
    for wrong in ((0, 0), (0, 0, 9), (-1, 0, 0)):
        with pytest.raises(ValueError, match="at must be"):
            plotting.slices(volume, tmp_path / "s.png", at=wrong)


def test_a_film_goes_from_noise_to_the_samples(tmp_path: Path) -> None:
    for i in range(4):
        wav(tmp_path / "data" / f"{i}.wav", 8)
    dataset = FolderDataset(tmp_path / "data", size=8)
    trainer(tmp_path / "run", dataset, diffusion=unet(), steps=1).fit()
    plain = generate(tmp_path / "run", tmp_path / "a", num=2, steps=5, progress=False)
    made = generate(tmp_path / "run", tmp_path / "b", num=2, steps=5, film=True, progress=False)
    assert "film.gif" not in str(plain)
    assert "b-film.gif" in str(made)
    assert [f.read_bytes() for f in plain.files] == [f.read_bytes() for f in made.files]
    with Image.open(tmp_path / "b-film.gif") as film:
        assert len(list(ImageSequence.Iterator(film))) == 5
    assert not (tmp_path / "a-film.gif").exists()
