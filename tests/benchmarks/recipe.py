"""What is learnt in equal seconds by the defaults of before and by those of today: signals, images, volumes.

    python -m tests.benchmarks.recipe --data speech digits brain --seconds 60

A network with the channels of the command line on a machine without a GPU learns by :class:`dynunet.Trainer`
for so many seconds of the processor. Printed is the mean square error of its estimates of x_0 from held-out
examples with noise, over that of the best linear estimate of a single entry, at fixed levels sigma / alpha:
below 1, the less the better. "before" are the defaults of version 0.1.
"""

import argparse
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dynunet import Diffusion, FolderDataset, Trainer, UNet
from dynunet.cli.options import NetworkOptions
from dynunet.defaults import GENERATION, channels_for, examples_in_batch

from .equal_seconds import brain, digits
from .trainings import over_seeds, seconds_of_steps

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from _runs import debian

LEVELS = (0.1, 0.3, 1.0, 3.0)
SPEECH = "usr/share/asterisk/sounds/en_US_f_Allison"
ASKED = 128


class Recipe(NamedTuple):
    network: Mapping[str, Any]
    training: Mapping[str, Any]


RECIPES: dict[str, Callable[[Tensor], Recipe]] = {
    "before": lambda x: Recipe({}, {"lr": 2e-4, "batch_size": 16, "precision": "no"}),
    "rate and batch": lambda x: _of_today({}, x, "no"),
    "light": lambda x: _of_today(GENERATION, x, "no"),
    "light, bf16": lambda x: _of_today(GENERATION, x, "bf16"),
}


def _of_today(network: Mapping[str, Any], x: Tensor, precision: str) -> Recipe:
    return Recipe(network, {"batch_size": examples_in_batch(x.shape[2:]), "precision": precision})


def speech() -> tuple[Tensor, Tensor]:
    """Pieces of 2048 samples of one voice at 8 kHz, and others of recordings that are held out."""
    folder = debian(SPEECH, packages="asterisk-core-sounds-en-wav")
    dataset = FolderDataset(folder, 1, size=2048)
    torch.manual_seed(0)
    learn, asked = (_some(part, n) for part, n in ((dataset, 2000), (dataset.validation(), ASKED)))
    return learn, asked


def _some(dataset: Any, number: int) -> Tensor:
    return torch.stack([dataset[i % len(dataset)]["x0"] for i in range(number)])


def of_questions(make: Callable[[int], Any]) -> Callable[[], tuple[Tensor, Tensor]]:
    def data() -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        found = make(ASKED)
        return found.learn, found.asked

    return data


DATA = {"speech": speech, "digits": of_questions(digits), "brain": of_questions(brain)}


def network(x: Tensor, recipe: Recipe) -> Diffusion:
    dims = x.ndim - 2
    options: dict[str, Any] = NetworkOptions().arguments(dims) | {"channels": channels_for(dims, gpu=False)}
    options |= recipe.network
    return Diffusion(UNet(dims, x.shape[1], time_embedding=True, **options))


def seconds_of_step(x: Tensor, recipe: Recipe) -> float:
    diffusion = network(x, recipe)
    optimizer = torch.optim.AdamW(diffusion.parameters(), fused=True)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.training["precision"] == "bf16"):
            loss = diffusion.loss(x[: recipe.training["batch_size"]])
        loss.backward()
        optimizer.step()

    return seconds_of_steps({"": step})[""]


def trained(x: Tensor, recipe: Recipe, steps: int, seed: int) -> Diffusion:
    torch.manual_seed(seed)
    quiet: Any = {"sample_every": 0, "validate_every": 0, "progress": False, "tensorboard": False}
    with TemporaryDirectory() as folder:
        trainer = Trainer(
            network(x, recipe), x, Path(folder, "run"), steps=steps, seed=seed, **quiet, **recipe.training
        )
        return trainer.fit()


@torch.no_grad()
def errors(diffusion: Diffusion, x: Tensor) -> list[float]:
    """Mean square errors of x_0 by level, over those of the best linear estimate of an entry from itself."""
    variance, found = x.var().item(), []
    for level in LEVELS:
        chance = torch.Generator().manual_seed(0)
        y = x + level * torch.randn(x.shape, generator=chance)
        estimates = [diffusion.denoise(part, sigma=level, steps=1, progress=False) for part in y.split(32)]
        error = (torch.cat(estimates) - x).square().mean().item()
        found.append(error / (variance * level**2 / (variance + level**2)))
    return found


def main(options: argparse.Namespace) -> None:
    for name in options.data:
        learn, asked = DATA[name]()
        lines = {}
        for recipe_name in options.recipes:
            recipe = RECIPES[recipe_name](learn)
            steps = max(1, round(options.seconds / seconds_of_step(learn, recipe)))
            rows = [errors(trained(learn, recipe, steps, seed), asked) for seed in range(options.seeds)]
            cells = [over_seeds(column) for column in zip(*rows, strict=True)]
            lines[recipe_name] = f"| {recipe_name} | {steps} | {' | '.join(cells)} |"
            print(name, lines[recipe_name], file=sys.stderr, flush=True)
        print(f"\n{name}\n\n| | steps | {' | '.join(f'sigma {level:g}' for level in LEVELS)} |")
        print("|---|---:|" + "---:|" * len(LEVELS), *lines.values(), sep="\n", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.recipe",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", nargs="+", choices=DATA, default=[*DATA])
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=[*RECIPES])
    parser.add_argument("--seconds", type=float, default=60, help="of the processor, for each network")
    parser.add_argument("--seeds", type=int, default=3)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    main(parser.parse_args())
