"""Sound restored as it comes: raw samples in, raw samples out, as ``arecord`` and ``aplay`` have them.

Each channel goes through the same steps, all of which know only what came before, and their look-ahead::

    bytes -> numbers -> the model's rate -> its level -> causal network -> level, rate, numbers, bytes

The level is that of the last seconds: the root mean square with weights that decay, which begins at the level
of training, so that the first gain is 1. What went in is divided by it, and what comes out multiplied, sample
by sample.
"""

from collections.abc import Callable
from math import ceil, exp
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from ._devices import moved
from .arguments import choice, integer, positive
from .data.formats.audio import reach_of, resampled
from .data.spec import DataSpec
from .data.values import SILENT
from .diffusion import Diffusion
from .diffusion.noise import NOISE_BLOCK, PlacedNoise
from .diffusion.steps import level
from .runs import called, device_of, restoration_steps, trained
from .streaming import Stream

__all__ = ["FORMATS", "LiveSound", "Resampler", "RunningLevel", "restore_live"]

_HALF, _BETA = 32, 10.0  # of the filters: mirrored tones are below -80 dB
_MEMORY = 3.0  # seconds in which the weight of the past in the level falls to 1 / e


class Format(NamedTuple):
    """How samples are written: bytes of each, and numbers of full scale 1 from and to them."""

    width: int
    read: Callable[[bytes], np.ndarray]
    write: Callable[[np.ndarray], bytes]


def _integers(bits: int) -> Format:
    full, width = 2 ** (bits - 1), bits // 8

    def read(data: bytes) -> np.ndarray:
        each = np.frombuffer(data, np.uint8).reshape(-1, width)
        wide = np.zeros((len(each), 4), np.uint8)
        wide[:, 4 - width :] = each  # the upper bytes, whose sign is that of the number
        return wide.view("<i4")[:, 0] / 2.0**31

    def write(x: np.ndarray) -> bytes:
        whole = np.clip(np.rint(x * full), -full, full - 1).astype("<i4")
        return whole.view(np.uint8).reshape(-1, 4)[:, :width].tobytes()

    return Format(width, read, write)


FORMATS = {
    "s16le": _integers(16),
    "s24le": _integers(24),
    "s32le": _integers(32),
    "f32le": Format(4, lambda data: np.frombuffer(data, "<f4"), lambda x: x.astype("<f4").tobytes()),
}


