"""How good the settings of a plan are beside others: ``python -m tests.benchmarks.plans``.

Networks that segment the pictures of ``examples/segment_2d.py`` are trained for equally many seconds of the
processor: that of ``dynunet plan`` for this time and a budget of memory, and those of a grid of channels,
levels, patches and batches. Loss, design of the network, learning rate and average are the same, and so are
the held-out pictures: digits that none has seen, on another photograph. All is done twice, with the two
photographs exchanged the second time. Printed is the Dice of each training, the mean of each setting with its
standard error, and the mean of the plan's over that of the best of the grid. Trainings differ by more than
settings do, so those that lead are to be trained more often: ``--rows plan 2 4 6 --seeds 8``.
"""

import argparse
import json
import sys
import warnings
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any, NamedTuple

import torch

from dynunet import Supervised, Trainer, UNet
from dynunet.data import DataOptions, FolderDataset
from dynunet.defaults import LABEL_MAPS
from dynunet.metrics import dice
from dynunet.planning import plan
from dynunet.planning.topology import channels_of

ROOT = Path(__file__).parents[2]
PHOTOGRAPHS = ("china", "flower")  # scikit-learn's, without .jpg
WIDTHS, LEVELS = (8, 16, 32), (3, 5)  # of the grid
BATCHES = (32, 16), (64, 4)  # sizes and numbers of patches
ROWS = ("plan", *(str(i) for i in range(1, 1 + len(WIDTHS) * len(LEVELS) * len(BATCHES))))
_FEW = 2  # steps, whose seconds are those of all that is around the steps
_TRIED = 0.1  # of the seconds, in which steps are timed


class Setting(NamedTuple):
    """What is compared."""

    network: Mapping[str, Any]
    size: tuple[int, ...]
    batch: int

    def __str__(self) -> str:
        channels = " ".join(map(str, self.network["channels"]))
        return f"{channels:22} {'x'.join(map(str, self.size)):>7} {self.batch:>5}"


def grid() -> Iterator[Setting]:
    """Every combination."""
    for width, levels, (size, batch) in product(WIDTHS, LEVELS, BATCHES):
        yield Setting({"channels": channels_of(levels, width)}, (size, size), batch)


def planned(folder: Path, memory: str, seconds: float) -> Setting:
    """That of ``dynunet plan``."""
    options = DataOptions(spatial_dims=2, targets=folder / "masks")
    found = plan(folder / "images", memory, options=options, hours=seconds / 3600)
    print(found, "\n")
    return Setting(found.network, found.choice.size, found.choice.batch)


def trained(
    setting: Setting, folder: Path, seconds: float, seed: int, **how: Any
) -> tuple[Supervised, int, float]:
    """A model, after how many steps, and how many seconds of the processor they took."""
    _fit(setting, folder, _FEW, seed, **how)  # prepares what the first training has to
    first = _fit(setting, folder, _FEW, seed, **how)[1]
    steps = 4 * _FEW
    for share in (_TRIED, 1.0):
        pace = (_fit(setting, folder, steps, seed, **how)[1] - first) / (steps - _FEW)
        steps = max(4 * _FEW, round(share * seconds / pace))
    model, taken = _fit(setting, folder, steps, seed, **how)
    return model, steps, taken


def _fit(setting: Setting, folder: Path, steps: int, seed: int, **how: Any) -> tuple[Supervised, float]:
    size = setting.size
    data = FolderDataset(folder / "images", 2, targets=folder / "masks", split="all", size=size)
    torch.manual_seed(seed)
    unet = UNet(2, data.channels, len(data.classes or ()), **setting.network, **LABEL_MAPS)
    model = Supervised(unet, classes=data.classes)
    options = {"sample_every": 0, "validate_every": 0, "tensorboard": False, "progress": False, "cpu": True}
    with TemporaryDirectory() as out:
        trainer = Trainer(model, data, out, batch_size=setting.batch, seed=seed, **options, **how)
        start = process_time()
        model = trainer.fit(steps=steps)
    return model, process_time() - start


def judged(model: Supervised, pairs: Sequence[Mapping[str, Any]]) -> float:
    """Mean Dice of what is to be found."""
    found = [dice(model.predict(pair["x0"][None]), pair["target"][None], 2)[0, 1] for pair in pairs]
    return float(torch.stack(found).nanmean())


