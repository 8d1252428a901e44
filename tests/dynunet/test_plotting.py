"""Pictures: their sizes, and that what is drawn is where it should be."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from PIL import Image

from dynunet import plotting
from dynunet.plotting.tiles import MISSING, SMALLEST, pasted, tiles, trace, view

GREY = 128  # 0 of [-1, 1], rounded


def read(path: Path) -> np.ndarray:
    """``(H, W, 3)`` of uint8."""
    return (np.asarray(imread(path))[..., :3] * 255).round().astype(np.uint8)


def ink(picture: np.ndarray, colour: tuple[int, int, int] = MISSING) -> np.ndarray:
    """Where a picture has a colour, up to the rounding of colour maps and the edges of areas."""
    return np.abs(picture.astype(int) - colour).max(-1) <= 3


def test_a_grid_has_every_entry_of_every_image_in_its_place(tmp_path: Path) -> None:
    images = torch.linspace(-1, 1, 6 * 96 * 96).reshape(2, 3, 96, 96)
    plotting.image_grid(images, tmp_path / "grid.png")
    picture, gap = read(tmp_path / "grid.png"), 12
    assert picture.shape == (2 * 96 + gap + 16, 3 * 96 + 2 * gap + 16, 3)
    for r in range(2):
        for c in range(3):
            top, left = 8 + r * (96 + gap), 8 + c * (96 + gap)
            tile = picture[top : top + 96, left : left + 96].astype(int)
            expected = ((images[r, c] + 1) / 2 * 255).round().int().numpy()
            assert np.abs(tile - expected[..., None]).max() <= 1, (r, c)
            assert (picture[top : top + 96, left + 96 : left + 96 + gap] == 255).all() or c == 2


def test_colour_keeps_red_green_and_blue(tmp_path: Path) -> None:
    image = torch.stack([torch.full((50, 60), v) for v in (1.0, -1.0, 0.0)])
    plotting.pictures(image.unsqueeze(0), tmp_path / "colour.png")
    picture = read(tmp_path / "colour.png")
    assert picture.shape[:2] == (50 + 16, 60 + 16)
    assert (picture[8:58, 8:68] == (255, 0, GREY)).all()
    plotting.image_grid(image[None, None], tmp_path / "again.png")
    assert (read(tmp_path / "again.png") == picture).all()


def test_values_beyond_the_range_are_its_ends_and_small_images_grow() -> None:
    (tile,) = tiles(torch.tensor([[[[-5.0, 7.0], [float("inf"), float("-inf")]]]]), -1, 1)
    assert tile.shape == (SMALLEST, SMALLEST, 3)
    corners = tile[[0, 0, -1, -1], [0, -1, 0, -1], 0]
    assert corners.tolist() == [0, 255, 255, 0]
    (tile,) = tiles(torch.zeros(1, 1, 2000, 1000), -1, 1)
    assert tile.shape == (512, 256, 3)
    assert (tile == GREY).all()


def test_two_channels_stand_beside_each_other() -> None:
    (tile,) = tiles(torch.tensor([-1.0, 1.0]).reshape(1, 2, 1, 1).expand(1, 2, 50, 50), -1, 1)
    assert tile.shape == (50, 100, 3)
    assert (tile[:, :50] == 0).all()
    assert (tile[:, 50:] == 255).all()


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_missing_entries_and_only_they_have_a_colour_of_their_own(channels: int) -> None:
    x = torch.rand(1, channels, 60, 50) - 1  # too dark for that colour
    x[:, :, 10:20, 5:9] = torch.nan
    (tile,) = tiles(x, -1, 1)
    found = ink(tile)
    expected = np.zeros((60, 50), bool)
    expected[10:20, 5:9] = True
    assert (found == np.tile(expected, 1 if channels == 3 else channels)).all()


def test_missing_entries_stay_sharp_where_small_images_grow() -> None:
    x = torch.zeros(1, 1, 8, 8)
    x[..., 2, 3] = torch.nan
    (tile,) = tiles(x, -1, 1)
    assert ink(tile).sum() == (SMALLEST // 8) ** 2
    assert (tile[~ink(tile)] == GREY).all()


def test_slices_are_upright_and_cut_the_middle(tmp_path: Path) -> None:
    volume = torch.full((20, 30, 40), -1.0)
    volume[10, -1, -1] = 1  # in the slice across axis 0, far on both of its axes: above and to the right
    volume[-1, 15, 0] = 1  # across axis 1: below and to the right
    volume[0, -1, 20] = 1  # across axis 2: above and to the left
    plotting.slices(volume, tmp_path / "s.png")
    picture = read(tmp_path / "s.png").astype(int)[..., 0]
    by = round(4 * SMALLEST / 40), round(4 * SMALLEST / 40), round(4 * SMALLEST / 30)
    sizes = [(40 * by[0], 30 * by[0]), (40 * by[1], 20 * by[1]), (30 * by[2], 20 * by[2])]
    height, left, gap, top = max(h for h, _ in sizes), 8, 12, 26
    corners = [(0, -1), (-1, -1), (0, 0)]
    for (h, w), corner in zip(sizes, corners, strict=True):
        at = top + (height - h) // 2
        tile = picture[at : at + h, left : left + w]
        bright = np.argwhere(tile > 200)
        nearest = [(0 if c == 0 else size - 1) for c, size in zip(corner, (h, w), strict=True)]
        assert len(bright)
        assert np.abs(bright - nearest).max() < 12, (h, w)
        left += w + gap


def test_slices_follow_the_spacing(tmp_path: Path) -> None:
    thick, thin = torch.zeros(48, 48, 12), torch.zeros(48, 48, 48)
    plotting.slices(thick, tmp_path / "thick.png", spacing=(1, 1, 4))
    plotting.slices(thin, tmp_path / "thin.png", labels=["", ""][:1])
    assert read(tmp_path / "thick.png").shape[0] == read(tmp_path / "thin.png").shape[0]


def test_a_mosaic_has_rows_columns_and_slices_along_the_axes_asked_for(tmp_path: Path) -> None:
    x = torch.full((2, 3, 96, 96), -1.0)
    x[1, 2, 0, :] = 1
    x[0, 1] = torch.nan
    plotting.mosaic(x, tmp_path / "m.png")
    picture = read(tmp_path / "m.png")
    left, top = picture.shape[1] - 8 - (3 * 96 + 2 * 12), 26
    assert (picture[top + 96 + 12, left + 2 * (96 + 12) : left + 2 * (96 + 12) + 96] == 255).all()
    assert (picture[top + 96 + 13, left + 2 * (96 + 12) : left + 2 * (96 + 12) + 96] == 0).all()
    assert ink(picture)[top : top + 96, left + 108 : left + 108 + 96].all()
    assert ink(picture).sum() == 96 * 96

    named = "axis 2", "axis 3", "axis 1", "axis 0"
    plotting.mosaic(x.permute(2, 3, 1, 0), tmp_path / "n.png", axes=(3, 2, 0, 1), axis_names=named)
    assert (read(tmp_path / "n.png") == picture).all()
    plotting.mosaic(x.flip(2), tmp_path / "o.png", origin="lower")
    assert (read(tmp_path / "o.png") == picture).all()


def test_a_mosaic_shows_first_and_last_of_long_axes(tmp_path: Path) -> None:
    x = torch.full((40, 30, 96, 96), -1.0)
    x[-1, -1] = x[0, 0] = 1
    plotting.mosaic(x, tmp_path / "m.png", most=5)
    picture = read(tmp_path / "m.png")
    assert picture.shape[0] == 26 + 5 * 96 + 4 * 12 + 8
    assert (picture[26 : 26 + 96, -8 - 5 * 96 - 4 * 12 : -8 - 4 * 96 - 4 * 12] == 255).all()
    assert (picture[-8 - 96 : -8, -8 - 96 : -8] == 255).all()


def test_a_trace_covers_the_range_of_its_entries() -> None:
    signal = torch.zeros(1, 1000)
    signal[0, 505] = 1
    signal[0, 805] = -1
    signal[0, 200:300] = torch.nan
    tile = trace(signal, -1, 1, height=21, width=100)
    dark = tile[..., 0] < 50
    assert dark[10, :20].all()  # zero is in the middle
    assert np.flatnonzero(dark[0]).tolist() == [50]
    assert np.flatnonzero(dark[-1]).tolist() == [80]
    assert np.flatnonzero(ink(tile).all(0)).tolist() == list(range(20, 30))


def test_a_waveform_marks_what_is_missing(tmp_path: Path) -> None:
    signal = torch.sin(torch.arange(30_000) / 50)
    plotting.waveform(signal, tmp_path / "a.png", 8000)
    assert not ink(read(tmp_path / "a.png")).any()
    signal[15_000:22_500] = torch.nan
    plotting.waveform(signal, tmp_path / "b.png", 8000)
    picture = read(tmp_path / "b.png")
    columns = np.flatnonzero(ink(picture).sum(0) > 30)
    assert picture.shape[1] == 800
    assert np.ptp(columns) == pytest.approx(0.25 * 750, abs=15)  # a quarter of the axes
    assert columns.mean() == pytest.approx(40 + 0.625 * 750, abs=20)


def test_a_spectrogram_has_a_tone_at_its_frequency(tmp_path: Path) -> None:
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(16_000) / 8000)  # at a quarter of the axis
    tone[8000:] = torch.nan
    plotting.spectrogram(tone, tmp_path / "s.png", 8000, labels=["a tone"])
    picture = read(tmp_path / "s.png")
    missing = np.argwhere(ink(picture))
    top, bottom = missing[:, 0].min(), missing[:, 0].max()
    bright = np.argwhere(picture[:, : missing[:, 1].min()].astype(int).sum(-1) > 500)
    inside = bright[(bright[:, 0] > top) & (bright[:, 0] < bottom) & (bright[:, 1] > 60)]
    assert np.median(inside[:, 0]) == pytest.approx(bottom - (bottom - top) / 4, abs=3)


@pytest.mark.parametrize("length", [1, 2, 5, 300])
@pytest.mark.parametrize("sample_rate", [None, 8000.0])
def test_short_signals_are_drawn(length: int, sample_rate: float | None, tmp_path: Path) -> None:
    plotting.pictures(torch.zeros(2, 2, length), tmp_path / "p.png", sample_rate)
    plotting.spectrogram(torch.zeros(length), tmp_path / "s.png", sample_rate)
    width = 800 if sample_rate is None else 1200
    assert read(tmp_path / "p.png").shape == (60 + 4 * 110, width, 3)


@pytest.mark.parametrize("dims", [1, 2, 3, 4, 5])
def test_pictures_of_any_rank(dims: int, tmp_path: Path) -> None:
    x = torch.zeros(3, 1, *range(4, 4 + dims))
    x[0, 0, ..., 0] = torch.nan
    plotting.pictures(x, tmp_path / "p.png")
    assert ink(read(tmp_path / "p.png")).any()
    plotting.pictures(torch.zeros(3, 2, *(1,) * dims), tmp_path / "q.png")


def test_pictures_stand_in_the_columns_asked_for(tmp_path: Path) -> None:
    plotting.pictures(torch.zeros(6, 1, 96, 96), tmp_path / "p.png", columns=2)
    assert read(tmp_path / "p.png").shape[:2] == (3 * 96 + 2 * 12 + 16, 2 * 96 + 12 + 16)


@pytest.mark.parametrize("dims", [1, 2, 3, 4, 5])
def test_pictures_have_the_label_of_every_sample(
    dims: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above the columns of a grid, else beside each sample; and beside no row the same text twice."""
    drawn: list[tuple[Any, ...]] = []
    for name in ("draw_sheet", "draw_signals"):
        monkeypatch.setattr(plotting.samples, name, lambda *args: drawn.append(args))
    names = ["given", "estimate", "truth"]
    plotting.pictures(torch.zeros(6, 1, *(4,) * dims), tmp_path / "p.png", columns=3, labels=names * 2)
    (args,) = drawn
    if dims == 1:
        assert args[4] == names * 2
    elif dims == 2:
        assert args[3] == [(0, 0, "given"), (1, 1, "estimate"), (2, 2, "truth")]
    elif dims == 3:
        assert args[2] == names * 2
    else:
        rows = [f"axis {dims - 4}: {i}" for i in (0, 3)]  # as many as fit below each other
        assert args[2] == [text for name in names * 2 for text in (f"{name}, {rows[0]}", rows[1])]
        assert args[3] == [(i, i, f"axis {dims - 3}: {i}") for i in range(4)]
    with pytest.raises(ValueError, match="labels must have one text for each of 2 samples, got 1"):
        plotting.pictures(torch.zeros(2, 1, *(4,) * dims), tmp_path / "p.png", labels=["a"])


