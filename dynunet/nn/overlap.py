"""Short-time spectra of a signal, and the signal of spectra that were changed, as a whole or part by part."""

import torch
from torch import Tensor
from torch.nn.functional import fold, pad

__all__ = ["Overlap"]


class Overlap:
    """The windows of a short-time Fourier transform of a signal, which is given in one part or several.

    The first is around the first entry, and before it and after the last there are zeros. A signal is the sum
    of the windows of its spectra times the window, over that of its squares (Griffin and Lim 1984, eq. 6).

    Args:
        n_fft: length of the Hann windows in entries.
        hop_length: from one to the next.
        together: how many windows are given at a time, until the signal has ended.
    """

    def __init__(self, n_fft: int, hop_length: int, together: int = 1) -> None:
        self.n_fft, self.hop_length, self.together = n_fft, hop_length, together
        self.samples: Tensor | None = None  # (..., n), from the beginning of the next window on
        self.pending: Tensor | None = None  # spectra (..., frequencies, windows) whose mask is not known yet
        self.sums: Tensor | None = None  # windows added up, from the beginning of the next one on
        self.weights: Tensor | None = None  # the sums of their squares
        self.given = self.windows = 0  # entries, and windows that have become whole
        self.gone = -(n_fft // 2)  # entries of the result, before which is half a window of zeros

    def spectra(self, part: Tensor, ended: bool) -> Tensor:
        """Of the windows that become whole with a part of the signal, ``(..., frequencies, windows)``.

        Args:
            part: the next one, ``(..., n)``.
            ended: whether it is the last.
        """
        before = pad(part[..., :0], (self.n_fft // 2, 0)) if self.samples is None else self.samples
        self.given += part.shape[-1]
        samples = torch.cat((before, part), -1)
        if ended:
            more = self.given // self.hop_length + 1 - self.windows
            samples = pad(samples, (0, (more - 1) * self.hop_length + self.n_fft - samples.shape[-1]))
        number = max((samples.shape[-1] - self.n_fft) // self.hop_length + 1, 0)
        number -= 0 if ended else number % self.together
        self.windows += number
        self.samples = samples[..., number * self.hop_length :].clone()
        if number:
            rows = samples.unfold(-1, self.n_fft, self.hop_length)[..., :number, :]
            found = torch.fft.rfft(rows * self._window(samples)).transpose(-1, -2)
        else:  # which MKL's transform refuses
            found = torch.complex(*[samples.new_zeros(*samples.shape[:-1], self.n_fft // 2 + 1, 0)] * 2)
        self.pending = found if self.pending is None else torch.cat((self.pending, found), -1)
        return found

    def signal(self, mask: Tensor, ended: bool) -> Tensor:
        """The next part of the signal whose spectra are masked, ``(..., n)``.

        Args:
            mask: ``(..., frequencies, windows)`` of the first windows that are pending; more are left out.
            ended: whether these are all that are left.
        """
        pending, hop = self.pending, self.hop_length
        assert pending is not None
        mask = mask[..., : pending.shape[-1]]
        number = mask.shape[-1]
        self.pending, window = pending[..., number:], self._window(mask)
        rows = mask.new_zeros(*mask.shape[:-2], 0, self.n_fft)
        if number:
            rows = torch.fft.irfft((mask * pending[..., :number]).transpose(-1, -2), self.n_fft) * window
        sums = _added(rows, hop, self.sums)
        weights = _added(window.square().expand(1, number, -1), hop, self.weights)
        known = sums.shape[-1] if ended else number * hop
        out = sums[..., :known] / weights[..., :known].clamp(min=torch.finfo(sums.dtype).tiny)
        self.sums, self.weights = sums[..., known:], weights[..., known:]
        first, self.gone = max(-self.gone, 0), self.gone + known
        end = known - (self.gone - self.given if ended else 0)
        return out[..., min(first, known) : end]

    def _window(self, like: Tensor) -> Tensor:
        return torch.hann_window(self.n_fft, dtype=like.dtype, device=like.device)


def _added(rows: Tensor, hop: int, before: Tensor | None) -> Tensor:
    """Windows ``(..., windows, n)`` added up where they overlap, and to what overlaps before them."""
    number, size = rows.shape[-2:]
    if not number:
        return rows.new_zeros(*rows.shape[:-2], size - hop) if before is None else before
    columns = rows.flatten(0, -3).transpose(1, 2)
    length = (number - 1) * hop + size
    total = fold(columns, (1, length), (1, size), stride=(1, hop)).view(*rows.shape[:-2], length)
    return total if before is None else total + pad(before, (0, length - before.shape[-1]))
