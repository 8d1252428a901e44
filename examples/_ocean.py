"""The ocean of the 4-D example: read it, hide parts of it, fill them in by hand, and draw maps.

Fields are ``(months, depths, latitudes, longitudes)`` in degrees C, 0 over land. Months and longitudes are
periodic: the last entry of either axis is a neighbour of the first. Longitudes begin at the date line, in the
middle of the Pacific.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _runs import debian
from torch import Tensor
from torch.distributions import Normal

import convnd.functional as F
from dynunet import summarize
from dynunet.metrics import coverage, crps

ATLAS = "usr/share/ferret-vis/data/ocean_atlas_subset.nc"
LEVEL = 0.9  # of intervals
_ROWS = (0, 2, 3)  # all axes but depths


def read(data: Path | None, every: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The first 4-D variable of a netCDF-3 file, every so many entries of each axis, and where water is."""
    from scipy.io import netcdf_file

    path = debian(ATLAS, packages="ferret-datasets", data=data)
    try:
        with netcdf_file(path, mmap=False) as file:
            fields = [name for name, v in file.variables.items() if len(v.dimensions) == 4]
            field = _from_date_line(file, fields[0]) if fields else None
    except (TypeError, ValueError) as error:
        raise ValueError(f"--data: {path} must be a netCDF-3 file: {error}") from None
    if field is None:
        raise ValueError(f"--data: {path} must have a variable (months, depths, latitudes, longitudes)")
    field = field[tuple(slice(None, None, n) for n in every)]
    water = field > -1e9  # missing values are far below, or NaN
    return torch.where(water, field, 0), water


def _from_date_line(file: Any, name: str) -> Tensor:
    """A variable with its longitudes turned to begin at 180 degrees, if the file says where they are."""
    variable = file.variables[name]
    field = torch.from_numpy(variable[:].astype("f4"))
    longitudes = file.variables.get(variable.dimensions[-1])
    first = 0 if longitudes is None else int(((longitudes[:] - 180) % 360).argmin())
    return field.roll(-first, -1)


