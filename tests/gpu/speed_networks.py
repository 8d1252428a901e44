"""Networks: training steps beside diffusers and MONAI, samples per second, memory beside its estimate."""

import re
import shlex
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from dynunet import Diffusion, UNet
from tests.benchmarks import unet as networks
from tests.benchmarks.harness import wait
from tests.benchmarks.peers import installed
from tests.benchmarks.unet import Config, Network

from .compare import channels_last
from .rows import ROOT, Row, Setting, Skip, need, need_gpu
from .timing import BF16, FLOAT32, TF32, kinds, precision, timed
from .training import QUIET

# Channels, size, axes, batch.
SIZES = (
    (Config((64, 128, 256), 64, 2), 64),
    (Config((32, 64, 128), 48, 3), 8),
    (Config((32, 64, 128), 16, 4), 4),
    (Config((64, 128, 256), 4096, 1), 64),
)
SMALL = ((Config((16, 32), 8, 2), 1), (Config((16, 32), 4, 4), 1))
LIBRARIES = {1: (), 2: ("diffusers", "monai"), 3: ("monai",), 4: ()}


def _sizes(setting: Setting) -> Any:
    return SMALL if setting.quick else SIZES


def _placed(network: Network, x: Tensor, last: bool) -> tuple[Network, Tensor]:
    """On the device, in memory channels-last if asked for."""
    network.module.to(x.device).train()
    if not last:
        return network, x
    with torch.no_grad():
        for p in network.module.parameters():
            if p.ndim > 3:
                p.data = channels_last(p.data)
    return network, channels_last(x)


def step(network: Network, x: Tensor, kind: str, last: bool, compiled: bool = False) -> Callable[[], Any]:
    """Forward, backward and fused AdamW, under autocast in half precision."""
    network, x = _placed(network, x, last)
    optimizer = torch.optim.AdamW(network.module.parameters(), 1e-4, fused=True)
    target = torch.randn_like(x)
    if compiled:
        network.module.compile()

    def run() -> None:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=kind == BF16):
            out = network.run(x)
        nn.functional.mse_loss(out.float(), target).backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def _contenders(config: Config, setting: Setting) -> dict[str, Callable[[], Network]]:
    """Ours with the weights of each library that has such a network, or ours alone."""
    found: dict[str, Callable[[], Network]] = {"ours": lambda: networks.ours(config)}
    for library in _libraries(config, setting):
        found[library] = lambda make=networks.EQUAL[library][0]: make(config)
        found[f"ours as {library}"] = lambda library=library: networks._of_unet(
            networks.EQUAL[library][1](networks.EQUAL[library][0](config).module)
        )
    return found


def _libraries(config: Config, setting: Setting) -> list[str]:
    """Those installed that have such a network; one for a quick run."""
    return [*filter(installed, LIBRARIES[config.spatial_dims])][-1 if setting.quick else 0 :]


def _input(config: Config, batch: int, setting: Setting) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(config.shape(batch), device=setting.device)


def steps(setting: Setting) -> list[Row]:
    def run(config: Config, batch: int, kind: str) -> dict[str, Any]:
        x = _input(config, batch, setting)
        calls = {}
        for name, make in _contenders(config, setting).items():
            calls[name] = step(make(), x, kind, last=False)
            if config.spatial_dims > 1:
                calls[f"{name} channels-last"] = step(make(), x, kind, last=True)
        with precision(kind):
            seconds, failed = timed(calls, setting, 0.5)
        flops = 3 * batch * networks.flops(networks.ours, config)
        figures: dict[str, Any] = {"seconds": seconds, "left out": failed}
        best = min(seconds.get(k, float("inf")) for k in ("ours", "ours channels-last"))
        figures["TFLOP/s"] = flops / best / 1e12
        for library in _libraries(config, setting):
            theirs = [seconds[k] for k in (library, f"{library} channels-last") if k in seconds]
            equal = [
                seconds[k] for k in (f"ours as {library}", f"ours as {library} channels-last") if k in seconds
            ]
            if theirs and equal:
                figures[f"{library} / ours"] = min(theirs) / min(equal)
        return figures

    return [
        Row(
            f"{config.spatial_dims}-D {config.name(batch)} {kind}",
            lambda c=config, b=batch, k=kind: run(c, b, k),
            90,
        )
        for kind in (kinds(setting)[:2] if setting.gpu else kinds(setting))
        for config, batch in _sizes(setting)
    ]