def test_a_loss_of_one_step_is_seen(tmp_path: Path) -> None:
    plotting.loss_curve([{"step": 2, "loss": 0.5}], tmp_path / "one.png")
    picture = read(tmp_path / "one.png")
    assert ink(picture[100:], (31, 119, 180)).sum() > 10


@pytest.mark.parametrize("sizes", [(30, 40, 50), (300, 20, 600), (9, 10, 14, 12), (9, 8, 300, 20), (6,) * 5])
def test_sheets_of_many_samples_fit_on_a_screen(sizes: tuple[int, ...], tmp_path: Path) -> None:
    x = torch.zeros(24, 1, *sizes)
    plotting.pictures(x, tmp_path / "p.png")
    plotting.pictures(x, tmp_path / "q.png", columns=3, labels=["given", "estimate", "truth"] * 8)
    for name, most in (("p.png", 1600), ("q.png", 1700)):
        assert read(tmp_path / name).shape[0] < most


def test_pictures_beyond_four_axes_show_the_middle(tmp_path: Path) -> None:
    x = torch.full((1, 1, 3, 2, 2, 8, 8), torch.nan)
    x[:, :, 1] = 0
    plotting.pictures(x, tmp_path / "p.png")
    assert not ink(read(tmp_path / "p.png")).any()


