"""Models on a Hub, and their cards: what they say, that it is so, and whose they are."""

import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dynunet import Diffusion, Encoder, FolderDataset, Supervised, Trainer, UNet, load
from dynunet.cards import is_own
from dynunet.checkpoints import Checkpoint
from dynunet.cli import main
from dynunet.summary import drawing
from dynunet.training.folder import check_folder

from .fake_hub import FakeHub, served
from .test_saved_runs import opened

SMALL: dict[str, Any] = {"channels": (2, 4), "num_groups": 1, "num_blocks": 1, "num_heads": 1}


@pytest.fixture(name="hub")
def _hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    with served(tmp_path, monkeypatch) as hub:
        yield hub


def head(text: str) -> dict[str, str]:
    """The fields between the first lines ``---`` that have one value."""
    return dict(re.findall(r"(?m)^(\w+): (\S+)$", text.split("---\n")[1]))


def block(text: str, language: str) -> str:
    found = re.search(rf"(?ms)^```{language}\n(.*?)\n```$", text)
    assert found is not None
    return found[1]


def networks() -> list[Any]:
    """Models of all kinds, that were trained on no files."""
    needs: dict[str, Any] = {
        "num_classes": 3, "cond_channels": 2, "cond_features": 2, "context_features": 5, "attention": "full"
    }  # fmt: skip
    return [
        UNet(3, 2, time_embedding=True, **needs, **SMALL),
        Encoder(1, 1, 2, **SMALL),
        Diffusion(UNet(4, 1, time_embedding=True, **SMALL), data={"my": "own words"}),
        Supervised(UNet(2, 1, 3, **SMALL), classes=["a", "b|c", "<b>"]),
    ]


@pytest.mark.parametrize("model", networks(), ids=lambda model: type(model).__name__)
def test_a_card_draws_the_network_and_its_lines_run(hub: FakeHub, tmp_path: Path, model: Any) -> None:
    assert model.push_to_hub("me/net", license="cc-by-4.0", private=True).startswith("http://127.0.0.1")
    assert hub.repositories["me/net"].keys() == {"README.md", "config.json", "model.safetensors"}
    text = hub.repositories["me/net"]["README.md"].decode()
    assert drawing(getattr(model, "model", model)) == block(text, "")
    assert head(text) == {"library_name": "dynunet", "license": "cc-by-4.0"}
    scope: dict[str, Any] = {}
    short = (
        block(text, "python").replace("32", "4").replace("sample(", "sample(progress=False, steps=1, shape=")
    )
    exec(short, scope)
    assert torch.isfinite(scope["y" if "y" in scope else "samples"]).all()
    assert str(tmp_path) not in text


def test_a_run_is_shared_with_its_data_and_figures(hub: FakeHub, tmp_path: Path) -> None:
    files, masks, run = (tmp_path / name for name in ("private-files", "masks", "run"))
    files.mkdir()
    masks.mkdir()
    for n in range(8):
        x = np.random.default_rng(n).random((6, 6))
        np.save(files / f"{n}.npy", x)
        np.save(masks / f"{n}.npy", (x > 0.5).astype(np.uint8))
    data = FolderDataset(files, spatial_dims=2, targets=masks, size=4, validation=0.25)
    model = Supervised(UNet(2, data.channels, 2, **SMALL), classes=data.classes)
    options: dict[str, Any] = {"batch_size": 2, "sample_every": 0, "progress": False, "tensorboard": False}
    trainer = Trainer(model, data, run, validation=data.validation(), validate_every=2, **options)
    trained = trainer.fit(steps=3)
    text = (run / "README.md").read_text()
    rows = dict(re.findall(r"(?m)^\| ([^|]+) \| (.+) \|$", text))
    assert rows["data"] == "arrays with 2 spatial axes"
    assert (rows["predicts"], rows["classes predicted"]) == ("segmentation", "0, 1")
    assert (rows["examples to train on"], rows["examples in a step"]) == (str(len(data)), "2")
    assert rows["steps"] == "3 of 3"
    measured = [line.split(",") for line in (run / "log.csv").read_text().splitlines()]
    column = measured[0].index("validation_loss")
    last = [line for line in measured[1:] if line[column]][-1]
    assert rows["loss on held-out data"] == f"{float(last[column]):.4g} after step {last[0]}"

    trained.push_to_hub("me/seg")
    load(run).push_to_hub("me/again")
    shared = [hub.repositories[name]["README.md"].decode() for name in ("me/seg", "me/again")]
    for name, said in zip(("me/seg", "me/again"), shared, strict=True):
        assert said.split("## Use")[0].split("\n## ")[1:] == text.split("## Use")[0].split("\n## ")[1:]
        assert f"\ndynunet predict {name} files --out results\n" in said
        assert not any(word in said for word in (str(tmp_path), "private-files", "masks"))
    with torch.no_grad():
        next(trained.parameters()).add_(1)  # these weights nobody has measured
    trained.push_to_hub("me/other")
    assert "held-out" not in hub.repositories["me/other"]["README.md"].decode()
    Path("files").symlink_to(files)
    main(block(shared[0], "sh").split()[1:])
    assert len([*Path("results").rglob("*.npy")]) == 8


