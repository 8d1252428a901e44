"""Rules that options of a network keep together: heads and channels, causal axes and what is along them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .option import attention_names, needs_heads

if TYPE_CHECKING:
    from .spec import LevelSpec, NetworkSpec

__all__ = ["check_causal", "check_heads"]

_PADDING_MODES = ("zeros", "replicate")  # of which nothing comes from later entries
_NOT_CAUSAL = frozenset({"linear"})  # kinds of attention that weigh all positions at once


def check_heads(spec: NetworkSpec) -> None:
    """Refuse heads that do not divide the channels of an attention."""
    decoder = () if spec.out_features is not None else _decoder_attention(spec)
    for level, channels, where in (*_encoder_attention(spec), *decoder):
        if channels % level.num_heads:
            raise ValueError(
                f"num_heads must divide the channels where there is attention, got {level.num_heads} heads "
                f"for {channels} channels at {where}"
            )


def _encoder_attention(spec: NetworkSpec) -> Iterator[tuple[LevelSpec, int, str]]:
    """Every attention with heads in the encoder: its level, its channels, and where it is."""
    for i, level in enumerate(spec.levels):
        if needs_heads(attention_names(level.attention)):
            yield level, level.channels, f"level {i}"
        if spec.context_features is not None and level.attention:
            yield level, level.channels, f"level {i}, which attends to the context"


def _decoder_attention(spec: NetworkSpec) -> Iterator[tuple[LevelSpec, int, str]]:
    """Those in the bottleneck and on the skips."""
    bottom = spec.levels[-1]
    if needs_heads(attention_names(spec.mid_attention)):
        yield bottom, bottom.channels, "the bottleneck (mid_attention)"
    if spec.context_features is not None:
        yield bottom, bottom.channels, "the bottleneck, which attends to the context"
    for i, level in reversed(list(enumerate(spec.levels))):
        if isinstance(level.skip_attention, str) and needs_heads(attention_names(level.skip_attention)):
            for skip in filter(None, spec.skip_channels(i)):
                yield level, skip, f"level {i} (skip_attention)"


def check_causal(spec: NetworkSpec) -> None:
    """Refuse what would look at later entries of a causal axis."""
    for axis, (causal, mode) in enumerate(zip(spec.causal_axes, spec.padding_mode, strict=True)):
        if causal and mode not in _PADDING_MODES:
            raise ValueError(
                "padding_mode must be 'zeros' or 'replicate' on a causal axis, for other modes put later "
                f"entries before the first, got {mode!r} on axis {axis}"
            )
    for causal, n in zip(spec.causal_axes, spec.lookaheads, strict=True):
        if n and not causal:
            raise ValueError(
                f"lookahead must be 0 on axes that are not causal, which see all, got {spec.lookahead}"
            )
    if any(spec.causal_axes):
        for name in ("attention", "skip_attention", "mid_attention"):
            _check_causal_attention(name, getattr(spec, name))


def _check_causal_attention(option: str, value: Any) -> None:
    for names in value if isinstance(value, tuple) else (value,):
        kinds = _NOT_CAUSAL.intersection(attention_names(names) if isinstance(names, str) else ())
        if kinds:
            raise ValueError(
                f"{option} must not have {' or '.join(map(repr, kinds))} in a causal network: it weighs "
                f"all positions at once: use 'window', 'axial' or 'full', got {names!r}"
            )