def test_a_film_runs_from_the_first_step_to_the_last(tmp_path: Path) -> None:
    steps = [
        (i, 1 - i / 40, torch.full((2, 1, 96, 96), i / 20 - 1), torch.ones(2, 1, 96, 96)) for i in range(41)
    ]
    plotting.film_strip(steps, tmp_path / "f.png", most=5)
    picture = read(tmp_path / "f.png")[..., 0].astype(int)
    left = picture.shape[1] - 8 - (5 * 96 + 4 * 12)
    shown = [picture[26 + 48, left + 48 + i * 108] for i in range(5)]
    assert np.abs(np.array(shown) - [0, 64, 128, 191, 255]).max() <= 1
    assert (picture[26 + 96 + 12 + 48, [left + 48 + i * 108 for i in range(5)]] == 255).all()


@pytest.mark.parametrize("dims", [1, 2, 3, 4])
def test_a_gif_plays_all_frames_and_holds_the_last(dims: int, tmp_path: Path) -> None:
    frames = [torch.full((3, 1, *(96,) * min(dims, 2), *(3,) * (dims - 2)), v) for v in (-1.0, 0.0, 1.0)]
    plotting.gif(frames, tmp_path / "a.gif", fps=20, hold=2)
    with Image.open(tmp_path / "a.gif") as film:
        durations, middles = [], []
        for i in range(3):
            film.seek(i)
            durations.append(film.info["duration"])
            middles.append(np.asarray(film.convert("RGB"))[2:-2].astype(int).mean())
        assert film.info["loop"] == 0
    assert durations == [50, 50, 2000]
    assert dims == 1 or middles[0] < middles[1] < middles[2]


