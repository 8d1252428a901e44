"""One picture of what the examples made, from one axis to four: the picture of the README.

    python examples/gallery.py                                   # of the newest runs in runs/
    python examples/gallery.py --runs runs --out examples/results.png

It draws what `denoise_audio_1d.py`, `generate_images_2d.py`, `volume_diffusion_3d.py`, `segment_brain_3d.py`
and `ocean_4d.py` have written, and says which of them has not run yet, and the command to run it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from math import nan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import tyro
from _runs import SHOWN
from einops import rearrange
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

import convnd.functional as F

WIDTH, DPI = 1200, 100  # pixels, and per inch
Shown = Mapping[str, Tensor]


@dataclass
class Options:
    """Draw the results of the examples as one picture."""

    runs: Path = Path("runs")
    """where the examples have put their runs; the newest of each is drawn"""
    out: Path = Path("runs/gallery.png")
    """the picture"""


class Row(NamedTuple):
    """A row of the picture: how its runs are called, what makes them, its title, height and drawing."""

    kind: str
    script: str
    title: str
    height: int
    draw: Callable[[Any, Shown], None]


def speech(part: Any, shown: Shown) -> None:
    """Spectrograms side by side, in dB below the loudest."""
    window = torch.hann_window(int(shown["sample_rate"]) // 32)
    signals = torch.stack([shown[name][0] for name in ("noisy", "denoised", "clean")])
    spectra = torch.stft(signals, len(window), len(window) // 4, window=window, return_complex=True).abs()
    level = 20 * (spectra / spectra.max()).clamp(min=1e-4).log10()
    names = "noisy", "cleaned by the network", "clean"
    for ax, name, x in zip(part.subplots(1, 3), names, level.numpy(), strict=True):
        ax.imshow(x, cmap="magma", vmin=-70, vmax=0, aspect="auto", origin="lower", interpolation="bilinear")
        _named(ax, name)


def digits(part: Any, shown: Shown) -> None:
    """All samples as one sheet; those of a class are below each other in pairs."""
    made = shown["made"]
    tiles = F.pad(_fine(rearrange(made, "rows n c h w -> (rows n) c h w"), 48), (3, 3, 3, 3), value=1)
    sheet = rearrange(tiles, "(rows down two) c h w -> (down h) (rows two w) c", rows=len(made), two=2)
    _grey(part.subplots(), sheet / 2 + 0.5 if sheet.shape[-1] == 3 else sheet.mean(-1))


def brain(part: Any, shown: Shown) -> None:
    """A crop from which a block was removed, what it is filled with, and the truth: three slices of each."""
    titles = {name: name for name in ("measured", "mean", "one sample", "truth")}
    for quarter, (name, title) in zip(part.subfigures(1, len(titles)), titles.items(), strict=True):
        x = shown[name]
        cuts = [x.select(axis, size // 2).mT.flip(-2) for axis, size in enumerate(x.shape[1:], 1)]
        axes = quarter.subplots(1, 3)
        for ax, cut in zip(axes, cuts, strict=True):
            _grey(ax, _fine(cut.unsqueeze(0), 192)[0, 0])
        _named(axes[1], title)


def tissues(part: Any, shown: Shown) -> None:
    """A scan, and in colours the tissues that were found in it and regions of grey and white matter."""
    colours = ListedColormap(["black", "#c8553d", "#f4e3c1"])
    titles = {
        "scan": "another person's scan",
        "found": "found by the network",
        "atlas": "grey matter and fibres of atlases",
    }
    for third, (name, title) in zip(part.subfigures(1, 3), titles.items(), strict=True):
        cuts = [shown[name].select(axis, shown[name].shape[axis] // 2).mT.flip(-2) for axis in (1, 2)]
        axes = third.subplots(1, 2, width_ratios=[cut.shape[-1] for cut in cuts])
        third.suptitle(title)
        for ax, cut in zip(axes, cuts, strict=True):
            if name == "scan":
                _grey(ax, _fine(cut[None, None], 192)[0, 0])
            else:
                ax.imshow(cut.numpy(), cmap=colours, vmin=0, vmax=2, interpolation="nearest")
                ax.set_axis_off()


def ocean(part: Any, shown: Shown) -> None:
    """Maps of one depth in the first month; land is grey, what is not known white."""
    depth = shown["field"].shape[1] // 3
    field, water, hidden, network = (shown[n][0, depth] for n in ("field", "water", "held_out", "network"))
    filled = torch.where(hidden, network, field)
    maps = {"what is known": field.where(~hidden, nan), "completed by the network": filled, "truth": field}
    how: dict[str, Any] = {"origin": "lower", "interpolation": "nearest", "aspect": "auto"}
    scale = {"vmin": field[water].min().item(), "vmax": field[water].max().item()}
    land = torch.where(water, nan, 0.75)
    for ax, (name, x) in zip(part.subplots(1, 3), maps.items(), strict=True):
        ax.imshow(land.numpy(), cmap="gray", vmin=0, vmax=1, **how)
        ax.imshow(x.where(water, nan).numpy(), cmap="turbo", **scale, **how)
        ax.contour(hidden.float().numpy(), [0.5], colors="black", linewidths=0.8)
        _named(ax, name)


ROWS = (
    Row("audio", "denoise_audio_1d.py", "1-D: speech out of noise, both never heard", 210, speech),
    Row("images", "generate_images_2d.py", "2-D: digits from noise, of the class asked for", 200, digits),
    Row("volume", "volume_diffusion_3d.py", "3-D: another man's brain, completed", 140, brain),
    Row("segment", "segment_brain_3d.py", "3-D: grey and white matter of a brain never seen", 230, tissues),
    Row("ocean", "ocean_4d.py", "4-D: the ocean below its surface, through the year", 210, ocean),
)


def _fine(x: Tensor, size: int) -> Tensor:
    """Images ``(N, C, H, W)``, about this many pixels wide."""
    factor = max(1, round(size / x.shape[-1]))
    return F.interpolate(x, scale_factor=factor, mode="cubic").clamp(-1, 1)


def _grey(ax: Any, x: Tensor) -> None:
    ax.imshow(x.numpy(), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    ax.set_axis_off()


def _named(ax: Any, name: str) -> None:
    ax.set(title=name, xticks=[], yticks=[])


def newest(runs: Path, kind: str) -> Path | None:
    """The folder of the last run of this kind that has something to show."""
    kept = sorted(runs.glob(f"{kind}-*/{SHOWN}"), key=lambda path: path.stat().st_mtime)
    return kept[-1] if kept else None


def main(options: Options) -> None:
    found = {row: newest(options.runs, row.kind) for row in ROWS}
    rows = {row: path for row, path in found.items() if path is not None}
    for row in [row for row, path in found.items() if path is None]:
        print(f"{options.runs} has no finished run of {row.script}. This makes one:\n")
        print(f"  python examples/{row.script} --out {options.runs}\n")
    if not rows:
        raise SystemExit("nothing to draw")
    heights = [row.height for row in rows]
    figure = Figure((WIDTH / DPI, sum(heights) / DPI), DPI, layout="constrained")
    parts = figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, (row, path) in zip(parts, rows.items(), strict=True):
        part.suptitle(row.title, x=0.01, ha="left", weight="bold")
        with np.load(path) as file:
            row.draw(part, {name: torch.from_numpy(file[name]) for name in file})
    options.out.parent.mkdir(parents=True, exist_ok=True)
    drawn = BytesIO()
    figure.savefig(drawn)
    Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(options.out, optimize=True)
    print(f"Look at {options.out}: {', '.join(str(path.parent) for path in rows.values())}.")


if __name__ == "__main__":
    main(tyro.cli(Options))
