"""The base of UNet and Encoder: the encoder levels and all conditioning."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

import convnd.functional as F

from ..checkpoints import Checkpoint
from ..summary import Summary, drawing, summarize
from .blocks import Parts
from .causal import Remembers
from .embeddings import ClassEmbedding, FeatureEmbedding, TimeEmbedding
from .levels import Level, check_sizes
from .resampling import downsample
from .spec import LevelSpec, NetworkSpec


def _channels_last(x: Tensor) -> Tensor:
    """Use channels-last memory on the CPU, where the layers are fastest with it.

    A compiler chooses the layout of its results itself, and inductor (2.13) cannot sort such strides if
    sizes vary. A plain tensor on the ``meta`` device stands for one on the CPU.
    """
    on_cpu = x.device.type == "cpu" or (x.is_meta and type(x) is Tensor)
    if not on_cpu or torch.compiler.is_compiling():
        return x
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def _check_labels(labels: Tensor, count: int, classes: int) -> None:
    """Refuse class labels that are not one int of -1 to ``classes - 1`` per sample."""
    if tuple(labels.shape) != (count,):
        raise ValueError(
            f"class_labels must have shape ({count},), one per sample, got {tuple(labels.shape)}"
        )
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"class_labels must be integers, got dtype {labels.dtype}")
    if labels.device.type == "cpu" and not torch.compiler.is_compiling() and count:
        low, high = int(labels.long().min()), int(labels.long().max())
        if low < -1 or high >= classes:
            raise ValueError(
                f"class_labels must be from 0 to {classes - 1}, or -1 for none, "
                f"got values from {low} to {high}"
            )


class Network(Remembers, Checkpoint, nn.Module):
    """The encoder levels and the embeddings of the conditions; subclasses add their own layers.

    Not for direct use: see :class:`dynunet.UNet` and :class:`dynunet.Encoder`.

    Attributes:
        spec: the checked options, without ``in_layer`` and ``out_layer``, which are modules of the network.
        parts: makes the layers.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = replace(spec, in_layer=None, out_layer=None)
        self.parts = Parts.of(self.spec)
        self.in_channels, self.cond_channels = spec.in_channels, spec.cond_channels
        self.num_classes, self.cond_features = spec.num_classes, spec.cond_features
        self.context_features = spec.context_features
        self.in_layer = spec.in_layer
        self._build_embeddings(spec)
        width = spec.channels[0]
        inputs = getattr(self.in_layer, "out_channels", spec.in_channels) + spec.cond_channels
        self.stem = self.parts.conv(inputs, width, spec.levels[0].kernel_size)
        self.encoder = nn.ModuleList()
        for i, level in enumerate(spec.levels):
            made = Level(self.parts, spec, i, [width] + [level.channels] * (level.num_blocks - 1))
            if i < len(spec.transitions):
                made.down = downsample(self.parts, level, spec.transitions[i], spec.ahead(i))
            self.encoder.append(made)
            width = level.channels

    def _build_embeddings(self, spec: NetworkSpec) -> None:
        width, features = spec.channels[0], spec.embedding_features
        self.time_embedding = self.class_embedding = self.feature_embedding = None
        if isinstance(spec.time_embedding, str):
            self.time_embedding = TimeEmbedding(spec.time_embedding, width, features, spec.time_scale)
        if spec.num_classes is not None:
            self.class_embedding = ClassEmbedding(spec.num_classes, features)
        if spec.cond_features > 0:
            self.feature_embedding = FeatureEmbedding(spec.cond_features, features)

    @property
    def spatial_dims(self) -> int:
        """The number of spatial axes."""
        return self.spec.spatial_dims

    @property
    def padding_mode(self) -> tuple[str, ...]:
        """The padding mode of each axis."""
        return tuple(self.spec.padding_mode)

    @property
    def causal_axes(self) -> tuple[bool, ...]:
        """Whether each axis is causal."""
        return self.spec.causal_axes

    @property
    def lookaheads(self) -> tuple[int, ...]:
        """How many later entries an output may depend on, of each causal axis."""
        return self.spec.lookaheads

    @property
    def is_causal(self) -> bool:
        """True if any axis is."""
        return any(self.spec.causal_axes)

    def cannot_stream(self, axis: int) -> str | None:
        if not self.spec.causal_axes[axis]:
            return f"it is not causal along axis {axis}: build it with causal=True"
        own = [name for name in ("in_layer", "out_layer") if getattr(self, name, None) is not None]
        return f"it has an {own[0]} of your own, which may look at any entries" if own else None

    @property
    def levels(self) -> tuple[LevelSpec, ...]:
        """The options of each level."""
        return self.spec.levels

    @property
    def strides(self) -> list[tuple[int, ...]]:
        """The stride into each level but the first."""
        return [step.strides for step in self.spec.transitions]

    def _descend(
        self, x: Tensor, embedding: Tensor | None, context: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the encoder: returns the deepest result, and the list of skips for the decoder."""
        x, skips, every = _channels_last(self.stem(x)), [], self.spec.skips == "block"
        for level in cast(Iterable[Level], self.encoder):
            for i in range(len(level.blocks)):
                skips += [x] * every
                x = level.step(i, x, embedding, context)
            if every or level.down is not None:
                skips.append(x)
            if level.down is not None:
                x = level.down(x)
        return x, skips

    def _inputs(self, x: Tensor, cond: Tensor | None) -> Tensor:
        """The input of the first convolution: ``x`` joined with the condition, resized to it."""
        if self.in_layer is not None:
            x = self.in_layer(x)
        check_sizes(self.spec, x.shape[2:])
        if (cond is None) != (self.cond_channels == 0):
            rule = "needs cond" if cond is None else "takes no cond: build it with cond_channels=..."
            got = "None" if cond is None else tuple(cond.shape)
            raise ValueError(f"this {type(self).__name__} {rule}, got cond={got}")
        if cond is None:
            return x
        wanted = x.shape[0], self.cond_channels
        if (
            cond.ndim != self.spatial_dims + 2
            or tuple(cond.shape[:2]) != wanted
            or (min(cond.shape[2:]) < 1 and self.memory is None)
        ):
            raise ValueError(
                f"cond must be ({wanted[0]}, {wanted[1]}, *spatial) with {self.spatial_dims} spatial axes, "
                f"got shape {tuple(cond.shape)}"
            )
        for axis, (have, causal) in enumerate(zip(cond.shape[2:], self.spec.causal_axes, strict=True)):
            if causal and have != x.shape[2 + axis]:
                raise ValueError(
                    f"cond must have the size of x on causal axes, {x.shape[2 + axis]} on axis {axis}: it "
                    f"would look ahead if it were resized, got shape {tuple(cond.shape)}"
                )
        if cond.shape[2:] != x.shape[2:]:
            cond = F.interpolate(cond, tuple(x.shape[2:]), mode="linear")
        return torch.cat([x, cond.to(x.dtype)], dim=1)

    def _embed(
        self, x: Tensor, t: Tensor | None, labels: Tensor | None, features: Tensor | None
    ) -> Tensor | None:
        """The sum of the embeddings, ``(N, E)``, or None if there are none."""
        memory, given = self.memory, (t, labels, features)
        if memory is not None and memory.kept is not None:
            known, embedding = memory.kept
            if all(a is b for a, b in zip(known, given, strict=True)):
                return embedding
        embedding = self._embedded(x, *given)
        if memory is not None:
            memory.kept = given, embedding
        return embedding

    def _embedded(
        self, x: Tensor, t: Tensor | None, labels: Tensor | None, features: Tensor | None
    ) -> Tensor | None:
        embedded = (self._embed_time(x, t), self._embed_labels(x, labels), self._embed_features(x, features))
        terms = [term for term in embedded if term is not None]
        return sum(terms[1:], terms[0]) if terms else None

    def _embed_time(self, x: Tensor, t: Tensor | None) -> Tensor | None:
        if (t is None) != (self.time_embedding is None):
            rule = "takes no t: build it with time_embedding=True" if t is not None else "needs t"
            got = "None" if t is None else tuple(t.shape)
            raise ValueError(f"this {type(self).__name__} {rule}, got t={got}")
        if t is None or self.time_embedding is None:
            return None
        if tuple(t.shape) != (x.shape[0],):
            raise ValueError(f"t must have shape ({x.shape[0]},), one per sample, got {tuple(t.shape)}")
        return self.time_embedding(t)

    def _embed_labels(self, x: Tensor, labels: Tensor | None) -> Tensor | None:
        if self.class_embedding is None:
            return self._check_left_out("class_labels", labels, "num_classes")
        if labels is None:
            labels = torch.full((x.shape[0],), -1, device=x.device)
        else:
            _check_labels(labels, x.shape[0], self.num_classes or 0)
        return self.class_embedding(labels)

    def _embed_features(self, x: Tensor, features: Tensor | None) -> Tensor | None:
        if self.feature_embedding is None:
            return self._check_left_out("features", features, "cond_features")
        wanted = x.shape[0], self.cond_features
        if features is None:
            features = x.new_zeros(wanted)
        elif tuple(features.shape) != wanted:
            raise ValueError(f"features must have shape {wanted}, got {tuple(features.shape)}")
        return self.feature_embedding(features)

    def _context(self, x: Tensor, context: Tensor | None) -> Tensor | None:
        """The context tokens; if None, a single token of zeros, which also stands for a dropped condition."""
        if self.context_features is None:
            return self._check_left_out("context", context, "context_features")
        if context is None:
            return x.new_zeros(x.shape[0], 1, self.context_features)
        if context.ndim != 3 or (context.shape[0], context.shape[2]) != (x.shape[0], self.context_features):
            raise ValueError(
                f"context must be ({x.shape[0]}, tokens, {self.context_features}), got shape "
                f"{tuple(context.shape)}"
            )
        return context

    def _check_left_out(self, name: str, value: Tensor | None, option: str) -> None:
        """Refuse an input for which the network has no layer."""
        if value is not None:
            raise ValueError(
                f"{name} must be left out: build the {type(self).__name__} with {option}=... to use it"
            )

    def _check_input(self, x: Tensor) -> None:
        if x.ndim != self.spatial_dims + 2 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"x must be (N, {self.in_channels}, *spatial) with {self.spatial_dims} spatial axes, "
                f"got shape {tuple(x.shape)}"
            )
        if not x.is_floating_point():
            raise TypeError(f"x must be a floating-point tensor, got dtype {x.dtype}")
        if min(x.shape[2:]) < 1 and self.memory is None:
            raise ValueError(f"x must have at least one entry on every axis, got shape {tuple(x.shape)}")

    def summary(self, input_shape: Sequence[int], **inputs: Any) -> Summary:
        """A diagram and a table of shapes, parameters, FLOPs and activation memory; nothing is computed.

        Args:
            input_shape: ``(N, in_channels, *spatial)``.
            inputs: further arguments of the network, such as ``context``; t is created if needed.

        >>> from dynunet import UNet
        >>> unet = UNet(4, 1, channels=(16, 32))
        >>> unet.summary((1, 1, 16, 16, 16, 16)).parameters == sum(p.numel() for p in unet.parameters())
        True
        """
        return summarize(self, input_shape, **inputs)._replace(drawing=drawing(self))

    def _inflate_(self, axes: Any) -> None:
        """Update the options of the new network, which :func:`convnd.inflate` cannot do."""
        spec = self.spec
        self.spec = replace(
            spec,
            spatial_dims=axes.spatial_dims,
            padding_mode=axes.extend(self.padding_mode, axes.padding_mode),
            strides=[axes.extend(step.strides, axes.strides(step.strides)) for step in spec.transitions],
            kernel_size=[axes.extend(level.kernel_size, axes.kernel_size) for level in spec.levels],
            causal=axes.extend(spec.causal_axes, False),
            lookahead=axes.extend(spec.lookaheads, 0),
        )
        self.parts = Parts.of(self.spec)
        self.config |= {
            "spatial_dims": self.spatial_dims,
            "padding_mode": list(self.padding_mode),
            "strides": [list(stride) for stride in self.strides],
            "kernel_size": [list(level.kernel_size) for level in self.levels],
        }


def network_within(model: nn.Module) -> Network | None:
    """The UNet or Encoder in a model, None if its network is of another library."""
    network: Any = model
    while not isinstance(network, Network) and hasattr(network, "model"):
        network = network.model
    return network if isinstance(network, Network) else None
