"""Attention over positions and channels; the formulas and costs are in :mod:`dynunet.nn.attention`."""

from .nn.attention import (
    ATTENTIONS,
    AxialAttention,
    CrossAttention,
    LinearAttention,
    SelfAttention,
    WindowAttention,
    make_attention,
)
from .nn.gates import AttentionGate, ChannelAttention, SpatialAttention
from .nn.option import attention_names, needs_heads

__all__ = [
    "ATTENTIONS",
    "AttentionGate",
    "AxialAttention",
    "ChannelAttention",
    "CrossAttention",
    "LinearAttention",
    "SelfAttention",
    "SpatialAttention",
    "WindowAttention",
    "attention_names",
    "make_attention",
    "needs_heads",
]
