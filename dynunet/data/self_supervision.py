"""Pairs to learn from that are made of one noisy example each, where no clean ones are.

An example is ``y = x + n``, the noise n of mean 0 whatever x is. What is learnt from a pair by the squared
error, and by no other, is the mean of x given ``cond``, as if x itself were the target:

    r2r         cond = y + a z, x0 = y - z / a, where z is a draw of noise like n. As n + a z and n - z / a
                are uncorrelated, and independent if noise is Gaussian, of every f (else of linear ones)
                E|f(cond) - x0|^2 = E|f(cond) - x|^2 + (1 + 1 / a^2) E|n|^2
                (Pang et al. 2021, "Recorrupted-to-Recorrupted"; with a = 1 targets are less noisy than
                with their 0.5, and more is learnt of as many)
    noise2void  cond is y, but at some places the value of a neighbour; x0 = y, of which these places count.
                As cond says nothing of n there, if n is independent from place to place,
                E|f(cond) - x0|^2 = E|f(cond) - x|^2 + E|n|^2 over these
                (Krull et al. 2019, "Noise2Void"; Batson and Royer 2019, "Noise2Self")

What is restored later is y itself: the mean of estimates at several draws of y + a z is no better, as
``tests/benchmarks/self_supervised.py`` measures. All randomness is of torch's global generator.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .._devices import moved
from .degradation import NoiseFiles
from .memory import Cache

_SCALE = 1.0  # a, of r2r
_SEGMENTS = 4  # of recorded noise that a draw is made of
_SHARE = 0.1  # of the places, of noise2void
_REACH = 2  # of a neighbourhood, along every axis


def recorrupted(noisy: Tensor, noise: Tensor, scale: float = _SCALE) -> tuple[Tensor, Tensor]:
    """The target and what it is predicted from, of Recorrupted-to-Recorrupted.

    Args:
        noisy: of any shape.
        noise: in the same shape, a draw of noise as that in ``noisy``, independent of it.
        scale: how much of it is added, a; the noise of the target is ``sqrt(1 + 1 / a^2)`` times as strong.

    Returns:
        ``x0`` and ``cond``.
    """
    return noisy - noise / scale, noisy + scale * noise


def blinded(
    noisy: Tensor, share: float = _SHARE, reach: int = _REACH, there: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What the target is predicted from, and where it counts, of Noise2Void.

    At a place that counts there is the value of another one in the box of ``2 reach + 1`` entries along every
    axis, each equally likely; and the value of that place is nowhere else, either.

    Args:
        noisy: ``(C, *spatial)``; a place is replaced in all channels.
        share: probability that a place is chosen; it is left as it is if its neighbour is chosen, too, or
            missing.
        reach: of the box.
        there: bool, ``(C, *spatial)``, which entries are there; a place is, if all of its channels are.

    Returns:
        ``cond`` ``(C, *spatial)`` and the mask ``(C, *spatial)``.
    """
    sizes = noisy.shape[1:]
    whole = torch.ones(sizes, dtype=torch.bool) if there is None else there.all(0).cpu()
    chosen = (torch.rand(sizes) < share) & whole
    places = chosen.nonzero()
    others, alone = _neighbours(places, sizes, reach)
    usable = (whole & ~chosen)[tuple(others.T)] & ~alone
    mask, cond = torch.zeros_like(chosen), noisy.clone()
    mask[tuple(places[usable].T)] = True
    cond[:, *places[usable].T] = noisy[:, *others[usable].T]
    return cond, moved(mask, noisy.device).expand(noisy.shape)


def _neighbours(places: Tensor, sizes: Sequence[int], reach: int) -> tuple[Tensor, Tensor]:
    """A random other place in the box around each ``(n, axes)``, and which of them have none."""
    last = torch.tensor(sizes) - 1
    low, high = (places - reach).clamp(min=0), torch.minimum(places + reach, last)
    widths = high - low + 1
    strides = torch.cat([widths.flip(1).cumprod(1).flip(1)[:, 1:], torch.ones_like(widths[:, :1])], 1)
    own, count = ((places - low) * strides).sum(1), widths.prod(1)
    number = (torch.rand(len(places), dtype=torch.float64) * (count - 1)).long()
    number = number + (number >= own)  # all but the place itself
    alone = count == 1
    number = torch.where(alone, own, number)
    return low + number.unsqueeze(1) // strides % widths, alone


@dataclass
class Recorruption:
    """Recorrupted-to-Recorrupted: with white noise of known level, or noise as it was recorded by itself."""

    std: float | None  # in the units of the files
    files: NoiseFiles | None = None

    def __call__(
        self, noisy: Tensor, mask: Tensor, gain: float, cache: Cache
    ) -> tuple[Tensor, Tensor, Tensor]:
        noise = self._drawn(noisy.shape, cache) / gain
        x0, cond = (torch.where(mask, x, 0) for x in recorrupted(noisy, noise))
        return x0, cond, mask

    def _drawn(self, shape: Sequence[int], cache: Cache) -> Tensor:
        """A draw of the noise, in the units of the files.

        Of recorded noise it is a combination of segments on the unit sphere: it has their covariance, is
        nearer to a Gaussian than they are, and never the same.
        """
        if self.files is None:
            assert self.std is not None
            return self.std * torch.randn(*shape)
        segments = torch.stack([self.files.segment(shape, cache) for _ in range(_SEGMENTS)])
        if not segments.any():
            raise ValueError("noise must be that in the files, and no segment of it has any")
        weights = torch.randn(_SEGMENTS)
        return torch.tensordot(weights / weights.norm(), segments, 1)


class BlindSpots:
    """Noise2Void: of noise of any level, independent from place to place."""

    files: NoiseFiles | None = None

    def __call__(
        self, noisy: Tensor, mask: Tensor, gain: float, cache: Cache
    ) -> tuple[Tensor, Tensor, Tensor]:
        cond, counts = blinded(noisy, there=mask)
        return noisy, cond, counts
