"""Signals that are given to a causal network part by part, as they come.

The layers of the network keep what they need of the past (the last inputs of a convolution, the phase of a
stride, sums of a running norm, the window of attention that is not full, what waits for the look-ahead), so
that nothing is computed twice; see ``dynunet/nn/causal.py``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .nn.causal import Memory, Remembers
from .nn.network import Network
from .nn.spectral_mask import SpectralMask
from .windows import has_spatial_axes

if TYPE_CHECKING:
    from .nn.encoder import Encoder
    from .nn.unet import UNet

__all__ = ["Stream"]


class Stream:
    """A causal network that is given a signal in parts of any size, and gives what it gives for the whole.

    The parts of the output, joined along the axis, are the output for the parts of the input, joined. Each
    sample comes as soon as it is known, at most ``lookahead`` samples later than its own; :meth:`end` gives
    the rest. Several streams of one network are apart from each other, but must not run at the same time in
    several threads. The weights must not change before the next :meth:`reset`.

    Args:
        model: a :class:`dynunet.UNet` or a :class:`dynunet.Encoder` (whose output is that for all so far),
            built with ``causal=True``, or a :class:`dynunet.SpectralMask` of one, in evaluation mode.
        axis: the spatial axis along which the parts follow each other: by default the causal one.

    Attributes:
        lookahead: how many samples later than its own the latest is that an output depends on.

    Raises:
        ValueError: the network, or a layer that is named, depends on later samples or on ever more of the
            past.

    >>> import torch
    >>> from dynunet import Stream, UNet
    >>> unet = UNet(1, 1, channels=(4, 8), num_groups=2, causal=True, lookahead=3).eval()
    >>> stream, x = Stream(unet), torch.randn(1, 1, 50)
    >>> parts = [stream(part) for part in x.split(20, -1)]
    >>> [part.shape[-1] for part in parts]
    [18, 20, 10]
    >>> torch.allclose(torch.cat([*parts, stream.end()], -1), unet(x), atol=1e-5)
    True
    >>> stream.latency  # of the longest part, and the look-ahead
    23
    """

    def __init__(self, model: "UNet | Encoder | SpectralMask", *, axis: int | None = None) -> None:
        if not isinstance(model, (Network, SpectralMask)):
            kind = type(model).__name__
            raise TypeError(
                f"model must be a UNet, Encoder or SpectralMask, as the model of a Diffusion is, got {kind}"
            )
        self.model, self.axis = model, _chosen(model, axis)
        for name, layer in model.named_modules():
            reason = layer.cannot_stream(self.axis) if isinstance(layer, Remembers) else None
            if reason is not None:
                of = f"{type(layer).__name__} {name!r} of the model" if name else type(layer).__name__
                raise ValueError(f"model cannot be given a signal in parts, for {of}: {reason}")
        self.lookahead = model.lookaheads[self.axis]
        self.reset()

    def reset(self) -> None:
        """Begin a new signal."""
        layers = [layer for layer in self.model.modules() if isinstance(layer, Remembers)]
        self._memories = [(layer, Memory(self.axis)) for layer in layers]
        self._like: Tensor | None = None  # a part without samples
        self._conditions: dict[str, Any] = {}
        self._longest, self._ended = 0, False

    @property
    def latency(self) -> int:
        """Samples from when one comes to when its output is there, at most: the longest part so far (of which
        it may be the first) and the look-ahead."""
        return self._longest + self.lookahead

    @torch.no_grad()
    def __call__(self, x: Tensor, t: Tensor | None = None, **conditions: Any) -> Tensor:
        """The output as far as it is known.

        Args:
            x: the next part, ``(N, C, *spatial)``, of any size along the axis; the other sizes, the dtype and
                the device stay the same.
            t, conditions: of the network; ``cond`` has as many samples as x. What is the same tensor as for
                the part before is not embedded again, so it must not be changed in place.

        Returns:
            What is new of the output (of an Encoder that for all so far): of all parts together it is all but
            the last ``lookahead`` samples at most.

        Raises:
            ValueError, TypeError: naming the argument, the rule and the value received.
        """
        self._check(x)
        self._longest = max(self._longest, x.shape[2 + self.axis])
        dim = 2 + self.axis
        self._like = x.narrow(dim, 0, 0).clone()
        conditions |= {} if t is None else {"t": t}
        self._conditions = {
            name: value.narrow(dim, 0, 0).clone() if has_spatial_axes(name, value, x) else value
            for name, value in conditions.items()
        }
        return self._run(x, conditions)

    @torch.no_grad()
    def end(self) -> Tensor:
        """The rest of the output, which waits for a look-ahead that does not come."""
        if self._like is None or self._ended:
            raise ValueError("a stream must have been given samples before its end, and ends once")
        self._ended = True
        for _, memory in self._memories:
            memory.ended = True
        return self._run(self._like, self._conditions)

    def _run(self, x: Tensor, conditions: dict[str, Any]) -> Tensor:
        with self._remembering():
            return self.model(x, **conditions)

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        """Lend the layers their memories."""
        for layer, memory in self._memories:
            vars(layer)["memory"] = memory
        try:
            yield
        finally:
            for layer, _ in self._memories:
                del vars(layer)["memory"]

    def _check(self, x: Any) -> None:
        if self._ended:
            raise ValueError("the stream has ended: reset() begins another")
        if self.model.training:
            raise ValueError("model must be in evaluation mode, call its eval() before")
        if not isinstance(x, Tensor):
            raise TypeError(f"x must be a tensor, got {type(x).__name__}")
        like = self._like
        if like is None:
            return
        here, before = ([*tensor.shape] for tensor in (x, like))
        if len(here) == len(before):
            here[2 + self.axis] = 0
        if here != before or x.dtype != like.dtype or x.device != like.device:
            raise ValueError(
                f"x must be like the parts before but for its size on axis {self.axis}, {tuple(before)} in "
                f"{like.dtype} on {like.device}, got {tuple(x.shape)} in {x.dtype} on {x.device}"
            )


def _chosen(model: Network | SpectralMask, axis: int | None) -> int:
    """The axis of a stream."""
    causal = [i for i, is_causal in enumerate(model.causal_axes) if is_causal]
    if axis is None:
        if len(causal) != 1:
            have = f"{len(causal)} of them are" if causal else "none is: build the network with causal=True"
            raise ValueError(f"axis must say along which axis parts follow, unless one is causal; {have}")
        return causal[0]
    if not isinstance(axis, int) or not 0 <= axis < model.spatial_dims:
        raise ValueError(f"axis must be from 0 to {model.spatial_dims - 1}, got {axis!r}")
    return axis
