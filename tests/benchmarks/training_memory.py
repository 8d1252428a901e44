"""How well the memory of training is estimated: ``python -m tests.benchmarks.training_memory``.

Random networks of one to four axes, with options of all kinds, are trained for two steps by the trainer (or
for ``--steps``), each in a process of its own. Measured is the most that the process had resident beyond what
it had after a tiny network was trained, which imports all that is imported late. Each is sized so that its
tensors take from 500 to 750 MB, so that a process stays below 2 GB; what cannot be trained, such as batch
norm of single values, is said and passed over. Compared is :func:`dynunet.planning.training_memory`.
"""

import argparse
import gc
import json
import random
import subprocess
import sys
import warnings
from itertools import count
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dynunet import Diffusion, Supervised, Trainer, UNet
from dynunet.planning import TrainingMemory, training_memory

from .harness import THREADS
from .memory import high_water_mark

_BYTES = 0.5e9, 0.75e9
_ASPECTS = (1.0, 1.0, 0.5)


class Case(NamedTuple):
    """A network, and what it is trained with."""

    dims: int
    segments: bool
    options: dict[str, Any]
    batch: int
    size: tuple[int, ...]

    def model(self, device: str) -> Any:
        with torch.device(device):
            if self.segments:
                return Supervised(UNet(self.dims, 1, 3, **self.options), "segmentation")
            return Diffusion(UNet(self.dims, 1, time_embedding=True, **self.options))

    def item(self) -> dict[str, Tensor]:
        return _item(self.size, self.segments, "cpu")

    def estimate(self) -> TrainingMemory:
        one = _item(self.size, self.segments, "meta")
        batch = {name: x.expand(self.batch, *x.shape) for name, x in one.items()}
        return training_memory(self.model("meta"), batch)


def _item(size: tuple[int, ...], segments: bool, device: str) -> dict[str, Tensor]:
    item = {"x0": torch.randn(1, *size, device=device)}
    return item | ({"target": torch.randint(0, 3, size, device=device)} if segments else {})


def drawn(seed: int) -> Case:
    """A case by chance, as large as it is meant to be."""
    rng = random.Random(seed)
    dims = 1 + seed % 4
    levels = rng.randint(2, 4 if dims < 4 else 3)
    first = rng.choice((4, 6, 8, 12) if dims < 4 else (4, 6, 8))
    options: dict[str, Any] = {
        "channels": [first * min(2**i, 4) for i in range(levels)],
        "num_blocks": rng.randint(1, 2),
        "block": rng.choice(("residual", "residual", "residual", "plain", "convnext")),
        "activation": rng.choice(("silu", "relu", "gelu")),
        "norm": rng.choice(("group", "group", "rms", "layer", "batch", "instance")),
        "gradient_checkpointing": rng.random() < 0.2,
        "upsample": rng.choice(("nearest", "nearest", "linear", "transpose", "shuffle")),
        "downsample": rng.choice(("conv", "conv", "max", "avg")),
        "num_groups": 2,
        "num_heads": 2,
        "strides": [tuple(rng.choice((1, 2, 2, 2)) for _ in range(dims)) for _ in range(levels - 1)],
    }
    if rng.random() < 0.25:  # along one axis axial attention is full, and never ends on long ones
        kinds = ("linear", "channel", "axial") if dims > 1 else ("linear", "channel")
        options["attention"] = [None] * (levels - 1) + [rng.choice(kinds)]
    aspects = [rng.choice(_ASPECTS) for _ in range(dims)]
    case = Case(dims, rng.random() < 0.5, options, rng.choice((1, 2, 3, 4, 8)), (4,) * dims)
    wanted, side = rng.uniform(*_BYTES), 8.0
    while (tensors := case.estimate().tensors) < 0.9 * wanted:
        side = max(side * min((wanted / tensors) ** (1 / dims), 4), side + 0.3)
        case = case._replace(size=tuple(max(4, int(side * a)) for a in aspects))
    return case


class _Items(Dataset[dict[str, Tensor]]):
    def __init__(self, case: Case) -> None:
        self.case = case

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.case.item()


def _train(case: Case, steps: int) -> None:
    with TemporaryDirectory() as folder:
        options = {"sample_every": 0, "validate_every": 0, "tensorboard": False, "cpu": True}
        trainer = Trainer(
            case.model("cpu"), _Items(case), folder, batch_size=case.batch, progress=False, **options
        )
        trainer.fit(steps=steps)


def measure(seed: int, steps: int) -> dict[str, Any]:
    """One case in this process."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(THREADS)
    for segments in (False, True):
        _train(Case(2, segments, {"channels": (4, 8), "num_groups": 2}, 2, (8, 8)), 2)
    case = drawn(seed)
    estimate = case.estimate()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = high_water_mark()
    _train(case, steps)
    return {
        "dims": case.dims,
        "measured": high_water_mark() - before,
        "tensors": estimate.tensors,
        "estimate": estimate.resident,
    }


def main(first: int, num: int, steps: int, results: Path | None) -> None:
    """Measure cases, one after the other, and print a table and the errors in all."""
    print(f"{'seed':>4} axes {'measured':>9} {'tensors':>9} {'estimate':>9}  estimate / measured")
    known = {} if results is None else _read(results)
    ratios = []
    for seed in count(first):
        if len(ratios) == num:
            break
        found = known.get((seed, steps)) or _measured_apart(seed, steps)
        if found is None:
            continue
        if results is not None and (seed, steps) not in known:
            with results.open("a") as file:
                file.write(json.dumps({"seed": seed, "steps": steps, **found}) + "\n")
        ratios.append(found["estimate"] / found["measured"])
        sizes = (f"{found[name] / 1e6:6.0f} MB" for name in ("measured", "tensors", "estimate"))
        print(f"{seed:>4} {found['dims']:>4} {' '.join(sizes)}  {ratios[-1]:.3f}", flush=True)
    if ratios:
        errors = sorted(abs(r - 1) for r in ratios)
        most = errors[int(0.9 * (len(errors) - 1))]
        span = f"from {min(ratios) - 1:+.1%} to {max(ratios) - 1:+.1%}"
        said = f"error {median(errors):.1%} in the median, nine in ten at most {most:.1%}"
        print(f"{len(ratios)} networks: {said}, {span}")


def _measured_apart(seed: int, steps: int) -> dict[str, Any] | None:
    """One case in a process of its own; None if it fails, which is said."""
    command = [sys.executable, "-m", __spec__.name, "--one", str(seed), "--steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{seed:>4} failed: {done.stderr.strip().splitlines()[-1:]}", flush=True)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def _read(results: Path) -> dict[tuple[int, int], dict[str, Any]]:
    """The cases of earlier calls, by their seeds and steps."""
    lines = results.read_text().splitlines() if results.is_file() else []
    return {(case["seed"], case.get("steps", 2)): case for case in map(json.loads, lines)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--first", type=int, default=1000, help="seed of the first network")
    parser.add_argument("--num", type=int, default=40, help="networks")
    parser.add_argument("--steps", type=int, default=2, help="of training")
    parser.add_argument("--one", type=int, help="measure one network, in this process")
    parser.add_argument("--results", type=Path, help="file of what was measured: not measured again")
    given = parser.parse_args()
    if given.one is not None:
        print(json.dumps(measure(given.one, given.steps)))
    else:
        main(given.first, given.num, given.steps, given.results)
