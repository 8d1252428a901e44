"""The one place that draws noise, so that results can be reproduced and noise can be supplied."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .._devices import moved

Generators = torch.Generator | Sequence[torch.Generator] | None
Noise = Generators | Callable[[torch.Size], Tensor]

NOISE_BLOCK = 2**16  # entries of a signal that are drawn at once


def hashed(*parts: Any) -> int:
    """A seed from numbers and names: parts that differ in anything give unrelated ones."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def randn(
    shape: Sequence[int], generator: Noise, device: torch.device | str | None, dtype: torch.dtype | None
) -> Tensor:
    """Standard normal noise.

    Args:
        shape: ``(N, ...)``.
        generator: None for torch's global state, a generator, a list with one per sample (then a sample
            does not depend on the batch it is drawn in), or a function from shape to tensor.
        device, dtype: of the result; a generator draws on its own device.

    Raises:
        ValueError: if a list has not exactly one generator per sample.
    """
    size = torch.Size(shape)
    if generator is None:
        return torch.randn(size, device=device, dtype=dtype)
    if isinstance(generator, torch.Generator):
        noise = torch.randn(size, generator=generator, device=generator.device, dtype=dtype)
        return moved(noise, noise.device if device is None else device)
    if isinstance(generator, Sequence):
        _check_one_each(generator, size[0])
        drawn = [randn(size[1:], g, device, dtype) for g in generator]
        return torch.stack(drawn) if drawn else torch.empty(size, device=device, dtype=dtype)
    noise = generator(size)
    return moved(
        noise.to(noise.dtype if dtype is None else dtype), noise.device if device is None else device
    )


def rand(n: int, generator: Generators) -> Tensor:
    """One uniform number in [0, 1) per sample, ``(n,)`` in float64 on the CPU.

    A generator on another device seeds one on the CPU with its state, which lies on the host, and moves on:
    nothing waits for the device, which may not have float64.
    """
    if isinstance(generator, Sequence):
        _check_one_each(generator, n)
        return torch.cat([torch.empty(0, dtype=torch.float64), *(rand(1, g) for g in generator)])
    if generator is None or generator.device.type == "cpu":
        return torch.rand(n, generator=generator, dtype=torch.float64, device="cpu")
    state = hashlib.blake2b(generator.get_state().numpy().tobytes(), digest_size=8).digest()
    torch.rand(1, generator=generator, device=generator.device)
    seeded = torch.Generator().manual_seed(int.from_bytes(state, "little", signed=True))
    return rand(n, seeded)


def _check_one_each(generators: Sequence[torch.Generator], n: int) -> None:
    if len(generators) != n:
        raise ValueError(f"generator must be one generator or one per sample ({n}), got {len(generators)}")


class PlacedNoise:
    """Noise of a long signal, of which any part can be drawn alone: a function from shape to tensor.

    Args:
        seed: of all of it.
        first: the place in the signal at which a part begins.
    """

    def __init__(self, seed: int, first: int = 0) -> None:
        self.seed, self.first, self.draws = seed, first, 0

    def __call__(self, shape: torch.Size) -> Tensor:
        """The next draw, ``(N, C, n)`` in float32."""
        begin, end = self.first, self.first + shape[2]
        drawn = [
            torch.randn(
                *shape[:2],
                NOISE_BLOCK,
                generator=torch.Generator().manual_seed(hashed(self.seed, self.draws, block)),
            )
            for block in range(begin // NOISE_BLOCK, -(-end // NOISE_BLOCK))
        ]
        self.draws += 1
        return torch.cat(drawn, -1)[..., begin % NOISE_BLOCK :][..., : shape[2]]