def boxes(shape: Sequence[int], number: int, size: Sequence[int], across: bool = False) -> Tensor:
    """True in boxes of rows and columns at random places, which may lie across the ends of the longitudes.

    With ``across`` one more does, half way up.
    """
    rows = [int(torch.randint(1 - size[0], shape[0], ())) for _ in range(number)]
    starts = [int(torch.randint(shape[1], ())) for _ in range(number)]
    if across:
        rows.append((shape[0] - size[0]) // 2)
        starts.append(-(size[1] // 2))
    places = torch.zeros(tuple(shape), dtype=torch.bool)
    for row, start in zip(rows, starts, strict=True):
        columns = (torch.arange(shape[1]) - start) % shape[1] < size[1]
        places[max(row, 0) : max(row + size[0], 0)] |= columns
    return places


def below(field: Tensor) -> Tensor:
    """True below the surface, which is the first depth."""
    return (torch.arange(field.shape[1]) > 0).view(-1, 1, 1)


def mean_of_parallel(field: Tensor, known: Tensor) -> Tensor:
    """Zonal climatology: the mean of what is known at the same month, depth and latitude."""
    total = (field * known).sum(-1, keepdim=True)
    return (total / known.sum(-1, keepdim=True).clamp(min=1)).expand_as(field)


def from_around(
    field: Tensor, known: Tensor, water: Tensor, reach: tuple[int, int] = (1, 9), rounds: int = 20
) -> Tensor:
    """Unknown entries, filled in from around: by default from west and east.

    Again and again each entry is the mean of ``reach`` latitudes and longitudes around it, two odd numbers,
    with the zonal climatology taken off.
    """
    mean = mean_of_parallel(field, known)
    x, around = (field - mean) * known, _around(water.float(), reach).clamp(min=1e-6)
    for _ in range(rounds):
        x = torch.where(known, x, _around(x, reach) / around * water)
    return torch.where(known, field, (mean + x) * water)


def _around(field: Tensor, reach: tuple[int, int]) -> Tensor:
    """Means over latitudes, beyond whose ends is 0, and longitudes, which have no end."""
    rows, columns = (size // 2 for size in reach)
    padded = F.pad(field, (columns, columns), mode="circular")  # the last axis
    return F.avg_pool(padded.unsqueeze(0), (1, 1, *reach), 1, (0, 0, rows, 0), spatial_dims=4)[0]


def mirrored(field: Tensor) -> Tensor:
    """The Earth with south and north exchanged, half a year later: seasons are opposite there."""
    return field.flip(-2).roll(field.shape[-4] // 2, -4)


def linear(examples: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Weights ``(depths, terms)`` of the linear function, for each depth its own, of least squared error.

    Examples are terms ``(terms, months, depths, latitudes, longitudes)`` and values; 0 does not count.
    """
    square: Any = 0
    product: Any = 0
    for terms, values in examples:
        x = terms.double()
        square += torch.einsum("pmdij,qmdij->dpq", x, x) + 1e-6 * torch.eye(len(x), dtype=torch.double)
        product += torch.einsum("pmdij,mdij->dp", x, values.double())
    return torch.linalg.solve(square, product.unsqueeze(-1))[..., 0]


def applied(weights: Tensor, terms: Tensor) -> Tensor:
    """The function that :func:`linear` found, of terms."""
    return torch.einsum("pmdij,dp->mdij", terms.double(), weights).float()


@dataclass(frozen=True)
class Regression:
    """Errors of a guess as a linear function, for each depth its own, of the first conditions.

    Args:
        weights: ``(depths, terms)``.
        spread: what is left of the errors, as root mean squares, ``(depths, 1, 1)``; 1 where there are none.
    """

    weights: Tensor
    spread: Tensor

    @classmethod
    def fit(cls, examples: Iterable[tuple[Tensor, Tensor, Tensor]], terms: int) -> "Regression":
        """Of least squared error over examples of errors, conditions, and where both count."""
        drawn = [(cond[:terms] * mask, error * mask, mask) for error, cond, mask in examples]
        weights = linear((cond, error) for cond, error, _ in drawn)
        left = torch.stack([(error - applied(weights, cond)).square().sum(_ROWS) for cond, error, _ in drawn])
        count = torch.stack([mask.sum(_ROWS) for *_, mask in drawn]).sum(0)
        spread = torch.where(count > 0, left.sum(0) / count.clamp(min=1), left.new_ones(())).sqrt()
        return cls(weights, spread.view(-1, 1, 1))

    def __call__(self, cond: Tensor) -> Tensor:
        return applied(self.weights, cond[: self.weights.shape[1]])


def gaussian_crps(errors: Tensor, std: Tensor) -> Tensor:
    """The continuous ranked probability score of a normal law in closed form (Gneiting et al. 2005)."""
    z, normal = errors / std, Normal(0.0, 1.0)
    return std * (z * (2 * normal.cdf(z) - 1) + 2 * normal.log_prob(z).exp() - torch.pi**-0.5)


def judge_intervals(
    samples: Tensor, regression: Tensor, spread: Tensor, field: Tensor, held_out: Tensor
) -> dict[str, str]:
    """Print how sure answers are where the field is held out, and how right they are to be so.

    Args:
        samples: of the network, ``(m, months, depths, latitudes, longitudes)``.
        regression: answers, with normal errors.
        spread: standard deviations of these, ``(depths, 1, 1)``.
        field, held_out: the truth, and where answers are judged.
    """
    truth, error = field[held_out], (regression - field)[held_out]
    std = spread.expand_as(field)[held_out]
    half = std * Normal(0.0, 1.0).icdf(torch.tensor((1 + LEVEL) / 2))
    rows = {"regression": (gaussian_crps(error, std).mean(), (error.abs() <= half).float().mean(), 2 * half)}
    x, y = samples[:, held_out].unsqueeze(1), truth.unsqueeze(0)
    low, high = summarize(x, LEVEL)[2:]
    rows["network"] = crps(x, y), coverage(low, high, y), high - low
    print(f"\nIntervals of {LEVEL:.0%} there; those of the network are of its {len(samples)} samples:\n")
    print(f"{'':12}{'CRPS':>7}{'covered':>10}{'width in degrees C':>20}")
    figures = {}
    for name, (score, covered, width) in rows.items():
        print(f"{name:12}{score.item():7.3f}{covered.item():10.1%}{width.mean().item():20.2f}")
        figures[f"{name} CRPS"] = f"{score.item():.3f}"
    print("\nThe regression has, at each depth, the spread of the errors that it makes where it is fitted.")
    covered, width = rows["network"][1:]
    return figures | {"covered": f"{covered.item():.3f}", "width": f"{width.mean().item():.2f}"}


def judge(
    answers: Mapping[str, Tensor], field: Tensor, water: Tensor, held_out: Tensor, folder: Path
) -> dict[str, str]:
    """Draw each answer, and print its errors where the field is held out.

    Returns them in degrees C.
    """
    filled = {name: torch.where(held_out, x, field) for name, x in answers.items()}
    _draw(filled, field, water, held_out, folder)
    return _compare(filled, field, held_out)


def _compare(filled: Mapping[str, Tensor], field: Tensor, held_out: Tensor) -> dict[str, str]:
    """Print the errors of each way to fill what is held out, and return them in degrees C."""
    depths = range(1, field.shape[1])
    print(f"\nRoot mean square errors in degrees C over {int(held_out.sum()):,} held-out entries:\n")
    print(
        f"{'':12}{'all':>7}   at depth" + "".join(f"{d:>7}" for d in depths) + f"{'new year':>12}{'seam':>7}"
    )
    for name, x in {**filled, "truth": field}.items():
        errors = [_rms((x - field)[:, d][held_out[:, d]]) for d in depths]
        ends = [_step(x, held_out, axis) for axis in (0, -1)]
        cells = f"{_rms((x - field)[held_out]):7.3f}           " + "".join(f"{e:7.3f}" for e in errors)
        print(f"{name:12}{cells}{ends[0]:12.3f}{ends[1]:7.3f}")
    print("""
The last two columns are how far apart the first and the last month are, and the first and the last longitude,
where either was filled in: where the sea goes on smoothly they are about what they are in truth.""")
    return {name: f"{_rms((x - field)[held_out]):.3f}" for name, x in filled.items()}


def _rms(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


def _step(field: Tensor, filled: Tensor, axis: int) -> float:
    """From the last to the first entry of a periodic axis, where any of the two was filled in."""
    step, either = field - field.roll(1, axis), filled | filled.roll(1, axis)
    both = (
        filled.any() & either.select(axis, 0) & (field.select(axis, 0) != 0) & (field.select(axis, -1) != 0)
    )
    return _rms(step.select(axis, 0)[both])


def _draw(filled: Mapping[str, Tensor], field: Tensor, water: Tensor, unknown: Tensor, folder: Path) -> None:
    """Maps of one depth, and a parallel over months and longitudes with the ends of both in the middle."""
    depth = field.shape[1] // 3
    hidden, wet = unknown[:, depth], water[:, depth]
    shown = {"what is known": torch.where(unknown, torch.nan, field), **filled, "truth": field}
    fields = {name: x[:, depth] for name, x in shown.items()}
    where = f"depth {depth}"
    draw_maps(
        {f"{where}, first month: {name}": x[0] for name, x in fields.items()},
        wet[0],
        hidden[0],
        folder / "map.png",
    )

    def centred(x: Tensor) -> Tensor:
        return x.roll((x.shape[0] // 2, x.shape[1] // 2), (0, 1))

    row = int((hidden[0] & hidden[0].roll(1, -1))[:, 0].float().add(hidden[0].float().mean(-1)).argmax())
    about = f"{where}, latitude {row}, months up from the middle of the year"
    parallel = {f"{about}: {name}": centred(x[:, row]) for name, x in fields.items()}
    draw_maps(parallel, centred(wet[:, row]), centred(hidden[:, row]), folder / "seams.png")


def draw_maps(
    fields: Mapping[str, Tensor], water: Tensor, outline: Tensor, path: Path, unit: str = "°C"
) -> None:
    """Fields of two axes below each other; NaN is white, land grey, the outline black."""
    from matplotlib.figure import Figure

    truth = list(fields.values())[-1][water]
    figure = Figure((8, 3.4 * len(fields)), layout="constrained")
    axes = figure.subplots(len(fields), squeeze=False)[:, 0]
    how: dict[str, Any] = {"origin": "lower", "interpolation": "nearest", "aspect": "auto"}
    for ax, (name, x) in zip(axes, fields.items(), strict=True):
        ax.imshow(torch.where(water, torch.nan, 0.7).numpy(), cmap="gray", vmin=0, vmax=1, **how)
        sea = torch.where(water, x, torch.nan).numpy()
        image = ax.imshow(sea, cmap="turbo", vmin=truth.min().item(), vmax=truth.max().item(), **how)
        if outline.any():
            ax.contour(outline.float().numpy(), [0.5], colors="black", linewidths=0.8)
        ax.set(title=name, xticks=[], yticks=[])
        figure.colorbar(image, ax=ax, label=unit)
    figure.savefig(path, dpi=100)
