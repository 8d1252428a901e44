"""Pictures and their masks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")

import _pairs


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
