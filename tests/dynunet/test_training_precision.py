"""bf16 and TF32 in training: on where the chip is quicker by it, and all settings as before in the end."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dynunet import Diffusion, Encoder, UNet
from dynunet.planning.pace import seconds_per_step
from dynunet.training import TrainOptions, engine, precision

from .trainers import trainer

backends: Any = torch.backends
CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def settings() -> list[Any]:
    """By their newer names and by their older ones, which raise where the two do not agree."""
    newer = [setting.fp32_precision for setting in (*precision._SETTINGS, backends.cudnn, backends)]
    return [*newer, torch.get_float32_matmul_precision(), *older()]


def older() -> tuple[bool, bool]:
    return backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32


def as_torch_has_it() -> None:
    pass


def of_older_name() -> None:
    backends.cuda.matmul.allow_tf32 = backends.cudnn.allow_tf32 = True


def of_newer_name() -> None:
    backends.cudnn.conv.fp32_precision = backends.cudnn.rnn.fp32_precision = "ieee"
    backends.cudnn.allow_tf32 = False


def high() -> None:
    torch.set_float32_matmul_precision("high")


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As torch has them, afterwards; and free to be set, which torch's own test utilities forbid."""
    monkeypatch.setitem(backends.flags_frozen.__globals__, "__allow_nonbracketed_mutation_flag", True)
    yield
    torch.set_float32_matmul_precision("highest")
    for setting, value in zip(precision._SETTINGS, ("none", "tf32", "tf32"), strict=True):
        setting.fp32_precision = value
    backends.cudnn.allow_tf32 = True
    backends.mkldnn.matmul.fp32_precision = "none"


@pytest.mark.parametrize("start", [as_torch_has_it, of_older_name, of_newer_name, high])
@pytest.mark.parametrize("tf32", [True, False])
def test_settings_agree_and_are_as_before_in_the_end(start: Callable[[], None], tf32: bool) -> None:
    start()
    before = settings()
    with precision.float32_products(tf32, CUDA):
        assert [s.fp32_precision == "tf32" for s in precision._SETTINGS] == [tf32] * 3
        assert older() == (tf32, tf32)
    assert settings() == before


def test_one_newer_name_alone_is_left_as_it_was() -> None:
    """torch refuses the older name then."""
    backends.cuda.matmul.fp32_precision = "tf32"
    with precision.float32_products(False, CUDA):
        assert older() == (False, False)
    assert backends.cuda.matmul.fp32_precision == "tf32"


def test_nothing_is_set_on_a_cpu(tmp_path: Path) -> None:
    before = settings()
    with precision.float32_products(True, CPU):
        assert settings() == before
    assert not precision.has_tf32(CPU)
    trainer(tmp_path, cpu=True).fit(1)
    assert settings() == before


@pytest.mark.parametrize(("asked", "chip"), [(True, True), (True, False), (False, True)])
def test_it_is_used_where_the_chip_has_it_and_written_down(
    asked: bool, chip: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert TrainOptions().tf32
    during: list[tuple[bool, bool]] = []
    products = precision.float32_products
    monkeypatch.setattr(engine, "has_tf32", lambda _: chip)
    monkeypatch.setattr(engine, "float32_products", lambda tf32, _: products(tf32, CUDA))
    trainer(tmp_path, tf32=asked, callbacks=[lambda *_: during.append(older())]).fit(2)
    used = asked and chip
    assert during == [(used, used)]
    assert json.loads((tmp_path / "run.json").read_text())["options"]["tf32"] is used


def test_a_run_is_resumed_with_the_other_choice(tmp_path: Path) -> None:
    trainer(tmp_path).fit(2)
    trainer(tmp_path, tf32=False).fit(4, resume=True)


def wide(dims: int = 1, channels: tuple[int, ...] = (16,), **options: Any) -> Diffusion:
    options = {"num_blocks": 1, "num_groups": 8, "time_embedding": True, **options}
    return Diffusion(UNet(dims, 1, channels=channels, **options))


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (wide, "bf16"),
        (lambda: wide(2, (64, 128)), "bf16"),
        (lambda: wide(3, (16,)), "bf16"),
        (lambda: Encoder(2, 1, channels=(64,), out_features=2), "bf16"),
        (lambda: wide(norm="layer", num_groups=32), "bf16"),
        (lambda: wide(2, (16, 64)), "no"),
        (lambda: wide(4, (32,)), "no"),
        (lambda: wide(1, (8, 64)), "no"),
        (lambda: wide(num_groups=32), "no"),
        (lambda: wide(norm="instance"), "no"),
        (lambda: wide(channels=(16, 32), upsample="transpose"), "no"),
        (nn.Identity, "no"),
    ],
)
def test_bf16_is_usual_where_steps_are_quicker(
    network: Callable[[], Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert TrainOptions().precision == "auto"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert precision.usual_precision(network(), CPU) == expected
    assert precision.usual_precision(network(), CUDA) == "no"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    assert precision.usual_precision(network(), CPU) == "no"


@pytest.mark.parametrize("chip", [True, False])
def test_a_run_goes_on_in_its_precision_on_another_chip(
    chip: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_multiplies_bf16", lambda: chip)
    trainer(tmp_path, diffusion=wide(), cpu=True).fit(1)
    expected = "bf16" if chip else "no"
    assert json.loads((tmp_path / "run.json").read_text())["options"]["precision"] == expected
    monkeypatch.setattr(precision, "_multiplies_bf16", lambda: not chip)
    trainer(tmp_path, diffusion=wide(), cpu=True).fit(2, resume=True)
    other = "no" if chip else "bf16"
    with pytest.raises(ValueError, match="precision"):
        trainer(tmp_path, diffusion=wide(), cpu=True, precision=other).fit(3, resume=True)


def test_distillation_compares_in_full_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_multiplies_bf16", lambda: True)
    quiet: Any = {"sample_every": 0, "progress": False, "tensorboard": False, "cpu": True}
    wide().distill(torch.zeros(4, 1, 8), tmp_path, train_steps=1, batch_size=2, **quiet)
    assert json.loads((tmp_path / "run.json").read_text())["options"]["precision"] == "no"


@pytest.mark.parametrize("chip", [True, False])
def test_a_plan_times_steps_in_the_usual_precision(chip: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_multiplies_bf16", lambda: chip)
    during: list[bool] = []
    model: Any = wide()
    model.model.register_forward_hook(lambda *_: during.append(torch.is_autocast_enabled("cpu")))
    assert seconds_per_step(model, {"x0": torch.empty(2, 1, 8)}) > 0
    assert set(during) == {chip}