def compiled(setting: Setting) -> list[Row]:
    """The same with ``torch.compile``, of both sides, in half precision; the first call takes its time."""

    def run(config: Config, batch: int, name: str) -> dict[str, Any]:
        if setting.quick:
            raise Skip("left out of a quick run")
        make = _contenders(config, setting).get(name)
        if make is None:
            raise Skip(f"{name.split()[-1]} not installed")
        x = _input(config, batch, setting)
        torch._dynamo.reset()
        with precision(BF16):
            call = step(make(), x, BF16, config.spatial_dims > 1, compiled=True)
            start = time.perf_counter()
            call()
            wait(setting.device)
            first = time.perf_counter() - start
            eager = step(make(), x, BF16, config.spatial_dims > 1)
            seconds, failed = timed({"eager": eager, "compiled": call}, setting, 0.5)
        figures: dict[str, Any] = {"seconds": seconds, "left out": failed, "first call": first}
        if len(seconds) == 2:
            figures["eager / compiled"] = seconds["eager"] / seconds["compiled"]
        return figures

    rows = []
    for config, batch in _sizes(setting):
        names = [
            "ours",
            *(f"{side}{lib}" for lib in LIBRARIES[config.spatial_dims][-1:] for side in ("ours as ", "")),
        ]
        rows += [
            Row(f"{config.spatial_dims}-D {name}", lambda c=config, b=batch, n=name: run(c, b, n), 150)
            for name in names
        ]
    return rows


def compiled_samples(setting: Setting) -> list[Row]:
    """Sampling compiled, and by CUDA graphs, beside eager; the first call takes its time."""

    def run(config: Config, batch: int) -> dict[str, Any]:
        if setting.quick:
            raise Skip("left out of a quick run")
        torch._dynamo.reset()
        diffusion = Diffusion(networks.ours(config).module).to(setting.device, torch.bfloat16)

        def call(compile: bool | str) -> Callable[[], Any]:
            return lambda: diffusion.sample(config.shape(batch), 10, progress=False, compile=compile)

        calls = {"eager": call(False), "compiled": call(True), "graphs": call("reduce-overhead")}
        figures: dict[str, Any] = {}
        with precision(BF16):
            for name in ("compiled", "graphs"):
                start = time.perf_counter()
                calls[name]()
                wait(setting.device)
                figures[f"{name}: first call"] = time.perf_counter() - start
            seconds, failed = timed(calls, setting, 0.5)
        figures |= {"seconds": seconds, "left out": failed}
        return figures | {
            f"eager / {name}": seconds["eager"] / taken for name, taken in seconds.items() if name != "eager"
        }

    return [
        Row(f"{config.spatial_dims}-D {config.name(batch)}", lambda c=config, b=batch: run(c, b), 150)
        for config, batch in _sizes(setting)
    ]


def samples(setting: Setting) -> list[Row]:
    def run(config: Config, batch: int, kind: str) -> dict[str, Any]:
        model: Any = networks.ours(config).module
        dtype = torch.bfloat16 if kind == BF16 else torch.float32
        diffusion = Diffusion(model).to(setting.device, dtype)
        count = 2 if setting.quick else 10

        def call(**options: Any) -> Callable[[], Any]:
            return lambda: diffusion.sample(config.shape(batch), count, progress=False, **options)

        with precision(kind):
            seconds, failed = timed({"dpmpp_2m": call(), "ddim": call(sampler="ddim")}, setting, 0.3)
        rates = {f"{name} samples/s": batch / taken for name, taken in seconds.items()}
        return {"steps": count, **rates, "left out": failed}

    return [
        Row(
            f"{config.spatial_dims}-D {config.name(batch)} {kind}",
            lambda c=config, b=batch, k=kind: run(c, b, k),
            90,
        )
        for kind in ((BF16, TF32) if setting.gpu else (FLOAT32,))
        for config, batch in _sizes(setting)
    ]


