"""Two processes under ``accelerate launch`` train as one process does with the doubled batch."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dynunet import Diffusion, UNet, average
from dynunet.cli import main
from dynunet.training import Trainer
from dynunet.training.state import Checkpoints

ROOT = Path(__file__).parents[2]
STEPS = 12


def train(out: Path, batch_size: int) -> None:
    torch.manual_seed(int(os.environ.get("RANK", "0")))  # the weights have to come from the first process
    unet = UNet(1, 1, channels=(4, 8), num_blocks=1, num_groups=2, time_embedding=True)
    generator = torch.Generator().manual_seed(1)
    data = torch.rand(10, 1, 8, generator=generator) * 2 - 1
    # From none missing to all but one: a mean over entries is not that of the processes' means.
    items = [{"x0": x, "mask": (torch.arange(8) <= 7 * i // 9)[None]} for i, x in enumerate(data)]
    options: dict[str, Any] = {"lr": 1e-3, "log_every": 1, "save_every": 5, "validate_every": 6, "ema": 0.9}
    options["ema_lengths"] = (0.1,)
    quiet: dict[str, Any] = {"progress": False, "sample_every": 6, "validation_samples": 5}
    Trainer(
        Diffusion(unet), items, out, validation=items[::3], batch_size=batch_size, **options, **quiet
    ).fit(STEPS)


def rows(out: Path) -> list[dict[str, float]]:
    with (out / "log.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def launched(*arguments: str) -> None:
    """``python -m`` these in two processes on the CPU."""
    # Without a GPU, and unless it finds mpirun, accelerate starts several processes by this option alone.
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    defaults = "--num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0 -m".split()
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [*launch, *defaults, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def check_alike(one: Path, two: Path, steps: int) -> None:
    assert json.loads((two / "run.json").read_text())["processes"] == 2
    assert [row["step"] for row in rows(two)] == list(range(1, steps + 1))
    for a, b in zip(rows(one), rows(two), strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() - {"seconds", "samples_per_second"}:
            assert a[name] == pytest.approx(b[name], rel=1e-5), (name, a, b)
    averages = [Diffusion.from_pretrained(out).state_dict() for out in (one, two)]
    for name, tensor in averages[0].items():
        torch.testing.assert_close(tensor, averages[1][name], rtol=1e-4, atol=1e-5)
    for folder in ("checkpoints", "samples"):
        assert sorted(p.name for p in (two / folder).iterdir()) == sorted(
            p.name for p in (one / folder).iterdir()
        )
    assert Checkpoints(two / "checkpoints").steps()[-1] == steps
    assert len([*(two / "tensorboard").iterdir()]) == 1


def test_two_processes_are_one_with_the_doubled_batch_and_so_are_those_of_the_command_line(
    tmp_path: Path,
) -> None:
    generator = np.random.default_rng(0)
    for i in range(10):
        np.save(tmp_path / f"{i}.npy", generator.uniform(-1, 1, 8).astype(np.float32))
    network = "--channels 4 8 --strides 2 --num-blocks 1 --num-groups 2"
    training = "--steps 4 --lr 1e-3 --log-every 1 --save-every 2 --validate-every 2 --sample-every 4"
    flags = ["train", str(tmp_path), "--spatial-dims", "1", *f"{network} {training} --cpu".split()]
    one, two, of_one, of_two = (tmp_path / name for name in ("one", "two", "of-one", "of-two"))

    # One after the other, as starting processes takes longest.
    line = [*flags, "--batch-size", "2", "--out", str(of_two)]
    launched("tests.dynunet.test_training_processes", str(two), *line)
    train(one, batch_size=4)
    check_alike(one, two, STEPS)
    averages = [average(out, 0.1).state_dict() for out in (one, two)]
    for name, tensor in averages[0].items():
        torch.testing.assert_close(tensor, averages[1][name], rtol=1e-4, atol=1e-5)
    main([*flags, "--batch-size", "4", "--out", str(of_one)])
    check_alike(of_one, of_two, 4)


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), batch_size=2)
    main(sys.argv[2:])
