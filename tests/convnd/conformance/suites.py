"""The list of suites, and how many of their cases an ordinary run of the tests takes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from . import moduleinfo, opinfo, peers

Check = tuple[str, Callable[[], None]]


@dataclass(frozen=True)
class Suite:
    name: str
    cases: Callable[[], Iterator[Check]]
    stride: int  # an ordinary run takes every so many cases

    def sample(self, everything: bool) -> Iterator[Check]:
        for i, case in enumerate(self.cases()):
            if everything or i % self.stride == 0:
                yield case


SUITES = (
    Suite("torch's samples, own rank", lambda: opinfo.samples((0,)), 1),
    Suite("torch's samples, lifted to 4 axes", lambda: opinfo.samples((4,)), 7),
    Suite("torch's samples, lifted to 5 axes", lambda: opinfo.samples((5,)), 17),
    Suite("torch's samples, lifted to 6 axes", lambda: opinfo.samples((6,)), 23),
    Suite("torch's samples, lifted to 4 axes, float32", lambda: opinfo.samples((4,), torch.float32), 29),
    Suite("torch's error inputs", opinfo.errors, 1),
    Suite("torch's modules, own rank", moduleinfo.modules, 1),
    Suite("JAX convolution, 4 and 5 axes", peers.jax_conv, 12),
    Suite("JAX reduce_window, 4 and 5 axes", peers.jax_pool, 12),
    Suite("SciPy correlate, 4 and 5 axes", peers.scipy_correlate, 1),
    Suite("ONNX reference, 4 and 5 axes", peers.onnx_reference, 3),
)
