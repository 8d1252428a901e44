"""Methods of posterior sampling beside the exact posterior, on data where it is known.

The data are mixtures of Gaussians of 16 entries along one axis: ``waves``, sines of any phase and of two
amplitudes, which lie close to two curves, and ``clusters``, around six signals. Two tables for each:

    estimates   root mean square error of E[x_0 | x_t, y] at noise levels sigma / alpha, for x_t drawn with y
    samples     sliced Wasserstein distance of samples from the exact posterior, over noise of the measurement

Means over the operators (every eighth entry, averages of eight, every fourth entry of a blur) and some
measurements of each. "exact" is a second set of exact samples: what is left of the distance by chance.
"""

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from statistics import fmean

import torch
from torch import Tensor

from dynunet import Diffusion
from dynunet.diffusion import DPS, MMPS, Cosine, PiGDM, spaced
from dynunet.diffusion.measurement import Measurement, Tangent
from dynunet.diffusion.posterior import Guidance, pull
from dynunet.diffusion.steps import level
from dynunet.operators import Blur, Compose, Downsample, Mask, Operator
from dynunet.testing import GaussianMixture
from dynunet.testing.posteriors import dense

from . import equal_seconds

SIZE = 16
NOISES = (0.0, 0.03, 0.1, 0.3, 1.0)  # of the measurement
RATIOS = (8.0, 4.0, 2.0, 1.0, 0.5, 0.25)  # sigma / alpha of x_t
SCHEDULE = Cosine()
OPERATORS: tuple[Operator, ...] = (
    Mask((torch.arange(SIZE) % 8 == 0).view(1, 1, SIZE)),
    Downsample(8),
    Compose(Blur(torch.full((5,), 0.2).double(), "circular"), Downsample(4, "stride")),
)
METHODS: dict[str, Guidance] = {
    "mmps": MMPS(),
    "mmps, 1 iteration": MMPS(1),
    "pigdm": PiGDM(),
    "dps": DPS(),
    "dps, scale 0.3": DPS(0.3),
}
_LEAST = 1e-3  # noise of the exact posterior instead of none

Posterior = tuple[Tensor, Tensor, Tensor]  # weights (..., K), means (..., K, n), covariances (K, n, n)


def waves() -> GaussianMixture:
    phase = 2 * torch.pi * torch.arange(32).double() / 32
    place = 2 * torch.pi * torch.arange(SIZE).double() / SIZE
    signals = torch.cat([size * torch.sin(place + phase[:, None]) for size in (0.5, 0.9)])
    return GaussianMixture(signals.unsqueeze(1), [0.1] * len(signals))


