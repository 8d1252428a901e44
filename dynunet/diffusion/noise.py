"""One place that draws noise, so that a result can be reproduced or its noise injected."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Generators = torch.Generator | Sequence[torch.Generator] | None
Noise = Generators | Callable[[torch.Size], Tensor]


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
        return torch.randn(size, generator=generator, device=generator.device, dtype=dtype).to(device)
    if isinstance(generator, Sequence):
        _check_one_each(generator, size[0])
        return torch.stack([randn(size[1:], g, device, dtype) for g in generator])
    return generator(size).to(device=device, dtype=dtype)


def rand(n: int, generator: Generators) -> Tensor:
    """One uniform number on [0, 1) per sample, ``(n,)`` in float64, on the device of the generator."""
    if isinstance(generator, Sequence):
        _check_one_each(generator, n)
        return torch.cat([rand(1, g) for g in generator])
    device = None if generator is None else generator.device
    return torch.rand(n, generator=generator, device=device, dtype=torch.float64)


def _check_one_each(generators: Sequence[torch.Generator], n: int) -> None:
    if len(generators) != n:
        raise ValueError(f"generator must be one generator or one per sample ({n}), got {len(generators)}")
