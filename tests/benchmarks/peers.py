"""Convolutions of other libraries, where they are installed. None has to be."""

import importlib
import importlib.util
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import convnd
import convnd.functional as F

from .harness import THREADS, Build, Call, Contender, differentiable


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def forced(name: str, **options: Any) -> Build:
    """Our convolution by one algorithm, whether or not it would be chosen."""

    def build(tensors: Sequence[Tensor]) -> Contender:
        return differentiable(lambda x, w: F.conv(x, w, **options), tensors, lambda: convnd.algorithm(name))

    return build


def torchnd_conv(n: int, **options: Any) -> Build:
    """torchnd's convolution over the last ``n`` axes, also the transposed one."""

    def build(tensors: Sequence[Tensor]) -> Contender:
        conv_nd = importlib.import_module("torchnd.functional").conv_nd
        return differentiable(lambda x, w: conv_nd(x, w, tuple(range(-n, 0)), **options), tensors)

    return build


def fft_conv(**options: Any) -> Build:
    def build(tensors: Sequence[Tensor]) -> Contender:
        convolve = importlib.import_module("fft_conv_pytorch").fft_conv
        return differentiable(lambda x, w: convolve(x, w, **options), tensors)

    return build


def einconv(**options: Any) -> Build:
    def build(tensors: Sequence[Tensor]) -> Contender:
        convolve = importlib.import_module("einconv.functionals").convNd
        return differentiable(lambda x, w: convolve(x, w, **options), tensors)

    return build


def jax_conv(n: int, padding: int, groups: int) -> Build:
    def build(tensors: Sequence[Tensor]) -> Contender:
        if any(t.device.type != "cpu" for t in tensors):
            raise NotImplementedError("compared on the CPU only")
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        os.environ.setdefault("NPROC", str(THREADS))  # the size of XLA's pool of threads
        jax: Any = importlib.import_module("jax")
        dtype = {torch.float32: "float32", torch.bfloat16: "bfloat16"}[tensors[0].dtype]

        def array(tensor: Tensor) -> Any:
            return jax.numpy.asarray(np.asarray(tensor.float()), dtype=dtype)

        def convolve(x: Any, w: Any) -> Any:
            pads = ((padding, padding),) * n
            return jax.lax.conv_general_dilated(x, w, (1,) * n, pads, feature_group_count=groups)

        def both(direction: Tensor) -> Call:
            def forward_and_backward(x: Any, w: Any, g: Any) -> Any:
                out, backward = jax.vjp(convolve, x, w)
                return out, backward(g)

            run, g = jax.jit(forward_and_backward), array(direction)
            return lambda: jax.block_until_ready(run(*operands, g))[1]

        operands, forward = [array(t) for t in tensors], jax.jit(convolve)
        return Contender(lambda: jax.block_until_ready(forward(*operands)), both)

    return build


def convolutions(n: int, kernel: int, groups: int, libraries: Sequence[str]) -> dict[str, Build]:
    """The convolution of each of these that is installed, with stride 1 and "same" padding."""
    padding = kernel // 2
    builds = {
        "torchnd": torchnd_conv(n, padding=padding, groups=groups),
        "jax": jax_conv(n, padding, groups),
        "fft_conv_pytorch": fft_conv(padding=padding, groups=groups),
        "einconv": einconv(padding=padding, groups=groups),
    }
    return {name: builds[name] for name in libraries if installed(name)}
