"""Shared by the benchmarks that train networks: seconds of their steps, and figures over seeds."""

from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from statistics import fmean, median, stdev
from time import process_time
from typing import Any

from scipy.stats import t as student

TIMED = 5  # steps


def seconds_of_steps(steps: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Median seconds of the processor of each step, taken in turn, after one of each that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(TIMED + 1):
        for name, step in steps.items():
            start = process_time()
            step()
            taken[name].append(process_time() - start)
    return {name: median(each[1:]) for name, each in taken.items()}


def over_seeds(values: Sequence[float], places: int = 3) -> str:
    """The median, and the least and the largest where these differ."""
    middle, least, most = (f"{f(values):.{places}f}" for f in (median, min, max))
    return middle if least == most else f"{middle} ({least} to {most})"


def with_interval(
    values: Sequence[float], shown: Callable[[float], float] = float, share: float = 0.95
) -> str:
    """The mean, and the interval of Student's t that holds it with a probability; of one value, that alone.

    Args:
        values: of the seeds.
        shown: applied to mean and ends: exp for logarithms.
        share: the probability.
    """
    mean = fmean(values)
    if len(values) < 2:
        return f"{shown(mean):.3f}"
    half = float(student.ppf((1 + share) / 2, len(values) - 1)) * stdev(values) / sqrt(len(values))
    low, high = shown(mean - half), shown(mean + half)
    return f"{shown(mean):.3f} ({low:.3f} to {high:.3f})"
