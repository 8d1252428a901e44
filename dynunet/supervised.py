"""Supervised: a network for segmentation, classification or regression, with its loss and predictions."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convnd.arguments import PerAxis

from ._devices import moved, placed
from .arguments import choice, integer, positive
from .checkpoints import Checkpoint
from .config import AroundNetwork
from .data.options import TASKS
from .diffusion.checks import check_data, check_finite
from .diffusion.losses import ERRORS, loss_sum
from .diffusion.sampling import evaluation_mode
from .losses import FOCUS, cross_entropy, soft_dice
from .masks import expanded_mask
from .metrics.segmentation import class_counts
from .windows import averaged, has_spatial_axes

CLASS_LOSSES = ("ce", "dice", "dice+ce", "focal")
_DEFAULTS = {"segmentation": "dice+ce", "classification": "ce", "regression": "l2"}

# The dtypes of targets, in words and as a test.
_LABELS = ("integers", lambda t: not (t.is_floating_point() or t.is_complex() or t.dtype == torch.bool))
_DTYPES: dict[str, tuple[str, Callable[[Tensor], bool]]] = {
    "segmentation": _LABELS,
    "classification": _LABELS,
    "multilabel": ("bool with multilabel", lambda t: t.dtype == torch.bool),
    "regression": ("floating-point for regression", lambda t: t.is_floating_point()),
}


class Supervised(AroundNetwork, Checkpoint, nn.Module):
    """A network with a training loss, prediction and metrics for a supervised task.

    Args:
        model: from ``(N, C, *spatial)`` to ``(N, classes, *spatial)`` for segmentation, ``(N, classes)`` for
            classification, either for regression: a :class:`dynunet.UNet`, a :class:`dynunet.Encoder`, or any
            module. If it returns a tuple, as with ``deep_supervision``, the loss covers every resolution.
        task: ``"segmentation"``, ``"classification"`` or ``"regression"``.
        loss: ``"ce"``, ``"dice"``, ``"dice+ce"`` or ``"focal"`` (gamma 2) for classes; ``"l2"``, ``"l1"``,
            ``"huber"``, ``"l1+stft"`` (of signals) or a function of output and target, entry by entry, for
            regression. By default
            ``"dice+ce"``, ``"ce"`` and ``"l2"``.
        multilabel: classes are not exclusive: each has its own probability, and targets are bool with a class
            axis.
        include_background: whether Dice counts class 0. By default only with ``multilabel``: with exclusive
            classes, the background is whatever the other classes leave.
        dice_per_sample: sum Dice over each sample, the default of MONAI and nnU-Net (3-D), instead of over
            the whole batch. With sums over the batch, a class absent from a small crop is not penalised.
        ignore_index: label of positions that do not count.
        class_weights: one number per class, for the cross-entropy and the focal loss.
        classes: names of the classes, or a mapping from names to their values in the data files.
        data: the units of the data, as in :class:`dynunet.Diffusion`.

    >>> import torch
    >>> from dynunet import Supervised, UNet
    >>> model = Supervised(UNet(3, 1, 4, channels=(4, 8), num_groups=2, num_heads=2))
    >>> x, target = torch.randn(2, 1, 8, 8, 8), torch.randint(4, (2, 8, 8, 8))
    >>> model.loss(x, target=target).shape, model.predict(x).shape
    (torch.Size([]), torch.Size([2, 8, 8, 8]))
    """

    class_weights: Tensor | None

    def __init__(
        self,
        model: Callable[..., Any],
        task: str = "segmentation",
        loss: str | Callable[[Tensor, Tensor], Tensor] | None = None,
        *,
        multilabel: bool = False,
        include_background: bool | None = None,
        dice_per_sample: bool = False,
        ignore_index: int | None = None,
        class_weights: Sequence[float] | None = None,
        classes: Sequence[str] | Mapping[str, int] | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not callable(model):
            raise TypeError(f"model must be a callable model(x, **conditions), got {model!r}")
        self.model = model
        self.task = choice(task, TASKS, "task")
        self.loss_name = _checked_loss(loss, task)
        self.multilabel = _flag(multilabel, "multilabel")
        self.dice_per_sample = _flag(dice_per_sample, "dice_per_sample")
        if multilabel and task == "regression":
            raise ValueError("multilabel must be False for regression, which has no classes, got True")
        self.include_background = multilabel if include_background is None else include_background
        self.ignore_index = None if ignore_index is None else integer(ignore_index, "ignore_index", None)
        weights = None
        if class_weights is not None:
            weights = torch.tensor([positive(w, "class_weights") for w in class_weights])
        self.register_buffer("class_weights", weights, persistent=False)
        self.classes = _checked_classes(classes)
        self.data = data

    @property
    def per_batch(self) -> bool:
        """True if the loss of a batch is not a mean over its entries."""
        return self.loss_name in ("dice", "dice+ce")

    def loss(self, x0: Tensor, *, target: Tensor, mask: Tensor | None = None, **conditions: Any) -> Tensor:
        """The loss of the network's output.

        Args:
            x0: data ``(N, C, *spatial)``.
            target: for segmentation ``(N, *spatial)`` integers, for classification ``(N,)``; with
                ``multilabel`` bool ``(N, classes, *spatial)`` or ``(N, classes)``; for regression like the
                output, where NaN entries do not count.
            mask: bool, broadcast against x0, False where entries are missing: the network gets 0 there, and
                positions with no entry at all do not count.
            conditions: conditions of the network, such as ``cond``, one entry per sample.

        Returns:
            A differentiable scalar: 0 if nothing counts.

        Raises:
            ValueError, TypeError: naming the argument, the rule and the value received.
        """
        outputs = self._outputs(x0, target, mask, conditions)
        parts = [weight * self._loss(*rest) for weight, *rest in outputs]
        return sum(parts[1:], parts[0])

    def _loss(self, output: Tensor, target: Tensor, counted: Tensor) -> Tensor:
        parts = []
        if self.loss_name != "dice":
            error, count = self._sum(output, target, counted)
            parts.append(error / torch.where(count == 0, 1, count))
        if self.per_batch:
            options = {"background": self.include_background, "per_sample": self.dice_per_sample}
            parts.append(soft_dice(output, target, counted, **options))
        return sum(parts[1:], parts[0])

    def loss_sum(
        self, x0: Tensor, *, target: Tensor, mask: Tensor | None = None, **conditions: Any
    ) -> tuple[Tensor, Tensor]:
        """The loss summed over entries, and the number of entries; both can be added over batches.

        Raises:
            ValueError: for a loss with Dice, which is not a sum over entries.
        """
        if self.per_batch:
            raise ValueError(f"loss must be a mean over entries to be summed, got {self.loss_name!r}")
        outputs = self._outputs(x0, target, mask, conditions)
        sums = [(weight, *self._sum(*rest)) for weight, *rest in outputs]
        count = sums[0][2]  # count of the finest output; coarser outputs add their weighted means
        means = [weight * error / torch.where(number == 0, 1, number) for weight, error, number in sums]
        return sum(means[1:], means[0]) * count, count

    def _sum(self, output: Tensor, target: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        output = output.to(torch.promote_types(output.dtype, torch.float32))
        if self.task == "regression":
            loss = self.loss_name if callable(self.loss_name) else ERRORS[self.loss_name]
            return loss_sum(output, target, mask=counted, loss=loss)
        focus = FOCUS if self.loss_name == "focal" else 0.0
        return cross_entropy(output, target, counted, self.class_weights, focus)

    def _outputs(
        self, x0: Tensor, target: Tensor, mask: Tensor | None, conditions: Mapping[str, Any]
    ) -> list[tuple[float, Tensor, Tensor, Tensor]]:
        """Weight, output, target and mask of counted positions, for each resolution with an output."""
        check_data(x0, "x0", self.model)
        known = None
        if mask is not None:
            mask = expanded_mask(mask, x0)
            x0, known = torch.where(mask, x0, 0), mask.any(1)
        if x0.device.type == "cpu":
            check_finite(x0, "x0")
        outputs = self._run(x0, conditions)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        target, counted = self._checked(target, outputs[0], known)
        shares = [2.0**-i for i in range(len(outputs))]  # as nnU-Net's
        rows = ((share / sum(shares), y, y.shape[2:]) for share, y in zip(shares, outputs, strict=True))
        return [(weight, y, _resized(target, to), _resized(counted, to)) for weight, y, to in rows]

    def _checked(self, target: Any, output: Tensor, known: Tensor | None) -> tuple[Tensor, Tensor]:
        """The target on the device of the output, and a mask of the positions that count."""
        self._check_target(target, output)
        target = moved(target, output.device)
        if self.task == "regression":
            return target, _where_known(~target.isnan(), None if known is None else known.unsqueeze(1))
        if self.multilabel:
            return target, _where_known(torch.ones_like(target[:, 0]), known)
        target = target.long()
        counted = torch.ones_like(target, dtype=torch.bool)
        if self.ignore_index is not None:
            counted = target != self.ignore_index
        if target.device.type == "cpu":  # elsewhere it would wait for the device in every step
            self._check_labels(target[counted], output.shape[1])
        return target, _where_known(counted, known)

    def _check_target(self, target: Any, output: Tensor) -> None:
        """Refuse a target of another shape or dtype than the task has."""
        if not isinstance(target, Tensor):
            raise TypeError(f"target must be a tensor, got {type(target).__name__}")
        whole = self.task == "regression" or self.multilabel
        shape = tuple(output.shape) if whole else (output.shape[0], *output.shape[2:])
        if tuple(target.shape) != shape:
            raise ValueError(f"target must have the shape {shape}, got {tuple(target.shape)}")
        rule, holds = _DTYPES["multilabel" if self.multilabel else self.task]
        if not holds(target):
            raise TypeError(f"target must be {rule}, got {target.dtype}")

    def _check_labels(self, labels: Tensor, classes: int) -> None:
        if labels.numel() and not (0 <= int(labels.min()) and int(labels.max()) < classes):
            wrong = labels[(labels < 0) | (labels >= classes)].unique().tolist()
            ignored = "" if self.ignore_index is None else f", or {self.ignore_index}, which is ignored"
            raise ValueError(f"target must have labels from 0 to {classes - 1}{ignored}, got {wrong[:10]}")

    @torch.no_grad()
    def validation_sums(
        self, x0: Tensor, *, target: Tensor, mask: Tensor | None = None, **conditions: Any
    ) -> tuple[Tensor, Tensor]:
        """Sums over a batch of held-out data, of one run of the network; arguments as in :meth:`loss`.

        Returns:
            Two tensors that can be added over batches. The loss and its divisor, ``(2,)``: those of
            :meth:`loss_sum`, or with Dice the loss times the number of samples, and that number. And the sums
            of :meth:`metrics`: for classes how often each is predicted correctly, predicted, and present,
            ``(3, classes)`` int64; for regression the squared errors and their number, ``(2,)``.
        """
        _, output, target, counted = self._outputs(x0, target, mask, conditions)[0]
        if self.per_batch:
            count = torch.full((), len(x0), device=output.device)
            loss = self._loss(output, target, counted) * count, count
        else:
            loss = self._sum(output, target, counted)
        if self.task == "regression":
            parts = loss_sum(output, target, mask=counted)
            sums = torch.stack([part.float() for part in parts])
        else:
            found = output > 0 if self.multilabel else output.argmax(1)
            target = target if self.multilabel else torch.where(counted, target, 0)
            sums = torch.stack([n.sum(0) for n in class_counts(found, target, output.shape[1], counted)[:3]])
        return torch.stack([part.float() for part in loss]), sums

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """Metrics of held-out data, by name, from the second sums of :meth:`validation_sums`.

        Segmentation: ``dice``, averaged over classes, with the background included as in the loss; classes
        that are neither predicted nor present are left out. Classification: ``accuracy``; with
        ``multilabel``, ``dice``. Regression: ``rmse``.
        """
        sums = sums.cpu().double()  # not every device has float64
        if self.task == "regression":
            return {"rmse": float((sums[0] / sums[1]).sqrt())}
        right, found, there = sums
        dice = 2 * right / (found + there)
        if self.metric_names == ("accuracy",):
            return {"accuracy": float(right.sum() / there.sum())}
        return {"dice": float(dice[0 if self.include_background else 1 :].nanmean())}

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the :meth:`metrics`; the first one decides which model is best."""
        if self.task == "regression":
            return ("rmse",)
        return ("accuracy",) if self.task == "classification" and not self.multilabel else ("dice",)

    @property
    def lower_is_better(self) -> bool:
        """True if the first metric is an error."""
        return self.task == "regression"

    def _run(self, x: Tensor, conditions: Mapping[str, Any]) -> Any:
        own = next((p.dtype for p in self.parameters() if p.is_floating_point()), x.dtype)
        return self.model(x.to(own), **conditions)

    @torch.no_grad()
    def predict(
        self,
        x: Tensor,
        *,
        window: PerAxis | None = None,
        overlap: PerAxis | None = None,
        mirror: bool | Sequence[int] = False,
        probabilities: bool = False,
        mask: Tensor | None = None,
        batch_size: int = 4,
        progress: bool = False,
        **conditions: Any,
    ) -> Tensor:
        """Predict in evaluation mode.

        With ``window``, outputs are averaged with Gaussian weights (std: an eighth of the window size),
        as in nnU-Net and MONAI. Their sum is kept on the CPU; the network needs the memory of a few windows.

        Args:
            x: ``(N, C, *spatial)``, on any device.
            window: size of the windows, one int or one per axis; None to process x as a whole.
            overlap: overlap of neighbouring windows, less than ``window``; a quarter of it by default.
            mirror: average over reflections of all axes (True) or of the given axes, counted from 0.
            probabilities: whether to return class probabilities instead of labels.
            mask: as in :meth:`loss`.
            batch_size: number of windows per call.
            progress: whether to show a progress bar.
            conditions: conditions of the network; those with the spatial axes of x are cut and reflected
                like x.

        Returns:
            Segmentation: labels ``(N, *spatial)`` int64, with ``multilabel`` bool ``(N, classes, *spatial)``;
            classification: ``(N,)`` or ``(N, classes)``. Probabilities and regression values are shaped like
            the output. The result is on the device of x, or with ``window`` on the CPU.
        """
        check_data(x, "x", self.model)
        if mask is not None:
            x = torch.where(expanded_mask(mask, x), x, 0)
        check_finite(x, "x")
        run = partial(self._mirrored, axes=_mirror_axes(mirror, x.ndim - 2))
        device = next(self.parameters(), x).device
        with evaluation_mode(self):
            if window is None:
                if overlap is not None:
                    raise ValueError(f"overlap must be left out without window, got {overlap}")
                output, place = run(moved(x, device), placed(conditions, device)), x.device
            else:
                size = window, overlap, integer(batch_size, "batch_size")
                output = averaged(run, x, conditions, *size, device=device, progress=progress)
                place = output.device
        return moved(self._answer(output, probabilities), place)

    def _answer(self, output: Tensor, probabilities: bool) -> Tensor:
        """Values, classes, or their probabilities."""
        if self.task == "regression":
            return output
        if self.multilabel:
            return output.sigmoid() if probabilities else output > 0
        return output.softmax(1) if probabilities else output.argmax(1)

    def export(self, folder: Path | str, to: str = "onnx", *, overwrite: bool = False) -> Path:
        """Write the model as a program that does not need this package, see :func:`dynunet.exporting.export`.

        Args:
            folder: for the files, a new or an empty one.
            to: ``"onnx"``, which needs no torch either, or ``"torch"``, an archive of :mod:`torch.export`.
            overwrite: replace a model that was exported to the folder before.

        Returns:
            The folder.
        """
        from .exporting import export

        return export(self, folder, to, overwrite=overwrite)

    def _mirrored(self, x: Tensor, conditions: Mapping[str, Any], axes: Sequence[int]) -> Tensor:
        """The mean of the outputs over all reflections, each reflected back."""
        flips = list(chain.from_iterable(combinations(axes, n) for n in range(len(axes) + 1)))
        total: Any = 0.0
        for flip in flips:
            parts = {k: v.flip(flip) if has_spatial_axes(k, v, x) else v for k, v in conditions.items()}
            output = self._run(x.flip(flip), parts)
            output = output[0] if isinstance(output, tuple) else output
            total = total + (output.flip(flip) if output.ndim == x.ndim else output)
        return total / len(flips)


