"""Checkpoints: what is saved comes back, what does not fit is refused by name, nothing is lost on the way."""

import copy
import json
import os
import pickle
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dynunet import Encoder, UNet, checkpoints
from dynunet.checkpoints import Checkpoint, constructor_config

FILES = {"config.json", "model.safetensors"}
SAVED = FILES | {"README.md"}


class Net(Checkpoint, nn.Module):
    def __init__(
        self,
        width: int,
        sizes: Any = (2, 3),
        *,
        rate: float = 0.0,
        norm: bool = True,
        activation: Any = "relu",
        in_layer: Any = None,
    ) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        self.in_layer, self.rate = in_layer, rate
        self.activation = nn.ReLU() if activation == "relu" else activation
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in sizes)
        self.norm = nn.BatchNorm1d(width) if norm else None
        self.register_buffer("scale", torch.ones(width), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.in_layer is None else self.in_layer(x)
        for layer in self.layers:
            x = self.activation(layer(x)) * self.scale
        return x if self.norm is None else self.norm(x)


class Outer(Checkpoint, nn.Module):
    def __init__(self, model: Any, schedule: str = "cosine", options: Any = None) -> None:
        super().__init__()
        self.model, self.schedule = model, schedule


class Tied(Checkpoint, nn.Module):
    def __init__(self, tie: bool = True) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        if tie:
            self.b.weight = self.a.weight


def filled(module: Any, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    for tensor in module.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * 3 + 0.1)  # a variance is positive
    return module


def same(a: nn.Module, b: nn.Module) -> bool:
    """The same names, values and dtypes."""
    one, other = a.state_dict(), b.state_dict()
    assert one.keys() == other.keys()
    return all(one[k].dtype == other[k].dtype and torch.equal(one[k], other[k]) for k in one)


def edited(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    fields = json.loads((folder / "config.json").read_text())
    change(fields)
    (folder / "config.json").write_text(json.dumps(fields))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    filled(Net(2)).save_pretrained(tmp_path)
    return tmp_path


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 4),
    st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple),
    st.floats(0, 1),
    st.booleans(),
    st.sampled_from((torch.float32, torch.float64, torch.bfloat16, torch.float16)),
)
def test_what_is_saved_comes_back(
    width: int, sizes: Any, rate: float, norm: bool, dtype: torch.dtype
) -> None:
    net = filled(Net(width, sizes, rate=rate, norm=norm).to(dtype))
    with tempfile.TemporaryDirectory() as folder:
        assert net.save_pretrained(folder) is None
        assert {file.name for file in Path(folder).iterdir()} == SAVED
        back = Net.from_pretrained(folder)
    assert same(net, back)
    assert back.scale.dtype == dtype, "also what is not in the file"
    assert back.config == net.config == {**back.config, "width": width, "sizes": list(sizes), "rate": rate}
    assert not back.training
    x = torch.randn(3, width, dtype=dtype)
    assert torch.equal(net.eval()(x), back(x))


def test_weights_of_several_dtypes_keep_them(tmp_path: Path) -> None:
    net = filled(Net(2))
    net.layers[0].half()
    net.save_pretrained(tmp_path)
    assert same(net, Net.from_pretrained(tmp_path))


def test_dtype_and_device_can_be_asked_for(saved: Path) -> None:
    net = Net.from_pretrained(saved, dtype=torch.float64, device="meta")
    assert {(p.dtype, p.device.type) for p in net.parameters()} == {(torch.float64, "meta")}
    assert net.norm is not None
    assert net.norm.num_batches_tracked is not None
    assert net.norm.num_batches_tracked.dtype == torch.int64


def test_the_configuration_is_to_be_read(saved: Path) -> None:
    Net(3, [(1, 2), (2, 2)], in_layer=nn.Identity(), activation=torch.tanh).save_pretrained(saved)
    assert (saved / "config.json").read_text() == (
        "{\n"
        '  "_class": "Net",\n'
        '  "_format": 1,\n'
        '  "_pass_again": ["activation", "in_layer"],\n'
        '  "width": 3,\n'
        '  "sizes": [[1, 2], [2, 2]],\n'
        '  "rate": 0.0,\n'
        '  "norm": true\n'
        "}\n"
    )


def test_arguments_are_kept_as_json_holds_them() -> None:
    width: Any = np.int64(2)
    rate: Any = np.float32(0.5)
    config = Net(width, sizes=range(2), rate=rate, activation={"name": ("é", None)}).config
    expected = {"width": 2, "sizes": [0, 1], "rate": 0.5, "norm": True, "activation": {"name": ["é", None]}}
    assert config == {**expected, "in_layer": None}
    assert json.loads(json.dumps(config)) == config
    assert type(config["width"]) is int
    assert constructor_config(Net, {"width": 2, "rate": nn.ReLU(), "self": 0}) == {"width": 2}


