"""Diffusion: a network, a schedule and a prediction, trained with a loss and sampled with a sampler."""

import inspect
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from .noise import Noise, randn
from .predictions import PREDICTIONS, Prediction
from .samplers import SAMPLERS, Callback, Sampler
from .schedules import SCHEDULES, Schedule


class Diffusion(nn.Module):
    """A diffusion model around any network ``model(x_t, t, **cond)``.

    Data is expected in about [-1, 1].

    Args:
        model: any callable from ``x_t`` ``(N, C, *spatial)`` and ``t`` ``(N,)`` in [0, 1] to a tensor
            of the shape of ``x_t``; a :class:`dynunet.UNet` needs ``time_embedding=True``.
        schedule: ``"linear"``, ``"cosine"`` or a callable ``alpha, sigma = schedule(t)``.
        prediction: what the network outputs: ``"epsilon"``, ``"sample"`` or ``"v_prediction"``.
        cond_dropout: probability with which :meth:`loss` drops a sample's class label (it becomes -1)
            and context (it becomes zeros), so that guidance works later.

    >>> import torch
    >>> from dynunet import Diffusion, UNet
    >>> unet = UNet(1, 1, channels=(8, 16), num_groups=4, time_embedding=True)
    >>> diffusion = Diffusion(unet)
    >>> diffusion.loss(torch.randn(4, 1, 32)).shape
    torch.Size([])
    >>> diffusion.sample((2, 1, 32), steps=5, progress=False).shape
    torch.Size([2, 1, 32])
    """

    def __init__(
        self,
        model: Callable[..., Tensor],
        schedule: str | Schedule = "cosine",
        prediction: str | Prediction = "v_prediction",
        cond_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if not callable(model):
            raise TypeError(f"model must be a callable model(x_t, t, **cond), got {model!r}")
        if getattr(model, "time_embedding", True) is None:
            raise ValueError("model must take a time: build the UNet with time_embedding=True")
        if not 0 <= cond_dropout <= 1:
            raise ValueError(f"cond_dropout must be in [0, 1], got {cond_dropout}")
        self.model = model
        self.schedule: Schedule = _look_up(schedule, SCHEDULES, "schedule")
        self.prediction: Prediction = _look_up(prediction, PREDICTIONS, "prediction")
        self.cond_dropout = cond_dropout
        self._checked_scale = False

    def loss(self, x0: Tensor, *, generator: torch.Generator | None = None, **cond: Any) -> Tensor:
        """Mean squared error of the prediction at random times.

        Args:
            x0: data ``(N, C, *spatial)``, in about [-1, 1].
            generator: source of the times, the noise and the dropped conditions.
            cond: conditions of the network, such as ``class_labels``, one entry per sample.

        Returns:
            A differentiable scalar.
        """
        _check_data(x0, "x0")
        self._check_scale(x0)
        device = x0.device if generator is None else generator.device
        n = x0.shape[0]
        # One time in each of n equal intervals: the same expectation with less variance
        # (Kingma et al. 2021, appendix I.1).
        t = (torch.rand((), generator=generator, device=device) + torch.arange(n, device=device) / n) % 1
        t = t.to(x0.device)
        noise = randn(x0.shape, generator, x0.device, x0.dtype)
        alpha, sigma = self._scales(t, x0)
        x = alpha * x0 + sigma * noise
        output = self._run(x, t, self._drop(cond, n, generator))
        return (output - self.prediction.target(x0, noise, alpha, sigma)).square().mean()

    def predict(self, x: Tensor, t: Tensor, *, guidance_scale: float = 1.0, **cond: Any) -> Tensor:
        """The estimate of x_0 at noisy data.

        Args:
            x: ``(N, C, *spatial)`` at time ``t``.
            t: ``(N,)`` in [0, 1].
            guidance_scale: classifier-free guidance (Ho and Salimans 2022): 1 for none; above it the
                difference between conditional and unconditional estimate is scaled up.
            cond: conditions of the network, one entry per sample.

        Returns:
            ``(N, C, *spatial)``.
        """
        alpha, sigma = self._scales(t, x)
        if guidance_scale == 1:
            return self.prediction.denoised(self._run(x, t, cond), x, alpha, sigma)
        nothing = {name: _unconditional(name, value) for name, value in cond.items()}
        both = {
            name: torch.cat([value, nothing[name]]) if isinstance(value, Tensor) else value
            for name, value in cond.items()
        }
        output = self._run(torch.cat([x, x]), torch.cat([t, t]), both)
        with_cond, without = (self.prediction.denoised(o, x, alpha, sigma) for o in output.chunk(2))
        return without + guidance_scale * (with_cond - without)

    @torch.no_grad()
    def sample(
        self,
        shape: Sequence[int],
        steps: int = 20,
        *,
        sampler: str | Sampler = "dpmpp_2m",
        guidance_scale: float = 1.0,
        class_labels: int | Tensor | None = None,
        generator: Noise = None,
        progress: bool = True,
        callback: Callback | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        eta: float | None = None,
        clip: float | None = None,
        **cond: Any,
    ) -> Tensor:
        """Draw new data.

        Args:
            shape: ``(N, C, *spatial)``.
            steps: evaluations of the network, at least 1.
            sampler: ``"ddpm"``, ``"ddim"``, ``"dpmpp_2m"`` or a function with their signature.
            guidance_scale: strength of the condition, see :meth:`predict`.
            class_labels: one label for all samples or ``(N,)``.
            generator: None, a generator, or a list with one per sample.
            progress: whether to show a progress bar.
            callback: ``callback(step, t, x, x_0)`` after every step, with x at the time t it reached.
            dtype, device: of the samples; those of the network's parameters by default.
            eta: noise of ``"ddim"``: 0 for none, 1 for that of ``"ddpm"``.
            clip: limit every estimate of the data to [-clip, clip].
            cond: further conditions of the network, one entry per sample.

        Returns:
            Samples of the given shape.

        Raises:
            ValueError, TypeError: naming the argument, the rule and the value received.
        """
        if isinstance(steps, bool) or not isinstance(steps, int):
            raise TypeError(f"steps must be an int, got {steps!r}")
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        if len(shape) < 3 or min(shape) < 1:
            raise ValueError(f"shape must be (N, C, *spatial) with positive sizes, got {tuple(shape)}")
        run = _look_up(sampler, SAMPLERS, "sampler")
        options: dict[str, Any] = {}
        if eta is not None:
            if "eta" not in inspect.signature(run).parameters:
                raise ValueError(f"eta must be left out with sampler {sampler!r}, got {eta}")
            options["eta"] = eta
        if clip is not None and clip <= 0:
            raise ValueError(f"clip must be positive, got {clip}")

        first = next(self.parameters(), torch.empty(0))
        device, dtype = device or first.device, dtype or first.dtype
        if class_labels is not None:
            labels = torch.as_tensor(class_labels, device=device)
            cond["class_labels"] = labels.expand(shape[0]) if labels.ndim == 0 else labels
        if guidance_scale != 1 and not any(name in _DROPPED for name in cond):
            raise ValueError(
                f"guidance_scale must be 1 without class_labels or context to guide by, got {guidance_scale}"
            )

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            x0 = self.predict(x, t, guidance_scale=guidance_scale, **cond)
            return x0 if clip is None else x0.clamp(-clip, clip)

        times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        start = torch.tensor([1.0], dtype=torch.float64)
        x = self.schedule(start)[1].item() * randn(shape, generator, device, dtype)
        with _evaluating(self), tqdm(total=steps, desc="sampling", leave=False, disable=not progress) as bar:

            def after_step(step: int, t: float, x: Tensor, x0: Tensor) -> None:
                bar.update()
                if callback is not None:
                    callback(step, t, x, x0)

            return run(denoise, x, self.schedule, times, generator, after_step, **options)

    def _scales(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma at ``t``, computed in float64 and shaped to broadcast against ``x``."""
        shape = (-1, *(1,) * (x.ndim - 1))
        alpha, sigma = self.schedule(t.double())
        return alpha.to(x.dtype).view(shape), sigma.to(x.dtype).view(shape)

    def _run(self, x: Tensor, t: Tensor, cond: dict[str, Any]) -> Tensor:
        output = self.model(x, t, **cond)
        if output.shape != x.shape:
            raise ValueError(
                f"model must return the shape of its input, {tuple(x.shape)}, got {tuple(output.shape)}"
            )
        return output

    def _drop(self, cond: dict[str, Any], n: int, generator: torch.Generator | None) -> dict[str, Any]:
        """Replace the conditions of some samples by no condition, all of a sample together."""
        if not self.cond_dropout or not any(name in _DROPPED for name in cond):
            return cond
        device = None if generator is None else generator.device
        drop = torch.rand(n, generator=generator, device=device) < self.cond_dropout

        def dropped(name: str, value: Any) -> Any:
            if name not in _DROPPED or not isinstance(value, Tensor):
                return value
            mask = drop.to(value.device).view(-1, *(1,) * (value.ndim - 1))
            return torch.where(mask, _unconditional(name, value), value)

        return {name: dropped(name, value) for name, value in cond.items()}

    def _check_scale(self, x0: Tensor) -> None:
        """Warn once of data that is far from unit scale, which the schedules assume."""
        if self._checked_scale or torch.compiler.is_compiling():
            return
        self._checked_scale = True
        low, high = x0.min().item(), x0.max().item()
        if max(-low, high) > 10:
            warnings.warn(
                f"x0 should be in about [-1, 1], got values from {low:.3g} to {high:.3g}; scale it, for "
                f"instance 2 * (x0 - low) / (high - low) - 1, and scale samples back",
                stacklevel=3,
            )


_DROPPED = {"class_labels": -1, "context": 0}  # what stands for "no condition"


def _unconditional(name: str, value: Any) -> Any:
    known = name in _DROPPED and isinstance(value, Tensor)
    return torch.full_like(value, _DROPPED[name]) if known else value


def _look_up(value: Any, known: dict[str, Any], name: str) -> Any:
    if isinstance(value, str):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")
        return known[value]
    if value is None:
        raise TypeError(f"{name} must be a name or an object, got None")
    return value


def _check_data(x: Tensor, name: str) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = f"dtype {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name} must be a floating-point tensor, got {got}")
    if x.ndim < 3 or x.shape[0] < 1:
        raise ValueError(f"{name} must be (N, C, *spatial) with N at least 1, got shape {tuple(x.shape)}")


@contextmanager
def _evaluating(module: nn.Module) -> Any:
    """Evaluation mode for a while (no dropout, running statistics), then each module as it was."""
    training = {m: m.training for m in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for m, mode in training.items():
            m.training = mode
