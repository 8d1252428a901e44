"""Noise taken off signals by masks of their spectrograms, which a U-Net estimates."""

from collections.abc import Sequence
from math import log, prod
from typing import Any, Self

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import pad

from ..arguments import integer, positive
from ..checkpoints import Checkpoint
from .causal import Remembers
from .overlap import Overlap
from .spec import with_an_axis_more
from .unet import UNet

__all__ = ["SpectralMask"]

_FLOOR = 1e-2  # magnitudes far below it are as good as none: their logarithms would say much of nothing
_SLOPE = 3.0  # of masks in what the U-Net gives: a new one is at a half, and reaches 0 and 1 soon


class SpectralMask(Remembers, Checkpoint, nn.Module):
    r"""A network that multiplies the short-time Fourier transform of a signal by a mask from 0 to 1.

    The U-Net hears the logarithms of the magnitudes and gives the mask, through a sigmoid (Wang et al. 2014,
    "On training targets for supervised speech separation"); the phases stay those of the noisy signal. The
    transform is along the last axis. Without ``patch_size`` its frequencies are channels of the U-Net, whose
    last axis is that of the windows: a U-Net for signals of as many axes. With it the channels are a patch of
    the spectrogram, and the frequencies a further axis, so that what is learnt of a voice holds for a higher
    one. :meth:`with_unet` builds either.

    In :class:`dynunet.Diffusion` it is for restoration in one step, with ``prediction="sample"``: what is
    masked is ``cond``, the noisy signal, and ``x`` is not looked at; without ``cond`` it is ``x``.

    With a U-Net that is causal along the axis of windows no output depends on input more than ``n_fft - 1``
    entries later, and ``hop_length`` for each further window of a patch and of the U-Net's ``lookahead``
    (:attr:`lookaheads`), and :class:`dynunet.Stream` takes it.

    Args:
        model: ``UNet(spatial_dims, channels * (n_fft // 2 + 1), channels=...)``, where ``channels`` are those
            of the signals; that of frequency f of channel c is ``c * (n_fft // 2 + 1) + f``. With
            ``patch_size`` it is ``UNet(spatial_dims + 1, channels * prod(patch_size), channels=...)``.
        n_fft: length of the Hann windows in entries.
        hop_length: from one window to the next, at most half of ``n_fft``; by default that.
        power: that masks are raised to in evaluation mode. Less than 1 leaves more of the noise, and more of
            the speech of somebody whom the network takes for noise because it has not learnt the voice.
        patch_size: windows and frequencies of a patch; what the last ones have beyond the spectrogram is
            silent. None for single windows with all frequencies, without an axis of theirs.

    Shape:
        ``(N, channels, *spatial)`` to the same, for any size. The U-Net gets ``size // hop_length + 1``
        windows in place of the last axis; with ``patch_size`` as many patches as cover them, and after that
        axis those that cover the ``n_fft // 2 + 1`` frequencies.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import torch
    >>> from dynunet import SpectralMask, UNet
    >>> network = SpectralMask(UNet(1, 33, channels=(32, 64)), n_fft=64)
    >>> network(torch.randn(1, 1, 1000)).shape
    torch.Size([1, 1, 1000])
    >>> SpectralMask(UNet(2, 16, channels=(32, 64)), 64, patch_size=(2, 8))(torch.randn(1, 1, 1000)).shape
    torch.Size([1, 1, 1000])
    """

    def __init__(
        self,
        model: UNet,
        n_fft: int = 256,
        hop_length: int | None = None,
        power: float = 1.0,
        patch_size: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.n_fft = integer(n_fft, "n_fft", 4)
        self.hop_length = n_fft // 2 if hop_length is None else integer(hop_length, "hop_length")
        if self.hop_length > n_fft // 2:
            raise ValueError(f"hop_length must be at most half of n_fft, {n_fft // 2}, got {hop_length}")
        self.power = positive(power, "power")
        frequencies = n_fft // 2 + 1
        self.patch_size = None if patch_size is None else _checked_patch(patch_size, frequencies)
        self._patch = self.patch_size or (1, frequencies)
        size = prod(self._patch)
        _check(model, size, self.patch_size is not None)
        self.model = model
        self.spatial_dims = axes = model.spatial_dims - (self.patch_size is not None)
        self.in_channels = self.out_channels = self.cond_channels = model.in_channels // size
        self.num_classes, self.cond_features, self.context_features = None, 0, None
        # Along other axes the network is as causal as the U-Net.
        self.causal_axes = model.causal_axes[:axes]
        windows = self._patch[0] * (1 + model.lookaheads[axes - 1]) - 1
        ahead = n_fft - 1 + self.hop_length * windows
        self.lookaheads = (*model.lookaheads[: axes - 1], ahead if self.causal_axes[-1] else 0)

    @classmethod
    def with_unet(
        cls,
        spatial_dims: int,
        in_channels: int,
        n_fft: int = 256,
        hop_length: int | None = None,
        power: float = 1.0,
        patch_size: Sequence[int] | None = None,
        **options: Any,
    ) -> Self:
        """One with the U-Net that it takes.

        Args:
            spatial_dims, in_channels: of the signals.
            n_fft, hop_length, power, patch_size: as above.
            options: of the U-Net. ``causal`` and ``lookahead`` are of the axes of the signals.

        >>> from dynunet import SpectralMask
        >>> network = SpectralMask.with_unet(1, 1, patch_size=(2, 8), channels=(32, 64), causal=True)
        >>> network.model.in_channels, network.model.causal_axes
        (16, (True, False))
        """
        frequencies = integer(n_fft, "n_fft", 4) // 2 + 1
        if patch_size is None:
            unet = UNet(spatial_dims, in_channels * frequencies, **options)
        else:
            size = prod(_checked_patch(patch_size, frequencies))
            options = with_an_axis_more(options, spatial_dims)
            unet = UNet(spatial_dims + 1, in_channels * size, **options)
        return cls(unet, n_fft, hop_length, power, patch_size)

    def unet_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Of what the U-Net gets for signals of a spatial size."""
        windows, frequencies = size[-1] // self.hop_length + 1, self.n_fft // 2 + 1
        wide, high = self._patch
        whole = *size[:-1], -(-windows // wide), -(-frequencies // high)
        return whole[: self.model.spatial_dims]

    def forward(self, x: Tensor, t: Tensor | None = None, *, cond: Tensor | None = None) -> Tensor:
        """Run the network.

        Args:
            x: ``(N, channels, *spatial)``.
            t: of a diffusion model, not looked at.
            cond: the noisy signal of the same shape, which is masked in place of ``x``.

        Returns:
            of the shape and in the precision of ``x``.
        """
        if x.ndim != self.spatial_dims + 2 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"x must be (N, {self.in_channels}, *spatial) with {self.spatial_dims} spatial axes, "
                f"got shape {tuple(x.shape)}"
            )
        if cond is not None and cond.shape != x.shape:
            raise ValueError(f"cond must have the shape of x, {tuple(x.shape)}, got {tuple(cond.shape)}")
        noisy, memory = x if cond is None else cond, self.memory
        ended = memory is None or memory.ended  # a whole signal is a stream of one part
        overlap = Overlap(self.n_fft, self.hop_length, self._patch[0])
        if memory is not None:
            overlap = memory.kept = memory.kept or overlap
        spectrum = overlap.spectra(noisy.to(torch.promote_types(noisy.dtype, torch.float32)), ended)
        return overlap.signal(self._mask(spectrum, x.dtype), ended).to(x.dtype)

    @property
    def is_causal(self) -> bool:
        """True if any axis is."""
        return any(self.causal_axes)

    def cannot_stream(self, axis: int) -> str | None:
        if axis != self.spatial_dims - 1:
            return f"its windows are along the last axis, so not along axis {axis}"
        return None if self.causal_axes[axis] else f"its U-Net is not causal along axis {axis}"

    def _mask(self, spectrum: Tensor, dtype: torch.dtype) -> Tensor:
        """The mask of the first windows that have none yet, maybe with some beyond the end.

        Args:
            spectrum: of the next windows, ``(N, C, *spatial[:-1], frequencies, windows)``.
            dtype: that the U-Net computes in.
        """
        heard, (wide, high) = (spectrum.abs() + _FLOOR).log() / 2, self._patch
        beyond = 0, -heard.shape[-1] % wide, 0, -heard.shape[-2] % high
        heard = pad(heard, beyond, value=log(_FLOOR) / 2) if any(beyond) else heard
        patch = {"w": wide, "h": high}
        heard = rearrange(heard, "n c ... (f h) (t w) -> n (c w h) ... t f", **patch)
        mask = self.model((heard.squeeze(-1) if self.patch_size is None else heard).to(dtype))
        mask = torch.sigmoid(_SLOPE * mask.to(heard.dtype))
        mask = mask if self.training or self.power == 1 else mask**self.power
        mask = mask.unsqueeze(-1) if self.patch_size is None else mask
        mask = rearrange(mask, "n (c w h) ... t f -> n c ... (f h) (t w)", **patch)
        return mask[..., : spectrum.shape[-2], :]


def _checked_patch(given: Any, frequencies: int) -> tuple[int, int]:
    if not isinstance(given, Sequence) or len(given) != 2:
        raise TypeError(f"patch_size must be two numbers, of windows and of frequencies, got {given!r}")
    windows, high = (integer(n, f"patch_size[{i}]") for i, n in enumerate(given))
    if high > frequencies:
        raise ValueError(f"patch_size[1] must be at most n_fft // 2 + 1, {frequencies}, got {high}")
    return windows, high


def _check(model: Any, size: int, patches: bool) -> None:
    if not isinstance(model, UNet):
        raise TypeError(f"model must be a UNet, got {type(model).__name__}")
    if patches and model.spatial_dims < 2:
        raise ValueError("model must have an axis more than the signals, of frequencies, got spatial_dims 1")
    if patches and model.causal_axes[-1]:
        axes = model.causal_axes
        raise ValueError(f"model must not be causal along its last axis, of frequencies, got causal {axes}")
    channels = model.in_channels, model.out_channels
    if channels[0] % size or channels[0] != channels[1]:
        of = "prod(patch_size)" if patches else "n_fft // 2 + 1"
        raise ValueError(
            f"model must have as many in_channels as out_channels, {size} for every channel of the signals, "
            f"{of}, got {channels[0]} and {channels[1]}"
        )
    for name in ("cond_channels", "cond_features", "num_classes", "context_features", "time_embedding"):
        if getattr(model, name):
            raise ValueError(f"model must take nothing but signals, so without {name}")