def test_the_configuration_survives_copies() -> None:
    net = Net(2, (4, 4, 4), rate=0.5)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert twin.config == net.config
        assert twin.config is not net.config


def test_a_configuration_edited_by_hand(saved: Path) -> None:
    text = (saved / "config.json").read_text()
    (saved / "config.json").write_bytes(
        b"\xef\xbb\xbf" + text.replace('"rate": 0.0', '"rate": 0.25').encode()
    )
    assert Net.from_pretrained(saved).rate == 0.25
    again = Net.from_pretrained(saved, rate=0.5)
    assert again.rate == again.config["rate"] == 0.5, "the caller has the last word"


def test_modules_and_functions_have_to_be_passed_again(tmp_path: Path) -> None:
    net = filled(Net(2, in_layer=nn.Linear(2, 2), activation=torch.tanh))
    net.save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"config\.json: field 'activation' was .* again, activation=\.\.\.$"
    ):
        Net.from_pretrained(tmp_path, in_layer=nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"field 'in_layer' was a module or a function, which is not saved"):
        Net.from_pretrained(tmp_path, activation=torch.tanh)
    back = Net.from_pretrained(tmp_path, in_layer=nn.Linear(2, 2), activation=torch.tanh)
    assert same(net, back), "the weights of the module are in the file"
    back.save_pretrained(tmp_path)
    edited(tmp_path, lambda fields: fields.update(activation="relu"))
    Net.from_pretrained(tmp_path, in_layer=nn.Linear(2, 2))  # a name in its place will do


@pytest.mark.parametrize(
    ("change", "error", "pattern"),
    [
        (
            {"widht": 2},
            ValueError,
            r"field 'widht' must be an argument of Net, .* got 2; did you mean 'width'\?",
        ),
        (
            {"heads": None},
            ValueError,
            r"field 'heads' must be an argument of Net, which this version .* got None$",
        ),
        ({"_class": "UNet"}, ValueError, "_class must be 'Net' to be loaded as one, got 'UNet'"),
        ({"_class": None}, ValueError, "_class must be 'Net' to be loaded as one, got None"),
        ({"_format": 2}, ValueError, "_format must be an int from 1 to 1, got 2; a newer version"),
        ({"_format": True}, ValueError, "_format must be an int from 1 to 1, got True"),
        ({"_pass_again": "rate"}, ValueError, "'_pass_again' must be a list of names, got 'rate'"),
        ({"width": 0}, ValueError, "config.json: width must be at least 1, got 0$"),
        ({"width": "2"}, TypeError, "config.json: '<' not supported"),
        (
            {"sizes": {"_class": "Nett"}},
            ValueError,
            r"'sizes\._class' must be .* got 'Nett'; did you mean 'Net'\?",
        ),
        (
            {"sizes": {"_class": []}},
            ValueError,
            r"field 'sizes\._class' must be a class that is imported, got \[\]",
        ),
    ],
)
def test_bad_fields_are_refused(saved: Path, change: Any, error: type[Exception], pattern: str) -> None:
    edited(saved, lambda fields: fields.update(change))
    with pytest.raises(error, match=pattern) as raised:
        Net.from_pretrained(saved)
    assert str(raised.value).startswith(str(saved / "config.json"))


def test_missing_fields_are_refused(saved: Path) -> None:
    edited(saved, lambda fields: fields.pop("width"))
    with pytest.raises(TypeError, match=r"config\.json: .*missing 1 required positional argument: 'width'"):
        Net.from_pretrained(saved)
    with pytest.raises(TypeError, match=r"Net takes no argument 'widht'; did you mean 'width'\?"):
        Net.from_pretrained(saved, widht=2)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("{", "must be JSON in UTF-8: Expecting"),
        ("", "must be JSON in UTF-8: Expecting value"),
        ("[1]", r"must be a JSON object, got \[1\]"),
        ('{"_class": "Net", "rate": 1, "rate": 2}', "each field must be given once, got 'rate' 2 times"),
        (b"\xff", "must be JSON in UTF-8: 'utf-8' codec"),
    ],
)
def test_files_that_hold_no_configuration_are_refused(saved: Path, text: str | bytes, pattern: str) -> None:
    (saved / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=rf"config\.json.* {pattern}"):
        Net.from_pretrained(saved)


