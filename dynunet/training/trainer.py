"""Trainer: from a model with a loss and a data set to a trained one, in a folder to resume from."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from ..data.spec import self_supervised_by
from ..nn.network import network_within
from ..runs import chosen_device
from .augmentation import fitted
from .engine import engine
from .failures import advice
from .folder import check_folder, locked
from .interrupts import Interrupts
from .loop import Callback, Loop
from .noisy_targets import check_model
from .options import Precision, TrainOptions, chosen, train_options
from .order import example
from .precision import usual_precision
from .record import RUN, read_record


class Trainer:
    """Trains a model with a loss, on one device or, under ``accelerate launch``, on many.

    A step minimises the mean over all entries that count of its ``batch_size * accumulate * processes``
    samples, so that it does not matter how they are divided: the model's ``loss_sum`` says the sum and the
    count. A model without it, or whose subclass has a ``loss`` of its own, minimises the mean of its batches'
    losses; so do losses with Dice, which is of a batch.

    Args:
        model: a :class:`dynunet.Diffusion`, a :class:`dynunet.Supervised`, or any module with
            ``loss(**item)`` and ``save_pretrained``, trained in place. If the data set has ``units``, they
            become its ``data``.
        dataset: items are a tensor x0 ``(C, *spatial)``, a pair ``(x0, class_label)``, for a Supervised
            ``(x0, target)``, or a dict of keywords of the model's ``loss``. What is random in reading an item
            has to come from the global generators of torch, NumPy or Python, which are seeded for each
            sample.
        out: folder of the run, see ``dynunet/training/run.py``.
        validation: held-out data of the same kind; by default ``dataset.validation()``, if it has that.
        options: see :class:`dynunet.training.TrainOptions`; further keywords replace some of them.
        overwrite: remove a run that is in the folder already: the files that it wrote, if there are no
            others.
        sample_args: keywords of :meth:`dynunet.Diffusion.sample` for the pictures of samples.
        about: what else is written down in the record of the run, as JSON holds it.
        augment: random changes of the training examples: a :class:`dynunet.data.Augment`, True for its
            preset, or any function of an example, as a dict of keywords of the loss. A model that makes new
            data is told the parameters of an Augment as ``features``, see :class:`dynunet.data.Augment`.
        callbacks: ``callback(step, row)`` after each row of the log, with its figures by name.
        progress: show a progress bar.
        diffusion: another name of ``model``.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.

    >>> import tempfile, torch
    >>> from dynunet import Diffusion, UNet
    >>> from dynunet.training import Trainer
    >>> unet = UNet(1, 1, channels=(8, 16), num_groups=4, time_embedding=True)
    >>> data = torch.rand(20, 1, 16) * 2 - 1
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     trainer = Trainer(Diffusion(unet), data, folder, batch_size=4, sample_every=0, progress=False)
    ...     diffusion = trainer.fit(steps=2)
    >>> diffusion.sample((1, 1, 16), steps=2, progress=False).shape
    torch.Size([1, 1, 16])
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        dataset: Dataset[Any] | Sequence[Any] | torch.Tensor | None = None,
        out: str | Path | None = None,
        *,
        validation: Dataset[Any] | Sequence[Any] | torch.Tensor | None = None,
        options: TrainOptions | None = None,
        overwrite: bool = False,
        sample_args: Mapping[str, Any] | None = None,
        about: Mapping[str, Any] | None = None,
        augment: Callable[[dict[str, Any]], dict[str, Any]] | bool | None = None,
        callbacks: Sequence[Callback] = (),
        progress: bool = True,
        diffusion: nn.Module | None = None,
        **fields: Any,
    ) -> None:
        if model is not None and diffusion is not None:
            raise TypeError("model and diffusion are one argument: it must be given once")
        self.model: Any = _trainable(diffusion if model is None else model)
        if out is None:
            raise TypeError("out must be a folder for the run, got None")
        self.dataset, self.out = _checked(dataset, "dataset"), Path(out)
        self.validation = _held_out(dataset, validation)
        self.options = train_options(options, fields)
        self.overwrite, self.sample_args, self.about = overwrite, dict(sample_args or {}), dict(about or {})
        self.callbacks, self.progress = tuple(callbacks), progress
        units = getattr(dataset, "units", None)
        if units is not None:
            self.model.data = units
        check_model(self.model, self.options.loss, self_supervised_by(units))
        self.augment = fitted(augment, self.model, self.dataset)

    def fit(self, steps: int | None = None, resume: bool = False) -> Any:
        """Train.

        Args:
            steps: of the whole run, in place of those of the options.
            resume: continue from the last checkpoint in the folder, to the same weights as without the
                interruption: bit by bit on a CPU. Without a run there it begins one, so that a script can
                always ask for it, but never where a model or a log has no checkpoint beside it. More steps
                than before are allowed; from there on the learning rate is that of the longer run.

        Returns:
            The model with the averaged weights, in evaluation mode, as ``from_pretrained(out)`` of its class.

        Raises:
            ValueError: if the folder holds something else, or a run with other options, or if another
                process trains there.
            TrainingError: if memory or the disk does not suffice or the loss is not finite, with advice.
            Interrupted: a KeyboardInterrupt, after SIGINT, SIGTERM or SIGHUP (the terminal was closed), once
                the step is finished and saved.
        """
        options = self.options if steps is None else replace(self.options, steps=steps)
        size = example(self.dataset)["x0"].shape[1:] if options.batch_size is None else ()
        options = chosen(replace(options, precision=self._precision(resume)), width(self.model), size)
        with advice(), Interrupts() as interrupts, engine(self.model, options) as running:
            check_folder(self.out, resume, self.overwrite)
            running.accelerator.wait_for_everyone()
            with locked(self.out) if running.main else nullcontext():
                check_folder(self.out, resume, self.overwrite)  # once more, where no other process writes
                return Loop(self, running, interrupts, resume).run()

    def _precision(self, resume: bool) -> Precision:
        """That of the options, or of the run that is resumed, or the usual one."""
        options, record = self.options, self.out / RUN
        if options.precision != "auto":
            return options.precision
        if resume and record.is_file():
            return read_record(record)["options"].get("precision", "no")
        device = chosen_device("cpu" if options.cpu else options.device)
        return usual_precision(self.model, device)


def _trainable(model: Any) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a module with a loss, got {type(model).__name__}")
    for name in ("loss", "save_pretrained"):
        if not callable(getattr(model, name, None)):
            raise TypeError(f"model must have a method {name}, got a {type(model).__name__} without it")
    return model


def width(model: nn.Module) -> int | None:
    """The channels of the first level of its network, None if that is of another library."""
    network = network_within(model)
    return None if network is None else network.spec.channels[0]


def _held_out(dataset: Any, validation: Any) -> Any:
    """The data to validate with: by default what the data set holds out, if it holds out any."""
    own = getattr(dataset, "validation", None)
    if validation is None and callable(own):
        validation = own()
    return None if validation is None else _checked(validation, "validation")


def _checked(dataset: Any, name: str) -> Any:
    """A data set that can be read by number, and is not empty."""
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise TypeError(f"{name} must have a length and items by number, got {type(dataset).__name__}")
    if len(dataset) == 0:
        raise ValueError(f"{name} must have at least one item, got none")
    return dataset
