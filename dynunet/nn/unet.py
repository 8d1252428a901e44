"""A U-Net built from a list of channels, for any number of spatial axes.

One entry of the list is one level. The encoder runs down the list, the decoder runs back up, and
every encoder output stays on a stack until the decoder uses it at the same size::

    x -> [stem] -> o                                           o -> [head] -> y
                   | blocks -------------- skips -------------> | blocks
                   v down                                       ^ up
                   | blocks -------------- skips -------------> | blocks
                   v down                                       ^ up
                   | blocks -------------- skips -------------> | blocks
                   +--------------> [bottleneck] -------------->+
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from torch import Tensor, nn

from .blocks import Activation, zero_init
from .levels import Bottleneck, Level
from .network import Network
from .resampling import upsample
from .spec import NetworkSpec


class UNet(Network):
    """U-Net (Ronneberger et al. 2015), by default in the form of DDPM (Ho et al. 2020, appendix B).

    Skips are taken after every encoder block and every down-sampling, and each decoder level has one
    block more than its encoder level; ``skips="level", mid_blocks=0`` has one skip per level, as U-Nets for
    segmentation do. Options that no level uses cost no parameters.

    Args:
        spatial_dims: number of spatial axes, at least 1.
        in_channels: channels of the input.
        out_channels: channels of the output; those of the input by default.
        channels: one entry per level, in any order, at least one: the list is the network.
        num_blocks: encoder blocks of a level. *Per level.*
        kernel_size: of the convolutions in the blocks. *Per level, or nested per level and axis.*
        strides: down-sampling into each level but the first, so one entry fewer than levels. *Per
            transition, or nested per transition and axis.*
        block: ``"residual"``, ``"plain"`` or ``"convnext"``. *Per level.*
        norm: ``"group"``, ``"batch"``, ``"instance"``, ``"layer"`` or ``"rms"`` (these two over the channels
            at each position) or None.
        activation: a name (``"silu"``, ``"relu"``, ``"gelu"``, ``"leaky_relu"``, ``"elu"`` or ``"tanh"``), or
            in Python a function or a module.
        attention: after every block: ``"full"``, ``"linear"``, ``"axial"``, ``"window"``, ``"channel"``,
            ``"spatial"``, several in order joined by ``+`` (``"cbam"`` is ``"channel+spatial"``), or None;
            costs in :mod:`dynunet.attention`. *Per level.*
        num_heads: attention heads; they must divide the channels. *Per level.*
        skip_attention: on the skips: True for an attention gate (Oktay et al. 2018), or one of the names of
            ``attention``. *Per level.*
        downsample: ``"conv"`` (strided), ``"max"`` or ``"avg"`` (pools). *Per transition.*
        upsample: ``"nearest"`` or ``"linear"`` (then a convolution), ``"transpose"`` (kernel = stride) or
            ``"shuffle"`` (sub-pixel convolution). *Per transition.*
        skips: what the decoder gets of the encoder: ``"block"``, the output of every block and every input of
            a level, for one block more than that has; or ``"level"``, the last output of each level but the
            deepest, for as many blocks.
        mid_blocks: blocks in the bottleneck: 2 with its attention between them, 1 before it, or 0.
        mid_attention: attention in the bottleneck, as ``attention``.
        num_groups: groups of group norm at most; the largest divisor of the channels is taken.
        norm_eps: added to variances.
        dropout: probability in the blocks. *Per level.*
        padding_mode: ``"zeros"``, ``"reflect"``, ``"replicate"`` or ``"circular"``. *Per axis.*
        positions: what tells attention where a token is: ``"rotary"``, ``"sinusoidal"`` or None.
        time_embedding: whether the network takes a time ``t``: True or ``"sinusoidal"``, ``"ddpm"`` or
            ``"fourier"``, see :class:`dynunet.embeddings.TimeEmbedding`.
        time_scale: ``t`` is multiplied by it before the sinusoids, so that [0, 1] spans their periods.
        num_classes: number of class labels the network can be conditioned on; None for none.
        cond_channels: channels of an image-like condition, resized to the input and put beside it.
        cond_features: length of a free vector the network is conditioned on.
        context_features: features of context tokens; levels with attention and the bottleneck attend to them.
        in_layer: module or function before the first convolution; its ``out_channels``, if it has them, are
            what that reads.
        out_layer: module or function after the last convolution; its ``in_channels``, if it has them, are
            what that gives. Both may change the spatial size.
        gradient_checkpointing: whether training computes the blocks a second time instead of keeping what is
            inside them: less memory, a third more time.
        modulation: how time, class and features reach a block: ``"shift"`` adds them to its channels,
            ``"scale_shift"`` scales and shifts its norm (FiLM, AdaGN).
        deep_supervision: how many levels below the first also give an output in training mode.
        causal: whether nothing along an axis depends on later entries: group and instance norm are then of
            all entries so far, and batch norm is causal in evaluation mode. *Per axis.*
        lookahead: how many later entries an output may depend on along causal axes. *Per axis.*

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
        skip_attention: bool | str | Sequence[bool | str] = False,
        downsample: str | Sequence[str] = "conv",
        upsample: str | Sequence[str] = "nearest",
        skips: str = "block",
        mid_blocks: int = 2,
        mid_attention: str | None = None,
        num_groups: int = 32,
        norm_eps: float = 1e-5,
        dropout: float | Sequence[float] = 0.0,
        padding_mode: str | Sequence[str] = "zeros",
        positions: str | None = None,
        time_embedding: bool | str = False,
        time_scale: float = 1000.0,
        num_classes: int | None = None,
        cond_channels: int = 0,
        cond_features: int = 0,
        context_features: int | None = None,
        in_layer: Callable[[Tensor], Tensor] | None = None,
        out_layer: Callable[[Tensor], Tensor] | None = None,
        gradient_checkpointing: bool = False,
        modulation: str = "shift",
        deep_supervision: int = 0,
        causal: bool | Sequence[bool] = False,
        lookahead: int | Sequence[int] = 0,
    ) -> None:
        spec = NetworkSpec(
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            out_channels=out_channels,
            channels=channels,
            num_blocks=num_blocks,
            kernel_size=kernel_size,
            strides=strides,
            block=block,
            norm=norm,
            activation=activation,
            attention=attention,
            num_heads=num_heads,
            skip_attention=skip_attention,
            downsample=downsample,
            upsample=upsample,
            skips=skips,
            mid_blocks=mid_blocks,
            mid_attention=mid_attention,
            num_groups=num_groups,
            norm_eps=norm_eps,
            dropout=dropout,
            padding_mode=padding_mode,
            positions=positions,
            time_embedding=time_embedding,
            time_scale=time_scale,
            num_classes=num_classes,
            cond_channels=cond_channels,
            cond_features=cond_features,
            context_features=context_features,
            in_layer=in_layer,
            out_layer=out_layer,
            gradient_checkpointing=gradient_checkpointing,
            modulation=modulation,
            deep_supervision=deep_supervision,
            causal=causal,
            lookahead=lookahead,
        )
        super().__init__(spec)
        self.out_channels = spec.in_channels if spec.out_channels is None else spec.out_channels
        self.out_layer = spec.out_layer
        self.middle = Bottleneck(self.parts, spec)
        self.decoder = self._build_decoder(spec)
        self.head = self._head(spec, 0)
        self.side_heads = nn.ModuleList(self._head(spec, i + 1) for i in range(spec.deep_supervision))

    def _head(self, spec: NetworkSpec, i: int) -> nn.Sequential:
        level = spec.levels[i]
        outputs = getattr(self.out_layer, "in_channels", self.out_channels)
        out = zero_init(self.parts.conv(level.channels, outputs, level.kernel_size))
        return nn.Sequential(self.parts.norm(level.channels), self.parts.activation(), out)

    def _build_decoder(self, spec: NetworkSpec) -> nn.ModuleList:
        """The decoder levels, deepest first; every block takes its input and the latest skip."""
        decoder, width = nn.ModuleList(), spec.levels[-1].channels
        for i, level in reversed(list(enumerate(spec.levels))):
            skips = spec.skip_channels(i)
            widths = [width, *[level.channels] * len(skips)]
            inputs = [before + skip for before, skip in zip(widths, skips, strict=False)]
            made = Level(self.parts, spec, i, inputs, skips)
            if i > 0:
                made.up = upsample(self.parts, level, spec.transitions[i - 1])
            decoder.append(made)
            width = level.channels
        return decoder

    def forward(
        self,
        x: Tensor,
        t: Tensor | None = None,
        *,
        class_labels: Tensor | None = None,
        cond: Tensor | None = None,
        features: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Any:
        """Run the network.

        Args:
            x: ``(N, in_channels, *spatial)``.
            t: ``(N,)``, float, in [0, 1] for diffusion; required with ``time_embedding``, else not allowed.
            class_labels: ``(N,)``, int, from 0 to ``num_classes - 1``; -1 or None means unconditional.
            cond: ``(N, cond_channels, *any spatial size)``, resized linearly to the input.
            features: ``(N, cond_features)``; None for zeros.
            context: ``(N, tokens, context_features)``; None for a token of zeros.

        Returns:
            ``(N, out_channels, *spatial)``; in training mode with ``deep_supervision`` a tuple of that output
            and the outputs of the levels below, each at its own size.
        """
        self._check_input(x)
        embedding = self._embed(x, t, class_labels, features)
        context = self._context(x, context)

        x, skips = self._descend(self._inputs(x, cond), embedding, context)  # down, and push

        x = self.middle(x, embedding, context)

        sides: list[Tensor] = []
        for up, level in enumerate(cast(Iterable[Level], self.decoder)):
            for block, takes in enumerate(level.skips):  # pop, and up
                x = level.step(block, x, embedding, context, skips.pop() if takes else None)
            index = len(self.decoder) - 1 - up
            if self.training and 0 < index <= len(self.side_heads):
                sides.insert(0, self.side_heads[index - 1](x))
            if level.up is not None:
                x = level.up(x, skips[-1].shape[2:])

        outputs = [self.head(x), *sides]
        if self.out_layer is not None:
            outputs = [self.out_layer(y) for y in outputs]
        return tuple(outputs) if sides else outputs[0]
