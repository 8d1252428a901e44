"""Measurement operators: what is measured of data, in any number of dimensions.

An operator A maps data ``(N, C, *spatial)`` to a measurement with as many axes,

    y = A(x) + noise,

and :meth:`dynunet.Diffusion.reconstruct` finds the data that y may have been measured of.

    Mask(known)                 some entries
    Downsample(4)               fewer entries: averages, or every so many
    Blur(kernel)                convolution with a kernel
    Fourier(mask)               some Fourier coefficients
    Project(axis)               the mean or the maximum along an axis
    Clip(low, high)             values limited to a range
    Quantise(step)              values rounded
    Compose(first, second)      one after the other
    Function(f)                 any differentiable function

A linear operator has an exact ``adjoint``, with <A x, y> = <x, A^T y>.

>>> import torch
>>> A = Compose(Blur(torch.full((3, 3), 1 / 9)), Downsample(2))
>>> y = A(torch.rand(1, 1, 8, 8))
>>> y.shape, A.adjoint(y).shape
(torch.Size([1, 1, 4, 4]), torch.Size([1, 1, 8, 8]))
"""

from .linear import Blur, Downsample, Fourier, Mask
from .nonlinear import Clip, Project, Quantise
from .operator import Compose, Function, LinearOperator, Operator, as_operator

__all__ = [
    "Blur",
    "Clip",
    "Compose",
    "Downsample",
    "Fourier",
    "Function",
    "LinearOperator",
    "Mask",
    "Operator",
    "Project",
    "Quantise",
    "as_operator",
]
