"""Audio: wav, flac and what else libsndfile reads, one spatial axis, in parts and resampled as asked.

Numbers are those of the file, 1 at full scale. Mono and stereo are kept, or mixed down or copied where
another number of channels is wanted. A result has the sample rate, the length and the subtype of its file (24
bits stay 24 bits).
"""

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from math import gcd, inf
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..errors import UnreadableError, missing_package
from ..memory import Cache, by_parts
from ..options import DataOptions
from ..spec import DataSpec
from ..values import Region, Scale, resized
from .format import Format, Header, Resampling, check_not_empty, most
from .numbers import Numbers

_FILES_CACHED = 50  # a file is resampled once and kept if so many of its size fit into the cache
_STREAMED = 2_000_000_000  # programs that cannot go back to the header leave a size from here on
_SIZE = 16384  # of crops by default, for lengths are seldom alike: two seconds at 8 kHz
_TAGS = 2**16  # bytes at the beginning of an mp3 that are looked through for its size
_HALF, _BETA = 10, 5.0  # of the filter of resample_poly
_LEVEL = 0.25  # root mean square by default: what is learnt from quiet recordings holds for loud ones
_BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "ULAW": 16, "ALAW": 16}


def soundfile() -> Any:
    """The package, which is imported when it is used."""
    try:
        import soundfile
    except ImportError as error:
        raise missing_package("soundfile", error) from None
    return soundfile


def _native(path: Path) -> Any:
    """A path for libsndfile: its bytes, which need not be UTF-8."""
    return str(path) if os.name == "nt" else os.fsencode(path)


