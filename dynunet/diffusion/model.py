"""Diffusion: a network, a schedule and a prediction, trained with a loss and sampled with a sampler."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor, nn

from convnd.arguments import PerAxis, integer

from .._devices import moved, placed
from ..arguments import flag, number, positive
from ..checkpoints import Checkpoint
from ..compiling import compile_mode, compiled
from ..config import AroundNetwork
from ..masks import expanded_mask
from ..operators import Mask, Operator
from ..windows import check_windows
from . import checks, reconstruction, rescaling, restoration
from .bridges import BRIDGES, Bridge
from .guidance import Estimate, Interval, at_levels, can_guide, dropped, guided
from .likelihood import log_likelihood
from .losses import (
    ERRORS,
    LOSSES,
    Elementwise,
    LogNormal,
    Weighting,
    WithSpectra,
    draw_quantiles,
    loss_sum,
)
from .noise import Generators, Noise, rand, randn
from .posterior import RePaint
from .predictions import PREDICTIONS, EDMPrediction, Prediction, Sample
from .projection import APG
from .sampling import Denoiser, as_sampler, check_own_times, differentiable, evaluation_mode, progress_bar
from .schedulers import is_scheduler
from .schedules import SCHEDULES, ScheduleLike, widened
from .spacing import spaced
from .steps import Callback, Sampler, level
from .windows import windowed

if TYPE_CHECKING:
    from .distillation import Consistency


class Diffusion(AroundNetwork, Checkpoint, nn.Module):
    """A diffusion model around any network ``model(x_t, t, **cond)``.

    Data is expected in about [-1, 1]. A checkpoint (``save_pretrained``, ``from_pretrained``) holds the
    network and all arguments, this package's schedules, predictions and weightings with their parameters;
    functions and objects of other classes must be passed again.

    Args:
        model: any callable from ``x_t`` ``(N, C, *spatial)`` and ``t`` ``(N,)`` in [0, 1] to a tensor
            of the shape of ``x_t``; a :class:`dynunet.UNet` needs ``time_embedding=True``. It runs in the
            precision of its parameters, whatever that of the data.
        schedule: ``"linear"``, ``"scaled_linear"``, ``"cosine"``, ``"sigmoid"``, ``"flow"``, ``"edm"`` or a
            callable ``alpha, sigma = schedule(t)``; or ``"bridge"`` or ``"bridge_ve"``, with which sampling
            starts from the condition ``cond``, see :mod:`dynunet.diffusion.bridges`.
        prediction: what the network outputs: ``"epsilon"``, ``"sample"``, ``"v_prediction"``, ``"flow"``,
            ``"edm"`` or an object.
        loss_weighting: None, ``"snr"``, ``"min_snr"``, ``"edm"`` or an object.
        cond_dropout: probability with which :meth:`loss` drops a sample's class label (it becomes -1)
            and context (it becomes zeros), so that guidance works later.
        sigma_data: standard deviation of the data, for the prediction and the weighting ``"edm"``.
        zero_terminal_snr: rescale the schedule so that no signal is left at t = 1 (Lin et al. 2024).
        shift: multiply sigma / alpha, for data of higher resolution (above 1) than the schedule is meant for.
        data: the units of the numbers, as JSON holds them (sample rate, range, ...): kept in ``data`` and in
            checkpoints for whoever writes samples to files, see :mod:`dynunet.data`. It changes nothing.

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
        schedule: str | ScheduleLike = "cosine",
        prediction: str | Prediction = "v_prediction",
        loss_weighting: str | Weighting | None = None,
        cond_dropout: float = 0.1,
        *,
        sigma_data: float = 0.5,
        zero_terminal_snr: bool = False,
        shift: float = 1.0,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        checks.check_model(model)
        self.model = model
        given = {"schedule": schedule, "prediction": prediction, "loss_weighting": loss_weighting}
        for name, value in given.items():
            checks.check_object(value, name)
        self.schedule: Any = checks.look_up(schedule, SCHEDULES | BRIDGES, "schedule")
        sigma_data, shift = positive(sigma_data, "sigma_data"), positive(shift, "shift")
        if flag(zero_terminal_snr, "zero_terminal_snr"):
            self.schedule = rescaling.zero_terminal_snr(self.schedule)
        if shift != 1:
            self.schedule = rescaling.shifted(self.schedule, shift)
        self.prediction: Prediction = checks.look_up(prediction, PREDICTIONS, "prediction")
        self.loss_weighting: Weighting = checks.look_up(loss_weighting, LOSSES, "loss_weighting")
        if prediction == "edm":
            self.prediction = EDMPrediction(sigma_data)
        if isinstance(self.schedule, Bridge):
            checks.check_bridge_prediction(self.prediction)
        if isinstance(loss_weighting, str) and isinstance(self.loss_weighting, LogNormal):
            self.loss_weighting = replace(self.loss_weighting, sigma_data=sigma_data)
        self.cond_dropout = number(cond_dropout, "cond_dropout", 0, 1)
        self._checked_scale = False
        self.data = data

    def loss(
        self,
        x0: Tensor,
        *,
        mask: Tensor | None = None,
        loss: str | Elementwise = "l2",
        quantiles: Tensor | None = None,
        generator: Generators = None,
        **cond: Any,
    ) -> Tensor:
        """Error of the prediction at random times, a mean over all entries.

        It is computed in float32 at least, whatever the precision of the data and of the network.

        Args:
            x0: data ``(N, C, *spatial)``, in about [-1, 1].
            mask: bool, broadcasts against x0, True where an entry counts. Others are missing, whatever they
                are (NaN too): the network sees noise around 0 there. A sample without any counts for nothing.
            loss: ``"l2"``, ``"l1"``, ``"huber"``, a function of output and target, entry by entry, or with
                ``prediction="sample"`` ``"l1+stft"``, see :class:`dynunet.diffusion.WithSpectra`.
            quantiles: ``(N,)`` in (0, 1), where in the distribution of times each sample is; by default they
                are drawn, one in each of N equal intervals.
            generator: source of the times, the noise and the dropped conditions; a list with one per sample
                makes what a sample gets independent of the batch it is in.
            cond: conditions of the network, such as ``class_labels``, one entry per sample.

        Returns:
            A differentiable scalar, 0 if no entry counts.
        """
        total, count = self.loss_sum(
            x0, mask=mask, loss=loss, quantiles=quantiles, generator=generator, **cond
        )
        return total / count.clamp(min=1)

    def loss_sum(
        self,
        x0: Tensor,
        *,
        mask: Tensor | None = None,
        loss: str | Elementwise = "l2",
        quantiles: Tensor | None = None,
        generator: Generators = None,
        **cond: Any,
    ) -> tuple[Tensor, Tensor]:
        """The error of :meth:`loss` as a sum, and the number of its entries: both add up over batches."""
        error = checks.look_up(loss, ERRORS, "loss")
        if isinstance(error, WithSpectra) and not isinstance(self.prediction, Sample):
            raise ValueError(f'loss must be of entries unless prediction is "sample", got {loss!r}')
        x0, mask, quantiles, cond = self._examples(x0, mask, quantiles, generator, cond)
        times = self.loss_weighting.times(quantiles, self.schedule).float()
        noise = randn(x0.shape, generator, x0.device, x0.dtype)
        t, alpha, sigma = self._scales(times, x0)
        output = self._run(
            self.model, alpha * x0 + sigma * noise, t, alpha, sigma, self._drop(cond, x0, generator)
        )
        target = self.prediction.target(x0, noise, alpha, sigma)
        weight = self.loss_weighting.weight(alpha, sigma, self.prediction)
        return loss_sum(output, target, weight, mask, error)

    def _examples(
        self,
        x0: Tensor,
        mask: Tensor | None,
        quantiles: Tensor | None,
        generator: Generators,
        cond: Mapping[str, Any],
    ) -> tuple[Tensor, Tensor | None, Tensor, dict[str, Any]]:
        """Training examples, checked: x0 with 0 where the mask is False, quantiles in float64 on the CPU."""
        checks.check_data(x0, "x0", self.model)
        cond = checks.with_labels(cond, x0)
        x0 = x0.to(torch.promote_types(x0.dtype, torch.float32))
        if mask is not None:
            mask = expanded_mask(mask, x0)
            x0 = torch.where(mask, x0, 0)
        if not self._checked_scale and not torch.compiler.is_compiling():
            checks.warn_of_scale(x0)
            self._checked_scale = True
        if x0.device.type == "cpu":  # elsewhere it would wait for the device in every step of training
            checks.check_finite(x0, "x0")
            self._check_start(cond, x0)
        if quantiles is None:
            quantiles = draw_quantiles(len(x0), generator)
        checks.check_quantiles(quantiles, len(x0))
        return x0, mask, quantiles.cpu().double(), cond

    def predict(
        self,
        x: Tensor,
        t: float | Tensor,
        *,
        guidance_scale: float = 1.0,
        guidance_rescale: float = 0.0,
        guidance_interval: Interval | None = None,
        guidance_projection: APG | None = None,
        guide: Callable[..., Tensor] | None = None,
        guide_scale: float | None = None,
        **cond: Any,
    ) -> Tensor:
        """The estimate of x_0 at noisy data.

        Args:
            x: ``(N, C, *spatial)`` at time ``t``.
            t: one time in [0, 1], or ``(N,)``.
            guidance_scale: classifier-free guidance (Ho and Salimans 2022): 1 for none; above it the
                difference between conditional and unconditional estimate is scaled up.
            guidance_rescale: in [0, 1], see :mod:`dynunet.diffusion.guidance` for this and the next.
            guidance_interval: ``(low, high)``, the noise levels sigma / alpha at which to guide.
            guidance_projection: None, or adaptive projected guidance, :class:`dynunet.diffusion.APG`, for
                large scales.
            guide: autoguidance (Karras et al. 2024): a weaker model of the same data, such as an earlier
                average of the weights or a smaller network trained for less time, to lead away from. Either a
                Diffusion, with a schedule and a prediction of its own, or a network, with those of this one.
            guide_scale: 1 for none, 2 by default: ``guide + guide_scale (this - guide)``, with the same
                conditions. It takes the place of guidance_scale; the other options of guidance act on both.
            cond: conditions of the network, one entry per sample.

        Returns:
            ``(N, C, *spatial)``.
        """
        checks.check_data(x, "x", self.model)
        options = checks.check_guidance(
            cond, guidance_scale, guidance_rescale, guidance_interval, guidance_projection, guide, guide_scale
        )
        estimate = self._guided(guide, options, x.shape, lambda own: partial(own._estimate, own.model))
        return estimate(x, checks.times_of(t, len(x)), checks.with_labels(cond, x))

    @torch.no_grad()
    def sample(
        self,
        shape: Sequence[int],
        steps: int = 20,
        *,
        sampler: str | Sampler | Any = "dpmpp_2m",
        spacing: str = "uniform",
        eta: float | None = None,
        guidance_scale: float = 1.0,
        guidance_rescale: float = 0.0,
        guidance_interval: Interval | None = None,
        guidance_projection: APG | None = None,
        guide: Callable[..., Tensor] | None = None,
        guide_scale: float | None = None,
        clip: float | str | None = None,
        window: PerAxis | None = None,
        overlap: PerAxis | None = None,
        compile: bool | str = False,
        class_labels: Any = None,
        start: tuple[Tensor, float] | None = None,
        generator: Noise = None,
        progress: bool = True,
        callback: Callback | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        **cond: Any,
    ) -> Tensor:
        """Draw new data.

        Args:
            shape: ``(N, C, *spatial)``; spatial may be empty, for points, and N may be 0.
            steps: steps of the sampler, at least 1; of most an evaluation of the network each.
            sampler: ``"ddpm"``, ``"ddim"``, ``"euler"``, ``"heun"``, ``"dpmpp_2m"``,
                ``"dpmpp_2m_sde"``, ``"unipc"``, ``"consistency"`` (of :meth:`distill`), a function with their
                signature, or a scheduler object of diffusers.
            spacing: of the times: ``"uniform"``, ``"trailing"``, ``"karras"`` or ``"log_snr"``.
            eta: noise of a sampler (or of a scheduler's step) that has this option: 0 for none, 1 for all.
            guidance_scale, guidance_rescale, guidance_interval, guidance_projection: see :meth:`predict`.
            guide, guide_scale: a weaker model to lead away from, see :meth:`predict`.
            clip: limit every estimate of the data to [-clip, clip], or ``"dynamic"``, see
                :func:`dynunet.diffusion.threshold`.
            window, overlap: evaluate the network in overlapping windows of this size, one int or one per
                axis, for data larger than it was trained on, see :mod:`dynunet.diffusion.windows`.
            compile: run the network compiled: True, or a mode of :func:`torch.compile` (``"reduce-overhead"``
                replays CUDA graphs). The first call with a shape takes its time, later ones use it again.
            class_labels: one label for all samples or ``(N,)``, as a tensor, an array or a sequence of ints.
            start: ``(x, t)``, noisy data to go on from at its time, instead of noise at time 1.
            generator: None, a generator, or a list with one per sample.
            progress: whether to show a progress bar, and one of the windows of a step.
            callback: ``callback(step, t, x, x_0)`` after every step, with x at the time t it reached.
            dtype: of the samples; by default that of the start or of the network's parameters, but at least
                float32.
            device: of the samples; by default that of the network's parameters. Start and conditions are
                moved to it.
            cond: further conditions of the network, one entry per sample.

        Returns:
            Samples of the given shape.

        Raises:
            ValueError, TypeError: naming the argument, the rule and the value received.
        """
        shape = checks.check_shape(shape, "shape", self.model)
        steps = integer(steps, "steps")
        run = as_sampler(sampler, eta)
        if is_scheduler(sampler):
            check_own_times(sampler, spacing, start)
        first = next(self.parameters(), torch.empty(0)) if start is None else start[0]
        device, dtype = device or self._place(first), dtype or torch.promote_types(first.dtype, torch.float32)
        if start is None:
            x, t = level(self.schedule, 1.0).sigma * randn(shape, generator, device, dtype), 1.0
        else:
            x, t = moved(start[0].to(dtype), device), checks.positive_time(start[1], "start[1]")
            if x.shape != shape:
                raise ValueError(f"start[0] must have the shape {shape}, got {tuple(x.shape)}")
        cond = placed(cond, x.device)
        if class_labels is not None:
            cond = checks.with_labels({**cond, "class_labels": class_labels}, x)
        self._check_start(cond, x)
        guidance = checks.check_guidance(
            cond, guidance_scale, guidance_rescale, guidance_interval, guidance_projection, guide, guide_scale
        )
        prepared = self._prepared(window, overlap, len(shape) - 2, progress, compile)
        estimate = self._guided(guide, guidance, shape, prepared)
        denoise = Denoiser(estimate, cond, checks.check_clip(clip))
        times = spaced(self.schedule, steps, spacing, start=t)
        with evaluation_mode(self, guide), progress_bar(steps, progress, callback) as after_step:
            return run(denoise, x, self.schedule, times, generator, after_step)

    def denoise(self, y: Tensor, sigma: float, steps: int = 20, **options: Any) -> Tensor:
        """Remove white noise of known level.

        Args:
            y: ``x_0 + sigma noise``, ``(N, C, *spatial)``.
            sigma: standard deviation of the noise, in the units of the data, as far as the schedule has it.
            steps: 1 gives the mean of what y may have been, the least squared error; more give one clean
                sample that y may have been (a stochastic ``sampler`` draws from all of them).
            options: of :meth:`sample`.

        Returns:
            ``(N, C, *spatial)``, where y is unless ``device`` says where.
        """
        checks.check_data(y, "y", self.model)
        checks.check_finite(y, "y")
        t = restoration.time_of(self.schedule, sigma)
        x = level(self.schedule, t).alpha * y
        return self._from(x, t, steps, options)

    def inpaint(
        self,
        y: Tensor,
        known: Tensor,
        steps: int = 20,
        *,
        resamplings: int = 4,
        jump: int = 1,
        sampler: str | Sampler | Any = "ddpm",
        method: str | Any = "repaint",
        **options: Any,
    ) -> Tensor:
        """Fill in what is missing.

        Args:
            y: ``(N, C, *spatial)``; what is not known may be anything, NaN too.
            known: bool, True where y is given; the axes of y, each of its size or 1.
            steps, sampler: see :meth:`sample`.
            resamplings, jump: of the method ``"repaint"``, see :func:`dynunet.diffusion.inpainting`; the
                network is evaluated ``steps * resamplings`` times.
            method: see :meth:`reconstruct`.
            options: of :meth:`sample`.

        Returns:
            ``(N, C, *spatial)``, exactly y where it is known.
        """
        checks.check_data(y, "y", self.model)
        known = expanded_mask(known, y, "known", "y", "y is given")
        method = RePaint(resamplings, jump) if method == "repaint" else method
        if "start" in options:
            raise TypeError("inpaint takes no start: it begins with noise, and with y where it is known")
        return self.reconstruct(
            y, Mask(known), 0.0, 1, steps, method=method, known=known, sampler=sampler, **options
        )[0]

    def reconstruct(
        self,
        y: Tensor,
        operator: Operator | Callable[[Tensor], Tensor],
        noise_std: float | Tensor = 0.0,
        num_samples: int = 1,
        steps: int = 20,
        *,
        method: str | Any = "mmps",
        sampler: str | Sampler | Any = None,
        shape: Sequence[int] | None = None,
        known: Tensor | None = None,
        batch_size: int | None = None,
        generator: Noise = None,
        class_labels: Any = None,
        **options: Any,
    ) -> Tensor:
        """Draw data that a measurement ``y = A(x_0) + noise`` may have been made of.

        What is measured without noise is kept: by masks and clipping to the bit, averages, Fourier
        coefficients and every so many entries to rounding, and by other linear operators to the tolerance of
        the method. The methods, all but ``"repaint"``, take gradients of the network with respect to its
        input, in the memory of one evaluation; with a ``window`` that of a few windows, which are evaluated
        again for each gradient.

        Args:
            y: ``(N, C, *spatial)`` of the measurement.
            operator: A, one of :mod:`dynunet.operators` or a differentiable function.
            noise_std: standard deviation of the noise, a number, or a tensor that broadcasts against y.
            num_samples: how many for each measurement.
            steps: see :meth:`sample`.
            method: ``"mmps"``, ``"pigdm"``, ``"dps"``, ``"repaint"`` (masks without noise), or an object with
                options, such as :class:`dynunet.diffusion.MMPS`.
            sampler: see :meth:`sample`; by default ``"dpmpp_2m"``, and ``"ddpm"`` for ``"repaint"``.
            shape: of the data, ``(N, C, *spatial)``, where y does not tell it: after projections and
                functions.
            known: bool, True where y is given; the axes of y, each of its size or 1. Other entries may be
                anything, NaN too.
            batch_size: how many of the ``num_samples`` to make at once; all by default.
            generator: None, a generator, or a list with one for each of the ``num_samples * N`` samples, in
                the order of the result: then a sample does not depend on what is made at once.
            class_labels: one label for all or ``(N,)``, as in :meth:`sample`.
            options: of :meth:`sample`; its conditions have one entry per measurement.

        Returns:
            ``(num_samples, N, C, *spatial)``, in the precision of y, at least float32, and where y is unless
            ``device`` says where.

        Raises:
            ValueError, TypeError: naming the argument, the rule and the value received.
        """
        num_samples = integer(num_samples, "num_samples")
        batch_size = None if batch_size is None else integer(batch_size, "batch_size")
        if "start" in options:
            raise TypeError("reconstruct takes no start: it begins with noise")
        given = y, operator, noise_std, known, shape
        measurement, size = reconstruction.measured(*given, self.model, self._place)
        run = reconstruction.posterior_sampler(method, sampler, measurement, options)
        place = options.get("device") or y.device
        options = {"dtype": measurement.y.dtype, **options, "device": measurement.y.device}
        labels = {} if class_labels is None else {"class_labels": class_labels}
        options |= checks.with_labels(labels, torch.empty(size[:1], device=options["device"]))
        draw = partial(self.sample, steps=steps, sampler=run)
        with differentiable(self, options.get("guide")):
            return reconstruction.in_batches(draw, size, num_samples, batch_size, generator, options, place)

    def sdedit(self, x0: Tensor, strength: float = 0.5, steps: int = 20, **options: Any) -> Tensor:
        """Make new data out of old: add noise up to a time, and take it away again (Meng et al. 2022).

        Args:
            x0: ``(N, C, *spatial)``.
            strength: the time to start from, in (0, 1]: near 0 little changes, at 1 nearly nothing is kept.
            steps: from there to the end.
            options: of :meth:`sample`.

        Returns:
            ``(N, C, *spatial)``, where x0 is unless ``device`` says where.
        """
        checks.check_data(x0, "x0", self.model)
        checks.check_finite(x0, "x0")
        t = checks.positive_time(strength, "strength")
        x = restoration.noised(x0, self.schedule, t, options.get("generator"))
        return self._from(x, t, steps, options)

    @overload
    def log_likelihood(
        self, x: Tensor, steps: int = ..., *, return_error: Literal[False] = ..., **options: Any
    ) -> Tensor: ...
    @overload
    def log_likelihood(
        self, x: Tensor, steps: int = ..., *, return_error: Literal[True], **options: Any
    ) -> tuple[Tensor, Tensor]: ...
    def log_likelihood(
        self,
        x: Tensor,
        steps: int = 50,
        *,
        sigma: float | None = None,
        probes: int | None = None,
        return_error: bool = False,
        generator: Generators = None,
        progress: bool = True,
        **cond: Any,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The log density of data under the law that :meth:`sample` draws from, by its probability-flow ODE.

        It is that of the data with a little noise, see :func:`dynunet.diffusion.log_likelihood`. Bits per
        dimension are ``-value / (n log 2)`` for n entries. To whole numbers, a ``step`` apart in the units
        of x, add uniform noise of one step first: their own bits per dimension are, on average, at most
        those of x minus ``log2(step)`` (Theis et al. 2016).

        Args:
            x: data ``(N, C, *spatial)``.
            steps: of the method, five evaluations each. For mixtures of Gaussians 50 leave errors of about
                1e-4 nats; they fall with the fourth power.
            sigma: standard deviation of that noise; by default sigma / alpha at time 0.001, the smallest at
                which samplers evaluate the network.
            probes: products with the Jacobian that each evaluation takes to estimate its trace; from as many
                as a sample has entries on it is exact. By default it is exact up to 256 entries; above, there
                are 16 probes.
            return_error: whether to give the standard error of that estimate as well: 0 where the trace is
                exact, NaN with a single probe.
            generator: of the probes, None, a generator, or a list with one per sample.
            progress: whether to show a progress bar.
            cond: conditions of the network, one entry per sample.

        Returns:
            ``(N,)`` in nats, and if asked its standard error, ``(N,)``; without gradients, where x is.

        Raises:
            ValueError, TypeError: naming the argument, the rule and the value received.
        """
        checks.check_data(x, "x", self.model)
        return_error = flag(return_error, "return_error")
        there = moved(x, self._place(x))
        cond = checks.with_labels(placed(cond, there.device), there)
        denoise = Denoiser(partial(self._estimate, self.model), cond, None)
        options: Any = {"sigma": sigma, "probes": probes, "generator": generator, "progress": progress}
        with evaluation_mode(self), differentiable(self):
            value, error = log_likelihood(denoise, there, self.schedule, steps, **options)
        value, error = moved(value, x.device), moved(error, x.device)
        return (value, error) if return_error else value

    def distill(
        self,
        dataset: Any,
        out: Any,
        steps: int = 2,
        *,
        train_steps: int | None = None,
        teacher: bool = True,
        resume: bool = False,
        **options: Any,
    ) -> "Consistency":
        """Tune a copy of this model to make data in one to four steps, see :mod:`..diffusion.distillation`.

        Args:
            dataset: the data this model was trained on, as of :class:`dynunet.Trainer`.
            out: folder of the run.
            steps: that :meth:`sample` of the new model takes by default.
            train_steps: steps of training, in place of those of the options.
            teacher: follow the paths of this model; False to follow those of the data on average, for which
                this model is evaluated no more.
            resume: go on with an interrupted run, see :meth:`dynunet.Trainer.fit`.
            options: of :class:`dynunet.Trainer`, whose learning rate is by default half of that of training
                and whose precision is "no", as answers are compared that are nearly the same; and of
                :meth:`predict`: ``guidance_scale`` and the like, of this model as the teacher, become part
                of the new one.

        Returns:
            The new model, with the averaged weights.

        Raises:
            ValueError, TypeError: naming the argument, the rule and the value received.
        """
        from ..training.options import usual_rate
        from ..training.trainer import Trainer, width
        from .distillation import Consistency

        guidance = {k: options.pop(k) for k in [*options] if k.startswith(("guidance_", "guide"))}
        if guidance and not teacher:
            raise ValueError(f"{next(iter(guidance))} is of the teacher: leave it out with teacher=False")
        student = Consistency.of(self, steps, **guidance)
        student.teacher = student.teacher if teacher else None
        given = options.get("options")
        if options.get("lr", given and given.lr) is None:
            options["lr"] = usual_rate(width(student)) / 2
        if options.get("precision", given.precision if given else "auto") == "auto":
            options["precision"] = "no"
        return Trainer(student, dataset, out, **options).fit(train_steps, resume=resume)

    def export(
        self,
        folder: Path | str,
        to: str = "onnx",
        *,
        steps: int | None = None,
        spacing: str = "uniform",
        overwrite: bool = False,
    ) -> Path:
        """Write the model as a program that does not need this package, see :func:`dynunet.exporting.export`.

        Args:
            folder: for the files, a new or an empty one.
            to: ``"onnx"``, which needs no torch either, or ``"torch"``, an archive of :mod:`torch.export`.
            steps, spacing: of its sampler, DDIM, see :meth:`sample`; by default 20, and 1 to restore.
            overwrite: replace a model that was exported to the folder before.

        Returns:
            The folder.
        """
        from ..exporting import export

        return export(self, folder, to, steps=steps, spacing=spacing, overwrite=overwrite)

    def _prepared(
        self, window: Any, overlap: Any, dims: int, progress: bool, compile: Any
    ) -> Callable[["Diffusion"], Estimate]:
        """How a sampler evaluates a model, this one or a guide: compiled or not, in windows or not."""
        mode = compile_mode(compile, "compile")
        if window is None and overlap is not None:
            raise ValueError(f"overlap must be left out without window, got {overlap}")
        sizes = None if window is None else check_windows(window, overlap, dims)

        def prepared(own: Diffusion) -> Estimate:
            network = own.model if mode is None else compiled(own.model, mode)
            estimate: Estimate = partial(own._estimate, network)
            return estimate if sizes is None else windowed(estimate, *sizes, progress=progress)

        return prepared

    def _guided(
        self,
        guide: Any,
        options: Mapping[str, Any],
        shape: Sequence[int],
        prepared: Callable[["Diffusion"], Estimate],
    ) -> Estimate:
        """The estimate of this model, with guidance."""
        weaker: Estimate | None = None
        if guide is not None:
            checks.check_model(guide, "guide")
            own = guide if isinstance(guide, Diffusion) else Diffusion(guide, self.schedule, self.prediction)
            checks.check_shape(shape, "the shape of what guide evaluates", own.model)
            weaker = at_levels(prepared(own), own.schedule, self.schedule)
        return guided(prepared(self), self.schedule, **options, weaker=weaker)

    def _estimate(
        self, network: Callable[..., Tensor], x: Tensor, t: Tensor, cond: Mapping[str, Any]
    ) -> Tensor:
        t, alpha, sigma = self._scales(t, x)
        return self.prediction.denoised(self._run(network, x, t, alpha, sigma, cond), x, alpha, sigma)

    def _scales(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``t`` with x, and alpha and sigma at it, shaped to broadcast against ``x``.

        They are computed where t is, in float64 on the CPU, and reach the device of x in one copy.
        """
        t = widened(t)
        rows = torch.stack([t, *self.schedule(t)]).to(torch.promote_types(x.dtype, torch.float32))
        t, *scales = moved(rows, x.device).unbind()
        alpha, sigma = (s.to(x.dtype).view(-1, *(1,) * (x.ndim - 1)) for s in scales)
        return t, alpha, sigma

    def _place(self, x: Tensor) -> torch.device:
        """Where the network runs; without parameters, where x is."""
        return next(self.parameters(), x).device

    def _from(self, x: Tensor, t: float, steps: int, options: dict[str, Any]) -> Tensor:
        """Samples from noisy data at a time, brought to where these are unless options say where."""
        made = self.sample(x.shape, steps, start=(x, t), **{**options, "device": None})
        return moved(made, options.get("device") or x.device)

    def _check_start(self, cond: Mapping[str, Any], x: Tensor) -> None:
        """Refuse a condition that a bridge cannot start from."""
        if isinstance(self.schedule, Bridge):
            checks.check_finite(checks.start_of_bridge(cond, x), "cond")

    def network_input(self, x: Tensor, alpha: Tensor, sigma: Tensor, cond: Mapping[str, Any]) -> Tensor:
        """What the network is shown in place of noisy data: on a bridge, x_t between them and ``cond``."""
        if isinstance(self.schedule, Bridge):
            return self.schedule.between(x, alpha, sigma, checks.start_of_bridge(cond, x))
        return self.prediction.scaled(x, alpha, sigma)

    def _run(
        self,
        network: Callable[..., Tensor],
        x: Tensor,
        t: Tensor,
        alpha: Tensor,
        sigma: Tensor,
        cond: Mapping[str, Any],
    ) -> Tensor:
        """The output of the network, compiled or not, which runs in a precision of its own."""
        own = next((p.dtype for p in self.parameters() if p.is_floating_point()), x.dtype)

        def cast(value: Any) -> Any:
            return value.to(own) if isinstance(value, Tensor) and value.is_floating_point() else value

        output = network(
            cast(self.network_input(x, alpha, sigma, cond)), t, **{name: cast(v) for name, v in cond.items()}
        )
        if not isinstance(output, Tensor):
            raise TypeError(
                f"model must return one tensor (a UNet without deep_supervision), got {type(output).__name__}"
            )
        if output.shape != x.shape:
            raise ValueError(
                f"model must return the shape of its input, {tuple(x.shape)}, got {tuple(output.shape)}"
            )
        return output.to(x.dtype)

    def _drop(self, cond: dict[str, Any], x: Tensor, generator: Generators) -> dict[str, Any]:
        """Replace the conditions of some samples by no condition, all of a sample together."""
        if not self.cond_dropout or not can_guide(cond):
            return cond
        return dropped(cond, rand(x.shape[0], generator) < self.cond_dropout)
