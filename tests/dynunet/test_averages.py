"""Averages of any length, put together after training, against sums over every step's weights."""

import json
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

import dynunet
from dynunet.averages import decay, exponent, interval, shares, stored
from dynunet.training import TrainOptions
from dynunet.training.state import read

from .test_cli_files import contents, ends, run
from .trainers import Random, assert_same, stopped, trainer, unet, weights

LENGTHS = (0.05, 0.1)


def power(length: float, steps: int) -> np.ndarray:
    """What each step counts for: the integral of a power of time over it, normalised."""
    edges = np.linspace(0, 1, steps + 1) ** (exponent(length) + 1)
    return np.diff(edges)


def recorded(out: Path, steps: int, **options: Any) -> list[dict[str, Tensor]]:
    """A run with stored averages, and the weights after each of its steps."""
    seen: list[dict[str, Tensor]] = []
    made = trainer(out, ema_lengths=LENGTHS, log_every=1, save_every=1000, steps=steps, **options)
    made.callbacks = (lambda step, row: seen.append(weights(made.model)),)
    made.fit()
    return seen


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Tensor]]]:
    out = tmp_path_factory.mktemp("averages")
    return out, recorded(out, 100)


@given(st.floats(0.001, 0.28))
def test_the_exponent_gives_a_power_of_this_width(length: float) -> None:
    g = exponent(length)
    mean, square = (g + 1) / (g + 2), (g + 1) / (g + 3)  # of u^g on [0, 1]
    np.testing.assert_allclose((square - mean**2) ** 0.5, length, rtol=1e-6)


@given(st.floats(0.02, 0.28), st.integers(1, 60))
def test_the_decay_gives_every_step_its_share(length: float, steps: int) -> None:
    found = np.zeros(steps)
    for step in range(1, steps + 1):
        b = decay(length, step)
        found *= b
        found[step - 1] = 1 - b
    np.testing.assert_allclose(found, power(length, steps), rtol=1e-9, atol=1e-12)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5, unique=True), st.floats(0.03, 0.25))
def test_shares_are_those_of_least_squares_on_a_grid(times: list[int], length: float) -> None:
    times = sorted(times)
    fine, end = 400, times[-1]  # of each step
    grid = (np.arange(end * fine) + 0.5) / fine

    def law(t: int, value: float) -> np.ndarray:
        g = exponent(value)
        return np.where(grid < t, (g + 1) * grid**g / t ** (g + 1.0), 0)

    ends, lengths = [t for t in times for _ in LENGTHS], [*LENGTHS] * len(times)
    basis = np.stack([law(t, value) for t, value in zip(ends, lengths, strict=True)], 1)
    wanted = law(end, length)
    free = np.linalg.lstsq(basis[:, 1:] - basis[:, :1], wanted - basis[:, 0], rcond=None)[0]
    expected = np.array([1 - free.sum(), *free])  # they add up to 1
    found, error = shares(ends, lengths, end, length)
    np.testing.assert_allclose(basis @ found, basis @ expected, atol=2e-3 * wanted.max())
    far = np.linalg.norm(basis @ expected - wanted) / np.linalg.norm(wanted)
    assert error == pytest.approx(far, abs=2e-3)
    assert found.sum() == pytest.approx(1, abs=1e-9)


def test_shares_and_updates_are_those_of_ema_pytorch() -> None:
    peer: Any = pytest.importorskip("ema_pytorch.post_hoc_ema")
    ends, lengths = [16, 16, 32, 32, 40, 40], [*LENGTHS] * 3
    t, g = torch.tensor(ends), torch.tensor([exponent(v) for v in lengths], dtype=torch.float64)
    products = peer.p_dot_p(t[:, None], g[:, None], t, g)
    shift = torch.linalg.solve(products, torch.ones(len(t), dtype=torch.float64))
    for length in (0.03, 0.07, 0.13, 0.2):
        target = torch.tensor([exponent(length)], dtype=torch.float64)
        theirs = peer.solve_weights(t, g, torch.tensor([40]), target).flatten()
        theirs += (1 - theirs.sum()) * shift / shift.sum()  # so that they add up to 1
        np.testing.assert_allclose(shares(ends, lengths, 40, length)[0], theirs, rtol=1e-6, atol=1e-9)
    net = torch.nn.Linear(3, 2, dtype=torch.float64)
    average = peer.KarrasEMA(net, sigma_rel=0.1, update_every=1)
    average.step.fill_(-1)  # it counts from 2, where the paper's code has no part of the first weights
    ours = torch.zeros_like(net.weight)
    for step in range(1, 20):
        with torch.no_grad():
            net.weight.normal_(generator=torch.Generator().manual_seed(step))
        average.update()
        ours = torch.lerp(net.weight.detach(), ours, decay(0.1, step))
    torch.testing.assert_close(average.ema_model.weight.detach(), ours, rtol=1e-12, atol=1e-12)


