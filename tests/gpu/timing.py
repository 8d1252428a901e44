"""How calls are timed and compared: one process, in turn, by the device's own clock."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import inf
from typing import Any

import torch

from tests.benchmarks.harness import Settings, interleaved, wait

from .compare import tf32
from .rows import Setting

FLOAT32, TF32, BF16 = "float32", "tf32", "bf16"
KINDS = (BF16, TF32, FLOAT32)


def dtype_of(kind: str) -> torch.dtype:
    return torch.bfloat16 if kind == BF16 else torch.float32


def kinds(setting: Setting) -> tuple[str, ...]:
    return KINDS if setting.gpu else (FLOAT32,)


@contextmanager
def precision(kind: str) -> Iterator[None]:
    with tf32(kind != FLOAT32):
        yield


def settings(setting: Setting, budget: float = 0.25) -> Settings:
    """Few repeats: hundreds of calls are timed in minutes."""
    if setting.quick:
        return Settings(setting.device, least=1, most=1, budget=0.0, sample=0.0)
    return Settings(setting.device, least=5, most=25, budget=budget, sample=0.005)


def timed(
    calls: Mapping[str, Callable[[], Any]], setting: Setting, budget: float = 0.25, slow: float = inf
) -> tuple[dict[str, float], dict[str, str]]:
    """Median seconds of each call that runs, and of the others why they do not.

    What is far slower than it could be of interest, ``slow`` seconds, is timed once.
    """
    runs: dict[str, Callable[[], Any]] = {}
    once: dict[str, float] = {}
    failed: dict[str, str] = {}
    for name, call in calls.items():
        try:
            call()
            wait(setting.device)
            start = time.perf_counter()
            call()
            wait(setting.device)
            taken = time.perf_counter() - start
            if taken > slow:
                once[name] = taken
            else:
                runs[name] = call
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"
            if setting.gpu:
                torch.cuda.empty_cache()
    return {**(interleaved(runs, settings(setting, budget)) if runs else {}), **once}, failed


def memory_of(call: Callable[[], Any], setting: Setting) -> int | None:
    """Bytes at the peak of a call beyond those before it; on a GPU only."""
    if not setting.gpu:
        return None
    call()
    wait(setting.device)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    wait(setting.device)
    return torch.cuda.max_memory_allocated() - before
