"""Attention against torch's own multi-head attention."""

import pytest
import torch
from torch import nn

from dynunet.attention import SelfAttention
from dynunet.blocks import Parts


@pytest.mark.parametrize("sizes", [(6,), (2, 3), (2, 3, 1), (2, 1, 3, 2)])
def test_full_attention_equals_multi_head_attention(sizes: tuple[int, ...]) -> None:
    parts = Parts(len(sizes), None, "silu", 1, 1e-5, ("zeros",) * len(sizes))
    ours, theirs = SelfAttention(parts, 8, 2).double(), nn.MultiheadAttention(8, 2, batch_first=True).double()
    nn.init.normal_(theirs.in_proj_bias)
    nn.init.normal_(theirs.out_proj.bias)
    ours.query_key_value.load_state_dict({"weight": theirs.in_proj_weight, "bias": theirs.in_proj_bias})
    ours.projection.load_state_dict(theirs.out_proj.state_dict())
    x = torch.randn(3, 8, *sizes, dtype=torch.float64)
    tokens = x.flatten(2).transpose(1, 2)
    expected = x + theirs(tokens, tokens, tokens, need_weights=False)[0].transpose(1, 2).reshape(x.shape)
    torch.testing.assert_close(ours(x), expected)