def clusters() -> GaussianMixture:
    drawn = torch.randn(6, 1, SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return GaussianMixture(0.5 * drawn, [0.3] * 6)


DATA: dict[str, Callable[[], GaussianMixture]] = {"waves": waves, "clusters": clusters}


def posterior(data: GaussianMixture, matrix: Tensor, variances: Tensor, z: Tensor) -> Posterior:
    """The law of x_0 given ``z = matrix x_0 + noise``, ``(..., m)``: a mixture again."""
    weights, means, covariances = [], [], []
    stds, priors = torch.as_tensor(data.stds), torch.as_tensor(data.weights)
    for mean, std, prior in zip(data.means.flatten(1), stds, priors, strict=True):
        total = std**2 * matrix @ matrix.mT + torch.diag(variances)
        away = z - matrix @ mean
        solved = torch.linalg.solve(total, away.unsqueeze(-1)).squeeze(-1)
        weights.append(prior.log() - 0.5 * ((away * solved).sum(-1) + total.logdet()))
        means.append(mean + std**2 * solved @ matrix)
        gain = torch.linalg.solve(total, matrix) * std**2
        covariances.append(std**2 * (torch.eye(len(mean)).double() - matrix.mT @ gain))
    return torch.stack(weights, -1).softmax(-1), torch.stack(means, -2), torch.stack(covariances)


def drawn(law: Posterior, count: int, chance: torch.Generator) -> Tensor:
    """Samples ``(count, n)`` of a posterior."""
    weights, means, covariances = law
    values, axes = torch.linalg.eigh(covariances)
    chosen = torch.multinomial(weights, count, replacement=True, generator=chance)
    noise = torch.randn(count, means.shape[-1], 1, generator=chance, dtype=torch.float64)
    roots = axes * values.clamp(min=0).sqrt().unsqueeze(-2)
    return means[chosen] + (roots[chosen] @ noise).squeeze(-1)


def distance(a: Tensor, b: Tensor, chance: torch.Generator) -> float:
    """The sliced 2-Wasserstein distance of two sets of as many samples, ``(count, n)``."""
    axes = torch.randn(a.shape[1], 128, generator=chance, dtype=torch.float64)
    lines = ((x @ (axes / axes.norm(dim=0))).sort(0).values for x in (a, b))
    return torch.sub(*lines).square().mean().sqrt().item()


def measured(
    data: GaussianMixture, operator: Operator, noise: float, chance: torch.Generator
) -> tuple[Measurement, Tensor, Posterior]:
    """A measurement of one sample, the matrix of the operator, and the posterior."""
    spread = torch.as_tensor(data.stds).view(-1, 1, 1) ** 2 * torch.eye(SIZE).double()
    prior = torch.as_tensor(data.weights), data.means.flatten(1), spread
    x = drawn(prior, 1, chance).view(1, 1, SIZE)
    y = operator(x)
    y = y + noise * torch.randn(y.shape, generator=chance, dtype=torch.float64)
    if isinstance(operator, Mask):
        y = operator(y)
    measurement = Measurement(
        y, operator, torch.tensor(noise).double() ** 2, torch.ones_like(y).bool(), noise > 0
    )
    matrix = dense(operator, data.means[0])
    variances = torch.full((len(matrix),), max(noise, _LEAST) ** 2, dtype=torch.float64)
    return measurement, matrix, posterior(data, matrix, variances, y.flatten())


def estimates(data: GaussianMixture, options: argparse.Namespace) -> dict[str, list[float]]:
    """The errors of each method, by noise level."""
    rows: dict[str, list[float]] = {f"{ratio:g}": [] for ratio in RATIOS}
    times, denoise = spaced(SCHEDULE, options.steps), data.denoiser(SCHEDULE)
    chance = torch.Generator().manual_seed(0)
    for ratio in RATIOS:
        t = SCHEDULE.time(torch.tensor([-2.0]).double() * torch.tensor(ratio).log())
        at, errors = level(SCHEDULE, t.item()), {name: [] for name in METHODS}
        for operator in OPERATORS:
            for noise in NOISES[1:]:
                measurement, matrix, law = measured(data, operator, noise, chance)
                x0 = drawn(law, options.samples, chance)
                x = at.alpha * x0 + at.sigma * torch.randn(x0.shape, generator=chance, dtype=torch.float64)
                both = torch.cat([at.alpha * torch.eye(SIZE).double(), matrix])
                variances = torch.cat(
                    [torch.full((n,), v) for n, v in ((SIZE, at.sigma**2), (len(matrix), noise**2))]
                ).double()
                z = torch.cat([x, measurement.y.flatten().expand(len(x), -1)], 1)
                weights, means, _ = posterior(data, both, variances, z)
                wanted = (weights.unsqueeze(-1) * means).sum(-2)
                each = x.unsqueeze(1), t.expand(len(x)), (at.alpha, at.sigma)
                tangent = Tangent(denoise, measurement, *each, pull(SCHEDULE, times, at))
                for name, method in METHODS.items():
                    found = (tangent.x0 + method.correction(tangent)).flatten(1)
                    errors[name].append((found - wanted).square().mean().item())
        rows[f"{ratio:g}"] = [fmean(errors[name]) ** 0.5 for name in METHODS]
    return rows


def samples(data: GaussianMixture, options: argparse.Namespace) -> dict[str, list[float]]:
    """The distances of each method's samples, by noise of the measurement."""
    rows, chance = {}, torch.Generator().manual_seed(0)
    diffusion = Diffusion(data.denoiser(SCHEDULE), SCHEDULE, "sample")
    for noise in NOISES:
        found: dict[str, list[float]] = {name: [] for name in (*METHODS, "exact")}
        for operator in OPERATORS:
            for _ in range(options.measurements):
                measurement, _, law = measured(data, operator, noise, chance)
                wanted = drawn(law, options.samples, chance)
                found["exact"].append(distance(drawn(law, options.samples, chance), wanted, chance))
                for name, method in METHODS.items():
                    made = diffusion.reconstruct(
                        measurement.y,
                        operator,
                        noise,
                        options.samples,
                        options.steps,
                        method=method,
                        sampler=options.sampler,
                        generator=chance,
                        progress=False,
                    )
                    found[name].append(distance(made.flatten(1), wanted, chance))
        rows[f"{noise:g}"] = [fmean(values) for values in found.values()]
    return rows


TABLES = {"estimates": (estimates, "sigma / alpha", ()), "samples": (samples, "noise_std", ("exact",))}


def printed(title: str, head: Sequence[str], rows: dict[str, list[float]]) -> None:
    """A table in Markdown; the smallest error of the methods is bold."""
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for name, values in rows.items():
        best = min(values[: len(METHODS)])
        cells = (f"**{v:.3f}**" if v == best else f"{v:.3f}" for v in values)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.posterior",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", choices=DATA, nargs="*", default=[*DATA], help="mixtures")
    parser.add_argument("--tables", choices=TABLES, nargs="+", default=[*TABLES])
    parser.add_argument("--samples", type=int, default=300, help="of each posterior")
    parser.add_argument("--measurements", type=int, default=2, help="of each operator")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--sampler", default="dpmpp_2m")
    equal = parser.add_argument_group("at equal seconds", equal_seconds.__doc__)
    equal.add_argument("--fields", choices=equal_seconds.DATA, nargs="*", default=[*equal_seconds.DATA])
    equal.add_argument("--seeds", type=int, default=3)
    equal.add_argument("--train-seconds", type=float, default=60, help="for each network")
    equal.add_argument("--questions", type=int, default=32)
    equal.add_argument("--answers", type=int, default=8, help="samples for each question")
    equal.add_argument("--mmps-steps", type=int, default=10, help="of mmps")
    equal.add_argument("--device", type=torch.device, default="cpu", help="of networks and data")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)
    for data in options.data:
        for table in options.tables:
            run, what, more = TABLES[table]
            printed(f"{data}, {table}", (what, *METHODS, *more), run(DATA[data](), options))
    equal_seconds.main(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
