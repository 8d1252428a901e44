"""Runs with one thing in them that is wrong: each is refused by a sentence with the file and the field."""

import copy
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynunet import UNet
from dynunet.cli import main
from dynunet.cli.train import flags_of
from dynunet.data.spec import DataSpec
from dynunet.runs import trained
from dynunet.training.record import read_record
from dynunet.training.state import read

SECONDS = 10  # in which a damaged run is refused, on a machine that has other things to do

BAD: list[Any] = [
    None, "x", "", -1, 0, 1.5, 10**9, 10**400, [], {}, True, [[]], float("nan"), float("inf"), -1e-300,
    [5, 5], [2, 1], ["x"] * 3, "../../x", {"_class": "UNet"}, {"_class": "Nothing"}, "nan", "9" * 5000,
]  # fmt: skip


@pytest.fixture(scope="module", name="run")
def _run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has something of everything."""
    folder = tmp_path_factory.mktemp("damaged")
    for name in ("a", "b"):
        (folder / "data" / name).mkdir(parents=True)
        for i in range(4):
            field = np.random.default_rng(i).normal(size=(6, 6)).astype(np.float32)
            np.save(folder / "data" / name / f"{i}.npy", field)
    train = f"""train {folder / "data"} --out {folder / "run"} --spatial-dims 2 --size 4 --labels folder
        --coloured --coordinates --missing nan --channels 4 8 --num-blocks 1 2 --num-groups 2 --steps 2
        --batch-size 2 --sample-every 0 --validate-every 1 --validation-samples 2 --no-tensorboard --cpu"""
    main(train.split())
    main(f"train --resume {folder / 'run'} --steps 3".split())
    return folder / "run"


def places(document: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every field, field of a field and entry of a list."""
    inside = document.items() if isinstance(document, dict) else enumerate(document)
    for name, value in inside:
        yield (*at, name)
        if isinstance(value, (dict, list)):
            yield from places(value, (*at, name))


def damaged(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    """A copy in which one thing is other than it was, or gone."""
    document = copy.deepcopy(document)
    inside = document
    for name in place[:-1]:
        inside = inside[name]
    if value is GONE:
        del inside[place[-1]]
    else:
        inside[place[-1]] = value
    return document


GONE = object()


def check(file: Path, use: Callable[[], Any], told: str, draw: st.DataObject) -> None:
    """What is wrong is used all the same, or refused by a ValueError with the name of the file, in time."""
    text = file.read_text()
    document = json.loads(text)
    place = draw.draw(st.sampled_from([*places(document)]))
    value = draw.draw(st.sampled_from([*BAD, GONE]))
    began, refused = time.monotonic(), None
    try:
        file.write_text(json.dumps(damaged(document, place, value)))
        use()
    except (ValueError, TypeError) as error:
        refused = str(error)
    finally:
        file.write_text(text)
    if refused is not None:
        assert told in refused, (place, value, refused)
        assert "\n" not in refused
        assert len(refused) < 10_000
    assert time.monotonic() - began < SECONDS, (place, value)


@settings(max_examples=settings().max_examples * 2)
@given(draw=st.data())
def test_a_configuration(run: Path, draw: st.DataObject) -> None:
    def use() -> None:
        diffusion, units = trained(run, "cpu")
        low, high = units.range or (0, 1)
        assert low < high
        assert {**units.document(), **(diffusion.data or {})} == units.document()
        assert callable(diffusion.schedule)

    check(run / "config.json", use, "run", draw)


@settings(max_examples=settings().max_examples // 2)
@given(draw=st.data())
def test_a_record(run: Path, draw: st.DataObject) -> None:
    def use() -> None:
        read_record(run / "run.json")
        flags_of(run / "run.json")

    check(run / "run.json", use, "run.json", draw)


@given(draw=st.data())
def test_the_numbers_of_a_checkpoint(run: Path, draw: st.DataObject) -> None:
    folder = run / "checkpoints/step-00000003"
    check(folder / "state.json", lambda: read(folder), "", draw)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("model", "spatial_dims"), 10**9),
        (("model", "channels", 1), 10**9),
        (("model", "in_channels"), 10**9),
        (("model", "num_blocks"), 10**9),
        (("model", "num_groups"), 10**400),
        (("model", "num_classes"), 10**9),
        (("model", "strides"), 10**9),
        (("schedule",), 5),
        (("shift",), 10**400),
        (("sigma_data",), "x"),
        (("data", "range"), [5, 5]),
        (("data", "spatial_dims"), 3),
        (("data", "size"), [4]),
        (("data", "cond_channels"), 0),
        (("data", "classes"), ["a"]),
        (("data", "missing"), "many"),
        (("data", "restoration"), {"snr": [1, 0]}),
        (("data",), {}),
    ],
    ids=str,
)
def test_what_would_hang_fill_the_memory_or_be_wrong_without_a_word(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: tuple[Any, ...], value: Any
) -> None:
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    config = tmp_path / "run/config.json"
    document = json.loads(config.read_text())
    allowed = place == ("model", "num_groups")  # as many as there are channels
    config.write_text(json.dumps(damaged(document, place, value)))
    began = time.monotonic()
    if allowed:
        trained(tmp_path / "run", "cpu")
    else:
        with pytest.raises(SystemExit) as error:
            main(["sample", str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--device", "cpu"])
        assert error.value.code == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert str(tmp_path / "run") in said
    assert time.monotonic() - began < SECONDS


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, "null", "[]", '"x"', "\0", "\ufeff{}", '{"a":1,"a":2}']
)
@pytest.mark.parametrize("name", ["config.json", "run.json", "checkpoints/step-00000003/state.json"])
def test_what_is_no_such_document(run: Path, tmp_path: Path, name: str, text: str) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / name).write_text(text)
    use: dict[str, Callable[[Path], Any]] = {
        "config.json": lambda path: trained(path.parent, "cpu"),
        "run.json": read_record,
        "state.json": lambda path: read(path.parent),
    }
    path = tmp_path / "run" / name
    with pytest.raises(ValueError, match=path.name):
        use[path.name](path)


def test_units_that_are_not_damaged_stay_as_they_are() -> None:
    units = DataSpec(
        "volumes", 3, 1, size=(8, 8, 8), spacing=(1.0, 1.0, 0.0), range=(0.0, 90.0), missing="-1e9"
    )
    assert DataSpec.of(units.document()) == units
    assert UNet(1, 1, channels=(4,), num_groups=1000).parts.num_groups == 1000
