"""DataSpec: the meaning of the numbers of an example, as a checkpoint keeps it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..jsonable import plain
from ..rules import Rule, both, check_fields, flag, optional, ordered, real, several, table, text, whole
from .options import SELF_SUPERVISED, missing_value
from .target_spec import TargetSpec

__all__ = ["DataSpec"]


@dataclass(frozen=True)
class DataSpec:
    """The meaning of the numbers of an example: enough to read a new file alike and to write one.

    It is saved with a model as an object of JSON, whose fields are these; the public API calls it ``units``.
    """

    kind: str  # audio, images, volumes, arrays: that of a format in dynunet.data.formats
    spatial_dims: int
    channels: int
    size: tuple[int, ...] | None = None  # of an example; None for whole files
    resize: bool = False  # whole files were resized to size
    sample_rate: int | None = None  # Hz
    spacing: tuple[float, ...] | None = None  # volumes are resampled to it; 0 for an axis that is not
    step: tuple[float, ...] | None = None  # the spacing that new volumes are written with
    channel_axis: int | None = None
    series: bool = False  # files may have one axis more, which counts examples
    stored: str = ""  # how most files store numbers: PCM_16, uint8, float32, ...
    range: tuple[float, float] | None = None  # becomes -1 and 1; with percentiles, in a typical file
    percentiles: tuple[float, float] | None = None  # of every file, become -1 and 1
    missing: str | None = None
    classes: tuple[str, ...] | None = None
    coordinates: bool = False
    cond_channels: int = 0
    restoration: dict[str, Any] | None = None
    target: dict[str, Any] | None = None  # what is predicted, a TargetSpec
    channel_files: tuple[str, ...] | None = None  # ends of names, or folders, of the files of the channels

    @property
    def level(self) -> float | None:
        """Root mean square that audio to restore is brought to, if any."""
        return (self.restoration or {}).get("level")

    @property
    def self_supervised(self) -> str | None:
        """How it was learned to restore without clean examples, if it was."""
        return self_supervised_by({"restoration": self.restoration})

    @property
    def given_channels(self) -> int:
        """Channels of the files that a model is given: of pairs, the degraded ones may have others."""
        return (self.restoration or {}).get("channels", self.channels)

    @property
    def learned(self) -> TargetSpec | None:
        """What is predicted, if anything is."""
        return None if self.target is None else TargetSpec.of(self.target)

    def document(self) -> dict[str, Any]:
        """All fields in JSON's types; without a target, or files of channels, where there are none."""
        return {k: v for k, v in plain(self).items() if v is not None or k not in ("target", "channel_files")}

    @classmethod
    def of(cls, document: "Mapping[str, Any] | DataSpec") -> "DataSpec":
        """Check and read back what :meth:`document` gave.

        Raises:
            TypeError, ValueError: naming the field that is wrong or missing.
        """
        if isinstance(document, DataSpec):
            return document
        if not isinstance(document, Mapping):
            raise TypeError(f"units must be a dict, such as those of a dataset, got {document!r}")
        names = tuple(f.name for f in fields(cls))
        _check_names(document, names)
        given: dict[str, Any] = {k: list(v) if isinstance(v, tuple) else v for k, v in document.items()}
        check_fields(given, _rules(), "units: ", names)
        check_fields(given.get("restoration") or {}, _RESTORATION, "units: restoration: ", (*_RESTORATION,))
        if given.get("target") is not None:
            TargetSpec.of(given["target"])
        held: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        spec = cls(**held)
        spec._check_lengths()
        return spec

    def _check_lengths(self) -> None:
        for name in ("size", "spacing", "step"):
            value = getattr(self, name)
            if value is not None and len(value) != self.spatial_dims:
                raise ValueError(
                    f"units: field {name!r} must have a number for each of {self.spatial_dims} axes, got "
                    f"{value!r}"
                )
        least = self.spatial_dims * self.coordinates + (self.restoration is not None)
        if self.cond_channels < least or (self.restoration is None and self.cond_channels != least):
            raise ValueError(
                f"units: field 'cond_channels' must count the coordinates and what is to be restored, got "
                f"{self.cond_channels}"
            )


def _check_names(document: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in document:
        if name not in known:
            raise ValueError(f"units must have no field but {', '.join(known)}, got {name!r}")
    for name in ("kind", "spatial_dims", "channels"):
        if name not in document:
            raise ValueError(f"units must have a field {name!r}, got {dict(document)!r}")


def self_supervised_by(units: Mapping[str, Any] | None) -> str | None:
    """``self_supervised`` of data whose units are these, as checkpoints have them."""
    return ((units or {}).get("restoration") or {}).get("self_supervised")


_RESTORATION = {
    "noise": flag(),
    "coloured": flag(),
    "pairs": flag(),
    "self_supervised": text(*SELF_SUPERVISED),
    "noise_std": real(above=0),
    "snr": ordered(equal=True),
    "level": real(above=0),
    "channels": whole(1),
}


def _rules() -> dict[str, Rule]:
    from .formats import KINDS  # whose formats take a DataSpec

    return {
        "kind": text(*KINDS),
        "spatial_dims": whole(1, 62),
        "channels": whole(1),
        "size": optional(several(whole(1))),
        "resize": flag(),
        "sample_rate": optional(whole(1)),
        "spacing": optional(several(real(0))),
        "step": optional(several(real(0))),
        "channel_axis": optional(whole(-63, 62)),
        "series": flag(),
        "stored": text(),
        "range": optional(ordered()),
        "percentiles": optional(both(ordered(), several(real(0, 100)))),
        "missing": optional(Rule("'nan' or a number, as a string", _is_missing)),
        "classes": optional(several(text(), least=1)),
        "coordinates": flag(),
        "cond_channels": whole(),
        "restoration": optional(table()),
        "target": optional(table()),
        "channel_files": optional(several(text(), least=2)),
    }


def _is_missing(value: Any) -> bool:
    try:
        missing_value(value)
    except ValueError:
        return False
    return isinstance(value, str)
