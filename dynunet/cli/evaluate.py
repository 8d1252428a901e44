"""``dynunet evaluate``: how good a trained model is, on data it has not seen."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import trange
from tyro.conf import Positional

import convnd.functional as F

from ..data import FolderDataset
from ..data.errors import shown
from ..data.spec import DataSpec
from ..diffusion import Diffusion
from ..metrics import frechet_distance, psnr, si_sdr, snr
from .common import bounded, check_counts, check_seed, load_run, restoration_steps, restores
from .config import RUN
from .train import read_flags

_FEATURES = 32  # at most, of the Fréchet distance


@dataclass(frozen=True)
class Evaluate:
    """Print figures of quality of a trained model.

    Of one that restores: SNR, and SI-SDR (1-D) or PSNR, in dB, before and after. Of others: the loss, and the
    Fréchet distance of samples from data, on local means and deviations, beside that of data from data.
    """

    run_folder: Positional[Path]
    """folder of the run"""
    source: Positional[Path | None] = None
    """folder of files; by default what was held out from training"""
    noise: Path | None = None
    """folder of noise, for a model that restores; by default that of training"""
    snr: tuple[float, float] | None = None
    """of that noise in dB, from low to high; by default that of training"""
    pairs: Path | None = None
    """folder of degraded files, each at the relative path of its clean one"""
    num: int = 64
    """examples, chosen at random"""
    steps: int | None = None
    """of the sampler; by default 1 to restore and 20 to sample"""
    batch_size: int | None = None
    """examples at a time; by default by their size"""
    seed: int = 0
    """of crops, noise and samples"""
    device: str | None = None
    """cpu, cuda, cuda:1, mps, ...; by default the fastest"""

    def run(self) -> None:
        if self.num < 2:
            raise ValueError(f"--num must be at least 2, got {self.num}")
        check_counts(batch_size=self.batch_size, steps=self.steps)
        check_seed(self.seed)
        diffusion, units = load_run(self.run_folder, self.device)
        dataset = self._dataset(units)
        batch = self.batch_size or bounded(dataset.shape)
        figures = _restoration if restores(units) else _generation
        rows = figures(diffusion, units, _Examples(dataset, self.seed, batch), self.num, self.steps)
        width = max(len(name) for name, _ in rows)
        print("\n".join(f"{name.ljust(width)}  {text}" for name, text in rows))

    def _dataset(self, units: DataSpec) -> FolderDataset:
        """The data asked for, read as that of training was."""
        run = read_flags(self.run_folder / RUN)
        source = self.source or run.source
        if source is None:
            raise ValueError("the folder of files is missing: dynunet evaluate RUN FOLDER")
        split = "validation" if self.source is None and run.data.validation else "all"
        options = replace(run.data, **_as_trained(units), **self._degradation(units))
        dataset = FolderDataset(source, options=options, split=split)
        classes = dataset.units["classes"]
        if units.classes is not None and tuple(classes or ()) != units.classes:
            raise ValueError(
                f"the classes must be {', '.join(units.classes)}, got {', '.join(classes or ['none'])}"
            )
        of = "held out from training" if split == "validation" else "all there are"
        print(f"examples of {' x '.join(map(str, dataset.shape))} from {shown(source)}: {len(dataset)}, {of}")
        return dataset

    def _degradation(self, units: DataSpec) -> dict[str, Any]:
        """The noise or the pairs asked for, in place of those of training."""
        names = ("noise", "snr", "pairs")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if given and not restores(units):
            raise ValueError(
                f"--{next(iter(given))} is for a model that restores, which {shown(self.run_folder)} is not"
            )
        if self.noise is not None:
            return {"pairs": None, **given}
        return {"noise": None, "coloured": False, **given} if self.pairs is not None else given


def _as_trained(units: DataSpec) -> dict[str, Any]:
    """What training found in its own files, and other files are to be read with."""
    names = ("spatial_dims", "channels", "size", "sample_rate", "spacing")
    fixed = {name: getattr(units, name) for name in names}
    scaled_alike = units.kind == "arrays" and units.percentiles is None
    return fixed | ({"value_range": units.range} if scaled_alike else {})


@dataclass(frozen=True)
class _Examples:
    """Examples of a data set in a random order, again and again with other crops if there are few."""

    dataset: FolderDataset
    seed: int
    size: int

    def batches(self, first: int, count: int, title: str) -> Iterator[dict[str, Tensor]]:
        for start in trange(first, first + count, self.size, desc=title, disable=None, leave=False):
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


_Rows = list[tuple[str, str]]


def _restoration(
    diffusion: Diffusion, units: DataSpec, examples: _Examples, num: int, steps: int | None
) -> _Rows:
    """Figures before and after, means over the examples."""
    kinds: dict[str, Callable[..., Tensor]] = {"SNR": snr}
    kinds |= {"SI-SDR": si_sdr} if units.spatial_dims == 1 else {"PSNR": psnr}
    before, after = {name: [] for name in kinds}, {name: [] for name in kinds}
    device, done = next(diffusion.parameters()).device, 0
    for batch in examples.batches(0, num, "restoring"):
        x0, mask, cond = batch["x0"], batch.get("mask"), batch["cond"]
        x = diffusion.sample(
            tuple(x0.shape),
            restoration_steps(diffusion, steps),
            cond=cond.to(device),
            generator=examples.generators(done, x0, device),
            progress=False,
        ).cpu()
        done += len(x0)
        degraded = cond[:, : cond.shape[1] - units.spatial_dims * units.coordinates]
        for name, figure in kinds.items():
            after[name] += figure(x, x0, mask=mask).tolist()
            if degraded.shape == x0.shape:
                before[name] += figure(degraded, x0, mask=mask).tolist()
    return [(name, _compared(before[name], after[name])) for name in kinds]


def _compared(before: list[float], after: list[float]) -> str:
    if not before:
        return f"{_mean(after):.2f} dB"
    return (
        f"{_mean(before):.2f} dB before, {_mean(after):.2f} dB after: {_mean(after) - _mean(before):+.2f} dB"
    )


def _mean(values: list[float]) -> float:
    return torch.tensor(values, dtype=torch.float64).nanmean().item()


def _generation(
    diffusion: Diffusion, units: DataSpec, examples: _Examples, num: int, steps: int | None
) -> _Rows:
    """The loss, and the distance of samples from data they were not trained on."""
    device, losses, made = next(diffusion.parameters()).device, [], []
    halves: tuple[list[Tensor], list[Tensor]] = ([], [])
    done = 0
    for batch in examples.batches(0, num, "sampling"):
        generators = examples.generators(done, batch["x0"], device)
        given: dict[str, Any] = {name: value.to(device) for name, value in batch.items()}
        with torch.no_grad():
            losses += [diffusion.loss(**given, generator=generators).item()] * len(batch["x0"])
        x0, mask = given.pop("x0"), given.pop("mask", None)
        x = diffusion.sample(tuple(x0.shape), steps or 20, generator=generators, progress=False, **given)
        made.append(_features(x if mask is None else x.where(mask, 0)))
        halves[0].append(_features(x0))
        done += len(x0)
    halves[1].extend(_features(batch["x0"]) for batch in examples.batches(num, num, "reading"))
    first, second, samples = (torch.cat(parts).cpu() for parts in (*halves, made))
    floor = frechet_distance(first, second)
    distance = frechet_distance(samples, second)
    note = "" if 2 * num <= len(examples.dataset) else ", of the same files where these are too few"
    return [
        ("loss", f"{_mean(losses):.4f}"),
        ("Fréchet distance", f"{distance:.4g} of {num} samples from {num} examples"),
        ("its floor", f"{floor:.4g} between {num} and {num} examples{note}"),
        ("its features", f"{first.shape[1]} local means and standard deviations"),
    ]


def _features(x: Tensor) -> Tensor:
    """Means and standard deviations in equal parts of the space, ``(N, at most 32)``."""
    dims, parts = x.ndim - 2, 1
    while 2 * x.shape[1] * (parts + 1) ** dims <= _FEATURES and parts < min(x.shape[2:]):
        parts += 1
    mean = F.adaptive_avg_pool(x, parts)
    deviation = (F.adaptive_avg_pool(x**2, parts) - mean**2).clamp(min=0).sqrt()
    return torch.cat([mean, deviation], 1).flatten(1)
