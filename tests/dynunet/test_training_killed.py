"""SIGKILL at random moments: training that is resumed each time ends with the same bits.

A server has imported everything and forks a process for each run, which is then killed. The environment
variable DYNUNET_KILLS sets the number of kills.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dynunet import Diffusion, UNet
from dynunet.training import Trainer
from dynunet.training.state import Checkpoints, read

KILLS = int(os.environ.get("DYNUNET_KILLS", "3"))
STEPS = 12 * KILLS
ROOT = Path(__file__).parents[2]


class Server:
    """Starts runs, quickly."""

    def __init__(self) -> None:
        command = [sys.executable, "-W", "ignore", "-m", "tests.dynunet.test_training_killed"]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

        assert self._read() == 0  # it has imported everything

    def start(self, out: Path) -> int:
        """The id of the process that trains."""
        return self._ask(str(out))

    def end(self) -> int:
        """The exit status of the run, once it has ended."""
        return self._ask("wait")

    def _ask(self, line: str) -> int:
        assert self.process.stdin is not None
        print(line, file=self.process.stdin, flush=True)
        return self._read()

    def _read(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())


@pytest.fixture(name="server")
def _server() -> Iterator[Server]:
    server = Server()
    yield server
    server.process.communicate()


def train(out: Path) -> None:
    torch.manual_seed(0)
    unet = UNet(1, 1, channels=(4, 8), num_blocks=1, num_groups=2, dropout=0.1, time_embedding=True)
    data = torch.rand(10, 1, 8) * 2 - 1
    options: dict[str, Any] = {
        "batch_size": 4,
        "lr": 1e-2,
        "save_every": 2,
        "validate_every": 7,
        "log_every": 3,
    }
    quiet: dict[str, Any] = {
        "progress": False,
        "tensorboard": False,
        "sample_every": 0,
        "validation_samples": 4,
    }
    Trainer(Diffusion(unet), data[2:], out, validation=data[:2], **options, **quiet).fit(STEPS, resume=True)


def test_killed_and_resumed_it_ends_with_the_same_bits(tmp_path: Path, server: Server) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    began = time.monotonic()
    server.start(whole)
    assert server.end() == 0
    duration = time.monotonic() - began

    draw = random.Random(time.time_ns())
    checkpoints = Checkpoints(run / "checkpoints")
    reached = [-1]
    for kill in range(KILLS):
        pid = server.start(run)
        if kill % 3:  # after the next checkpoint, so that the run gets on; every third one at any time
            while max(checkpoints.steps(), default=-1) == reached[-1] < STEPS:
                time.sleep(0.001)
        time.sleep(draw.uniform(0, duration / (10 if kill % 3 else 3)))
        os.kill(pid, signal.SIGKILL)
        killed = server.end()
        assert killed in (0, -signal.SIGKILL)
        steps = checkpoints.steps()
        for step in steps:
            assert read(checkpoints.path(step)).numbers["step"] == step
        if steps and steps[-1]:
            Diffusion.from_pretrained(run)
        reached.append(max(steps, default=-1))
    server.start(run)
    assert server.end() == 0
    print(f"\n{KILLS} kills in runs of {duration:.1f} s; the last checkpoints after them: {reached[1:]}")

    assert reached == sorted(reached)
    states = [read(out / "checkpoints" / f"step-{STEPS:08d}") for out in (whole, run)]
    assert states[0].numbers["best"] == states[1].numbers["best"]
    for name, tensor in states[0].state["model"].items():
        assert torch.equal(tensor, states[1].state["model"][name]), (name, reached)
    averages = [Diffusion.from_pretrained(out).state_dict() for out in (whole, run)]
    for name, tensor in averages[0].items():
        assert torch.equal(tensor, averages[1][name]), (name, reached)
    rows = [
        [[*row.split(",")[:4]] for row in (out / "log.csv").read_text().splitlines()] for out in (whole, run)
    ]
    assert rows[0] == rows[1]
    assert not [*run.glob("**/.tmp-*"), *run.glob("checkpoints/damaged*"), *run.glob("checkpoints/.step*")]
    assert "finished" in json.loads((run / "run.json").read_text())


def serve() -> None:
    import accelerate  # noqa: F401 (what a run imports, before the forks)
    import matplotlib.figure  # noqa: F401
    import torch._dynamo

    torch.set_num_threads(1)
    print(0, flush=True)
    children: list[int] = []
    for line in sys.stdin:
        if line.strip() == "wait":
            print(os.waitstatus_to_exitcode(os.waitpid(children.pop(), 0)[1]), flush=True)
            continue
        child = os.fork()
        if child == 0:
            status = 1
            try:
                train(Path(line.strip()))
                status = 0
            finally:
                os._exit(status)
        children.append(child)
        print(child, flush=True)


if __name__ == "__main__":
    serve()
