"""Networks compiled by inductor beside eager ones: the seconds of the first call, and the time of the others.

The network of every rank is that of :mod:`tests.benchmarks.unet`, and beside it the peers' where there are
any. Training is a step of AdamW, inference a forward pass. A ratio above 1 says that compiling pays.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import nn

from . import unet
from .harness import THREADS, Settings, interleaved, wait
from .peers import installed


def call(
    make: unet.Make, config: unet.Config, train: bool, compiled: bool, device: str
) -> Callable[[], None]:
    """One step of training, or one forward pass."""
    torch.manual_seed(0)
    network = make(config)
    network.module.to(device).train(train)
    x = torch.randn(config.shape(unet.batch_of(make, config)), device=device)
    optimizer = torch.optim.AdamW(network.module.parameters(), 1e-4, fused=True)
    if compiled:
        network.module.compile()

    def step() -> None:
        nn.functional.mse_loss(network.run(x), x).backward()
        optimizer.step()
        optimizer.zero_grad()

    def forward() -> None:
        with torch.no_grad():
            network.run(x)

    return step if train else forward


def row(make: unet.Make, config: unet.Config, train: bool, settings: Settings) -> Sequence[str]:
    """Name, seconds of the first compiled call, milliseconds eager and compiled, and their ratio."""
    torch._dynamo.reset()
    calls = {
        kind: call(make, config, train, kind == "compiled", settings.device) for kind in ("eager", "compiled")
    }
    start = time.perf_counter()
    calls["compiled"]()
    wait(settings.device)
    first = time.perf_counter() - start
    calls["eager"]()
    taken = interleaved(calls, settings)
    what = "training" if train else "inference"
    name = f"{config.spatial_dims}-D {make.__name__} {config.name(unet.batch_of(make, config))} {what}"
    times = (f"{1e3 * taken[kind]:.1f}" for kind in calls)
    return name, f"{first:.1f}", *times, f"{taken['eager'] / taken['compiled']:.2f}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.compiled", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small networks, two repeats")
    parser.add_argument("--filter", default="", metavar="SUBSTRING", help="only names with it, such as 4-D")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ...")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(THREADS)
    settings = Settings(given.device, least=2, most=5, budget=0.3) if given.quick else Settings(given.device)
    print(f"{'':52}  first call s  eager ms  compiled ms  eager / compiled")
    for n, config in (unet.TINY if given.quick else unet.SIZES).items():
        peers = [p for p in unet.PEERS[n] if p.__name__ in unet.EQUAL and installed(p.__name__)]
        for make in (unet.ours, *peers):
            for train in (True, False):
                if given.filter in f"{n}-D {make.__name__}":
                    name, first, eager, compiled, ratio = row(make, config, train, settings)
                    print(f"{name:52}  {first:>12}  {eager:>8}  {compiled:>11}  {ratio:>16}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
