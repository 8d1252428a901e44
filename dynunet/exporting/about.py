"""What an exported program does and in which numbers, as JSON: enough to use it without this package.

One step of DDIM, or of consistency sampling, from noise level (a, s) to (a', s'), with the estimate of the
data ``keep x + gain output`` that follows from what the network gives for ``input x`` (on a bridge,
``input x + cond y`` with the first channels y of its condition), is

    x' = a' (keep x + gain output) + s' (x - a (keep x + gain output)) / s
    x' = a' (keep x + gain output) + s' noise

each of which is a sum of x, the output and noise, with one factor for each. Guidance, and windows whose
weights add up to 1, act on outputs as they do on estimates. So whoever samples needs the factors alone.
"""

from importlib.metadata import version
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..data.classes import class_values
from ..data.formats import of_kind
from ..data.spec import DataSpec
from ..diffusion import Consistency, Diffusion
from ..diffusion.schedules import widened
from ..diffusion.spacing import spaced
from ..runs import restoration_sampler, restoration_steps, windows
from ..supervised import Supervised
from .network import Input

__all__ = ["about"]

FORMAT = 1
_STEPS = 20


def about(
    model: Diffusion | Supervised, inputs: dict[str, Input], file: str, steps: int | None, spacing: str
) -> dict[str, Any]:
    """The document beside the program of a model.

    Args:
        model: what is exported.
        inputs: of the network.
        file: the name of the program.
        steps, spacing: of the sampler, see :func:`dynunet.exporting.export`.
    """
    spec = _spec(model)
    found = {
        "format": FORMAT,
        "made_with": {"dynunet": version("dynunet"), "torch": torch.__version__},
        "file": file,
        "does": _does(model, spec),
        "spatial_dims": len(inputs["x"].shape) - 2,
        "inputs": {name: i.document() for name, i in inputs.items()},
        **_numbers(spec),
    }
    own = _learned(model, spec) if isinstance(model, Supervised) else _sampling(model, spec, steps, spacing)
    return {**found, **own, "data": model.data}


def _spec(model: Any) -> DataSpec | None:
    """The meaning of the numbers of a model of files, if it is one."""
    try:
        return None if model.data is None else DataSpec.of(model.data)
    except (ValueError, TypeError) as error:
        raise ValueError(f"data: {error}; with data = None a model is exported in the units it has") from None


def _does(model: Any, spec: DataSpec | None) -> str:
    if isinstance(model, Supervised):
        return "predict"
    return "restore" if spec is not None and spec.restoration is not None else "sample"


def _numbers(spec: DataSpec | None) -> dict[str, Any]:
    """What the numbers of a file become, and what the network is told beside them."""
    if spec is None:
        known: dict[str, Any] = {"range": [-1.0, 1.0], "coordinates": False}
        return {**known, **dict.fromkeys(("percentiles", "level", "missing", "size", "windows"))}
    scale, size = of_kind(spec.kind).scale(spec), windows(spec, None, None)
    maps = spec.learned is None or spec.learned.maps
    return {
        "range": [scale.low, scale.high],
        "percentiles": None if spec.level is not None else spec.percentiles,
        "level": spec.level,
        "missing": spec.missing,
        "coordinates": spec.coordinates,
        "size": spec.size,
        "windows": {"size": size["window"], "overlap": size["overlap"]} if size and maps else None,
    }


def _learned(model: Supervised, spec: DataSpec | None) -> dict[str, Any]:
    """What the outputs of a supervised model mean."""
    found: dict[str, Any] = {"task": model.task, "multilabel": model.multilabel}
    if model.task == "regression":
        learned = None if spec is None else spec.learned
        scales = [] if learned is None else [((b - a) / 2, (b + a) / 2) for a, b in learned.scales]
        gains, offsets = zip(*scales, strict=True) if scales else ((1.0,), (0.0,))
        return {**found, "gain": gains, "offset": offsets}
    classes = model.classes
    values = None if classes is None else class_values(classes)
    return {**found, "classes": None if classes is None else [*classes], "values": values}


def _sampling(model: Diffusion, spec: DataSpec | None, steps: int | None, spacing: str) -> dict[str, Any]:
    """The steps of the sampler, and what they follow from."""
    consistency = isinstance(model, Consistency)
    restores = _does(model, spec) == "restore"
    without_noise = restores and bool(restoration_sampler(model))
    if consistency or restores:
        steps = restoration_steps(model, steps)
    steps = _STEPS if steps is None else steps
    times = spaced(model.schedule, steps, spacing)
    alphas, sigmas = (scale.tolist() for scale in model.schedule(times))
    levels = [*zip(times.tolist(), alphas, sigmas, strict=True)]
    factors = _factors(model, times)
    return {
        "schedule": model.config.get("schedule"),
        "prediction": model.config.get("prediction"),
        "sampler": "consistency" if consistency else "ddim",
        "start": 0.0 if without_noise else sigmas[0],
        "steps": [
            _step(now, then, given, consistency)
            for (now, then), given in zip(pairwise(levels), factors, strict=True)
        ],
    }


def _factors(model: Diffusion, times: Tensor) -> list[list[float]]:
    """For every step the factors of x and cond in the input, and of x and the output in the estimate."""
    prediction = model.prediction
    alpha, sigma = model.schedule(widened(times[:-1].float()))  # the network is given the time in float32
    one, zero = torch.ones_like(alpha), torch.zeros_like(alpha)

    def estimate(x: Tensor, output: Tensor) -> Tensor:
        return prediction.denoised(output, x, alpha, sigma)

    def shown(x: Tensor, cond: Tensor) -> Tensor:
        row = {"cond": cond.view(-1, 1)}
        return model.network_input(x.view(-1, 1), alpha.view(-1, 1), sigma.view(-1, 1), row).view(-1)

    scale, of_cond = shown(one, zero), shown(zero, one)
    keep, gain = estimate(one, zero), estimate(zero, one)
    if not torch.allclose(estimate(3 * one, 2 * one), 3 * keep + 2 * gain):
        raise ValueError(
            "prediction must give estimates that are sums of x and the output with a factor each, to be "
            f"exported: use one of dynunet's, got {prediction!r}"
        )
    return torch.stack([scale, of_cond, keep, gain], 1).tolist()


def _step(
    now: tuple[float, ...], then: tuple[float, ...], factors: list[float], consistency: bool
) -> dict[str, float]:
    """Time and scales where a step begins, and its factors."""
    (t, alpha, sigma), (_, alpha_then, sigma_then), (scale, of_cond, keep, gain) = now, then, factors
    ratio = 0.0 if consistency else sigma_then / sigma  # of the noise that is in x
    of_data = alpha_then - ratio * alpha
    return {
        "t": t,
        "alpha": alpha,
        "sigma": sigma,
        "input": scale,
        "cond": of_cond,
        "x": ratio + of_data * keep,
        "output": of_data * gain,
        "noise": sigma_then if consistency else 0.0,
    }
