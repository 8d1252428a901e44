"""Pictures and sounds of tensors, as addresses that hold them: no file is served by its name."""

from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from ..data.formats import of_kind
from ..data.spec import DataSpec
from ..plotting import pictures, slices

__all__ = ["address", "drawn", "picture", "sound"]

_VOLUME = 3  # axes that slices are drawn of


def address(content: bytes, kind: str = "image/png") -> str:
    """A ``data:`` address."""
    return f"data:{kind};base64,{b64encode(content).decode()}"


def drawn(draw: Callable[[Path], Any]) -> str:
    """The address of a picture that a function writes to a path."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        draw(path)
        return address(path.read_bytes())


def picture(x: Tensor, spec: DataSpec, at: Sequence[int]) -> str:
    """A picture of samples ``(N, C, *spatial)``.

    Signals have spectrograms, images a grid, all else three slices of the last three axes.

    Args:
        at: one index for each axis of data of three axes and more.
    """
    if x.ndim < _VOLUME + 2:
        return drawn(lambda path: pictures(x, path, spec.sample_rate))
    further = x.ndim - _VOLUME - 2
    for index in at[:further]:
        x = x[:, :, index]
    spacing = [s or 1.0 for s in (spec.step or spec.spacing or ())[further:]] or [1.0] * _VOLUME
    names = [f"axis {axis}" for axis in range(further, further + _VOLUME)]
    return drawn(lambda path: slices(x, path, spacing=spacing, at=at[further:], axis_names=names))


def sound(x: Tensor, spec: DataSpec) -> str:
    """A recording ``(C, T)`` in the network's units, as browsers play it."""
    from io import BytesIO

    import soundfile

    scale, made = of_kind(spec.kind).scale(spec), BytesIO()
    values = scale.to_file(x.detach().cpu().numpy()).clip(-1, 1)
    soundfile.write(made, values.T, spec.sample_rate or 8000, format="WAV", subtype="PCM_16")
    return address(made.getvalue(), "audio/wav")
