"""The studio without a browser: folders, forms, command lines, and who may ask."""

import asyncio
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nicegui", reason="no nicegui: the studio is not tested")

from dynunet import Encoder, UNet
from dynunet.cli.catalogue import arguments_of, flags_of_form
from dynunet.cli.denoise import Denoise
from dynunet.cli.inpaint import Inpaint
from dynunet.cli.main import parsed
from dynunet.cli.predict import Predict
from dynunet.cli.sample import Sample
from dynunet.cli.train import Train
from dynunet.jsonable import flat
from dynunet.nn import flags as nn_flags
from dynunet.nn import spec
from dynunet.nn.spec import NetworkSpec, options
from dynunet.studio import launch
from dynunet.studio.describe import describe, network_flags, usual
from dynunet.studio.jobs import command_line
from dynunet.studio.launch import train_arguments
from dynunet.studio.page import Page
from dynunet.studio.roots import Roots
from dynunet.studio.run_card import watched
from dynunet.studio.server import OnlyThisPage
from dynunet.training import background
from dynunet.training.background import output, process_of, stop
from dynunet.training.folder import locked, note
from dynunet.training.interrupts import Interrupts
from dynunet.training.overview import overview, runs_below

from .data_writers import npy
from .trainers import trainer

# Folders


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "file.npy").touch()
    for name in ("open/data", "other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "open" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "open" / "data" / "file.npy").symlink_to(tmp_path / "secret" / "file.npy")
    (tmp_path / "open" / "loop").symlink_to(tmp_path / "open" / "loop")
    return Roots([tmp_path / "open", tmp_path / "other"])


def test_what_is_below_the_folders_may_be_read(roots: Roots, tmp_path: Path) -> None:
    assert roots.inside("data") == roots.inside(tmp_path / "open/data") == tmp_path / "open/data"
    assert roots.inside("data/../new") == tmp_path / "open/new"
    assert roots.there(f"  {tmp_path}/other ") == tmp_path / "other"
    assert roots.inner(tmp_path / "open") == [tmp_path / "open/data"]
    assert roots.inside(roots.name(tmp_path / "open/data")) == tmp_path / "open/data"
    assert roots.inside(roots.name(tmp_path / "other")) == tmp_path / "other"


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "../secret",
        "data/../../secret",
        "/etc/passwd",
        "/",
        "out",
        "out/file.npy",
        "loop/x",
        "a\0b",
        "~",
    ],
)
def test_nothing_else_may(roots: Roots, path: str) -> None:
    with pytest.raises(ValueError, match=r"^here"):
        roots.there(path, "here")


def test_a_folder_whose_name_begins_alike_is_another(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "opener").mkdir()
    with pytest.raises(ValueError, match="--root"):
        Roots([tmp_path / "open"]).inside("../opener")


