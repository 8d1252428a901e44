"""The loop of training, and what is due after a step: log, validation, checkpoint, pictures, stop.

Rows of the log are written before the checkpoint of their step, and rows of later steps are cut when a run is
resumed: so none is missing and none is there twice.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import MISSING, asdict
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

import torch

from .. import averages
from ..checkpoints import WEIGHTS
from ..config import document
from ..jsonable import plain
from ..nn.spec import option_fields
from ..progress import Bar, Interrupted, say
from ..writing import remove_left, replacing
from . import folder, run
from .augmentation import recorded
from .background import asked_to_stop
from .engine import Engine
from .evaluation import Pictures, criterion, validate
from .failures import not_finite
from .forecast import Forecast
from .interrupts import Interrupts
from .order import Stream, schedule
from .record import RUN, finished, surroundings, write_record
from .state import Checkpoints, Saved

Callback = Callable[[int, Mapping[str, float]], None]


_USUAL = {f.name: plain(f.default) for f in option_fields() if f.default is not MISSING}
_FIRST_SAVE = 120.0  # seconds until the first checkpoint, if none is due earlier
_LOOK = 1.0  # seconds between looks whether another process has asked this one to stop


class Settings(Protocol):
    """The arguments of a trainer, see :class:`dynunet.training.Trainer`."""

    dataset: Any
    validation: Any
    augment: Any
    out: Path
    overwrite: bool
    sample_args: dict[str, Any]
    about: dict[str, Any]
    callbacks: tuple[Callback, ...]
    progress: bool


class Loop:
    """One run, from its beginning or a checkpoint to its last step."""

    def __init__(self, given: Settings, engine: Engine, interrupts: Interrupts, resume: bool) -> None:
        self.given, self.engine, self.interrupts, self.options = given, engine, interrupts, engine.options
        label = "target" if "target" in engine.average_objective.takes else "class_labels"
        stream = partial(Stream, seed=self.options.seed, label=label)
        self.stream = stream(given.dataset, change=given.augment)
        self.held_out = None if given.validation is None else stream(given.validation)
        seen = self.held_out or stream(given.dataset)
        self.pictures = Pictures(given.out / folder.SAMPLES, seen, given.sample_args)
        self.checkpoints = Checkpoints(given.out / folder.CHECKPOINTS)
        self.step, self.saved_step, self.seconds = 0, -1, 0.0
        self.looked = 0.0  # time of the last look
        self.best: tuple[int, float] | None = None  # step of the best validation, and its criterion
        # Loss and norm of the gradient, summed since the last row, on the device: it need not be waited for.
        self.sums, self.summed = torch.zeros(2, device=engine.accelerator.device), 0
        self.first = 0  # step that this process begins with
        self.forecast = Forecast(self.options.steps, engine.accelerator.device.type)
        self._open(resume)

    def run(self) -> Any:
        options, accelerator = self.options, self.engine.accelerator
        steps, processes = range(self.step, options.steps), accelerator.num_processes
        division = options.batch_size, options.accumulate, processes, accelerator.process_index
        pin = accelerator.device.type == "cuda"
        batches = self.stream.batches(schedule(steps, *division), options.workers, pin)
        self.began = self.since = self.shown = time.monotonic()
        self.first = self.step
        with self._bar() as self.bar, closing(batches):
            self.bar.doing("compiling" if options.compile else "training")
            for step in steps:
                self.sums += self.engine.step(step, batches, self.stream)
                self.step, self.summed = step + 1, self.summed + 1
                self._show()
                for text in self.forecast.after(self.step):
                    self._say(text)
                self._after_step()
        if self.engine.main:
            self._complete()
        accelerator.wait_for_everyone()
        return self.engine.average

    def _open(self, resume: bool) -> None:
        """Load the last checkpoint, and write down what is run."""
        given, engine = self.given, self.engine
        with engine.accelerator.main_process_first():
            saved = self.checkpoints.latest(say) if resume else None
        if saved is not None:
            self._load(saved)
        elif resume:
            folder.check_untrained(given.out, len(run.read_log(given.out / folder.LOG)))
        engine.accelerator.wait_for_everyone()
        if engine.main:
            self._write_down(resume)
        if saved is None:
            self._save()  # a run that is killed early starts again from the same weights
        elif engine.main and self.step and not (given.out / WEIGHTS).exists():
            engine.average.save_pretrained(given.out)

    def _write_down(self, resume: bool) -> None:
        """Begin the record and the log of the run, and remove what is left of another or a killed one."""
        out = self.given.out
        if not resume and (out / RUN).is_file():
            folder.remove_run(out)
        for place in (out, self.pictures.folder, out / averages.FOLDER):
            remove_left(place)
        averages.cut(out, self.step)
        write_record(out / RUN, self._about())
        names = getattr(self.engine.average, "metric_names", ())
        self.log = run.Log(out, self.step, self.options.tensorboard, names)

    def _about(self) -> dict[str, Any]:
        report = getattr(self.given.dataset, "report", None)
        return {
            **self.given.about,
            **surroundings(),
            "seed": self.options.seed,
            "options": asdict(self.options),
            "augment": recorded(self.given.augment),
            "processes": self.engine.accelerator.num_processes,
            "device": str(self.engine.accelerator.device),
            "dataset": f"{type(self.given.dataset).__name__} of {self.stream.length}",
            "data_report": report() if callable(report) else None,
        }

    def _after_step(self) -> None:
        row = self._means() | self._validation()
        if row:
            self._log({"step": self.step, **row})
        self._store_averages()
        stop = self.engine.stopping(self.interrupts.name is not None or self._asked())
        if stop or self._to_be_saved():
            self.bar.doing("saving")
            self._save()
        if stop:
            raise Interrupted(
                f"stopped by {self.interrupts.name or 'another process'} after step {self.step} of "
                f"{self.options.steps}, saved in {self.given.out}; to go on, start it again with resume=True"
            )
        if self._due(self.options.sample_every):
            self.bar.doing("drawing samples")
            if self.engine.main:
                drawn = self.pictures.draw(self.engine, self.step)
                if drawn is not None:
                    self.log.picture(drawn, self.step)
            self.engine.accelerator.wait_for_everyone()
        self.bar.doing("training")

    def _asked(self) -> bool:
        """True if another process has asked this one to stop; looked at now and then."""
        now = time.monotonic()
        if not self.engine.main or now - self.looked < _LOOK:
            return False
        self.looked = now
        return asked_to_stop(self.given.out)

    def _store_averages(self) -> None:
        """Those of other lengths, see :mod:`dynunet.averages`, at steps that depend on their number alone."""
        due = self.step % averages.interval(self.step) == 0 or self.step == self.options.steps
        if self.engine.tracked and due:
            self._check_weights()
            if self.engine.main:
                averages.store(self.given.out, self.step, self.engine.tracked)

    def _validation(self) -> dict[str, float]:
        """Figures of the held-out data, if they are due."""
        if self.held_out is None or not self._due(self.options.validate_every):
            return {}
        self.bar.doing("validating")
        figures = validate(self.engine, self.held_out)
        value = criterion(self.engine.average, figures)
        if self.best is None or value < self.best[1]:
            self.best = self.step, value
        said = (f"{name.removeprefix('validation_')} {value:.4g}" for name, value in figures.items())
        self._say(f"step {self.step}: validation {', '.join(said)}{', the best' * self._is_best()}")
        return figures

    def _is_best(self) -> bool:
        return self.best is not None and self.best[0] == self.step

    def _to_be_saved(self) -> bool:
        return self._is_best() or self._due(self.options.save_every) or self._unsaved_for_long()

    def _unsaved_for_long(self) -> bool:
        """True once, some minutes after the beginning: what was trained is not lost, and can be tried."""
        alone = self.engine.accelerator.num_processes == 1  # whose clocks would differ
        return alone and self.saved_step == self.first and time.monotonic() - self.began > _FIRST_SAVE

    def _say(self, text: str) -> None:
        if self.given.progress and self.engine.main:
            say(text)

    def _due(self, every: int) -> bool:
        return every > 0 and (self.step % every == 0 or self.step == self.options.steps)

    def _means(self) -> dict[str, float]:
        """Means since the last row of the log, if the next one is due."""
        if not self._due(self.options.log_every):
            return {}
        loss, norm = (self.sums / self.summed).tolist()
        self._check(loss, norm)
        now = time.monotonic()
        samples = self.options.batch_size * self.options.accumulate * self.engine.accelerator.num_processes
        row = {
            "loss": loss,
            "lr": self.options.learning_rate(self.step - 1),
            "gradient_norm": norm,
            "samples_per_second": round(self.summed * samples / (now - self.since), 3),
            "seconds": round(self.seconds + now - self.began, 3),
        }
        self.sums.zero_()
        self.summed, self.since = 0, now
        return row

    def _log(self, row: Mapping[str, float]) -> None:
        if self.engine.main:
            self.log.write(row)
            for callback in self.given.callbacks:
                callback(self.step, row)

    def _show(self) -> None:
        """The loss beside the bar, once a second: reading it waits for the device."""
        if time.monotonic() - self.shown > 1:
            loss, norm = (self.sums / self.summed).tolist()
            self._check(loss, norm)
            self.bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
            self.shown = time.monotonic()
        self.bar.update()

    def _check(self, *figures: float) -> None:
        if not all(map(isfinite, figures)):
            raise not_finite(
                self.step, str(self.checkpoints.path(self.saved_step)), "the loss or its gradient"
            )

    def _check_weights(self) -> None:
        self._check(*self.sums.tolist())
        if not self.engine.finite():
            raise not_finite(self.step, str(self.checkpoints.path(self.saved_step)), "the weights")

    def _save(self) -> None:
        """A checkpoint, and the averaged model beside it; never of weights that are not finite."""
        if self.saved_step == self.step:
            return
        self._check_weights()
        if self.engine.main:
            numbers = {
                "fixed": self._fixed(),
                "best": self.best,
                "seconds": self.seconds + time.monotonic() - self.began if self.step else 0.0,
                "sums": [*self.sums.tolist(), self.summed],
            }
            best = None if self.best is None else self.best[0]
            # In this order there is a model in the folder wherever there is a checkpoint, but for that before
            # the first step: where there is a model, something has been trained.
            if self.step:
                self.engine.average.save_pretrained(self.given.out)
            self.checkpoints.save(self.step, self.engine.state(), self.engine.average, numbers, best)
        self.saved_step = self.step
        self.engine.accelerator.wait_for_everyone()

    def _load(self, saved: Saved) -> None:
        numbers = saved.numbers
        changed = differences(numbers["fixed"], self._fixed())
        if changed:
            then = _scale_then(self.given.dataset, numbers["fixed"], changed)
            raise ValueError(
                f"a run must be resumed with the options it was begun with, got {'; '.join(changed)}. Give "
                f"them as they were{then}, or begin a new run in another folder"
            )
        if self.options.steps < numbers["step"]:
            raise ValueError(
                f"steps must be at least the {numbers['step']} that are done already in {self.given.out}, "
                f"got {self.options.steps}"
            )
        self.engine.load_state(saved.state, saved.path / WEIGHTS)
        self.step = self.saved_step = numbers["step"]
        self.seconds, self.best = numbers["seconds"], numbers["best"] and tuple(numbers["best"])
        if self.best is not None and not self.checkpoints.path(self.best[0]).exists():
            self.best = None  # it went with a newer checkpoint that is damaged
        *sums, self.summed = numbers["sums"]
        self.sums.copy_(torch.tensor(sums))
        if self.engine.main:
            say(f"going on from step {self.step} of {self.options.steps}, {saved.path}")

    def _fixed(self) -> dict[str, Any]:
        """Everything that has to be as it was when a run is resumed."""
        return {
            **self.options.fixed(self.engine.accelerator.num_processes),
            "len(dataset)": self.stream.length,
            "augment": recorded(self.given.augment),
            "diffusion": document(self.engine.model),
        }

    def _bar(self) -> Bar:
        return Bar(
            total=self.options.steps,
            initial=self.step,
            desc="training",
            unit="step",
            dynamic_ncols=True,
            disable=not (self.given.progress and self.engine.main),
        )

    def _complete(self) -> None:
        """The last things in the folder of a run that has come to its end."""
        self.log.close()
        finished(self.given.out / RUN)
        if self.best is not None and self.checkpoints.path(self.best[0]).exists():
            self._say(
                f"best validation after step {self.best[0]}, kept in {self.checkpoints.path(self.best[0])}"
            )
        try:
            from ..plotting import loss_curve

            with replacing(self.given.out / "loss.png") as (picture,):
                loss_curve(self.log.path, picture)
        except ImportError as error:
            say(f"no picture of the loss: {error}; pip install 'dynunet[examples]'")


def _scale_then(dataset: Any, fixed: Mapping[str, Any], changed: list[str]) -> str:
    """How to read files with the scale that a run was begun with, where they now have another one."""
    from ..data import FolderDataset
    from ..data.formats import of_kind
    from ..data.spec import DataSpec

    other = any(text.startswith("diffusion.data.range=") for text in changed)
    if not (other and isinstance(dataset, FolderDataset)):
        return ""

    spec = DataSpec.of(fixed["diffusion"]["data"])
    scale = of_kind(spec.kind).scale(spec)
    return f" (the data set with value_range=({scale.low:g}, {scale.high:g}))"


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """Values that differ in nested objects, but for those that do not change the course of a run.

    An option of the network that was not known before had its default.
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        names = [key for key in {**before, **now} if key != "gradient_checkpointing"]
        prefix = f"{name}." if name else ""
        pairs = [(before.get(key, _USUAL.get(key)), now.get(key), prefix + key) for key in names]
        return [text for pair in pairs for text in differences(*pair)]
    return [] if before == now else [f"{name}={now!r} instead of {before!r}"]