def memory(setting: Setting) -> list[Row]:
    """The peak of a step beside what ``summary`` says: activations, and four times the parameters."""

    def run(config: Config, batch: int, kind: str) -> dict[str, Any]:
        need_gpu(setting)
        network = networks.ours(config)
        x = _input(config, batch, setting)
        told: Any = network.module
        summary = told.summary(config.shape(batch))
        estimate = summary.activations + 16 * summary.parameters
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        with precision(kind):
            call = step(network, x, kind, last=False)
            call()
            wait(setting.device)
            torch.cuda.reset_peak_memory_stats()
            call()
            wait(setting.device)
        peak = torch.cuda.max_memory_allocated() - before
        gib = 2**30
        return {"peak GiB": peak / gib, "estimate GiB": estimate / gib, "peak / estimate": peak / estimate}

    rows = [Row("the README's recipe for 24 GB", lambda: recipe(setting), limit=120)]
    return rows + [
        Row(
            f"{config.spatial_dims}-D {config.name(batch)} {kind}",
            lambda c=config, b=batch, k=kind: run(c, b, k),
            90,
        )
        for kind in (TF32, BF16)
        for config, batch in _sizes(setting)
    ]


def recipe(setting: Setting) -> dict[str, Any]:
    """The command under "One GPU of 24 GB" in dynunet/README.md, on random data; few steps of it."""
    need("accelerate")
    from dynunet import Trainer

    flags = _flags((ROOT / "dynunet" / "README.md").read_text(encoding="utf-8"))
    n, size, batch = (int(flags[name][0]) for name in ("spatial-dims", "size", "batch-size"))
    channels = [int(c) for c in flags["channels"]]
    if not setting.gpu:
        size, batch, channels = 8, 1, [8, 16]
    network = UNet(
        n, 1, channels=channels, time_embedding=True, gradient_checkpointing="gradient-checkpointing" in flags
    )
    steps = 2 if setting.quick else 6
    data = torch.randn(batch, 1, *(size,) * n).clamp(-1, 1)
    rows: list[dict[str, float]] = []
    if setting.gpu:
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder, mock.patch("dynunet.plotting.loss_curve"):
        trainer = Trainer(
            Diffusion(network),
            data,
            Path(folder),
            steps=steps,
            batch_size=batch,
            precision=flags["precision"][0],
            log_every=2,
            cpu=not setting.gpu,
            callbacks=[lambda _, row: rows.append(dict(row))],
            **QUIET,
        )
        trainer.fit()
    peak = torch.cuda.max_memory_allocated() / 2**30 if setting.gpu else None
    reserved = torch.cuda.max_memory_reserved() / 2**30 if setting.gpu else None
    figures = {"peak GiB": peak, "reserved GiB": reserved, "samples/s": rows[-1]["samples_per_second"]}
    if reserved is not None and reserved > 24:
        raise RuntimeError(f"takes {reserved:.1f} GiB, more than 24: {figures}")
    return figures


def _flags(readme: str) -> dict[str, list[str]]:
    """The flags of the first ``dynunet train`` below that heading, with their values."""
    found = re.search(r"## One GPU of 24 GB.*?\n\s+(dynunet train .*?)\n", readme, re.DOTALL)
    if found is None:
        raise RuntimeError("dynunet/README.md has no dynunet train below the heading One GPU of 24 GB")
    flags: dict[str, list[str]] = {}
    name = ""
    for word in shlex.split(found[1]):
        if word.startswith("--"):
            name = word[2:]
            flags[name] = []
        else:
            flags.setdefault(name, []).append(word)
    return flags