@pytest.mark.parametrize("name", ["digits", "voice"])
def test_the_lines_of_a_card_of_a_run(
    hub: FakeHub, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).mkdir()
    run, files = opened(name, tmp_path / name)
    task = {"digits": "unconditional-image-generation", "voice": "audio-to-audio"}[name]
    load(run).push_to_hub(f"me/{name}")
    text = hub.repositories[f"me/{name}"]["README.md"].decode()
    assert head(text) == {"library_name": "dynunet", "pipeline_tag": task}
    Path("files").symlink_to(files)
    main(["summary", f"me/{name}"])
    summary = load(run).model.summary((1, 1, *{"digits": (8, 8), "voice": (64,)}[name]))
    assert capsys.readouterr().out == f"{summary}\n"
    with pytest.raises(SystemExit):
        main(["summary", f"me/{name}", "--channels", "4"])
    assert "whose network it is, give --size and --batch-size only" in capsys.readouterr().err
    exec(block(text, "python"), {})
    main([*block(text, "sh").split()[1:-1], "again"])
    made = [
        sorted(p.name for p in Path(out).iterdir())
        for out in ("samples", "results", "again")
        if Path(out).exists()
    ]
    assert made[0] == made[1]
    assert len(made[0]) == {"digits": 16, "voice": 6}[name]


def test_a_card_that_somebody_changed_is_theirs(hub: FakeHub, tmp_path: Path) -> None:
    small, large = UNet(2, 1, **SMALL), UNet(2, 1, **{**SMALL, "channels": (2, 8)})
    card = tmp_path / "README.md"
    small.save_pretrained(tmp_path, license="mit")
    first = card.read_text()
    large.save_pretrained(tmp_path)
    assert card.read_text() != first
    assert head(card.read_text())["license"] == "mit"  # of the card that was replaced
    load(tmp_path).push_to_hub("me/loaded")
    assert head(hub.repositories["me/loaded"]["README.md"].decode())["license"] == "mit"
    hub.repositories["me/loaded"]["README.md"] = b"Mine."
    large.save_pretrained(tmp_path, repo_id="me/loaded", push_to_hub=True)
    assert hub.repositories["me/loaded"]["README.md"] == b"Mine."
    card.write_bytes(card.read_bytes().replace(b"\n", b"\r\n"))  # another system's lines are no change
    small.save_pretrained(tmp_path)
    assert card.read_text() == first
    for theirs in (first.replace("mit", "wtfpl"), f"{first}\nMore.\n", "", "Mine.", b"\xff\xfe"):
        card.write_bytes(theirs if isinstance(theirs, bytes) else theirs.encode())
        before = card.read_bytes()
        large.save_pretrained(tmp_path)
        with pytest.raises(
            ValueError, match=r"license must be left out where .*README.md was written by hand"
        ):
            small.save_pretrained(tmp_path, license="mit")
        assert card.read_bytes() == before
        assert UNet.from_pretrained(tmp_path).config["channels"] == [2, 8]
    card.unlink()
    card.symlink_to(tmp_path / "elsewhere.md")
    small.save_pretrained(tmp_path)
    assert not (tmp_path / "elsewhere.md").exists()

    small.push_to_hub("me/net", license="mit")
    large.push_to_hub("me/net")
    ours = hub.repositories["me/net"]["README.md"]
    assert is_own(ours.decode())
    assert head(ours.decode())["license"] == "mit"
    hub.repositories["me/net"]["README.md"] = b"Mine."
    small.push_to_hub("me/net")
    with pytest.raises(
        ValueError, match=r"license must be left out where README\.md of me/net was written by"
    ):
        large.push_to_hub("me/net", license="mit")
    assert hub.repositories["me/net"]["README.md"] == b"Mine."
    assert load("me/net").config["channels"] == [2, 4]


