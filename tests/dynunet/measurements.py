"""An operator of every kind, for data of one to four axes."""

import torch

from dynunet.operators import (
    Blur,
    Clip,
    Compose,
    Downsample,
    Fourier,
    Function,
    Mask,
    Operator,
    Project,
    Quantise,
)

SIZES = (6, 4, 2, 2)


def operators(dims: int) -> dict[str, Operator]:
    sizes = SIZES[:dims]
    mask = torch.randn(1, 1, *sizes, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) > 0
    return {
        "mask": Mask(mask),
        "average": Downsample((2,) * dims),
        "stride": Downsample((3,) + (1,) * (dims - 1), "stride"),
        "blur": Blur([torch.tensor([0.2, 0.6, 0.2]).double()] + [None] * (dims - 1), "replicate"),
        "fourier": Fourier(mask, axes=(0,)),
        "mean": Project(-1),
        "maximum": Project(0, "max"),
        "clip": Clip(-0.5, 0.5),
        "quantise": Quantise(0.25),
        "both": Compose(Downsample((2,) + (1,) * (dims - 1)), Clip(-0.4, 0.4)),
        "function": Function(lambda x: x.sin() + x),
    }
