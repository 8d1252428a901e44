"""A convolution: one kernel slides along a signal, a picture, a volume; the call is the same.

Try `python examples/learn_convolution.py --kernel edges --dims 1 2 3 4`, and `--stride 3`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from _learn import noisy_ball, picture, show

from convnd import ConvNd


@dataclass
class Options:
    """Convolve a noisy ball (one axis: a box, two: a disc) in any number of dimensions, and draw it."""

    dims: tuple[int, ...] = (1, 2, 3)
    """numbers of spatial axes; past two the picture is the middle of the further ones"""
    kernel: Literal["smooth", "edges", "slope"] = "smooth"
    """a weighted mean; what differs from it; the slope along the first axis"""
    stride: int = 1
    """outputs are this many entries apart: what a U-Net does on its way down"""
    dilation: int = 1
    """taps of the kernel are this many entries apart"""
    padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros"
    """what lies beyond the border"""
    size: int = 24
    """entries of each axis"""
    out: Path = Path("runs/learn_convolution.png")


def main(options: Options) -> None:
    smooth, slope = torch.tensor([1.0, 2, 1]) / 4, torch.tensor([-1.0, 0, 1]) / 2
    rows = []
    for n in options.dims:
        x = noisy_ball(n, options.size)
        kernel = outer(slope if options.kernel == "slope" else smooth, *[smooth] * (n - 1))
        if options.kernel == "edges":
            kernel = outer(*[torch.tensor([0.0, 1, 0])] * n) - kernel
        more = {"dilation": options.dilation, "padding_mode": options.padding_mode}
        conv = ConvNd(n, 1, 1, 3, options.stride, "same", bias=False, **more)
        conv.weight.data[0, 0] = kernel  # (3, ..., 3); a network would learn it
        y = conv(x)
        print(f"{conv}\n  {tuple(x.shape)} -> {tuple(y.shape)}, {3**n} products for each entry")
        rows.append([(f"{n}-D", picture(x)), (options.kernel, picture(y))])
    show(options.out, rows)


def outer(*kernels: torch.Tensor) -> torch.Tensor:
    """One short kernel per axis, multiplied."""
    return torch.stack(torch.meshgrid(*kernels, indexing="ij")).prod(0)


if __name__ == "__main__":
    main(tyro.cli(Options))