def test_a_run_is_replaced_with_its_card_unless_that_was_changed(tmp_path: Path) -> None:
    (run := tmp_path / "run").mkdir()
    folder, _ = opened("digits", run)
    load(folder).save_pretrained(folder)
    check_folder(folder, resume=False, overwrite=True)
    (folder / "README.md").write_text("Mine.")
    with pytest.raises(ValueError, match=r"got .* with README.md, which no run wrote"):
        check_folder(folder, resume=False, overwrite=True)


class Foreign(Checkpoint, nn.Module):
    """A network of somebody else, with names that ours have."""

    def __init__(self, spatial_dims: int, levels: int = 2) -> None:
        super().__init__()
        self.spatial_dims, self.levels, self.data = spatial_dims, levels, "mine"


def test_a_model_of_another_class_has_a_card_too(tmp_path: Path) -> None:
    for name, model in (("one", Foreign(2)), ("around", Diffusion(nn.Conv1d(1, 1, 1)))):
        model.save_pretrained(tmp_path / name)
        text = (tmp_path / name / "README.md").read_text()
        assert block(text, "python").endswith(f'model = {type(model).__name__}.from_pretrained("FOLDER")')


@pytest.mark.parametrize("license", ["", "MIT", "mit\ntags: x", "a b", 3])
def test_a_licence_is_a_name_of_the_hub(tmp_path: Path, license: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="license must be a"):
        UNet(1, 1, **SMALL).save_pretrained(tmp_path / "new", license=license)
    assert not (tmp_path / "new").exists()


def test_nothing_but_weights_and_options_is_fetched(hub: FakeHub, tmp_path: Path) -> None:
    UNet(1, 1, **SMALL).push_to_hub("me/net")
    files = hub.repositories["me/net"]
    files |= {"pytorch_model.bin": pickle.dumps("x"), "modeling.py": b"raise SystemExit", "run.json": b"{}"}
    load("me/net")
    fetched = {p.name for p in (tmp_path / "cache").rglob("snapshots/*/*")}
    assert fetched == {"config.json", "model.safetensors"}
    files["model.safetensors"] = pickle.dumps({"x": torch.zeros(1)})
    with pytest.raises(ValueError, match="must be a whole safetensors file"):
        load("me/net")
    files["model.safetensors"], files["config.json"] = b"", b'{"_class": "os.system", "_format": 1}'
    with pytest.raises(ValueError, match="field '_class' must be a class"):
        load("me/net")


def test_a_folder_of_that_name_comes_first_and_the_cache_without_a_network(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    UNet(1, 1, **SMALL).push_to_hub("me/net")
    assert load("me/net").spatial_dims == 1
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    asked = len(hub.asked)
    assert load("me/net").spatial_dims == 1
    UNet(2, 1, **SMALL).save_pretrained("me/net")
    assert load("me/net").spatial_dims == 2
    assert len(hub.asked) == asked