def test_averages_are_sums_over_the_weights_of_all_steps(trained: Any) -> None:
    """Within the error of p times the spread of the weights (Cauchy and Schwarz): none at lengths stored."""
    out, seen = trained
    ends = [t for t in stored(out) for _ in LENGTHS]
    for length in (*LENGTHS, 0.07, 0.13):
        share, g = torch.from_numpy(power(length, len(seen))), exponent(length)
        error = shares(ends, [*LENGTHS] * (len(ends) // 2), len(seen), length)[1]
        assert error < (1e-7 if length in LENGTHS else 0.06)
        for name, tensor in weights(dynunet.average(out, length)).items():
            every = torch.stack([w[name] for w in seen]).double()
            if not tensor.is_floating_point():
                assert torch.equal(tensor, seen[-1][name])
                continue
            spread = (every - every.mean(0)).square().mean(0).sqrt()
            bound = error * (g + 1) / (2 * g + 1) ** 0.5 * spread + 1e-6
            assert ((torch.tensordot(share, every, 1) - tensor).abs() <= bound).all(), (length, name)


def test_averages_may_end_earlier(trained: Any) -> None:
    out, seen = trained
    found = weights(dynunet.average(out, 0.1, step=64))
    share = torch.from_numpy(power(0.1, 64))
    name = "model.first.weight"
    expected = torch.tensordot(share, torch.stack([w[name] for w in seen[:64]]).double(), 1)
    torch.testing.assert_close(found[name].double(), expected, rtol=0, atol=1e-6)


def test_few_files_are_kept_at_steps_that_depend_on_their_number_alone(trained: Any) -> None:
    assert [*stored(trained[0])] == [16, 32, 48, 64, 80, 96, 100]
    kept: set[int] = set()
    for step in range(1, 5000):
        if step % interval(step) == 0:
            kept = {s for s in kept if s % interval(step) == 0} | {step}
            assert len(kept) <= 16
            assert step < 256 or len(kept) >= 8
            gaps = {b - a for a, b in pairwise([0, *sorted(kept)])}
            assert gaps == {interval(step)}


def test_a_resumed_run_stores_the_same_averages(tmp_path: Path) -> None:
    options: dict[str, Any] = {"ema_lengths": LENGTHS, "save_every": 20, "steps": 40, "log_every": 6}
    trainer(tmp_path / "whole", Random(), **options).fit()
    stopped(tmp_path / "run", 36, **options)  # after the averages of 32, and a checkpoint at 20
    assert [*stored(tmp_path / "run")] == [16, 32]
    torch.manual_seed(99)
    seen: list[list[int]] = []
    watch = [lambda step, row: seen.append([*stored(tmp_path / "run")])]
    resumed = trainer(tmp_path / "run", Random(), callbacks=watch, **options).fit(resume=True)
    assert seen[0] == [16], "those of later steps are removed"
    assert contents(tmp_path / "whole/averages") == contents(tmp_path / "run/averages")
    assert [*stored(tmp_path / "run")] == [16, 32, 40]
    assert_same(resumed, trainer(tmp_path / "none", Random(), **{**options, "ema_lengths": ()}).fit())
    assert not (tmp_path / "none/averages").exists()
    states = [read(tmp_path / name / "checkpoints/step-00000040").state for name in ("none", "whole")]
    assert [len(s["tracked"]) for s in states] == [0, 2]
    with pytest.raises(ValueError, match=r"ema_lengths=None instead of \[0.05, 0.1\]"):
        trainer(tmp_path / "run", Random(), **{**options, "ema_lengths": ()}).fit(resume=True)
    trainer(tmp_path / "run", Random(), overwrite=True, **{**options, "steps": 3}).fit()
    assert [*stored(tmp_path / "run")] == [3]


def test_compiled_and_tied_networks_have_the_same_names(tmp_path: Path) -> None:
    model = unet()
    model.model.compile = lambda **options: None  # type: ignore[method-assign]
    trainer(tmp_path, diffusion=model, ema_lengths=(0.1,), steps=2, compile=True).fit()
    found = weights(dynunet.average(tmp_path, 0.1))
    assert found.keys() == weights(unet()).keys()


def test_what_gives_no_average_is_refused(trained: Any, tmp_path: Path) -> None:
    out, _ = trained
    for length in (0, 0.3, -1, float("nan")):
        with pytest.raises(ValueError, match=r"length must be above 0 and below 0.289, got"):
            dynunet.average(out, length)
    with pytest.raises(ValueError, match=r"step must be one of 16, 32, .*, 100, got 33"):
        dynunet.average(out, 0.1, step=33)
    with pytest.warns(UserWarning, match=r"length 0.01 is far from those stored, 0.05, 0.1: .* met to \d+%"):
        dynunet.average(out, 0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dynunet.average(out, 0.15)
    trainer(tmp_path / "a", steps=1).fit()
    with pytest.raises(ValueError, match="run must have stored averages, of training with ema_lengths"):
        dynunet.average(tmp_path / "a", 0.1)
    (tmp_path / "a/averages").mkdir()
    file = tmp_path / "a/averages/step-00000001.safetensors"
    file.write_bytes(b"x")
    with pytest.raises(ValueError, match="must hold averages with their lengths"):
        dynunet.average(tmp_path / "a", 0.1)
    save_file({"0.x": torch.zeros(1)}, file, {"lengths": json.dumps([0.1])})
    with pytest.raises(ValueError, match="must hold averages of the model beside it"):
        dynunet.average(tmp_path / "a", 0.1)
    names = load_file(stored(out)[100])
    wrong = {k: torch.zeros(2, 3, 4) for k in names if k.startswith("0.")}
    save_file(wrong, file, {"lengths": json.dumps([0.1])})
    with pytest.raises(ValueError, match=r"must be of shape \(4, 2, 3\), got \(2, 3, 4\)"):
        dynunet.average(tmp_path / "a", 0.1)


def test_lengths_are_checked() -> None:
    assert TrainOptions(ema_lengths=[0.1, 0.05]).ema_lengths == (0.1, 0.05)  # type: ignore[arg-type]
    cases: list[tuple[Any, Any, str]] = [
        ((0.1, 0.1), ValueError, "must be different ones"),
        ((0.05, 0.5), ValueError, r"ema_lengths\[1\] must be above 0 and below 0.289, got 0.5"),
        (0.1, TypeError, "must be a sequence of numbers"),
        ("0.1", TypeError, "must be a sequence of numbers"),
    ]
    for given_lengths, kind, words in cases:
        with pytest.raises(kind, match=words):
            TrainOptions(ema_lengths=given_lengths)


def test_commands_use_averages_of_any_length(tmp_path: Path, capsys: Any) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for i in range(6):
        np.save(tmp_path / f"data/{i}.npy", rng.random((8,)))
    small = "--spatial-dims 1 --channels 4 --num-groups 2 --batch-size 2 --sample-every 0 --no-tensorboard"
    run(
        "train", tmp_path / "data", *small.split(), "--steps", 3, "--cpu", "--lr", 0.1, "--warmup", 0,
        "--ema-lengths", 0.05, 0.1, "--out", tmp_path / "run",
    )  # fmt: skip
    sample = ("sample", tmp_path / "run", "--steps", 1, "--num", 1, "--device", "cpu", "--out")
    for name, length in (("a", ()), ("b", ("--length", 0.1)), ("c", ("--length", 0.07))):
        run(*sample, tmp_path / name, *length)
    made = [np.load(tmp_path / name / "sample-0.npy") for name in "abc"]
    assert not np.array_equal(made[0], made[1])
    assert not np.array_equal(made[1], made[2])
    for length in ((), ("--length", 0.07)):
        capsys.readouterr()
        run("evaluate", tmp_path / "run", tmp_path / "data", "--num", 2, "--steps", 1, *length)
        assert "loss" in capsys.readouterr().out
    ends(2, *sample, tmp_path / "d", "--length", 0.3)
    assert "--length must be above 0 and below 0.289, got 0.3" in capsys.readouterr().err
