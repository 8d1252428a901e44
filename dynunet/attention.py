"""Attention over the positions of an N-dimensional tensor."""

from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from .blocks import Parts, zero_init


class SelfAttention(nn.Module):
    """``x + W attention(norm(x))`` between all positions (Vaswani et al. 2017; Ho et al. 2020).

    Positions are tokens whatever the number of axes. Time grows with their number squared, memory
    linearly where ``scaled_dot_product_attention`` has an efficient kernel.
    """

    def __init__(self, parts: Parts, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = parts.norm(channels)
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.projection = zero_init(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        tokens = rearrange(self.norm(x), "n c ... -> n (...) c")
        qkv = self.query_key_value(tokens)
        q, k, v = rearrange(qkv, "n t (part h d) -> part n h t d", part=3, h=self.num_heads)
        out = scaled_dot_product_attention(q, k, v)
        out = self.projection(rearrange(out, "n h t d -> n t (h d)"))
        return x + out.transpose(1, 2).reshape(x.shape)


ATTENTIONS = {"full": SelfAttention}
