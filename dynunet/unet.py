"""A U-Net built from a list of channels, for any number of spatial axes.

One entry of the list is one level. The encoder runs down the list, the decoder runs back up, and
every encoder output waits on a stack until the decoder takes it at the same size::

    x -> [stem] -> o                                           o -> [head] -> y
                   | blocks -------------- skips -------------> | blocks
                   v down                                       ^ up
                   | blocks -------------- skips -------------> | blocks
                   v down                                       ^ up
                   | blocks -------------- skips -------------> | blocks
                   +----------------> [middle] ---------------->+
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from convnd.arguments import choice, integer, padding_modes

from .blocks import NORMS, Activation, Parts, Upsample, zero_init
from .embeddings import ClassEmbedding, TimeEmbedding
from .options import attention_name, channel_list, check_heads, levels, strides_between
from .stages import Middle, Stage, check_axis, resampling_kernel


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015) in the form of DDPM (Ho et al. 2020, appendix B).

    Skips are taken after every encoder block and every down-sampling, and each decoder level has one
    block more than its encoder level. Options that no level uses cost no parameters.

    Args:
        spatial_dims: number of spatial axes, at least 1.
        in_channels: channels of the input.
        out_channels: channels of the output; those of the input by default.
        channels: one entry per level, in any order, at least one.
        num_blocks: encoder blocks of a level. *Per level.*
        kernel_size: of the blocks. *Per level, or nested per level and axis.*
        strides: down-sampling into each level but the first, so one entry fewer than levels. *Per
            transition, or nested per transition and axis.*
        block: ``"residual"`` or ``"plain"``. *Per level.*
        norm: ``"group"``, ``"batch"`` or None.
        activation: a name (``"silu"``, ``"relu"``, ``"gelu"``, ...), a function or a module.
        attention: ``"full"`` (self-attention after every block) or None. *Per level.*
        num_heads: attention heads; they must divide the channels. *Per level.*
        mid_attention: attention in the bottleneck, ``"full"`` or None.
        num_groups: groups of group norm at most; the largest divisor of the channels is taken.
        norm_eps: added to variances.
        dropout: probability in the blocks. *Per level.*
        padding_mode: ``"zeros"``, ``"reflect"``, ``"replicate"`` or ``"circular"``, or one per axis.
        time_embedding: whether the network takes a time ``t``.
        time_scale: ``t`` is multiplied by it before the sinusoids, so that [0, 1] spans their periods.
        num_classes: number of class labels the network can be conditioned on; None for none.

    A per-level option is one value or a flat sequence with one value per level; a flat sequence is
    never read as axes.

    Shape:
        ``(N, in_channels, *spatial)`` to ``(N, out_channels, *spatial)`` for any spatial size; each
        level has ``ceil(size / stride)`` entries. Only a circular axis must be divisible by the
        product of its strides, and reflect or circular padding needs enough entries at every level.

    Raises:
        ValueError, TypeError: when it is built; naming the option, the rule and the value received.

    >>> import torch
    >>> from dynunet import UNet
    >>> unet = UNet(4, 1, channels=(8, 16), num_groups=4)
    >>> unet(torch.randn(1, 1, 5, 6, 7, 8)).shape
    torch.Size([1, 1, 5, 6, 7, 8])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int | None = None,
        channels: Sequence[int] = (64, 128, 256),
        *,
        num_blocks: int | Sequence[int] = 2,
        kernel_size: int | Sequence[int] | Sequence[Sequence[int]] = 3,
        strides: int | Sequence[int] | Sequence[Sequence[int]] = 2,
        block: str | Sequence[str] = "residual",
        norm: str | None = "group",
        activation: str | Activation | type[nn.Module] = "silu",
        attention: str | Sequence[str | None] | None = None,
        num_heads: int | Sequence[int] = 4,
        mid_attention: str | None = None,
        num_groups: int = 32,
        norm_eps: float = 1e-5,
        dropout: float | Sequence[float] = 0.0,
        padding_mode: str | Sequence[str] = "zeros",
        time_embedding: bool = False,
        time_scale: float = 1000.0,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        n = self.spatial_dims = integer(spatial_dims, "spatial_dims")
        self.in_channels = integer(in_channels, "in_channels")
        self.out_channels = in_channels if out_channels is None else integer(out_channels, "out_channels")
        self.num_classes = None if num_classes is None else integer(num_classes, "num_classes")
        widths = channel_list(channels)
        self.levels = levels(n, widths, num_blocks, kernel_size, block, attention, num_heads, dropout)
        self.strides = strides_between(n, strides, len(widths))
        if norm is not None:
            choice(norm, NORMS, "norm, if not None,")
        bottom = self.levels[-1]
        if attention_name(mid_attention, "mid_attention") is not None:
            check_heads(bottom, "the bottleneck (mid_attention)")

        features = 4 * widths[0]
        self.time_embedding = TimeEmbedding(widths[0], features, time_scale) if time_embedding else None
        self.class_embedding = ClassEmbedding(num_classes, features) if num_classes else None
        embedded = features if time_embedding or num_classes else 0
        self.padding_mode = padding_modes(padding_mode, n)
        parts = Parts(
            n, norm, activation, integer(num_groups, "num_groups"), norm_eps, self.padding_mode, embedded
        )

        self.stem = parts.conv(in_channels, widths[0], self.levels[0].kernel_size)
        self.encoder, skips = self._build_encoder(parts)
        self.middle = Middle(parts, bottom, mid_attention)
        self.decoder = self._build_decoder(parts, skips)
        out = zero_init(parts.conv(widths[0], self.out_channels, self.levels[0].kernel_size))
        self.head = nn.Sequential(parts.norm(widths[0]), parts.activation(), out)

    def _build_encoder(self, parts: Parts) -> tuple[nn.ModuleList, list[int]]:
        """The encoder levels, and the channels of every skip in the order they are pushed."""
        encoder, width = nn.ModuleList(), self.levels[0].channels
        skips = [width]
        for i, level in enumerate(self.levels):
            inputs = [width] + [level.channels] * (level.num_blocks - 1)
            stage = Stage(parts, level, inputs)
            width = level.channels
            skips += [width] * level.num_blocks
            if i < len(self.strides):
                kernel = resampling_kernel(level, self.strides[i])
                stage.down = parts.conv(width, width, kernel, self.strides[i])
                skips.append(width)
            encoder.append(stage)
        return encoder, skips

    def _build_decoder(self, parts: Parts, skips: list[int]) -> nn.ModuleList:
        """The decoder levels, deepest first; every block takes the latest skip beside its input."""
        decoder, width = nn.ModuleList(), self.levels[-1].channels
        for i, level in reversed(list(enumerate(self.levels))):
            inputs = []
            for _ in range(level.num_blocks + 1):
                inputs.append(width + skips.pop())
                width = level.channels
            stage = Stage(parts, level, inputs)
            if i > 0:
                kernel = resampling_kernel(level, self.strides[i - 1])
                stage.up = Upsample(parts, width, kernel, self.strides[i - 1])
            decoder.append(stage)
        return decoder

    def forward(self, x: Tensor, t: Tensor | None = None, *, class_labels: Tensor | None = None) -> Tensor:
        """Run the network.

        Args:
            x: ``(N, in_channels, *spatial)``.
            t: ``(N,)``, float, in [0, 1] for diffusion; needed exactly with ``time_embedding=True``.
            class_labels: ``(N,)``, int, from 0 to ``num_classes - 1``; -1 or None means unconditional.
        """
        self._check_input(x)
        embedding = self._embed(x, t, class_labels)

        x = self.stem(x)
        skips = [x]
        for stage in cast(Iterable[Stage], self.encoder):  # down, and push
            for block, attend in zip(stage.blocks, stage.attentions, strict=True):
                x = attend(block(x, embedding))
                skips.append(x)
            if stage.down is not None:
                x = stage.down(x)
                skips.append(x)

        x = self.middle(x, embedding)

        for stage in cast(Iterable[Stage], self.decoder):  # pop, and up
            for block, attend in zip(stage.blocks, stage.attentions, strict=True):
                x = attend(block(torch.cat([x, skips.pop()], dim=1), embedding))
            if stage.up is not None:
                x = stage.up(x, skips[-1].shape[2:])
        return self.head(x)

    def _inflate_(self, axes: Any) -> None:
        """What :func:`convnd.inflate` cannot know: the sizes that the new network takes."""
        self.spatial_dims = axes.spatial_dims
        self.padding_mode = axes.extend(self.padding_mode, axes.padding_mode)
        self.strides = [axes.extend(stride, axes.strides(stride)) for stride in self.strides]
        self.levels = [
            replace(level, kernel_size=axes.extend(level.kernel_size, axes.kernel_size))
            for level in self.levels
        ]

    def _embed(self, x: Tensor, t: Tensor | None, labels: Tensor | None) -> Tensor | None:
        """The sum of time and class embeddings, ``(N, E)``, or None without either."""
        if (t is None) != (self.time_embedding is None):
            rule = "takes no t: build it with time_embedding=True" if t is not None else "needs t"
            raise ValueError(f"this UNet {rule}, got t={'None' if t is None else tuple(t.shape)}")
        if labels is not None and self.class_embedding is None:
            raise ValueError("class_labels must be left out: build the UNet with num_classes=... to use them")
        total: Tensor | None = None
        if self.time_embedding is not None and t is not None:
            if tuple(t.shape) != (x.shape[0],):
                raise ValueError(f"t must have shape ({x.shape[0]},), one per sample, got {tuple(t.shape)}")
            total = self.time_embedding(t)
        if self.class_embedding is not None:
            if labels is None:
                labels = torch.full((x.shape[0],), -1, device=x.device)
            self._check_labels(labels, x.shape[0])
            classes = self.class_embedding(labels)
            total = classes if total is None else total + classes
        return total

    def _check_labels(self, labels: Tensor, count: int) -> None:
        if tuple(labels.shape) != (count,):
            raise ValueError(
                f"class_labels must have shape ({count},), one per sample, got {tuple(labels.shape)}"
            )
        if labels.is_floating_point() or labels.dtype == torch.bool:
            raise TypeError(f"class_labels must be integers, got dtype {labels.dtype}")
        if labels.device.type == "cpu" and not torch.compiler.is_compiling() and count:
            low, high = int(labels.min()), int(labels.max())
            if low < -1 or high >= (self.num_classes or 0):
                raise ValueError(
                    f"class_labels must be from 0 to {(self.num_classes or 0) - 1}, or -1 for none, "
                    f"got values from {low} to {high}"
                )

    def _check_input(self, x: Tensor) -> None:
        if x.ndim != self.spatial_dims + 2 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"x must be (N, {self.in_channels}, *spatial) with {self.spatial_dims} spatial axes, "
                f"got shape {tuple(x.shape)}"
            )
        if not x.is_floating_point():
            raise TypeError(f"x must be a floating-point tensor, got dtype {x.dtype}")
        if min(x.shape[2:]) < 1:
            raise ValueError(f"x must have at least one entry on every axis, got shape {tuple(x.shape)}")
        for axis, (size, mode) in enumerate(zip(x.shape[2:], self.padding_mode, strict=True)):
            check_axis(size, axis, mode, self.levels, self.strides)