class Resampler:
    """Sound ``(channels, n)`` at ``up / down`` times its rate, part by part: the samples of the whole."""

    def __init__(self, up: int, down: int) -> None:
        self.up, self.down, self.reach = up, down, reach_of(up, down, _HALF)
        self.kept: np.ndarray | None = None
        self.first = self.done = 0  # the place of what is kept, and how many samples were given

    def __call__(self, x: np.ndarray, ended: bool = False) -> np.ndarray:
        """The samples that are known with the next part."""
        if self.up == self.down:
            return x
        x = x if self.kept is None else np.concatenate((self.kept, x), 1)
        end = self.first + x.shape[1]
        known = ceil(end * self.up / self.down) if ended else (end - self.reach) * self.up // self.down
        known, begin = max(known, self.done), self.first * self.up // self.down
        out = x[:, :0]
        if known > self.done:
            out = resampled(x, self.up, self.down, _HALF, _BETA)[:, self.done - begin : known - begin]
            self.done = known
        # What is kept begins where a sample falls on one of the result.
        first = max((self.done * self.down // self.up - self.reach) // self.down * self.down, self.first)
        self.kept, self.first = x[:, first - self.first :], first
        return out


class RunningLevel:
    """The amplitude of sound that becomes 1 at a level, of the last seconds at each sample."""

    def __init__(self, wanted: float, rate: int) -> None:
        self.wanted, self.decay = wanted, exp(-1 / (_MEMORY * rate))
        self.state: np.ndarray | None = None

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """For the next part ``(channels, n)``."""
        from scipy.signal import lfilter

        if self.state is None:
            self.state = np.full((len(x), 1), self.decay * self.wanted**2)
        coefficients = [1 - self.decay], [1, -self.decay]
        power, self.state = lfilter(*coefficients, np.square(x, dtype=np.float64), zi=self.state)
        return np.maximum(np.sqrt(power), SILENT) / self.wanted


class LiveSound:
    """Sound restored part by part by a causal model that has learned it, in one step.

    Args:
        model: trained with ``noise``, ``coloured`` or ``pairs``, of sound, with ``causal=True``.
        rate: of the sound, in Hz; resampled to that of the model and back.
        channels: of the sound; a model of one channel takes each by itself.
        seed: of the noise from which the model makes its estimate.
        device: as of :func:`dynunet.restoration.restore`.

    Attributes:
        latency: seconds from when a sample comes to when it goes out, at most, beside the length of the
            parts and the time to compute them.
    """

    def __init__(
        self,
        model: Path | str | Diffusion,
        rate: int,
        channels: int = 1,
        *,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        self.diffusion, spec = trained(model, device)
        own = _check(self.diffusion, spec, called(model), channels)
        self.rate, self.by_itself = integer(rate, "rate"), spec.channels == 1
        self.stream = Stream(cast(Any, self.diffusion.model))
        common = np.gcd(own, rate)
        up, down = int(own // common), int(rate // common)
        self.to_model, self.back = Resampler(up, down), Resampler(down, up)
        self.level = None if spec.level is None else RunningLevel(spec.level, own)
        self.noise = _Noise(seed, channels if self.by_itself else 1, spec.channels)
        self.full: np.ndarray | None = None  # of samples whose result is not there yet
        self.t: Tensor | None = None
        self.given = self.gone = 0
        self.latency = self.stream.lookahead / own
        if own != rate:  # what a filter waits for, and a sample of the other rate that begins between two
            self.latency += self.to_model.reach / rate + self.back.reach / own + 1 / own + 1 / rate

    def __call__(self, x: np.ndarray, ended: bool = False) -> np.ndarray:
        """What is known of the result ``(channels, n)`` with the next part; with the last one all of it."""
        self.given += x.shape[1]
        out = self.back(self._restored(self.to_model(x, ended), ended), ended)
        if ended:
            out = out[:, : self.given - self.gone]
            out = np.pad(out, [(0, 0), (0, self.given - self.gone - out.shape[1])])
        self.gone += out.shape[1]
        return out

    def _restored(self, x: np.ndarray, ended: bool) -> np.ndarray:
        """At the rate of the model."""
        if self.level is not None:
            full = self.level(x)
            x = x / full
            self.full = full if self.full is None else np.concatenate((self.full, full), 1)
        device = device_of(self.diffusion)
        cond = moved(torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)), device)
        cond = cond.unsqueeze(1 if self.by_itself else 0)
        parts = [self._network(cond)] if cond.shape[2] else []
        if ended and self.noise.given:
            parts.append(self._finished(self.stream.end()))
        y = torch.cat(parts, -1) if parts else cond
        out = y.squeeze(1 if self.by_itself else 0).float().cpu().numpy()
        if self.full is not None:
            out, self.full = out * self.full[:, : out.shape[1]], self.full[:, out.shape[1] :]
        return out

    def _network(self, cond: Tensor) -> Tensor:
        diffusion, own = self.diffusion, next(self.diffusion.parameters()).dtype
        alpha, sigma = self._scales(cond)
        x = diffusion.network_input(sigma * self.noise.next(cond), alpha, sigma, {"cond": cond})
        if self.t is None:
            self.t = torch.ones(len(cond), device=cond.device)
        return self._finished(self.stream(x.to(own), self.t, cond=cond.to(own)))

    def _finished(self, output: Tensor) -> Tensor:
        """The estimate of the sound from an output of the network, which may come later than its input."""
        alpha, sigma = self._scales(output)
        x = sigma * self.noise.of(output)
        return self.diffusion.prediction.denoised(output.to(x.dtype), x, alpha, sigma)

    def _scales(self, like: Tensor) -> tuple[Tensor, Tensor]:
        scales = level(self.diffusion.schedule, 1.0)
        alpha, sigma = (torch.full((), float(s), device=like.device) for s in (scales.alpha, scales.sigma))
        return alpha, sigma


class _Noise:
    """The noise of a signal by place: as it is given to a network, and again for what comes out."""

    def __init__(self, seed: int, *shape: int) -> None:
        self.seed, self.shape = seed, shape
        self.drawn, self.blocks = torch.empty(*shape, 0), 0
        self.given = self.gone = 0  # places; drawn begins at the second

    def next(self, like: Tensor) -> Tensor:
        begin, self.given = self.given - self.gone, self.given + like.shape[2]
        while self.drawn.shape[2] < self.given - self.gone:
            block = PlacedNoise(self.seed, self.blocks * NOISE_BLOCK)(torch.Size((*self.shape, NOISE_BLOCK)))
            self.drawn, self.blocks = torch.cat((self.drawn, block), 2), self.blocks + 1
        return moved(self.drawn[..., begin : self.given - self.gone], like.device)

    def of(self, output: Tensor) -> Tensor:
        n = output.shape[2]
        x, self.drawn, self.gone = self.drawn[..., :n], self.drawn[..., n:], self.gone + n
        return moved(x, output.device)


def _check(diffusion: Diffusion, spec: DataSpec, name: str, channels: int) -> int:
    """Refuse a model that cannot be used live; return its rate."""
    if spec.kind != "audio" or spec.sample_rate is None:
        raise ValueError(f"run must be of sound to be used live, {name} is of {spec.kind}")
    if spec.restoration is None:
        raise ValueError(f"run must be trained to restore to be used live, {name} is not")
    if not getattr(diffusion.model, "is_causal", False):
        raise ValueError(
            f"run must be trained with --causal True to be used live, {name} looks at all of a recording: "
            "give files"
        )
    if restoration_steps(diffusion, None) != 1 or spec.coordinates:
        raise ValueError(f"run must restore in one step, without coordinates, to be live, {name} does not")
    if spec.channels not in (1, channels) or spec.given_channels != spec.channels:
        raise ValueError(f"channels must be those of {name}, {spec.given_channels}, got {channels}")
    return spec.sample_rate


def restore_live(
    model: Path | str | Diffusion,
    source: BinaryIO,
    out: BinaryIO,
    *,
    rate: int,
    channels: int = 1,
    format: str = "s16le",
    part: float = 20.0,
    seed: int = 0,
    device: str | None = None,
    say: Callable[[str], Any] = lambda text: None,
) -> int:
    """Restore raw sound from one stream of bytes to another, part by part, until the first one ends.

    Args:
        model, rate, channels, seed, device: as of :class:`LiveSound`.
        source, out: bytes of interleaved channels.
        format: of the samples: ``"s16le"``, ``"s24le"``, ``"s32le"`` or ``"f32le"``.
        part: milliseconds of a part.
        say: is told the latency, and if the last bytes are no whole sample.

    Returns:
        How many samples there were.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.
    """
    kind = FORMATS[choice(format, tuple(FORMATS), "format")]
    frame = kind.width * integer(channels, "channels")
    size = max(round(positive(part, "part") * integer(rate, "rate") / 1000), 1)
    sound = LiveSound(model, rate, channels, seed=seed, device=device)
    after = 1000 * (size / rate + sound.latency)
    say(f"samples go out {after:.1f} ms after they come at most, and the time to compute")
    while True:
        data = source.read(size * frame)
        whole = len(data) // frame * frame
        ended = len(data) < size * frame
        x = kind.read(data[:whole]).reshape(-1, channels).T
        out.write(kind.write(np.ascontiguousarray(sound(x, ended).T).reshape(-1)))
        out.flush()
        if ended:
            if whole < len(data):
                say(f"the last {len(data) - whole} bytes are no whole {format} of {channels} channels")
            return sound.given