class Audio(Format):
    """Recordings, of one channel or several."""

    kind = "audio"
    suffixes = (".wav", ".flac", ".ogg", ".aiff", ".aif")
    dims = range(1, 2)
    new = ".wav"
    options = frozenset({"sample_rate", "level"})
    lossy: ClassVar[Mapping[str, str]] = {".ogg": ".wav"}
    fixed_scale = clips = pads = copies = True
    seeks: ClassVar[bool] = True  # a part is the same as in the whole
    resizable = False
    step_name = "rate"

    def header(self, path: Path, options: DataOptions) -> Header:
        if options.spatial_dims not in (None, 1):
            raise UnreadableError(f"audio has 1 spatial axis, and {options.spatial_dims} were asked for")
        _check_whole(path)
        with soundfile().SoundFile(_native(path)) as file:
            if file.frames == 0:
                raise UnreadableError("it has no samples (zero length)")
            if self.seeks:
                file.seek(file.frames - 1)
                if len(file.read(1)) != 1:
                    raise UnreadableError(f"it is truncated: the last of {file.frames} samples is not there")
            return Header(
                path, self, file.channels, (file.frames,), stored=file.subtype,
                numbers=numbers_of(file.subtype), exact=file.subtype in (*_BITS, "FLOAT", "DOUBLE"),
                sample_rate=file.samplerate,
            )  # fmt: skip

    def grid(self, header: Header, spec: DataSpec) -> tuple[int, ...]:
        up, down = ratio(header, spec)
        return (-(-header.shape[0] * up // down),)

    def convertible(self, header: Header, channels: int) -> bool:
        return channels == 1 or header.channels == 1

    def refined(self, header: Header, factors: Sequence[int]) -> Header:
        rate = (header.sample_rate or 1) * factors[0]
        return replace(super().refined(header, factors), sample_rate=rate)

    def read(
        self, header: Header, index: int, spec: DataSpec, cache: Cache, region: Region | None = None
    ) -> np.ndarray:
        (size,) = self.grid(header, spec)
        start, stop = region[0] if region is not None else (0, size)
        bytes_of_all = 4 * spec.channels * size
        resampled = header.sample_rate != spec.sample_rate and bytes_of_all < cache.limit / _FILES_CACHED
        if resampled or not self.seeks:
            key = header.path, "audio", spec.channels, spec.sample_rate
            return cache.get(key, lambda: _part(header, spec, 0, size))[:, start:stop].copy()
        return _part(header, spec, start, stop)

    def stored(self, header: Header, index: int, spec: DataSpec, cache: Cache) -> np.ndarray:
        bits = header.numbers.bits
        with soundfile().SoundFile(_native(header.path)) as file:
            values = file.read(dtype=header.numbers.dtype, always_2d=True).T
        if values.shape[1] != header.shape[0]:
            raise UnreadableError(f"it ends after {values.shape[1]} of {header.shape[0]} samples")
        return values if bits is None else values >> (32 - bits)

    def values(self, header: Header, spec: DataSpec) -> np.ndarray:
        if spec.channels != header.channels:
            return super().values(header, spec).astype(np.float32)
        return by_parts(self.all_stored(header, spec), np.float32, header.numbers.values)

    def label_suffix(self, suffix: str, dtype: str) -> str:
        return ".npy"

    def check_options(self, options: DataOptions, dims: int) -> None:
        super().check_options(options, dims)
        if options.resize:
            raise ValueError("resize would change the pitch of audio; give size alone, for random crops")

    def defaults(self, options: DataOptions) -> dict[str, Any]:
        level = _LEVEL if options.restores and options.level is None else options.level
        return {"size": options.size or (_SIZE,), "level": level}

    def spec_fields(self, options: DataOptions, headers: Sequence[Header], dims: int) -> dict[str, Any]:
        return {"sample_rate": options.sample_rate or most(h.sample_rate for h in headers)}

    def scale(
        self, spec: DataSpec, header: Header | None = None, own: tuple[float, float] | None = None
    ) -> Scale:
        return Scale()

    def scale_text(self, spec: DataSpec, options: DataOptions) -> str:
        return "as they are, 1 is full scale"

    def to_grid(self, values: np.ndarray, header: Header, spec: DataSpec) -> np.ndarray:
        """Sound at another rate; a gap is bridged by a line, so that it does not ring beside it."""
        up, down = ratio(header, spec)
        gone = np.isnan(values)
        if up == down or not gone.any():
            return resampled(values, up, down)
        bridged = np.stack([_bridged(*channel) for channel in zip(values, gone, strict=True)])
        result = resampled(bridged, up, down)
        mostly = resized(np.where(gone, np.nan, 0).astype(np.float32), result.shape[1:])
        return np.where(np.isnan(mostly), np.nan, result)

    def to_file(self, values: np.ndarray, header: Header, spec: DataSpec) -> np.ndarray:
        up, down = ratio(header, spec)
        values = resampled(values, down, up)[:, : header.shape[0]]
        short = header.shape[0] - values.shape[1]
        return np.pad(values, [(0, 0), (0, short)]) if short else values

    def lost(self, header: Header, spec: DataSpec, grid: tuple[int, ...]) -> str | None:
        rate = spec.sample_rate
        if (header.sample_rate or 0) <= (rate or inf):
            return None
        return f"what is above {(rate or 0) / 2:g} Hz is lost, for the model is of {rate} Hz"

    def check_result(self, path: Path, spec: DataSpec, channels: int, like: Header | None) -> None:
        super().check_result(path, spec, channels, like)
        if _rate(spec, like) is None:
            raise ValueError(f"units must have a sample_rate to write audio, got kind {spec.kind!r}")

    def numbers(self, path: Path, spec: DataSpec, channels: int, like: Header | None) -> Numbers:
        return numbers_of(_subtype(path, spec, like))

    def encode(
        self, path: Path, stored: np.ndarray, numbers: Numbers, spec: DataSpec, like: Header | None
    ) -> memoryview:
        made = io.BytesIO()
        with _recording(made, path, numbers, spec, stored.shape[1], like) as append:
            append(stored)
        return made.getbuffer()

    def resampling(self, header: Header, spec: DataSpec) -> Resampling | None:
        up, down = ratio(header, spec)
        return Resampling(up, down, reach_of(down, up)) if self.seeks else None

    @contextmanager
    def appending(
        self, path: Path, numbers: Numbers, spec: DataSpec, channels: int, like: Header | None
    ) -> Iterator[Callable[[np.ndarray], None]]:
        with _recording(_native(path), path, numbers, spec, channels, like) as append:
            yield append


class AudioToRead(Audio):
    """Recordings in files that results are not written in; they become wav.

    They are decoded from their beginning: after a jump mp3 is not the same for a while.
    """

    suffixes = (".mp3",)
    writable = seeks = False
    lossy: ClassVar[Mapping[str, str]] = {}

    def header(self, path: Path, options: DataOptions) -> Header:
        package = soundfile()
        if "MP3" not in package.available_formats():
            version = package.__libsndfile_version__
            raise UnreadableError(f"libsndfile {version} reads no mp3 (1.1 and later do): save it as flac")
        _check_whole_mp3(path)
        return super().header(path, options)


def _check_whole_mp3(path: Path) -> None:
    """libsndfile reads silence in place of what a truncated mp3 lacks; its first frame may tell the size."""
    check_not_empty(path)
    with open(path, "rb") as file:
        head = file.read(_TAGS)
    at = max(head.find(b"Xing"), head.find(b"Info"))
    if at < 0 or not head[at + 7] & 2:
        return
    place = at + 8 + 4 * (head[at + 7] & 1)  # behind the number of frames, if that is told
    announced, size = int.from_bytes(head[place : place + 4]), path.stat().st_size
    if size < announced:
        raise UnreadableError(f"it is truncated: {size} of {announced} bytes")


@contextmanager
def _recording(
    file: Any, path: Path, numbers: Numbers, spec: DataSpec, channels: int, like: Header | None
) -> Iterator[Callable[[np.ndarray], None]]:
    """A file, or a buffer for one of that path, to which ``(1, channels, n)`` are appended."""
    subtype, shift = _subtype(path, spec, like), 0 if numbers.bits is None else 32 - numbers.bits
    form = _container(path)
    with soundfile().SoundFile(file, "w", _rate(spec, like), channels, subtype, format=form) as sound:

        def append(stored: np.ndarray) -> None:
            whole = by_parts(stored, stored.dtype, lambda part: part << shift) if shift else stored
            sound.write(whole[0].T)

        yield append


def numbers_of(subtype: str) -> Numbers:
    """The numbers of a subtype: k where libsndfile reads k / 2^(bits - 1), floating point as it is."""
    bits = _BITS.get(subtype)
    if bits is None:
        return Numbers("float64" if subtype == "DOUBLE" else "float32")
    return Numbers("int32", 2.0 ** (1 - bits), bits=bits)


def _part(header: Header, spec: DataSpec, start: int, stop: int) -> np.ndarray:
    """Samples from start to stop at the rate and with the channels that are wanted.

    The filter of resample_poly reaches 10 of the coarser samples; the part that is read starts where a sample
    of the file falls on one of the result, so that this is exactly a part of the whole file resampled.
    """
    up, down = ratio(header, spec)
    reach = reach_of(up, down)
    origin = max(start // up - -(-reach // down), 0)
    first, last = origin * down, min(-(-stop * down // up) + reach, header.shape[0])
    with soundfile().SoundFile(_native(header.path)) as file:
        file.seek(first)
        values = file.read(last - first, dtype="float32", always_2d=True).T
    if values.shape[1] != last - first:
        raise UnreadableError(f"it ends after {first + values.shape[1]} of {header.shape[0]} samples")
    if values.shape[0] != spec.channels:
        mixed = values.mean(0, keepdims=True)
        values = mixed if spec.channels == 1 else np.repeat(values, spec.channels, 0)
    values = resampled(values, up, down)[:, start - origin * up : stop - origin * up]
    return np.ascontiguousarray(values, dtype=np.float32)


def reach_of(up: int, down: int, half: int = _HALF) -> int:
    """Samples to each side that one depends on when it is made by :func:`resampled`."""
    return half * -(-max(up, down) // up) + 1 if up != down else 0


def resampled(values: np.ndarray, up: int, down: int, half: int = _HALF, beta: float = _BETA) -> np.ndarray:
    """``(channels, n)`` at ``up / down`` times its rate: ``ceil(n up / down)`` samples.

    The filter is a sinc of ``half`` coarser samples to each side in a Kaiser window of ``beta``.
    """
    if up == down:
        return values
    try:
        from scipy.signal import resample_poly
    except ImportError as error:
        raise missing_package("scipy", error) from None
    return resample_poly(values, up, down, axis=1, window=_low_pass(up, down, half, beta))


@lru_cache(maxsize=8)
def _low_pass(up: int, down: int, half: int, beta: float) -> Any:
    """The filter that resample_poly designs by itself, by default, every time."""
    from scipy import signal

    widest = max(up, down)
    design: Any = signal.firwin
    return design(2 * half * widest + 1, 1 / widest, window=("kaiser", beta))


def ratio(header: Header, spec: DataSpec) -> tuple[int, int]:
    """The factors by which the rate goes up and down, in lowest terms."""
    here = header.sample_rate or 1
    wanted = spec.sample_rate or here
    common = gcd(here, wanted)
    return wanted // common, here // common


def _check_whole(path: Path) -> None:
    """libsndfile silently reads what is left of a truncated wav file; its header tells the full size."""
    check_not_empty(path)
    with open(path, "rb") as file:
        head = file.read(8)
    size = path.stat().st_size
    if head[:4] == b"RIFF" and len(head) == 8:
        announced = int.from_bytes(head[4:], "little")
        padding = 1  # which some programs count and do not write
        if size < announced + 8 - padding and announced < _STREAMED:
            raise UnreadableError(f"it is truncated: {size} of {announced + 8} bytes")


def _bridged(values: np.ndarray, gone: np.ndarray) -> np.ndarray:
    if gone.all():
        return np.zeros_like(values)
    places = np.arange(len(values))
    return np.interp(places, places[~gone], values[~gone]).astype(values.dtype)


def _rate(spec: DataSpec, like: Header | None) -> int | None:
    return spec.sample_rate if like is None or like.sample_rate is None else like.sample_rate


def _container(path: Path) -> str:
    name = path.suffix[1:].upper()
    return {"AIF": "AIFF"}.get(name, name)


def _subtype(path: Path, spec: DataSpec, like: Header | None) -> str:
    """The subtype of the source where that is exact and this container has it, else one as precise."""
    container, fits = _container(path), soundfile().check_format
    if like is None or like.kind != "audio":
        wanted = [spec.stored]
    else:
        wanted = [like.stored] * (like.exact or container == "OGG")
        wanted += ["FLOAT"] * (like.numbers.bits is None)
    return next((s for s in wanted if fits(container, s)), soundfile().default_subtype(container))
