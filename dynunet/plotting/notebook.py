"""Data where a notebook shows the value of a cell: pictures, and players of sound."""

import io
import wave
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from mimetypes import guess_type
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from torch import Tensor

from .samples import pictures

_PLAYED = 12  # sounds at most: as many as are drawn


@dataclass(frozen=True)
class Shown:
    """What :func:`show` returns: a notebook shows it where it is the last value of a cell.

    Attributes:
        picture: the bytes of a picture's file.
        kind: of that file, such as ``"image/png"``.
        sounds: the bytes of wav files.
        labels: a text for each sound, or none.
    """

    picture: bytes = field(repr=False)
    kind: str = "image/png"
    sounds: tuple[bytes, ...] = field(default=(), repr=False)
    labels: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        parts = [f'<img src="{_address(self.picture, self.kind)}">']
        for i, sound in enumerate(self.sounds):
            label = f"{escape(self.labels[i])}<br>" if self.labels else ""
            parts.append(f'{label}<audio controls src="{_address(sound, "audio/wav")}"></audio>')
        return "\n".join(f"<div>{part}</div>" for part in parts)


def show(
    x: Tensor | str | Path,
    sample_rate: float | None = None,
    *,
    columns: int | None = None,
    labels: Sequence[str] = (),
) -> Shown:
    """Data of any rank, or a picture in a file, for the end of a cell of a notebook.

    Args:
        x: ``(N, C, *spatial)``, drawn as :func:`pictures` draws it: 1-D waveforms, 2-D images, 3-D slices, a
            mosaic beyond. Or a file of a picture (png, gif, jpg), such as a film of :func:`gif`.
        sample_rate: of sound, in Hz: each sample, the first 12, has a player as well; of more than two
            channels it plays the first. What is louder than 1 is made less loud.
        columns, labels: as of :func:`pictures`.

    Raises:
        ValueError: as :func:`pictures`, or if a file is none of a picture.

    >>> import torch
    >>> show(torch.rand(2, 1, 8, 8, 8))
    Shown(kind='image/png', labels=())
    """
    if isinstance(x, (str, Path)):
        return _file(Path(x))
    if sample_rate is not None and x.ndim != 3:
        raise ValueError(f"sample_rate must be left out unless x is (N, C, T), got shape {tuple(x.shape)}")
    with TemporaryDirectory() as folder:
        file = Path(folder) / "picture.png"
        pictures(x, file, sample_rate, columns=columns, labels=labels)
        drawn = file.read_bytes()
    played = () if sample_rate is None else tuple(_wav(sound, sample_rate) for sound in x[:_PLAYED])
    return Shown(drawn, sounds=played, labels=tuple(labels[:_PLAYED]))


def _file(path: Path) -> Shown:
    kind = guess_type(path.name)[0] or ""
    if not kind.startswith("image/") or not path.is_file():
        raise ValueError(f"x must be data (N, C, *spatial) or the file of a picture, got {str(path)!r}")
    return Shown(path.read_bytes(), kind)


def _wav(sound: Tensor, sample_rate: float) -> bytes:
    """``(C, T)`` in 16 bits."""
    values = sound[: 2 if len(sound) == 2 else 1].detach().cpu().double().nan_to_num().numpy()
    values = values / max(1.0, np.abs(values).max())
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(len(values))
        writer.setsampwidth(2)
        writer.setframerate(round(sample_rate))
        writer.writeframes((values.T * (2**15 - 1)).round().astype("<i2").tobytes())
    return file.getvalue()


def _address(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"
