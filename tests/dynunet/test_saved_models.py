"""Diffusion models come back from their checkpoints however they ran, with the objects they were made of."""

import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from dynunet import Diffusion, UNet
from dynunet.diffusion import losses, predictions, schedules, shifted, zero_terminal_snr
from dynunet.diffusion.schedules import EDM, Discrete, Linear, ScaledLinear, Schedule, Sigmoid


def unet(seed: int = 0) -> UNet:
    torch.manual_seed(seed)
    network = UNet(1, 1, channels=(4, 8), num_groups=2, time_embedding=True)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


def compiled(module: nn.Module) -> Any:
    return torch.compile(module, backend="eager")


def compiled_in_place(module: nn.Module) -> nn.Module:
    module.compile(backend="eager")
    return module


WRAPPED: dict[str, Callable[[nn.Module], Any]] = {
    "plain": lambda m: m,
    "compiled": compiled,
    "compiled in place": compiled_in_place,
    "on several devices": nn.DataParallel,
    "both": lambda m: compiled(nn.DataParallel(m)),
    "average": AveragedModel,
    "copy of a compiled one": lambda m: copy.deepcopy(compiled(m)),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_how_a_network_runs_is_not_saved(name: str, tmp_path: Path) -> None:
    network = unet()
    Diffusion(network).save_pretrained(tmp_path / "plain")
    model = Diffusion(WRAPPED[name](copy.deepcopy(network)))
    model.save_pretrained(tmp_path / "wrapped")
    copy.deepcopy(model).save_pretrained(tmp_path / "copied")
    expected = load_file(tmp_path / "plain" / "model.safetensors")
    for folder in ("wrapped", "copied"):
        weights = load_file(tmp_path / folder / "model.safetensors")
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[k], expected[k]) for k in expected)
        text = (tmp_path / folder / "config.json").read_text()
        assert text == (tmp_path / "plain" / "config.json").read_text()
    back = Diffusion.from_pretrained(tmp_path / "wrapped")
    assert isinstance(back.model, UNet)
    into = Diffusion.from_pretrained(tmp_path / "plain", model=WRAPPED[name](unet(1)))
    for mine, theirs in zip(into.parameters(), network.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_averages_of_compiled_networks() -> None:
    averaged: Any = AveragedModel(Diffusion(compiled(unet())))
    for fresh in (Diffusion(unet(1)), Diffusion(compiled(unet(2)))):
        fresh.load_averaged(averaged)
        for mine, theirs in zip(fresh.parameters(), averaged.module.parameters(), strict=True):
            assert torch.equal(mine, theirs)


def test_checkpoints_with_the_names_of_a_compiled_network_are_read(tmp_path: Path) -> None:
    model = Diffusion(unet())
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    renamed = {k.replace("model.", "model._orig_mod."): v for k, v in weights.items()}
    save_file(renamed, tmp_path / "model.safetensors")
    back = Diffusion.from_pretrained(tmp_path)
    assert all(torch.equal(back.state_dict()[k], v) for k, v in weights.items())


positive = st.floats(0.01, 50)
PLAIN: st.SearchStrategy[Schedule] = st.one_of(
    st.tuples(positive, positive).map(lambda b: Linear(min(b), max(b))),
    st.tuples(positive, positive).map(lambda b: ScaledLinear(min(b), max(b))),
    st.builds(Sigmoid, st.floats(-4, 0), st.floats(0.1, 4), st.floats(0.3, 3)),
    st.builds(EDM, st.floats(0.001, 0.1), st.floats(1, 200), st.floats(1, 10)),
    st.lists(st.integers(1, 99), min_size=2, max_size=6, unique=True).map(
        lambda table: Discrete([percent / 100 for percent in sorted(table, reverse=True)])
    ),
    st.sampled_from([schedules.Cosine(), schedules.Flow()]),
)


@st.composite
def any_schedule(draw: Any) -> Schedule:
    schedule = draw(PLAIN)
    if not isinstance(schedule, EDM | schedules.Flow) and draw(st.booleans()):
        schedule = zero_terminal_snr(schedule)
    return shifted(schedule, draw(positive)) if draw(st.booleans()) else schedule


@settings(max_examples=40, deadline=None)
@given(
    any_schedule(),
    st.one_of(
        st.builds(predictions.EDMPrediction, positive),
        st.sampled_from([predictions.Epsilon(), predictions.FlowPrediction(), predictions.VPrediction()]),
    ),
    st.one_of(
        st.builds(losses.LogNormal, st.floats(-3, 3), positive, positive),
        st.builds(losses.MinSNR, positive),
        st.sampled_from([losses.SNR(), losses.Weighting()]),
    ),
)
def test_schedules_predictions_and_weightings_are_saved(
    schedule: Any, prediction: Any, weighting: Any
) -> None:
    class Nothing(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return x

    model = Diffusion(Nothing(), schedule, prediction, weighting)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        again = json.loads((Path(folder) / "config.json").read_text())["_pass_again"]
        assert again == ["model"], "there is no code in the file"
        back = Diffusion.from_pretrained(folder, model=Nothing())
    assert back.schedule == schedule
    assert back.prediction == prediction
    assert back.loss_weighting == weighting
    assert back.config == model.config


def test_a_saved_schedule_can_be_edited_and_replaced(tmp_path: Path) -> None:
    shift: Any = np.float32(2)
    Diffusion(unet(), Linear(0.1, 30.0), shift=shift).save_pretrained(tmp_path)
    assert Diffusion.from_pretrained(tmp_path).schedule == shifted(Linear(0.1, 30.0), 2.0)
    edited = Diffusion.from_pretrained(tmp_path, schedule={"beta_max": 10.0}, shift=torch.tensor(1.0))
    assert edited.schedule == Linear(0.1, 10.0)
    assert Diffusion.from_pretrained(tmp_path, schedule="flow", shift=1).schedule == schedules.Flow()
    fields = json.loads((tmp_path / "config.json").read_text())
    fields["schedule"]["beta_max"] = -1
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=r"schedule: beta_min and beta_max must be positive"):
        Diffusion.from_pretrained(tmp_path)


def test_a_schedule_of_a_user_is_passed_again(tmp_path: Path) -> None:
    class Mine(Linear):
        pass

    def function(t: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - t, t

    for schedule in (Mine(), function):
        Diffusion(unet(), schedule).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="field 'schedule' was a module or a function"):
            Diffusion.from_pretrained(tmp_path)
        assert Diffusion.from_pretrained(tmp_path, schedule=schedule).schedule == schedule