def _mirror_axes(mirror: Any, spatial_dims: int) -> tuple[int, ...]:
    if isinstance(mirror, bool):
        return tuple(range(2, 2 + spatial_dims)) if mirror else ()
    axes = tuple(integer(axis, f"mirror[{i}]", 0) for i, axis in enumerate(mirror))
    if len(set(axes)) < len(axes) or max(axes, default=0) >= spatial_dims:
        raise ValueError(
            f"mirror must be a bool or different axes from 0 to {spatial_dims - 1}, got {mirror!r}"
        )
    return tuple(2 + axis for axis in axes)


def _checked_loss(
    loss: str | Callable[[Tensor, Tensor], Tensor] | None, task: str
) -> str | Callable[[Tensor, Tensor], Tensor]:
    """The name of a loss of the task, by default its own; for regression also a function."""
    known = tuple(ERRORS) if task == "regression" else CLASS_LOSSES
    if loss is None:
        return _DEFAULTS[task]
    if not callable(loss):
        return choice(loss, known, "loss")
    if task != "regression":
        raise TypeError(f"loss must be one of {', '.join(map(repr, known))} for {task}, got {loss!r}")
    return loss


def _where_known(counted: Tensor, known: Tensor | None) -> Tensor:
    """Positions that count and are known; a target without the axes of the data is known as a whole."""
    return counted if known is None or known.ndim != counted.ndim else counted & known


def _checked_classes(classes: Any) -> Any:
    """Names, each once, or a mapping from them to different values in files."""
    if classes is None:
        return None
    if isinstance(classes, str) or not isinstance(classes, (Sequence, Mapping)):
        raise TypeError(f"classes must be names or a mapping from names to values, got {classes!r}")
    named = all(isinstance(name, str) for name in classes)
    values = list(classes.values()) if isinstance(classes, Mapping) else list(classes)
    if not named or len(set(values)) < len(values):
        raise ValueError(f"classes must be different names, with different values, got {classes!r}")
    return classes


def _resized(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Resize targets and masks to a coarser output: the entry nearest to the centre of each position."""
    n = len(sizes)
    for axis, size in enumerate(sizes, start=x.ndim - n):
        length = x.shape[axis]
        if size != length:
            at = ((torch.arange(size, device=x.device) + 0.5) * length / size).long()
            x = x.index_select(axis, at)
    return x


def _flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, got {value!r}")
    return value