def test_the_middle_of_a_volume_is_upright() -> None:
    x = torch.full((1, 1, 3, 96, 96), -1.0)
    x[:, :, 1, :, 90:] = 1  # far on the last axis: above
    (tile,) = view(x)
    assert (tile[:6] == 255).all()
    assert (tile[6:] == 0).all()


def test_a_loss_curve_reads_the_log_of_a_run(tmp_path: Path) -> None:
    rows = [
        {"step": i, "loss": 1 / (i + 1), "validation_loss": 0.5 if i % 100 == 0 else ""} for i in range(400)
    ]
    with (tmp_path / "log.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    plotting.loss_curve(tmp_path / "log.csv", tmp_path / "a.png")
    plotting.loss_curve(rows, tmp_path / "b.png")
    assert (read(tmp_path / "a.png") == read(tmp_path / "b.png")).all()
    assert ink(read(tmp_path / "a.png"), (255, 127, 14)).sum() > 300  # the second colour: validation


def test_labels_stand_left_of_their_rows_and_titles_above_their_columns(tmp_path: Path) -> None:
    images = torch.ones(2, 2, 96, 96)
    plotting.image_grid(images, tmp_path / "g.png", row_labels=["", "low"], column_titles=[(1, 1, "title")])
    dark = read(tmp_path / "g.png").astype(int).sum(-1) < 300
    rows, columns = np.nonzero(dark)
    label = rows > 40
    middle = 26 + 96 + 12 + 48
    assert abs(rows[label].mean() - middle) < 6
    assert columns[label].max() < 8 + 3 * 7 + 6
    assert abs(columns[~label].mean() - (dark.shape[1] - 8 - 48)) < 6


def test_sheets_may_end_in_a_short_row() -> None:
    tile = np.zeros((10, 20, 3), np.uint8)
    sheet, middles, edges = pasted([[tile, tile], [tile]])
    assert sheet.shape == (22, 42, 3)
    assert middles == [5, 17]
    assert edges == [(0, 20), (22, 42)]
    assert (sheet[12:, 22:] == 255).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: plotting.pictures(torch.zeros(2, 3), p), r"x must be \(N, C, \*spatial\).*\(2, 3\)"),
        (lambda p: plotting.pictures(torch.zeros(0, 1, 8), p), "no size 0"),
        (lambda p: plotting.waveform(torch.zeros(1, 1, 1, 8), p), "1 spatial axes"),
        (lambda p: plotting.waveform(torch.zeros(8), p, 0), "sample_rate must be positive, got 0"),
        (lambda p: plotting.waveform(torch.zeros(8), p, labels=["a", "b"]), "each of 1 samples, got 2"),
        (lambda p: plotting.image_grid(torch.zeros(8, 8), p), r"images must be .*\(8, 8\)"),
        (lambda p: plotting.image_grid(torch.zeros(2, 1, 8, 8), p, row_labels=["a"]), "each of 2 rows"),
        (lambda p: plotting.slices(torch.zeros(8, 8), p), "3 spatial axes"),
        (
            lambda p: plotting.slices(torch.zeros(8, 8, 8), p, spacing=(1, 0, 1)),
            "spacing must be three positive",
        ),
        (lambda p: plotting.mosaic(torch.zeros(2, 2, 2, 2), p, axes=(0, 1, 2, 2)), "axes must name"),
        (lambda p: plotting.mosaic(torch.zeros(2, 2, 2, 2), p, origin="up"), "origin must be one of"),
        (lambda p: plotting.film_strip([], p), "at least one step"),
        (lambda p: plotting.gif([], p), "got 0 frames"),
        (lambda p: plotting.gif([torch.zeros(1, 1, 4)], p, fps=0), "fps > 0"),
        (lambda p: plotting.gif([torch.zeros(4, 4)], p), r"samples must be \(N, C, \*spatial\)"),
        (lambda p: plotting.loss_curve([], p), "got none"),
    ],
)
def test_bad_arguments_are_refused(call, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        call(tmp_path / "p.png")
