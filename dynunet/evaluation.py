"""The quality of a trained model, on data it has not seen.

Of a model that restores: SNR, and SI-SDR (1-D) or PSNR, in dB, before and after. Of one that predicts: see
:mod:`dynunet.scores`. Of others: the loss, and the Fréchet distance of samples from data, on local means and
deviations, beside that of data from data.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import convnd.functional as F

from ._devices import moved, placed
from .arguments import check_counts
from .data.dataset import FolderDataset
from .data.errors import shown
from .data.files import find
from .data.formats import of_kind, of_path
from .data.options import DataOptions
from .data.spec import DataSpec
from .data.target_spec import TargetSpec
from .diffusion import Diffusion
from .hub import run_folder
from .jsonable import unflat
from .metrics import frechet_distance, psnr, si_sdr, snr
from .prediction import Predictor
from .progress import Bar
from .runs import (
    Sizes,
    averaged,
    classes_of_run,
    device_of,
    predicts,
    restoration_sampler,
    restoration_steps,
    spec_of_run,
    trained,
)
from .runs import batch_size as fitting
from .scores import score
from .supervised import Supervised
from .training.record import RUN, read_flags

__all__ = ["Evaluation", "data_of_run", "evaluate"]

_SILENT = 1e-5  # of the mean power of all: 50 dB below
_FEATURES = 32  # at most, of the Fréchet distance


@dataclass(frozen=True)
class Evaluation:
    """Figures of quality. As text they are a table.

    Attributes:
        figures: by name: ``SNR``, ``SI-SDR`` or ``PSNR`` in dB, means over the examples after restoration,
            and with `` before`` before it, where what is given has the channels of the data; or ``loss``,
            ``Fréchet distance`` of samples from data, and its ``floor``, that of data from data.
        rows: of the table, a name and a text each.
        left_out: examples that some figure is not over, because it says nothing of them.
        files: of predictions, lines of a table with the figures of each file, names of columns first.
    """

    figures: Mapping[str, float]
    rows: tuple[tuple[str, str], ...]
    left_out: int = 0
    files: tuple[tuple[str, ...], ...] = ()

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.rows)
        return "\n".join(f"{name.ljust(width)}  {text}" for name, text in self.rows)


def evaluate(
    model: Path | str | Diffusion | Supervised,
    dataset: FolderDataset | None = None,
    *,
    num: int | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    device: str | None = None,
    window: Sizes = None,
    overlap: Sizes = None,
    mirror: bool = False,
    distances: bool = False,
    length: float | None = None,
) -> Evaluation:
    """Measure the quality of a trained model, as ``dynunet evaluate`` does.

    Args:
        model: the folder of a run, or a model that was trained from files.
        dataset: examples as those of training; by default what was held out from a run, see
            :func:`data_of_run`.
        num: examples, chosen at random, at least 2; by default 64, with targets all.
        steps: of the sampler; by default 1 to restore (20 for a prediction of the noise) and 20 to sample,
            those of a model of few steps.
        batch_size: examples at a time; by default by their size. The figures do not depend on it.
        seed: of crops, noise and samples.
        device: ``"cpu"``, ``"cuda"``, ...; by default the fastest for a folder, and for a model where it is.
        window, overlap, mirror: of a model that was trained on targets, as of
            :func:`dynunet.prediction.predict`.
        distances: of a model of label maps: ``HD95``, the Hausdorff distance of the surfaces at 95 %, too, in
            the unit of the files' spacing (pixels, where they have none), by SciPy.
        length: of the average of the weights, for a run with several, see :func:`dynunet.average`.

    Raises:
        ValueError, TypeError: naming the argument, the rule and the value received.
    """
    check_counts(2, num=num)
    check_counts(steps=steps, batch_size=batch_size)
    if dataset is None:
        if not isinstance(model, (str, Path)):
            raise ValueError("dataset must be given with a model: it is not known which run it is of")
        dataset = data_of_run(model)
    model = averaged(model, length, device)
    if predicts(model):
        use = Predictor.of(model, device, window, overlap, mirror)
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed)).tolist()
        return _prediction(use, dataset, sorted(order[:num]), distances)
    if distances:
        raise ValueError("distances are of label maps, which the model does not predict: leave it out")
    diffusion, spec = trained(model, device)
    classes = dataset.units["classes"]
    if spec.classes is not None and tuple(classes or ()) != spec.classes:
        raise ValueError(
            f"the classes must be {', '.join(spec.classes)}, got {', '.join(classes or ['none'])}"
        )
    noisy = DataSpec.of(dataset.units).self_supervised
    if noisy is not None:
        raise ValueError(
            f"dataset must have clean examples to compare with, got one with self_supervised={noisy!r}; "
            "data_of_run(run, source, pairs=...) has them"
        )
    examples = _Examples(dataset, seed, batch_size or fitting(dataset.shape))
    figures = _generation if spec.restoration is None else _restoration
    return figures(diffusion, spec, examples, num or 64, steps)


def _prediction(
    use: Predictor, dataset: FolderDataset, numbers: Sequence[int], distances: bool
) -> Evaluation:
    """Overlaps, accuracy or errors, as rows with aligned cells."""
    found = score(use, dataset, numbers, distances)
    widths = [max(map(len, column)) for column in zip(*found.rows, strict=True)]
    rows = [
        (row[0], "  ".join(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)))
        for row in found.rows
    ]
    return Evaluation(found.figures, tuple(rows), files=tuple(map(tuple, found.files)))


def data_of_run(
    run: Path | str,
    source: Path | str | None = None,
    *,
    noise: Path | str | None = None,
    snr: tuple[float, float] | None = None,
    pairs: Path | str | None = None,
    targets: Path | str | None = None,
    split: str | None = None,
) -> FolderDataset:
    """Examples for a run of ``dynunet train``, read as those of training were.

    Args:
        run: its folder, or ``"owner/name"`` of a model on the Hub, which comes without its training.
        source: a folder of files; by default what was held out from training, if anything was.
        noise, snr, pairs: in place of those of training, for a model that restores: a folder of noise, the
            least and the greatest signal-to-noise ratio in dB, or a folder of degraded files.
        targets: of these files, for a model that was trained on such.
        split: ``"train"``, ``"validation"`` or ``"all"``; by default what was held out from training, and all
            there are of other files.

    Raises:
        FileNotFoundError, ValueError: naming the argument, the rule and the value received.
    """
    record, spec = run_folder(run) / RUN, spec_of_run(run)
    if spec.self_supervised is not None and (source is None or (noise is None and pairs is None)):
        raise ValueError(
            f"source, clean files, and pairs or noise must be given: {shown(run)} was trained without clean "
            "examples, with which alone it can be compared"
        )
    degraded = _degradation(spec, noise=noise, snr=snr, pairs=pairs)
    known = None if spec.learned is None else (spec.learned, classes_of_run(run))
    if targets is not None and known is None:
        raise ValueError("targets are for a model that was trained on such, which this one was not")
    if known is not None and source is not None:
        degraded = _targets(known[0], targets)
    if not record.is_file():
        if source is None:
            raise ValueError(f"source must be given: {shown(run)} holds a model alone, without its training")
        own = _options_of(run, spec, source, degraded)
        return FolderDataset(source, options=own, split=split or "all", known=known)
    flags = read_flags(record)
    options = unflat(DataOptions, flags, record, others=True)
    found = source if source is not None else flags.get("source")
    if found is None:
        raise ValueError(f"source must be given: {record} does not say which files it was trained on")
    usual = "validation" if source is None and options.validation else "all"
    return FolderDataset(
        found, options=replace(options, **_as_trained(spec) | degraded), split=split or usual, known=known
    )


def _targets(learned: TargetSpec, targets: Path | str | None) -> dict[str, Any]:
    """Options for other files than those of training: they are predicted whole, whatever their sizes."""
    if targets is None and (learned.maps or learned.columns):
        raise ValueError("targets must be given for these files, to compare predictions with")
    task = {"task": learned.task} if targets is None else {"targets": Path(targets)}
    labels = {} if targets is None else {"labels": None}
    return {"size": (1,), "resize": False, "validation": 0.0, **task, **labels}


def _options_of(
    run: Path | str, spec: DataSpec, source: Path | str, degraded: Mapping[str, Any]
) -> DataOptions:
    """Options that a model tells of itself: its folder need not be that of a run."""
    names = ("resize", "coordinates", "channel_axis", "channel_files", "series", "missing")
    own = {name: getattr(spec, name) for name in names} | _as_trained(spec)
    if spec.percentiles is not None:
        own["percentiles"] = spec.percentiles
    if spec.classes is not None:
        own["labels"] = _labels_of(source)
    learned = spec.restoration or {}
    own |= {"task": spec.learned.task} if spec.learned is not None and spec.learned.columns is None else {}
    for name in ("noise", "pairs"):
        if learned.get(name) and not {"noise", "pairs"} & degraded.keys():
            raise ValueError(f"{name} must be given: {shown(run)} holds a model alone, without its training")
    own |= {name: learned[name] for name in ("coloured", "snr", "level") if name in learned}
    return DataOptions(**{**own, **degraded})


def _labels_of(source: Path | str) -> str:
    """Where the class labels of files are: the option ``labels``."""
    formats = map(of_path, find(source))
    return "file" if any(f.standard for f in formats if f is not None) else "folder"


def _as_trained(spec: DataSpec) -> dict[str, Any]:
    """Options that training found in its own files, and other files are to be read with."""
    names = ("spatial_dims", "channels", "size", "sample_rate", "spacing")
    level = {} if spec.level is None else {"level": spec.level}
    return {name: getattr(spec, name) for name in names} | level | scaled_as_trained(spec)


def scaled_as_trained(spec: DataSpec) -> dict[str, Any]:
    """The option that gives files the scale of training, where that was measured or may be by now."""
    own = of_kind(spec.kind)
    if "value_range" not in own.options or spec.percentiles is not None:
        return {}
    scale = own.scale(spec)
    return {"value_range": (scale.low, scale.high)}


def _degradation(spec: DataSpec, **given: Any) -> dict[str, Any]:
    """The noise or the pairs asked for, as options in place of those of training."""
    given = {name: value for name, value in given.items() if value is not None}
    if given and spec.restoration is None:
        raise ValueError(f"{next(iter(given))} is for a model that restores, which this one is not")
    clean: dict[str, Any] = {"self_supervised": None, "noise_std": None}
    if "noise" in given:
        return {"pairs": None, **clean, **given}
    return {"noise": None, "coloured": False, **clean, **given} if "pairs" in given else given


@dataclass(frozen=True)
class _Examples:
    """Examples of a data set in a random order, again and again with other crops if there are few."""

    dataset: FolderDataset
    seed: int
    size: int

    def batches(self, first: int, count: int, title: str) -> Iterator[dict[str, Tensor]]:
        for start in Bar(range(first, first + count, self.size), desc=title, leave=False):
            items = [self._item(i) for i in range(start, min(start + self.size, first + count))]
            yield {name: torch.stack([item[name] for item in items]) for name in items[0]}

    def generators(self, first: int, x: Tensor, device: torch.device) -> list[torch.Generator]:
        """One for each sample, whatever the size of a batch."""
        return [torch.Generator(device).manual_seed(self.seed + first + i) for i in range(len(x))]

    def _item(self, i: int) -> dict[str, Tensor]:
        around, place = divmod(i, len(self.dataset))
        order = torch.randperm(len(self.dataset), generator=torch.Generator().manual_seed(self.seed + around))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + i)
            return self.dataset[int(order[place])]


@dataclass
class _Compared:
    """One figure of restored examples, and of what they were given as, before."""

    after: list[float] = field(default_factory=list)
    before: list[float] = field(default_factory=list)

    def text(self, counted: Tensor) -> str:
        after, before = (_mean(values, counted) for values in (self.after, self.before))
        count = int(counted.sum())
        of = "" if count == len(counted) else f", of {count} of {len(counted)} examples"
        if not count:
            return "of no example, see below"
        if not self.before:
            return f"{after:.2f} dB{of}"
        return f"{before:.2f} dB before, {after:.2f} dB after: {after - before:+.2f} dB{of}"


def _restoration(
    diffusion: Diffusion, spec: DataSpec, examples: _Examples, num: int, steps: int | None
) -> Evaluation:
    """Figures before and after, means over the examples of which they say something.

    A ratio to the power of clean data says nothing where these are silent, and none is finite where nothing
    differs from them: one such example would outweigh all others.
    """
    kinds: dict[str, Callable[..., Tensor]] = {"SNR": snr}
    kinds |= {"SI-SDR": si_sdr} if spec.spatial_dims == 1 else {"PSNR": psnr}
    found = {name: _Compared() for name in kinds}
    powers, equal = [], []
    device, done = device_of(diffusion), 0
    for batch in examples.batches(0, num, "restoring"):
        x0, mask, cond = batch["x0"], batch.get("mask"), batch["cond"]
        options: dict[str, Any] = {"generator": examples.generators(done, x0, device), "progress": False}
        options |= restoration_sampler(diffusion)
        number = restoration_steps(diffusion, steps)
        x = diffusion.sample(tuple(x0.shape), number, cond=moved(cond, device), **options).cpu()
        done += len(x0)
        there = torch.ones_like(x0, dtype=torch.bool) if mask is None else mask.expand_as(x0)
        degraded = cond[:, : cond.shape[1] - spec.spatial_dims * spec.coordinates]
        alike = degraded.shape == x0.shape
        powers += _power(x0, there)
        same = [((y == x0) | ~there).flatten(1).all(1) for y in (x, degraded) if y.shape == x0.shape]
        equal += torch.stack(same).any(0).tolist()
        for name, figure in kinds.items():
            found[name].after += figure(x, x0, mask=mask).tolist()
            if alike:
                found[name].before += figure(degraded, x0, mask=mask).tolist()
    power = torch.tensor(powers, dtype=torch.float64)
    silent = ~(power > _SILENT * power.nanmean())
    return _summarised(found, silent, torch.tensor(equal) & ~silent)


def _summarised(found: Mapping[str, _Compared], silent: Tensor, clean: Tensor) -> Evaluation:
    """The means, what they are over, and what they are not."""
    after, before, rows = {}, {}, []
    for name, each in found.items():
        counted = ~clean if name == "PSNR" else ~clean & ~silent
        after[name] = _mean(each.after, counted)
        if each.before:
            before[f"{name} before"] = _mean(each.before, counted)
        rows.append((name, each.text(counted)))
    left_out = {"silent": silent, "as clean as can be": clean}
    said = [f"{int(which.sum())} of {len(which)} {why}" for why, which in left_out.items() if which.any()]
    rows += [("left out", ", ".join(said))] if said else []
    return Evaluation(after | before, tuple(rows), int((silent | clean).sum()))


def _power(x: Tensor, there: Tensor) -> list[float]:
    """Of each sample, over the entries that are there; NaN without any."""
    total = x.double().where(there, 0).square().flatten(1).sum(1)
    return (total / there.flatten(1).sum(1)).tolist()


def _mean(values: list[float], counted: Tensor | None = None) -> float:
    """Over those that are numbers, and count."""
    numbers = torch.tensor(values, dtype=torch.float64)
    return (numbers if counted is None or not values else numbers[counted]).nanmean().item()


def _generation(
    diffusion: Diffusion, spec: DataSpec, examples: _Examples, num: int, steps: int | None
) -> Evaluation:
    """The loss, and the distance of samples from data they were not trained on."""
    device, losses, made, done = device_of(diffusion), [], [], 0
    halves: tuple[list[Tensor], list[Tensor]] = ([], [])
    for batch in examples.batches(0, num, "sampling"):
        generators = examples.generators(done, batch["x0"], device)
        given = placed(batch, device)
        with torch.no_grad():
            losses += [diffusion.loss(**given, generator=generators).item()] * len(batch["x0"])
        x0, mask = given.pop("x0"), given.pop("mask", None)
        given |= {} if steps is None else {"steps": steps}
        x = diffusion.sample(tuple(x0.shape), generator=generators, progress=False, **given)
        made.append(_features(x if mask is None else x.where(mask, 0)))
        halves[0].append(_features(x0))
        done += len(x0)
    halves[1].extend(_features(batch["x0"]) for batch in examples.batches(num, num, "reading"))
    first, second, samples = (torch.cat(parts).cpu() for parts in (*halves, made))
    loss, floor = _mean(losses), frechet_distance(first, second)
    distance = frechet_distance(samples, second)
    note = "" if 2 * num <= len(examples.dataset) else ", of the same files where these are too few"
    rows = (
        ("loss", f"{loss:.4f}"),
        ("Fréchet distance", f"{distance:.4g} of {num} samples from {num} examples"),
        ("its floor", f"{floor:.4g} between {num} and {num} examples{note}"),
        ("its features", f"{first.shape[1]} local means and standard deviations"),
    )
    return Evaluation({"loss": loss, "Fréchet distance": distance, "floor": floor}, rows)


def _features(x: Tensor) -> Tensor:
    """Means and standard deviations in equal parts of the space, ``(N, at most 32)``."""
    dims, parts = x.ndim - 2, 1
    while 2 * x.shape[1] * (parts + 1) ** dims <= _FEATURES and parts < min(x.shape[2:]):
        parts += 1
    mean = F.adaptive_avg_pool(x, parts)
    deviation = (F.adaptive_avg_pool(x**2, parts) - mean**2).clamp(min=0).sqrt()
    return torch.cat([mean, deviation], 1).flatten(1)