@pytest.mark.parametrize("name", sorted(FILES))
def test_missing_files_are_refused(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(ValueError, match=rf"{re.escape(name)} is missing: a checkpoint is a folder with"):
        Net.from_pretrained(saved)


@pytest.mark.parametrize("missing", [Path("no") / "folder", "/no/such/folder"])
def test_missing_folders_are_refused(missing: Any) -> None:
    with pytest.raises(ValueError, match=r"must be a folder with config\.json .*; there is no such folder"):
        Net.from_pretrained(missing)


def test_weights_that_are_cut_off_are_refused(saved: Path) -> None:
    whole = (saved / "model.safetensors").read_bytes()
    for part in (whole[:-1], whole[: len(whole) // 2], b""):
        (saved / "model.safetensors").write_bytes(part)
        with pytest.raises(ValueError, match=r"model\.safetensors must be a whole safetensors file"):
            Net.from_pretrained(saved)


def test_weights_that_do_not_fit_are_listed(saved: Path) -> None:
    with pytest.raises(
        ValueError, match=r"fit the network, got .* and 4 more; they .* with width=2, not 3"
    ) as e:
        Net.from_pretrained(saved, width=3)
    assert "layers.0.weight (2, 2) instead of (3, 3); layers.0.bias (2,) instead of (3,)" in str(e.value)
    assert str(e.value).startswith(str(saved / "model.safetensors"))
    edited(saved, lambda fields: fields.update(sizes=[1, 1, 1]))
    with pytest.raises(
        ValueError, match=r"got layers\.2\.weight none instead of \(2, 2\); .*sizes=\[2, 3\], not"
    ):
        Net.from_pretrained(saved)
    weights = load_file(saved / "model.safetensors")
    save_file({**weights, "more": torch.ones(1)}, saved / "model.safetensors")
    with pytest.raises(ValueError, match=r"got more \(1,\) instead of none$"):
        Net.from_pretrained(saved, sizes=[2, 3])


def test_nothing_is_unpickled(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("pickle in the load path")

    for owner, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(owner, name, refuse)
    Net.from_pretrained(saved)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("step", ["fsync", "replace", "save_model", "write_text"])
def test_an_interrupted_save_leaves_the_old_checkpoint(
    saved: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    (saved / "notes.txt").write_text("mine")
    before, other = contents(saved), filled(Net(2, (1, 1, 1), rate=0.5), seed=1)

    def interrupt(*args: Any, **kwargs: Any) -> None:
        if step == "save_model":
            Path(args[1]).write_bytes(b"half of it")
        raise KeyboardInterrupt

    owner = {"save_model": checkpoints, "write_text": Path}.get(step, os)
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            other.save_pretrained(saved)
    assert contents(saved) == before

    other.save_pretrained(saved)
    assert same(Net.from_pretrained(saved), other)
    assert {file.name for file in saved.iterdir()} == SAVED | {"notes.txt"}
    assert (saved / "notes.txt").read_text() == "mine"


def test_a_checkpoint_that_is_replaced_while_it_is_read_is_read_again(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, original, reads = filled(Net(2, (1, 1, 1), rate=0.5), seed=1), checkpoints._read_weights, 0

    def read_weights(file: Path) -> Any:
        nonlocal reads
        reads += 1
        if reads == 1:
            other.save_pretrained(saved)
        return original(file)

    monkeypatch.setattr(checkpoints, "_read_weights", read_weights)
    loaded = Net.from_pretrained(saved)
    assert same(loaded, other)
    assert loaded.config == other.config
    assert reads == 2


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_permissions_are_those_of_any_new_file(saved: Path) -> None:
    (saved / "plain").touch()
    modes = {file.stat().st_mode for file in saved.iterdir()}
    assert len(modes) == 1


def test_a_module_without_values_is_not_saved(saved: Path) -> None:
    before = contents(saved)
    with pytest.raises(ValueError, match=r"must have values, got 'layers\.0\.weight' on the meta device"):
        Net(2).to("meta").save_pretrained(saved)
    with pytest.raises(TypeError, match="takes no argument 'commit_message' without push_to_hub=True"):
        Net(2).save_pretrained(saved, commit_message="hello")
    assert contents(saved) == before


def test_shared_weights_are_written_once_and_stay_shared(tmp_path: Path) -> None:
    net = filled(Tied())
    net.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert set(file.keys()) == {"a.weight", "a.bias", "b.bias"}
    back = Tied.from_pretrained(tmp_path)
    assert same(net, back)
    assert back.a.weight is back.b.weight
    loose = Tied.from_pretrained(tmp_path, tie=False)
    assert same(net, loose)
    assert loose.a.weight is not loose.b.weight


def test_averaged_weights(tmp_path: Path) -> None:
    net = filled(Net(2))
    averaged: Any = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    for seed in (1, 2):
        averaged.update_parameters(filled(net, seed))
    assert not same(net, averaged.module)

    averaged.module.save_pretrained(tmp_path)
    assert same(Net.from_pretrained(tmp_path), averaged.module)
    for source in (averaged, averaged.state_dict()):
        fresh = Net(2)
        assert fresh.load_averaged(source) is fresh
        assert same(fresh, averaged.module)
    with pytest.raises(ValueError, match=r"must be an AveragedModel .*'n_averaged', got Net with layers\.0"):
        net.load_averaged(net)
    with pytest.raises(
        ValueError, match=r"averaged: the weights must fit the network, got layers\.0\.weight \(2, "
    ):
        Net(3).load_averaged(averaged)


def test_a_model_inside_another(tmp_path: Path) -> None:
    outer = filled(Outer(Net(2, (1,), rate=0.5), options={"é": (1, 2)}))
    outer.save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text(encoding="utf-8")
    assert '  "options": {\n    "é": [1, 2]\n  }\n' in text
    fields = json.loads(text)
    assert fields["model"] == {"_class": "Net", **outer.model.config}
    back = Outer.from_pretrained(tmp_path)
    assert same(outer, back)
    assert type(back.model) is Net
    assert back.model.config == outer.model.config
    assert Outer.from_pretrained(tmp_path, model={"rate": 0.25}).model.rate == 0.25
    mine = Net(2, (1,))
    assert Outer.from_pretrained(tmp_path, model=mine).model is mine

    edited(tmp_path, lambda fields: fields["model"].update(width=0))
    with pytest.raises(ValueError, match=r"config\.json: model: width must be at least 1, got 0$"):
        Outer.from_pretrained(tmp_path)
    edited(tmp_path, lambda fields: fields["model"].update(widht=0))
    with pytest.raises(ValueError, match=r"config\.json: field 'model\.widht' must be an argument of Net"):
        Outer.from_pretrained(tmp_path)


def test_what_is_passed_again_to_a_model_inside_another(tmp_path: Path) -> None:
    outer = filled(Outer(Net(2, in_layer=nn.Linear(2, 2))))
    outer.save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"field 'model\.in_layer' was .* again, model=dict\(in_layer=\.\.\.\)$"
    ):
        Outer.from_pretrained(tmp_path)
    assert same(outer, Outer.from_pretrained(tmp_path, model={"in_layer": nn.Linear(2, 2)}))
    plain = filled(Outer(nn.Linear(2, 2)))
    plain.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"field 'model' was a module or a function"):
        Outer.from_pretrained(tmp_path)
    assert same(plain, Outer.from_pretrained(tmp_path, model=nn.Linear(2, 2)))


class HandsOn(Net):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


class Fixed(Net):
    def __init__(self, wide: bool) -> None:
        super().__init__(8 if wide else 2)


class Unnamed(Net):
    def __init__(self, *, more: int, **kwargs: Any) -> None:
        super().__init__(2, **kwargs)


def test_subclasses(tmp_path: Path) -> None:
    for net in (HandsOn(2, rate=0.5), Fixed(True)):
        filled(net).save_pretrained(tmp_path)
        back: Any = type(net).from_pretrained(tmp_path)
        assert type(back) is type(net)
        assert back.config == net.config
        assert same(net, back)
    with pytest.raises(ValueError, match="_class must be 'Net' to be loaded as one, got 'Fixed'"):
        Net.from_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match="config of Unnamed must hold the arguments of its constructor, which has"
    ):
        Unnamed(more=1).save_pretrained(tmp_path)


@pytest.mark.parametrize("dims", [1, 2, 3, 4])
def test_networks(tmp_path: Path, dims: int) -> None:
    options: Any = {
        "channels": (4, 8),
        "strides": [(1,) * (dims - 1) + (2,)],
        "num_groups": 2,
        "num_blocks": 1,
    }
    x = torch.randn(1, 2, *range(3, 3 + dims))
    for i, net in enumerate((UNet(dims, 2, **options), Encoder(dims, 2, 3, **options))):
        filled(net).save_pretrained(tmp_path / str(i))
        back = type(net).from_pretrained(tmp_path / str(i))
        assert torch.equal(net.eval()(x), back(x))
        assert str(net.eval()) == str(back)
