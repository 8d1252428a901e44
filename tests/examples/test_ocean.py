"""Fields of the ocean: temperatures and the mixed layer."""

import re

import pytest
import torch
from torch import Tensor

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")

import _layer
import _ocean


def test_the_mixed_layer_ends_where_the_temperature_changes() -> None:
    column = torch.tensor([20.0, 19.8, 19.0, 20.0])  # what is below another temperature does not count
    field = column.view(1, 4, 1, 1).expand(3, 4, 2, 5)
    water = torch.ones(field.shape, dtype=torch.bool)
    water[..., 0] = False
    labels = _layer.layer(field, water)
    assert labels[1, :, 1, 3].tolist() == [1, 1, 0, 0]
    assert (labels[..., 0] == -1).all()


def test_areas_go_around_the_earth() -> None:
    field = torch.arange(7.0).expand(2, 3, 4, 7)
    labels = (torch.arange(7) % 2).expand(2, 3, 4, 7)
    data = _layer.Areas(field, torch.ones_like(labels, dtype=torch.bool), labels, (3, 5), 1.0, 0.0)
    for index in range(5):
        item = data[index]
        assert item["x0"].shape == (9, 2, 3, 3, 5)
        columns = (15 * (item["x0"][0] + 1)).round()
        assert torch.equal(columns % 2, item["target"].float())
        assert set(columns.diff(dim=-1).unique().tolist()) <= {1, -6}
        others = set(range(7)) - set(columns.unique().tolist())  # whose labels say what is usual
        assert torch.allclose(item["x0"][5], torch.tensor(sum(n % 2 for n in others) - 1.0))


def test_floats_measure_columns_with_errors() -> None:
    field, water = torch.randn(6, 5, 30, 40), torch.rand(6, 1, 30, 40).expand(6, 5, 30, 40) < 0.7
    values, floats = _layer.measured(field, water, 0.2, 0.5)
    assert torch.equal(floats, floats[:, :1].expand_as(floats))
    assert not (floats & ~water).any()
    assert abs(floats[water].float().mean().item() - 0.2) < 0.03
    assert abs((values - field)[floats].std().item() - 0.5) < 0.03
    assert (values[~floats] == 0).all()
    assert not torch.equal(floats[0], floats[1] & water[0])