class Trained(NamedTuple):
    """One training and what it is worth."""

    photograph: str
    seed: int
    label: str
    setting: str
    steps: int
    seconds: float
    dice: float

    def __str__(self) -> str:
        return (
            f"{self.photograph:7}{self.seed:>4}  {self.label:5}{self.setting} {self.steps:6} "
            f"{self.seconds:7.1f}   {self.dice:.4f}"
        )


def measured(
    photograph: str,
    seeds: int,
    seconds: float,
    memory: str,
    rows: Collection[str],
    known: Collection[tuple[str, int, str]],
    **how: Any,
) -> Iterator[Trained]:
    """All trainings of these rows on pictures with this photograph but those that are known."""
    from _pairs import PARTS, make, read

    photographs = {
        "learn": f"{photograph}.jpg",
        "judge": next(f"{p}.jpg" for p in PHOTOGRAPHS if p != photograph),
    }
    with TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, {part: (photographs[part], number) for part, (_, number) in PARTS.items()})
        judge = read(folder)[1]
        pairs = [judge[i] for i in range(len(judge))]
        settings = {"plan": planned(folder / "learn", memory, seconds)}
        settings |= dict(zip(ROWS[1:], grid(), strict=True))
        for seed, (label, setting) in product(range(seeds), settings.items()):
            if label in rows and (photograph, seed, label) not in known:
                model, steps, taken = trained(setting, folder / "learn", seconds, seed, **how)
                yield Trained(photograph, seed, label, str(setting), steps, taken, judged(model, pairs))


def main(
    seconds: float,
    memory: str,
    seeds: int,
    photographs: Sequence[str],
    rows: Sequence[str],
    results: Path | None,
    **how: Any,
) -> None:
    sys.path.append(str(ROOT / "examples"))
    found = [] if results is None else _read(results)
    found = [t for t in found if t.photograph in photographs and t.seed < seeds]
    print(f"{'':7}seed  {'':5}{'channels':22} {'patch':>7} {'batch':>5} {'steps':>6} {'seconds':>7}   Dice")
    for training in found:
        print(training)
    known = {(t.photograph, t.seed, t.label) for t in found}
    for photograph in photographs:
        if known.issuperset(product([photograph], range(seeds), rows)):
            continue
        for training in measured(photograph, seeds, seconds, memory, rows, known, **how):
            print(training, flush=True)
            found.append(training)
            if results is not None:
                with results.open("a") as file:
                    file.write(json.dumps(training) + "\n")
    compare(found)


def _read(results: Path) -> list[Trained]:
    """Those of an earlier call."""
    lines = results.read_text().splitlines() if results.is_file() else []
    return [Trained(*json.loads(line)) for line in lines]


def compare(found: Sequence[Trained]) -> None:
    """Print the means, the best first, and that of the plan beside the best of the others."""
    scores: dict[str, list[float]] = defaultdict(list)
    for training in found:
        scores[training.label].append(training.dice)
    means = {label: mean(values) for label, values in scores.items()}
    for label, value in sorted(means.items(), key=lambda item: -item[1]):
        values = scores[label]
        error = f" (standard error {stdev(values) / len(values) ** 0.5:.4f})" if len(values) > 1 else ""
        print(f"{label:5} mean of {len(values)}: {value:.4f}{error}")
    best = max((label for label in means if label != "plan"), key=means.__getitem__)
    ours, other = means["plan"], means[best]
    print(f"plan {ours:.4f}, the best of the grid {other:.4f} ({best}): {ours / other:.3f} times that")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60, help="of the processor, for each training")
    parser.add_argument("--memory", default="8GB", help="budget of the plan")
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each setting, whose mean counts")
    parser.add_argument(
        "--photographs", nargs="+", choices=PHOTOGRAPHS, default=PHOTOGRAPHS, help="on which to learn"
    )
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS, help="settings that are trained")
    parser.add_argument(
        "--results", type=Path, help="file of what was trained by the same flags: not trained again"
    )
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate of all")
    parser.add_argument("--ema", type=float, default=0.98, help="decay of the averaged weights of all")
    warnings.simplefilter("ignore")
    main(**vars(parser.parse_args()))
