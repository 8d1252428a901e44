"""Options survive the way through JSON, and what is no value of a flag is refused by its name."""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dynunet import arguments
from dynunet.data import DataOptions
from dynunet.jsonable import flat, plain, typed, unflat
from dynunet.training import TrainOptions


@dataclass(frozen=True)
class Group:
    flag_names: ClassVar[dict[str, str]] = {"seed": "group_seed"}

    seed: int = 0
    ratio: float | None = None
    pair: tuple[float, float] = (0.0, 1.0)
    words: tuple[str, ...] = ("a",)


@dataclass(frozen=True)
class Options:
    seed: int = 1
    place: Path | None = None
    kind: Literal["x", "y"] = "x"
    on: bool = False
    sizes: tuple[int, ...] | None = None
    either: int | str = 3
    group: Group = field(default_factory=Group)


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
GROUPS = st.builds(
    Group,
    seed=st.integers(),
    ratio=st.none() | NUMBERS,
    pair=st.tuples(NUMBERS, NUMBERS),
    words=st.lists(st.text()).map(tuple),
)
OPTIONS = st.builds(
    Options,
    seed=st.integers(),
    place=st.none() | st.text("abc/", min_size=1).map(Path),
    kind=st.sampled_from(["x", "y"]),
    on=st.booleans(),
    sizes=st.none() | st.lists(st.integers()).map(tuple),
    either=st.integers() | st.text("xyz", min_size=1),
    group=GROUPS,
)


@given(OPTIONS)
def test_options_survive_the_way_through_json(options: Options) -> None:
    values = json.loads(json.dumps(flat(options)))
    assert {"seed", "group_seed"} <= values.keys()
    assert unflat(Options, values, "here") == options
    assert unflat(Group, values, "here", others=True) == options.group


@pytest.mark.parametrize("options", [DataOptions(pairs=Path("x"), size=(4,), missing="nan"), TrainOptions()])
def test_those_of_the_package_do_too(options: Any) -> None:
    assert unflat(type(options), json.loads(json.dumps(flat(options))), "here") == options
    assert plain(options).keys() == {f.name for f in fields(options)}


@given(st.integers(-(10**6), 10**6), NUMBERS)
def test_values_may_be_written_as_they_are_typed(whole: int, real: float) -> None:
    assert typed(int, str(whole), "n") == whole
    assert typed(float, repr(real), "n") == real
    assert typed(float, whole, "n") == whole
    assert typed(str, whole, "n") == str(whole)
    assert typed(tuple[int, ...], whole, "n") == (whole,)
    assert typed(tuple[int, ...] | None, None, "n") is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sede": 1}, "here: 'sede' is no flag; did you mean 'seed'"),
        ({"seed": 1.5}, "seed must be a whole number, got 1.5"),
        ({"seed": True}, "seed must be a whole number, got True"),
        ({"seed": "9" * 5000}, r"seed must be a whole number, got '9+\.\.\.$"),
        ({"seed": {"a": 1}}, "'seed' must be a value or a list of values"),
        ({"on": 1}, "on must be true or false, got 1"),
        ({"on": "true"}, "on must be true or false, got 'true'"),
        ({"kind": "z"}, "kind must be one of 'x', 'y', got 'z'"),
        ({"pair": [1]}, r"pair must have 2 values, got \[1\]"),
        ({"pair": [1, "x"]}, r"pair\[1\] must be a number, got 'x'"),
        ({"ratio": 10**400}, "ratio must be a number, got a huge number"),
        ({"sizes": [[1]]}, r"sizes\[0\] must be a whole number, got \[1\]"),
        ({"place": 3}, "place must be a path, got 3"),
    ],
)
def test_what_is_no_value_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unflat(Options, values, "here")


def test_numbers_of_any_library_are_plain() -> None:
    given = {"a": np.float32(0.5), "b": torch.tensor(3), "c": range(2), "d": (np.int64(1), True, None)}
    assert plain(given) == {"a": 0.5, "b": 3, "c": [0, 1], "d": [1, True, None]}
    for value in (object(), {1: 2}, torch.zeros(2), Options):
        with pytest.raises(TypeError, match="JSON cannot hold"):
            plain(value)


@given(st.integers(-5, 5) | st.floats(-5, 5) | st.just(float("nan")) | st.booleans() | st.just("1"))
def test_checks_agree_with_the_rules_they_state(value: Any) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    cases = [
        (lambda: arguments.integer(value, "n"), isinstance(value, int) and number, lambda: value >= 1),
        (lambda: arguments.positive(value, "n"), number, lambda: value > 0),
        (lambda: arguments.number(value, "n", 0, 1), number, lambda: 0 <= value <= 1),
    ]
    for check, kind, rule in cases:
        if kind and rule():
            assert check() == value
        else:
            with pytest.raises(ValueError if kind else TypeError, match=r"^n must be"):
                check()


@given(st.floats(-3, 3), st.floats(-3, 3), st.booleans())
def test_an_interval_is_ordered(low: float, high: float, equal: bool) -> None:
    if -2 <= low <= high <= 2 and (equal or low < high):
        assert arguments.interval([low, high], "n", -2, 2, equal=equal) == (low, high)
    else:
        with pytest.raises(ValueError, match=r"n must be finite, low .* high in \[-2, 2\]"):
            arguments.interval([low, high], "n", -2, 2, equal=equal)
