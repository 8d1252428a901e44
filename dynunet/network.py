"""What a U-Net and an encoder alone have in common: the way down, and everything that steers it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

import convnd.functional as F
from convnd.arguments import choice, integer, padding_modes

from .attention import attention_names
from .blocks import MODULATIONS, NORMS, Parts
from .checkpoints import Checkpoint
from .drawing import drawing
from .embeddings import TIME_EMBEDDINGS, ClassEmbedding, FeatureEmbedding, TimeEmbedding
from .options import MOST_AXES, at_most, flag, layer, levels, optional_choice, positive, transitions
from .positions import POSITIONS
from .resizing import downsample
from .stages import Stage, check_axis
from .summary import Summary, summarize


def _channels_last(x: Tensor) -> Tensor:
    """On the CPU the layers are fastest where the channels of a position lie next to each other."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1) if x.device.type == "cpu" else x


class Network(Checkpoint, nn.Module):
    """Options in ``given`` are checked here once; a subclass adds its own parts.

    Not for use by itself: see :class:`dynunet.UNet` and :class:`dynunet.Encoder`.
    """

    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__()
        n = self.spatial_dims = at_most(
            integer(given["spatial_dims"], "spatial_dims"), MOST_AXES, "spatial_dims"
        )
        self.in_channels = integer(given["in_channels"], "in_channels")
        self.cond_channels = integer(given["cond_channels"], "cond_channels", 0)
        self.padding_mode = padding_modes(given["padding_mode"], n)
        self.levels = levels(n, given)
        self.transitions = transitions(n, len(self.levels), given)
        self.mid_attention = attention_names(given.get("mid_attention"), "mid_attention")
        self.in_layer = layer(given["in_layer"], "in_layer")
        width = self.levels[0].channels
        embedded = self._build_embeddings(width, given)
        self.parts = Parts(
            n,
            optional_choice(given["norm"], NORMS, "norm"),
            given["activation"],
            integer(given["num_groups"], "num_groups"),
            positive(given["norm_eps"], "norm_eps"),
            self.padding_mode,
            embedded,
            choice(given["modulation"], MODULATIONS, "modulation"),
        )
        features = given["context_features"]
        self.context_features = None if features is None else integer(features, "context_features")
        self.stage_options: dict[str, Any] = {
            "positions": optional_choice(given["positions"], POSITIONS, "positions"),
            "context_features": self.context_features,
            "checkpointing": flag(given["gradient_checkpointing"], "gradient_checkpointing"),
        }
        inputs = getattr(self.in_layer, "out_channels", self.in_channels) + self.cond_channels
        self.stem = self.parts.conv(inputs, width, self.levels[0].kernel_size)
        self.encoder, self.skip_channels = self._build_encoder()

    @property
    def strides(self) -> list[tuple[int, ...]]:
        """The stride into each level but the first."""
        return [step.stride for step in self.transitions]

    def _build_embeddings(self, width: int, given: dict[str, Any]) -> int:
        """Makes them, and says how long they are: 0 where there is none."""
        features = 4 * width
        time, scale = given["time_embedding"], positive(given["time_scale"], "time_scale")
        kind = TIME_EMBEDDINGS[0] if time is True else time
        if kind is not False:
            choice(kind, TIME_EMBEDDINGS, "time_embedding, if not True or False,")
        self.time_embedding = None if kind is False else TimeEmbedding(kind, width, features, scale)
        classes = given["num_classes"]
        self.num_classes = None if classes is None else integer(classes, "num_classes")
        self.class_embedding = (
            None if self.num_classes is None else ClassEmbedding(self.num_classes, features)
        )
        self.cond_features = integer(given["cond_features"], "cond_features", 0)
        made = self.cond_features > 0
        self.feature_embedding = FeatureEmbedding(self.cond_features, features) if made else None
        kinds = self.time_embedding, self.class_embedding, self.feature_embedding
        return features if any(kind is not None for kind in kinds) else 0

    def _build_encoder(self) -> tuple[nn.ModuleList, list[int]]:
        """The encoder levels, and the channels of every skip in the order they are pushed."""
        encoder, width = nn.ModuleList(), self.levels[0].channels
        skips = [width]
        for i, level in enumerate(self.levels):
            inputs = [width] + [level.channels] * (level.num_blocks - 1)
            stage = Stage(self.parts, level, inputs, f"level {i}", **self.stage_options)
            width = level.channels
            skips += [width] * level.num_blocks
            if i < len(self.transitions):
                stage.down = downsample(self.parts, level, self.transitions[i])
                skips.append(width)
            encoder.append(stage)
        return encoder, skips

    def _descend(
        self, x: Tensor, embedding: Tensor | None, context: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Down the levels: the deepest result, and every one that waits for the other side."""
        x = _channels_last(self.stem(x))
        skips = [x]
        for stage in cast(Iterable[Stage], self.encoder):
            for i in range(len(stage.blocks)):
                x = stage.step(i, x, embedding, context)
                skips.append(x)
            if stage.down is not None:
                x = stage.down(x)
                skips.append(x)
        return x, skips

    def _inputs(self, x: Tensor, cond: Tensor | None) -> Tensor:
        """What the first convolution reads: ``x``, and the condition resized to it."""
        if self.in_layer is not None:
            x = self.in_layer(x)
        bottom = replace(self.levels[-1], attention=self.levels[-1].attention + self.mid_attention)
        levels = [*self.levels[:-1], bottom]
        for axis, (size, mode) in enumerate(zip(x.shape[2:], self.padding_mode, strict=True)):
            check_axis(size, axis, mode, levels, self.strides)
        if (cond is None) != (self.cond_channels == 0):
            rule = "needs cond" if cond is None else "takes no cond: build it with cond_channels=..."
            got = "None" if cond is None else tuple(cond.shape)
            raise ValueError(f"this {type(self).__name__} {rule}, got cond={got}")
        if cond is None:
            return x
        wanted = x.shape[0], self.cond_channels
        if cond.ndim != self.spatial_dims + 2 or tuple(cond.shape[:2]) != wanted or min(cond.shape[2:]) < 1:
            raise ValueError(
                f"cond must be ({wanted[0]}, {wanted[1]}, *spatial) with {self.spatial_dims} spatial axes, "
                f"got shape {tuple(cond.shape)}"
            )
        if cond.shape[2:] != x.shape[2:]:
            cond = F.interpolate(cond, tuple(x.shape[2:]), mode="linear")
        return torch.cat([x, cond.to(x.dtype)], dim=1)

    def _embed(
        self, x: Tensor, t: Tensor | None, labels: Tensor | None, features: Tensor | None
    ) -> Tensor | None:
        """The sum of the embeddings, ``(N, E)``, or None without any."""
        name, n = type(self).__name__, x.shape[0]
        if (t is None) != (self.time_embedding is None):
            rule = "takes no t: build it with time_embedding=True" if t is not None else "needs t"
            raise ValueError(f"this {name} {rule}, got t={'None' if t is None else tuple(t.shape)}")
        if labels is not None and self.class_embedding is None:
            raise ValueError(
                f"class_labels must be left out: build the {name} with num_classes=... to use them"
            )
        if features is not None and self.feature_embedding is None:
            raise ValueError(
                f"features must be left out: build the {name} with cond_features=... to use them"
            )
        terms = []
        if self.time_embedding is not None and t is not None:
            if tuple(t.shape) != (n,):
                raise ValueError(f"t must have shape ({n},), one per sample, got {tuple(t.shape)}")
            terms.append(self.time_embedding(t))
        if self.class_embedding is not None:
            labels = torch.full((n,), -1, device=x.device) if labels is None else labels
            self._check_labels(labels, n)
            terms.append(self.class_embedding(labels))
        if self.feature_embedding is not None:
            features = x.new_zeros(n, self.cond_features) if features is None else features
            if tuple(features.shape) != (n, self.cond_features):
                raise ValueError(
                    f"features must have shape ({n}, {self.cond_features}), got {tuple(features.shape)}"
                )
            terms.append(self.feature_embedding(features))
        return sum(terms[1:], terms[0]) if terms else None

    def _context(self, x: Tensor, context: Tensor | None) -> Tensor | None:
        """The context tokens; none given is one token of zeros, what a dropped condition becomes."""
        if self.context_features is None:
            if context is not None:
                raise ValueError(
                    f"context must be left out: build the {type(self).__name__} with context_features=..."
                )
            return None
        if context is None:
            return x.new_zeros(x.shape[0], 1, self.context_features)
        if context.ndim != 3 or (context.shape[0], context.shape[2]) != (x.shape[0], self.context_features):
            raise ValueError(
                f"context must be ({x.shape[0]}, tokens, {self.context_features}), got shape "
                f"{tuple(context.shape)}"
            )
        return context

    def _check_labels(self, labels: Tensor, count: int) -> None:
        if tuple(labels.shape) != (count,):
            raise ValueError(
                f"class_labels must have shape ({count},), one per sample, got {tuple(labels.shape)}"
            )
        if labels.is_floating_point() or labels.dtype == torch.bool:
            raise TypeError(f"class_labels must be integers, got dtype {labels.dtype}")
        if labels.device.type == "cpu" and not torch.compiler.is_compiling() and count:
            low, high = int(labels.long().min()), int(labels.long().max())
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

    def summary(self, input_shape: Sequence[int], **inputs: Any) -> Summary:
        """A drawing, and a table of shapes, parameters, FLOPs and activation memory. Nothing is computed.

        Args:
            input_shape: ``(N, in_channels, *spatial)``.
            inputs: further arguments of the network, such as ``context``; t is made where it is needed.

        >>> from dynunet import UNet
        >>> unet = UNet(4, 1, channels=(16, 32))
        >>> unet.summary((1, 1, 16, 16, 16, 16)).parameters == sum(p.numel() for p in unet.parameters())
        True
        """
        return summarize(self, input_shape, **inputs)._replace(drawing=drawing(self))

    def _inflate_(self, axes: Any) -> None:
        """What :func:`convnd.inflate` cannot know: the sizes that the new network takes."""
        self.spatial_dims = axes.spatial_dims
        self.padding_mode = axes.extend(self.padding_mode, axes.padding_mode)
        self.parts = replace(self.parts, spatial_dims=self.spatial_dims, padding_mode=self.padding_mode)
        self.transitions = [
            replace(step, stride=axes.extend(step.stride, axes.strides(step.stride)))
            for step in self.transitions
        ]
        self.levels = [
            replace(level, kernel_size=axes.extend(level.kernel_size, axes.kernel_size))
            for level in self.levels
        ]
        self.config |= {
            "spatial_dims": self.spatial_dims,
            "padding_mode": list(self.padding_mode),
            "strides": [list(stride) for stride in self.strides],
            "kernel_size": [list(level.kernel_size) for level in self.levels],
        }