def test_means_around_are_those_of_a_loop() -> None:
    values, floats = torch.randn(4, 2, 5, 6), torch.rand(4, 1, 5, 6) < 0.4
    for reach in ((1, 1, 1), (3, 3, 5)):
        mean, share = _layer.mean_around(values * floats, floats, reach)
        for month, row, column in ((0, 0, 0), (3, 2, 5), (2, 4, 3)):
            near = [
                (m % 4, r, c % 6)
                for m in range(month - reach[0] // 2, month + reach[0] // 2 + 1)
                for r in range(row - reach[1] // 2, row + reach[1] // 2 + 1)
                for c in range(column - reach[2] // 2, column + reach[2] // 2 + 1)
                if 0 <= r < 5
            ]
            there = [values[m, :, r, c] for m, r, c in near if floats[m, 0, r, c]]
            expected = torch.stack(there).mean(0) if there else torch.zeros(2)
            torch.testing.assert_close(mean[month, :, row, column], expected)
            size = reach[0] * reach[1] * reach[2]
            assert abs(share[month, 0, row, column].item() - len(there) / size) < 1e-6


def test_the_layer_by_hand_is_exact_where_it_can_be() -> None:
    bottom = torch.randint(1, 5, (3, 1, 12, 1)).expand(3, 1, 12, 16)  # alike along a parallel
    field = torch.where(torch.arange(5).view(-1, 1, 1) < bottom, 20.0, 17.0)
    water = torch.ones_like(field, dtype=torch.bool)
    labels, known = _layer.layer(field, water), torch.rand(field.shape) < 0.9
    assert torch.equal(_layer.climatology(labels, known | (torch.arange(16) == 0)), labels)
    all_there = _layer.measured(field, water, 1.0, 0.1)
    found, how = _layer.best_smoothed(*all_there, labels, known)
    assert torch.equal(found, labels)
    assert how[0][:2] == (1, 1)  # neither other months nor other latitudes
    assert torch.equal(_layer.regression(*all_there, labels, known, how[0]), labels)
    none = _layer.measured(field, water, 0.0, 0.1)
    usual = torch.randint(2, labels.shape)
    assert torch.equal(_layer.smoothed(*none, usual, (1, 1, 1), 0.5), usual)


def test_the_score_of_a_normal_law_is_its_integral() -> None:
    errors, std = torch.tensor([-2.0, 0.0, 0.3, 4.0]).double(), torch.tensor([0.5, 1.0, 2.0, 1.0]).double()
    x = torch.linspace(-30, 30, 60_001).double()
    law = torch.distributions.Normal(errors.unsqueeze(1), std.unsqueeze(1))
    integral = torch.trapezoid((law.cdf(x) - (x > 0).double()).square(), x)
    torch.testing.assert_close(_ocean.gaussian_crps(errors, std), integral, rtol=0, atol=1e-3)


def test_unknown_entries_are_means_of_what_is_around() -> None:
    field, water = torch.randn(2, 3, 5, 12), torch.rand(2, 3, 5, 12) < 0.9
    field, known = field * water, water & (torch.rand(2, 3, 5, 12) < 0.6)
    mean = _ocean.mean_of_parallel(field, known)
    for reach in ((1, 9), (3, 5)):
        found = _ocean.from_around(field, known, water, reach, rounds=1)
        assert torch.equal(found[known], field[known])
        assert (found[~water] == 0).all()
        for m, d, row, column in (water & ~known).nonzero().tolist():
            total, count = 0.0, 0
            for r in range(max(row - reach[0] // 2, 0), min(row + reach[0] // 2 + 1, 5)):
                for c in (n % 12 for n in range(column - reach[1] // 2, column + reach[1] // 2 + 1)):
                    total += (field - mean)[m, d, r, c].item() * bool(known[m, d, r, c])
                    count += bool(water[m, d, r, c])
            expected = mean[m, d, row, column].item() + total / count
            assert abs(found[m, d, row, column].item() - expected) < 1e-5


def test_the_mirrored_earth_has_the_other_season() -> None:
    months, latitudes = torch.arange(4).view(-1, 1, 1, 1), torch.arange(3).view(-1, 1) - 1
    summer = (latitudes * (months - 1.5)).expand(4, 2, 3, 5)  # warm in the north in the second half
    odd = (summer < 0) & (torch.arange(5) == 1)
    turned = _ocean.mirrored(odd)
    assert turned[0, 0, 0, 1] == odd[2, 0, 2, 1]
    assert torch.equal(turned.any(-1), odd.any(-1))  # the same climate
    assert torch.equal(_ocean.mirrored(turned), odd)
    assert torch.equal(_ocean.mirrored(summer[:1]), summer[:1].flip(-2))  # what has no months, places


def test_a_regression_finds_a_linear_function_and_what_it_leaves() -> None:
    weights, spread = torch.randn(3, 2), torch.tensor([0.5, 1.0, 2.0]).view(-1, 1, 1)

    def example() -> tuple[Tensor, Tensor, Tensor]:
        cond, mask = torch.randn(4, 2, 3, 20, 20), torch.rand(2, 3, 20, 20) < 0.5
        error = torch.einsum("pmdij,dp->mdij", cond[:2], weights) + spread * torch.randn(2, 3, 20, 20)
        mask[:, 0] = False  # nothing is asked there
        return error.where(mask, 1e6), cond, mask

    found = _ocean.Regression.fit([example() for _ in range(20)], 2)
    torch.testing.assert_close(found.weights[1:].float(), weights[1:], rtol=0, atol=0.1)
    torch.testing.assert_close(found.spread[1:], spread[1:], rtol=0.05, atol=0)
    assert (found.spread[0], *found.weights[0]) == (1, 0, 0)
    _, cond, _ = example()
    expected = torch.einsum("pmdij,dp->mdij", cond[:2], found.weights.float())
    torch.testing.assert_close(found(cond), expected)


def test_intervals_are_judged_where_the_field_is_held_out(capsys: pytest.CaptureFixture[str]) -> None:
    field, spread = torch.randn(2, 3, 40, 40), torch.tensor([0.5, 1.0, 2.0]).view(-1, 1, 1)
    held_out = torch.rand(field.shape) < 0.5
    elsewhere = torch.where(held_out, 0, 1e6)
    centre = field + spread * torch.randn_like(field) + elsewhere
    samples = centre + spread * torch.randn(199, *field.shape)
    figures = _ocean.judge_intervals(samples, centre, spread, field, held_out)
    assert abs(float(figures["covered"]) - 0.9) < 0.04
    crps_of_normal = torch.pi**-0.5 * spread.mean().item()  # Gneiting and Raftery 2007, eq. 21, of its own
    assert abs(float(figures["regression CRPS"]) - crps_of_normal) < 0.05
    assert abs(float(figures["network CRPS"]) - crps_of_normal) < 0.05
    assert abs(float(figures["width"]) - 2 * 1.645 * spread.mean().item()) < 0.2
    covered = re.search(r"^regression +[\d.]+ +([\d.]+)%", capsys.readouterr().out, re.MULTILINE)
    assert covered is not None
    assert abs(float(covered[1]) - 90) < 4
