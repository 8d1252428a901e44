"""Audio: wav, flac and what else libsndfile reads, one spatial axis, in parts and resampled as asked.

Numbers are those of the file, 1 at full scale. Mono and stereo are kept, or mixed down or copied where
another number of channels is wanted.
"""

import os
from functools import lru_cache
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np

from .cache import Cache
from .numbers import Numbers
from .options import DataOptions
from .sources import Info, Reader, Region, Units, UnreadableError, missing_package

_FILES_CACHED = 50  # a file is resampled once and kept if so many of its size fit into the cache
_STREAMED = 2_000_000_000  # programs that cannot go back to the header leave a size from here on
BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "ULAW": 16, "ALAW": 16}


def soundfile() -> Any:
    try:
        import soundfile
    except ImportError as error:
        raise missing_package("soundfile", error) from None
    return soundfile


def native(path: Path) -> Any:
    """A path for libsndfile: its bytes, which need not be UTF-8."""
    return str(path) if os.name == "nt" else os.fsencode(path)


class Audio(Reader):
    format = kind = "audio"
    suffixes = (".wav", ".flac", ".ogg", ".aiff", ".aif")

    def look(self, path: Path, options: DataOptions) -> Info:
        if options.spatial_dims not in (None, 1):
            raise UnreadableError(f"audio has 1 spatial axis, and {options.spatial_dims} were asked for")
        _check_whole(path)
        with soundfile().SoundFile(native(path)) as file:
            if file.frames == 0:
                raise UnreadableError("it has no samples (zero length)")
            file.seek(file.frames - 1)
            if len(file.read(1)) != 1:
                raise UnreadableError(f"it is truncated: the last of its {file.frames} samples is not there")
            return Info(
                path, self.format, self.kind, file.channels, (file.frames,), stored=file.subtype,
                numbers=numbers_of(file.subtype), exact=file.subtype in (*BITS, "FLOAT", "DOUBLE"),
                sample_rate=file.samplerate,
            )  # fmt: skip

    def grid(self, info: Info, units: Units) -> tuple[int, ...]:
        up, down = ratio(info, units)
        return (-(-info.shape[0] * up // down),)

    def convertible(self, info: Info, channels: int) -> bool:
        return channels == 1 or info.channels == 1

    def read(
        self, info: Info, index: int, units: Units, cache: Cache, region: Region | None = None
    ) -> np.ndarray:
        (size,) = self.grid(info, units)
        start, stop = region[0] if region is not None else (0, size)
        bytes_of_all = 4 * units.channels * size
        if info.sample_rate != units.sample_rate and bytes_of_all < cache.limit / _FILES_CACHED:
            key = info.path, "audio", units.channels, units.sample_rate
            return cache.get(key, lambda: _part(info, units, 0, size))[:, start:stop].copy()
        return _part(info, units, start, stop)

    def stored(self, info: Info, index: int, units: Units, cache: Cache) -> np.ndarray:
        bits = info.numbers.bits
        with soundfile().SoundFile(native(info.path)) as file:
            values = file.read(dtype=info.numbers.dtype, always_2d=True).T
        if values.shape[1] != info.shape[0]:
            raise UnreadableError(f"it ends after {values.shape[1]} of {info.shape[0]} samples")
        return values if bits is None else values >> (32 - bits)


def numbers_of(subtype: str) -> Numbers:
    """What libsndfile reads as k / 2^(bits - 1) is k; what is not of whole numbers is read as it is."""
    bits = BITS.get(subtype)
    if bits is None:
        return Numbers("float64" if subtype == "DOUBLE" else "float32")
    return Numbers("int32", 2.0 ** (1 - bits), bits=bits)


def _part(info: Info, units: Units, start: int, stop: int) -> np.ndarray:
    """Samples from start to stop at the rate and with the channels that are wanted.

    The filter of resample_poly reaches 10 of the coarser samples; the part that is read starts where a sample
    of the file falls on one of the result, so that this is exactly a part of the whole file resampled.
    """
    up, down = ratio(info, units)
    reach = 10 * -(-max(up, down) // up) + 1 if up != down else 0
    origin = max(start // up - -(-reach // down), 0)
    first, last = origin * down, min(-(-stop * down // up) + reach, info.shape[0])
    with soundfile().SoundFile(native(info.path)) as file:
        file.seek(first)
        values = file.read(last - first, dtype="float32", always_2d=True).T
    if values.shape[1] != last - first:
        raise UnreadableError(f"it ends after {first + values.shape[1]} of {info.shape[0]} samples")
    if values.shape[0] != units.channels:
        mixed = values.mean(0, keepdims=True)
        values = mixed if units.channels == 1 else np.repeat(values, units.channels, 0)
    values = resampled(values, up, down)[:, start - origin * up : stop - origin * up]
    return np.ascontiguousarray(values, dtype=np.float32)


def resampled(values: np.ndarray, up: int, down: int) -> np.ndarray:
    """``(channels, n)`` at ``up / down`` times its rate: ``ceil(n up / down)`` samples."""
    if up == down:
        return values
    try:
        from scipy.signal import resample_poly
    except ImportError as error:
        raise missing_package("scipy", error) from None
    return resample_poly(values, up, down, axis=1, window=_low_pass(up, down))


@lru_cache(maxsize=8)
def _low_pass(up: int, down: int) -> Any:
    """The filter that resample_poly designs by itself, every time."""
    from scipy import signal

    widest = max(up, down)
    design: Any = signal.firwin
    return design(20 * widest + 1, 1 / widest, window=("kaiser", 5.0))


def ratio(info: Info, units: Units) -> tuple[int, int]:
    """By how much the rate goes up and down, in lowest terms."""
    here = info.sample_rate or 1
    wanted = units.sample_rate or here
    common = gcd(here, wanted)
    return wanted // common, here // common


def _check_whole(path: Path) -> None:
    """libsndfile silently reads what is left of a truncated wav file; its header tells the full size."""
    with open(path, "rb") as file:
        head = file.read(8)
    size = path.stat().st_size
    if size == 0:
        raise UnreadableError("it is empty (0 bytes)")
    if head[:4] == b"RIFF" and len(head) == 8:
        announced = int.from_bytes(head[4:], "little")
        padding = 1  # which some programs count and do not write
        if size < announced + 8 - padding and announced < _STREAMED:
            raise UnreadableError(f"it is truncated: {size} of {announced + 8} bytes")
