"""Every option of a network is said once: signatures, docstrings and layers agree with the spec."""

import ast
import inspect
import lzma
import re
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import convnd.arguments
from dynunet import Encoder, UNet
from dynunet.cli.options import NetworkOptions
from dynunet.nn import attention, blocks, encoder, option, spec, unet
from dynunet.nn.flags import flag_help, flag_names, network_options
from dynunet.nn.spec import NetworkSpec, options

STATE_DICTS = Path(__file__).with_name("state_dicts.txt.xz")  # written when the keys and shapes were fixed
CLASSES = pytest.mark.parametrize("cls", [UNet, Encoder])


def described(cls: type) -> Iterator[tuple[str, str]]:
    """Names and texts of the arguments in the docstring of a class, without markup."""
    lines = inspect.cleandoc(cls.__doc__ or "").split("Args:\n")[1].split("\n\n")[0]
    for entry in re.split(r"\n(?=\S)", textwrap.dedent(lines)):
        names, _, text = re.sub(r"\s+", " ", entry).partition(": ")
        text = re.sub(r":\w+:`~?([\w.]+)`", r"\1", text)
        for name in names.split(", "):
            yield name, re.sub(r"[`*]", "", text)


@CLASSES
def test_signatures_are_those_of_the_spec(cls: Any) -> None:
    given, said = inspect.signature(cls).parameters, options(cls.__name__)
    assert list(given) == [name for name, _ in said]
    for field in spec.option_fields(cls.__name__):
        default = inspect.signature(NetworkSpec).parameters[field.name].default
        required = field.name == "out_features"  # without them it is no encoder
        assert given[field.name].default == (inspect.Parameter.empty if required else default), field.name


@CLASSES
def test_types_are_those_of_the_spec(cls: Any) -> None:
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls.__init__))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    written = {
        a.arg: ast.unparse(a.annotation) for a in (*tree.args.args, *tree.args.kwonlyargs) if a.annotation
    }
    expected = {field.name: str(field.type) for field in spec.option_fields(cls.__name__)}
    assert written == expected | ({"out_features": "int"} if cls is Encoder else {})


def test_the_help_is_that_of_the_docstring() -> None:
    expected = {name: f"{option.help} {option.scope}".strip() for name, option in options("UNet")}
    assert dict(described(UNet)) == expected
    own = dict(described(Encoder))
    assert {"out_features"} == own.keys() - expected.keys()  # the rest are said to be those of UNet
    assert own["out_features"] == dict(options("Encoder"))["out_features"].help


@pytest.mark.parametrize(("module", "cls"), [(unet, UNet), (encoder, Encoder)])
def test_every_argument_reaches_the_spec_under_its_name(
    module: Any, cls: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reached(Exception):
        pass

    def catch(**given: Any) -> None:
        raise Reached(given)

    monkeypatch.setattr(module, "NetworkSpec", catch)
    sent = {name: i for i, (name, _) in enumerate(options(cls.__name__))}
    with pytest.raises(Reached) as caught:
        cls(**sent)
    assert caught.value.args[0] == sent


def test_every_known_name_has_a_layer_and_is_in_the_help() -> None:
    said = dict(options())
    for name, known, made in [
        ("block", option.BLOCKS, blocks.BLOCKS),
        ("activation", option.ACTIVATIONS, blocks.ACTIVATIONS),
        ("attention", option.ATTENTIONS, attention.ATTENTIONS),
        ("norm", option.NORMS, None),
        ("downsample", option.DOWNSAMPLES, None),
        ("upsample", option.UPSAMPLES, None),
        ("positions", option.POSITIONS, None),
        ("time_embedding", option.TIME_EMBEDDINGS, None),
        ("modulation", option.MODULATIONS, None),
        ("padding_mode", option.PADDING_MODES, convnd.arguments.PADDING_MODES),
    ]:
        assert all(f'"{value}"' in said[name].help for value in known), name
        assert made is None or set(made) == set(known), name
    for name, kinds in attention.ATTENTIONS.items():
        assert option.needs_heads([name]) == any("num_heads" in kind.takes for kind in kinds), name


def test_flags_are_those_of_the_spec() -> None:
    """By default they give the network that is given by default, but for what depends on the rank."""
    made = NetworkSpec(spatial_dims=2, in_channels=1, **NetworkOptions().arguments(2))
    assert made == NetworkSpec(spatial_dims=2, in_channels=1)
    hints, said = get_type_hints(NetworkOptions, include_extras=True), dict(options())
    assert list(hints) == flag_names()
    for name, hint in hints.items():
        assert flag_help(said[name]) in hint.__metadata__[0].documentation, name


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("strides", ("1x2x2", "2"), [(1, 2, 2), 2]),
        ("strides", ("1x2x2",), [(1, 2, 2)]),
        ("kernel_size", ("1x3x3", "3"), [(1, 3, 3), 3]),
        ("strides", (4,), 4),
        ("attention", ("none", "full"), [None, "full"]),
        ("attention", ("none",), None),
        ("norm", "none", None),
        ("channels", (8,), [8]),
        ("num_blocks", [1, 2], [1, 2]),
        ("dropout", (0.1,), 0.1),
    ],
)
def test_values_of_flags(name: str, given: Any, value: Any) -> None:
    assert network_options(NetworkOptions(**{name: given}))[name] == value


def test_a_flag_that_is_no_size_is_refused() -> None:
    with pytest.raises(ValueError, match="strides must be numbers such as 2, or per axis 1x2x2, got '1,2'"):
        NetworkOptions(strides=("1,2",)).arguments(2)


def test_a_spec_of_a_spec_is_the_same() -> None:
    made = NetworkSpec(
        spatial_dims=2,
        in_channels=1,
        channels=[4, 8],
        attention=("cbam", None),
        skip_attention=(True, "full+spatial"),
        strides=[(1, 2)],
        padding_mode=("zeros", "circular"),
        time_embedding=True,
        dropout=0,
    )
    assert replace(made) == made
    assert replace(made, spatial_dims=2, num_heads=2).levels[1].num_heads == 2


def test_weights_have_the_names_and_shapes_they_always_had() -> None:
    """``# class options``, then a line for each module: its name, and name:shape of its weights."""
    text = lzma.decompress(STATE_DICTS.read_bytes()).decode()
    for network in text.split("# ")[1:]:
        head, *lines = network.splitlines()
        name, _, given = head.partition(" ")
        expected = [
            (f"{module}.{key}", shape)
            for module, *weights in map(str.split, lines)
            for key, shape in (weight.split(":") for weight in weights)
        ]
        state = {"UNet": UNet, "Encoder": Encoder}[name](**ast.literal_eval(given)).state_dict()
        assert [(key, "x".join(map(str, value.shape))) for key, value in state.items()] == expected, head