def test_links_that_lead_out_are_refused(roots: Roots, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must be below .*secret"):
        roots.check_links((tmp_path / "open/data").iterdir(), "source")


# Forms


@pytest.mark.parametrize("of", ["UNet", "Encoder"])
def test_every_option_has_a_field(of: str) -> None:
    apart = {"spatial_dims", "in_channels", "in_layer", "out_layer"}
    assert [f.name for f in network_flags(of)] == [name for name, _ in options(of) if name not in apart]
    assert all(f.help for f in network_flags(of))


def test_names_to_choose_from_are_those_that_are_taken() -> None:
    for name, option in options():
        for value in option.known:
            assert option.check(value, name, 2), name
        if option.known:
            with pytest.raises(ValueError, match=name):
                option.check("nonsense", name, 2)


@pytest.mark.parametrize("command", [Train, Sample, Denoise, Inpaint, Predict])
def test_every_flag_of_a_command_has_a_field(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed([command.__name__.lower(), "--help"])
    shown = set(re.findall(r"(?m)^(?:│ )? *(--[a-z][a-z0-9-]*)", capsys.readouterr().out))
    found = flags_of_form(command)
    assert {f"--{f.name}" for f in found if not f.positional} == shown - {"--help"}
    assert all(f.help for f in found)


TYPED = {
    "channels": "8 16",
    "kernel-size": "3 1x3",
    "size": "32",
    "compile": "true",
    "tensorboard": "false",
    "causal": "True False",
    "lr": "1e-3",
    "value-range": "-1.5 2",
    "pairs": "/somewhere/with spaces",
    "decay": "constant",
    "noise": " ",
}


def test_what_is_typed_in_becomes_the_command_line() -> None:
    line = arguments_of(Train, {**TYPED, "source": "/data/of mine"})
    command = flat(parsed(["train", *line]))
    assert command["source"] == "/data/of mine"
    assert command["pairs"] == "/somewhere/with spaces"
    assert command["channels"] == [8, 16]
    assert command["kernel_size"] == ["3", "1x3"]
    assert command["causal"] == [True, False]
    assert (command["compile"], command["tensorboard"], command["noise"]) == (True, False, None)
    assert command["value_range"] == [-1.5, 2.0]


# Networks

SIZES = {1: "64", 2: "16", 3: "8", 4: "6", 5: "4"}
CHANGES: list[dict[str, str]] = [
    {},
    {"channels": "8", "strides": "", "num_blocks": "", "mid_blocks": ""},
    {"channels": "8 16 8", "attention": "none full channel+spatial", "num_heads": "2", "positions": "rotary"},
    {"norm": "none", "activation": "relu", "dropout": "0 0.1 0", "upsample": "transpose"},
    {"causal": "true", "lookahead": "1", "gradient_checkpointing": "true"},
]


def shape(dims: int, of: str = "UNet") -> dict[str, str]:
    return {"of": of, "spatial_dims": str(dims), "size": SIZES[dims], "in_channels": "2", "batch_size": "1"}


@pytest.mark.parametrize(("dims", "change"), [(n % 5 + 1, c) for n, c in enumerate(CHANGES)])
def test_the_line_of_python_and_that_of_the_command_line_are_the_network(
    dims: int, change: dict[str, str]
) -> None:
    texts = {**usual(dims), "channels": "4 8 8", "num_groups": "2", **change}
    found = describe(texts, shape(dims))
    network = eval(found.python, {"UNet": UNet})
    assert isinstance(network.spec, NetworkSpec)
    assert found.summary.parameters == sum(p.numel() for p in network.parameters())
    command = parsed(shlex.split(found.command.replace("FOLDER", "."))[1:])
    filled, said = command.network.for_processors()
    assert said == ""
    trained = NetworkSpec(
        spatial_dims=dims, in_channels=2, time_embedding=True, **filled.arguments(dims, label_maps=True)
    )
    assert trained == network.spec


def test_an_encoder_is_trained_by_its_line() -> None:
    found = describe(usual(2, "Encoder"), shape(2, "Encoder"))
    assert eval(found.python, {"Encoder": Encoder}).spec.out_features == 10
    command = parsed(shlex.split(found.command)[1:])
    assert command.network.of_encoder(2)["channels"] == [*command.network.channels]
    assert "cond_channels" in describe({**usual(2), "cond_channels": "3"}, shape(2)).apart


@pytest.mark.parametrize(
    ("texts", "place", "words"),
    [
        ({"channels": "4 8", "strides": "2 2"}, {}, None),
        ({"channels": "6", "attention": "full"}, {}, None),
        ({"norm": "nonsense"}, {}, None),
        ({"num_blocks": "0"}, {}, None),
        ({"channels": "four"}, {}, "channels must be a whole number, got 'four'"),
        ({"num_groups": "1 2"}, {}, "num_groups must be one value, got '1 2'"),
        ({}, {"size": "0"}, "size must be whole numbers of at least 1, got '0'"),
        ({}, {"size": "3 3 3"}, "size must be one number or 2, got '3 3 3'"),
        ({}, {"in_channels": "x"}, "in_channels must be a whole number, got 'x'"),
        ({}, {"size": "9999999999999"}, "size must be of fewer than"),
    ],
)
def test_a_wrong_combination_is_refused_in_the_words_of_the_constructor(
    texts: dict[str, str], place: dict[str, str], words: str | None
) -> None:
    if words is None:
        with pytest.raises(ValueError) as refused:  # noqa: PT011  its words are compared below
            UNet(2, 2, **nn_flags.typed_in(texts, "UNet"))
        words = str(refused.value)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        describe(texts, {**shape(2), **place})
    assert words in str(error.value)


def test_an_option_that_is_added_to_the_specification_appears_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = spec.option_fields
    assert "num_blocks" in {f.name for f in network_flags("UNet")}
    monkeypatch.setattr(
        nn_flags, "option_fields", lambda of="": [f for f in known(of) if f.name != "num_blocks"]
    )
    assert "num_blocks" not in {f.name for f in network_flags("UNet")}


# Pages


def test_what_is_typed_in_outlives_the_page_and_every_tab_of_the_browser_has_its_own(
    roots: Roots, tmp_path: Path
) -> None:
    memories: list[dict[str, Any]] = [{}, {}]  # of two tabs
    pages = [Page(roots) for _ in memories]
    for page, memory, channels in zip(pages, memories, ("4 8", "2 4 6"), strict=True):
        page.remember(memory)
        page.network["channels"], page.designed, page.source = channels, True, tmp_path / "open/data"
        page.changed()
        page.network["channels"] = "9"  # is not kept yet
    loaded, restored = Page(roots), []
    loaded.restored.append(lambda: restored.append(loaded.network["channels"]))
    loaded.remember(memories[0])
    loaded.remember(memories[1])  # a connection that was lost and came back changes nothing
    assert restored == ["4 8"]
    assert (loaded.network, loaded.designed, loaded.source) == (
        {"channels": "4 8"},
        True,
        tmp_path / "open/data",
    )
    loaded.network["channels"] = "1"
    assert memories[0]["network"] == {"channels": "4 8"}


_QUASAR = {"no-wrap", "text-negative"}  # of its own style sheet


def test_every_class_has_a_style() -> None:
    folder = Path(launch.__file__).parent
    code = "".join(file.read_text() for file in folder.glob("*.py"))
    given = " ".join(
        text for call in re.findall(r"\.classes\(([^)]*)\)", code) for text in re.findall('"(.*?)"', call)
    )
    defined = re.findall(r"^  \.(\S+) {", (folder / "style.css").read_text().replace("\\", ""), re.MULTILINE)
    unused = set(defined) - set(given.split())
    assert not unused
    assert set(given.split()) - {"failed"} <= {*defined, *_QUASAR}  # a status stands in a condition


# Training


def test_a_run_reads_and_writes_below_the_folders_alone(roots: Roots, tmp_path: Path) -> None:
    source = tmp_path / "open/data"
    line = train_arguments(roots, source, "runs/new", {"steps": "3"}, ["--channels", "8"])
    command = parsed(["train", *line])
    assert (command.source, command.out) == (source, tmp_path / "open/runs/new")
    outside = tmp_path / "secret"
    with pytest.raises(ValueError, match="out must be below"):
        train_arguments(roots, source, "../secret", {}, [])
    with pytest.raises(ValueError, match="pairs must be below"):
        train_arguments(roots, source, "runs/new", {"pairs": str(outside)}, [])
    with pytest.raises(ValueError, match="targets must be below"):
        train_arguments(roots, source, "runs/new", {"size": f"32 --targets {outside}"}, [])
    with pytest.raises(ValueError, match="from"):
        train_arguments(roots, source, "runs/new", {"from": "owner/name"}, [])
    with pytest.raises(ValueError, match="--steps"):
        train_arguments(roots, source, "runs/new", {"steps": "many"}, [])


def test_every_flag_of_training_has_a_place() -> None:
    names = [f.name for flags in launch.groups().values() for f in flags]
    names += [f.name for f in launch.data_flags()]
    network = [f.name for f in flags_of_form(Train) if f.group == "network"]
    apart = ["source", "out", "resume", "config"]
    assert sorted([*names, *network, *apart]) == sorted(f.name for f in flags_of_form(Train))


def test_files_that_lie_elsewhere_are_not_looked_at(roots: Roots, tmp_path: Path) -> None:
    source = tmp_path / "open/data"
    with pytest.raises(ValueError, match="source must be below"):
        launch.data_of(roots, source, {})
    (source / "file.npy").unlink()
    for i in range(4):
        npy(source / f"{i}.npy")
    dataset = launch.data_of(roots, source, {"validation": "0.5"})
    assert dataset.shape == (1, 6, 5)
    assert len(dataset) == 2


def test_commands_read_and_write_below_the_folders_alone(roots: Roots, tmp_path: Path) -> None:
    run, outside = str(tmp_path / "other"), str(tmp_path / "secret")
    given = {"run-folder": run, "num": "3"}
    line = command_line(roots, "sample", Sample, given, "results")
    assert line == ["sample", run, "--out", str(tmp_path / "open/results"), "--num", "3"]
    for wrong in (
        {**given, "run-folder": outside},
        {**given, "guide": outside},
        {**given, "num": f"3 --guide {outside}"},
        {**given, "num": f"3 --guide {tmp_path}/open/../secret"},
        {**given, "num": "3 --guide owner/name"},
    ):
        with pytest.raises(ValueError, match=r"run-folder|guide"):
            command_line(roots, "sample", Sample, wrong, "results")
    with pytest.raises(ValueError, match="out must be below"):
        command_line(roots, "sample", Sample, given, outside)
    with pytest.raises(ValueError, match="run folder: choose one first"):
        command_line(roots, "sample", Sample, {}, "results", ["run-folder"])
    with pytest.raises(ValueError, match="source must be below"):  # by a link in it
        command_line(roots, "denoise", Denoise, {"run-folder": run, "source": "data"}, "results")


def test_a_run_whose_data_lie_elsewhere_is_not_resumed(
    roots: Roots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "start", lambda *given: pytest.fail(f"{given}"))
    flags = flat(Train(source=tmp_path / "secret", out=tmp_path / "open/run"))
    trainer(tmp_path / "open/run", steps=1, about={"flags": flags}).fit()
    with pytest.raises(ValueError, match="source must be below"):
        launch.resume(roots, tmp_path / "open/run")


def test_a_run_with_links_that_lead_out_is_not_looked_at(roots: Roots, tmp_path: Path) -> None:
    run = tmp_path / "open/run"
    run.mkdir()
    (tmp_path / "secret/words").write_text("secret")
    (run / "output.txt").symlink_to(tmp_path / "secret/words")
    seen = watched(roots, {run: None})[run]
    assert (seen.said, seen.state) == ("", None)
    assert "must be below" in seen.problem


def test_the_process_that_trains_is_known_and_can_be_stopped(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert process_of(run) is None
    with Interrupts() as interrupts, locked(run):
        found = process_of(run)
        assert found is not None
        assert (found.pid, found.stopping) == (os.getpid(), False)
        stop(run)
        stop(run)  # is once
        assert interrupts.name == "SIGINT"
        again = process_of(run)
        assert again is not None
        assert again.stopping
    assert process_of(run) is None
    with pytest.raises(ValueError, match="no process is training"):
        stop(run)


def test_a_process_that_was_killed_is_not_taken_for_one_with_its_number(tmp_path: Path) -> None:
    note(tmp_path / ".process", os.getpid())
    assert process_of(tmp_path) is None
    assert not (tmp_path / ".process").exists()
    with locked(tmp_path):
        (tmp_path / ".process").write_text('{"pid": 1, "host": "elsewhere", "stopping": false}')
        with pytest.raises(ValueError, match="runs on elsewhere"):
            stop(tmp_path)
        (tmp_path / ".process").write_text('{"pid": "many"}')
        assert process_of(tmp_path) is None


def test_a_run_in_the_background_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "runs/bad"
    background.start(run, ["nowhere", "--out", str(run)], tmp_path)
    found = process_of(run)
    assert found is not None
    assert os.getsid(found.pid) == found.pid  # what ends this process and its terminal does not end that
    # It gives way to the page.
    assert os.getpriority(os.PRIO_PROCESS, found.pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
    assert overview(run).status == "starting"
    with pytest.raises(ValueError, match="another process"):
        background.start(run, ["nowhere", "--out", str(run)], tmp_path)
    background._started[run].wait()
    seen = overview(run)
    assert (seen.status, seen.step, seen.steps) == ("failed", 0, 0)
    assert seen.message == "source: there is no file or folder nowhere"
    assert output(run)[0].startswith("dynunet train nowhere")
    assert list(runs_below(tmp_path)) == [run]
    trainer(run, steps=1).fit()  # what it left is no obstacle
    assert overview(run).step == 1


def test_the_state_of_a_run_is_read_from_its_files(tmp_path: Path) -> None:
    run = tmp_path / "run"
    trainer(run, steps=4).fit()
    assert overview(run).status == "finished"
    (run / "output.txt").write_text("$ dynunet train x\ndynunet train: stopped and saved; to go on: ...\n")
    trainer(run, steps=4).fit(steps=6, resume=True)
    seen = overview(run)
    assert (seen.status, seen.step, seen.steps) == ("finished", 6, 6)
    (run / "output.txt").write_text(
        "$ dynunet train x\nTraceback (most recent call last):\n  x\nBug: \x1b[1m\n"
    )
    seen = overview(run)
    assert seen.message == "Bug: \\x1b[1m"


# Requests


def answered(host: str, origin: str | None, kind: str = "http") -> Any:
    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", host.encode()), *([] if origin is None else [(b"origin", origin.encode())])]
    scope: Any = {"type": kind, "headers": headers}
    asyncio.run(OnlyThisPage(inner, 8080)(scope, None, send))
    return sent[0]


def test_requests_of_this_page_are_answered_and_nothing_is_loaded_from_elsewhere() -> None:
    for host in ("127.0.0.1:8080", "localhost:8080"):
        for origin in (None, f"http://{host}"):
            answer = answered(host, origin)
            assert answer["status"] == 200
            assert b"default-src 'self'" in dict(answer["headers"])[b"content-security-policy"]


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("evil.example:8080", None),
        ("127.0.0.1:8080", "http://evil.example"),
        ("127.0.0.1:8080", "null"),
        ("127.0.0.1:8080", "http://127.0.0.1:9999"),
        ("", None),
    ],
)
def test_requests_of_other_pages_are_refused(host: str, origin: str | None) -> None:
    assert answered(host, origin)["status"] == 403
    assert answered(host, origin, "websocket")["type"] == "websocket.close"
