"""The learner's path, and what all examples share: without training."""

import inspect
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dynunet import Supervised, Trainer, UNet

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")

import _peers
import _runs
import gallery
import learn_convolution
import learn_diffusion
import learn_unet
import tyro
from _learn import value_of, words

EXAMPLES = Path(learn_unet.__file__).parent


@dataclass
class Options(_runs.NetworkOptions):
    steps: int = 10


def test_scripts_of_the_readme_exist() -> None:
    named = set(re.findall(r"examples/(\w+\.py)", (EXAMPLES / "README.md").read_text()))
    assert named >= {path.name for path in EXAMPLES.glob("[!_]*.py")}
    assert all((EXAMPLES / name).is_file() for name in named)


@pytest.mark.parametrize("kernel", ["smooth", "edges", "slope"])
def test_convolution_draws(kernel: Any, tmp_path: Path) -> None:
    out = tmp_path / "new" / "x.png"
    learn_convolution.main(learn_convolution.Options((1, 2, 3, 4), kernel, size=7, out=out))
    assert out.stat().st_size > 0


def test_unet_draws(tmp_path: Path) -> None:
    unet = UNet(3, 2, channels=(4, 8), num_groups=2, time_embedding=True, cond_channels=1, deep_supervision=1)
    learn_unet.main(unet, 7, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 0


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction", "flow", "edm"])
def test_every_prediction_gives_the_same_points(
    prediction: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learn_diffusion.main(learn_diffusion.Options(prediction=prediction, out=tmp_path / "x.png"))
    assert "0.109" in capsys.readouterr().out


def test_unet_has_a_flag_for_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tyro.cli(learn_unet.main, args=["--help"], config=(tyro.conf.OmitArgPrefixes,), registry=words())
    shown = capsys.readouterr().out
    for name in inspect.signature(UNet).parameters:
        flag = f"--{name.replace('_', '-')}"
        fixed = name in ("in_layer", "out_layer")  # modules
        assert re.search(rf"{flag} (WORD|INT|FLOAT|STR|\[INT|\{{True)|{flag},", shown) is not None or fixed, (
            flag
        )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("none", None),
        ("true", True),
        ("3", 3),
        ("1,2,2", (1, 2, 2)),
        ("0.5", 0.5),
        ("full+channel", "full+channel"),
    ],
)
def test_words(text: str, value: object) -> None:
    assert value_of(text) == value
    assert type(value_of(text)) is type(value)


def test_network_options_are_those_of_a_unet() -> None:
    given = Options(attention=("none", "full"), norm="none", channels=(4, 8), num_groups=2).network()
    assert given["attention"] == [None, "full"]
    assert given["norm"] is None
    UNet(1, 1, **given)


def test_data_is_looked_for_and_never_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        SystemExit, match=r"(?s)data/usr/share/no-such.* /usr/share/no-such.*apt-get download a b && "
    ):
        _runs.debian("usr/share/no-such", packages="a b")
    with pytest.raises(SystemExit, match="--noise: looked for a file or a folder mine"):
        _runs.debian("usr/share/no-such", packages="a b", data=Path("mine"), flag="--noise")
    unpacked = Path("data/usr/share/no-such")
    unpacked.mkdir(parents=True)
    assert _runs.debian("usr/share/no-such", packages="a b") == unpacked
    assert _runs.debian("usr/share/no-such", packages="a b", data=tmp_path) == tmp_path


def test_a_run_is_begun_once_and_resumed_with_its_options(tmp_path: Path) -> None:
    given = Options(out=tmp_path / "runs", channels=(4, 8), data=Path("x"), steps=3)
    options, folder = _runs.begin(given, "kind")
    assert (options, folder) == (given, tmp_path / "runs" / "kind-1")
    assert _runs.begin(given, "kind")[1] == tmp_path / "runs" / "kind-2"
    assert _runs.begin(Options(resume=folder), "kind") == (given, folder)
    with pytest.raises(SystemExit, match="leave out --num-blocks"):
        _runs.begin(Options(resume=folder, num_blocks=2), "kind")
    with pytest.raises(SystemExit, match="looked for"):
        _runs.begin(Options(resume=tmp_path), "kind")
    with pytest.raises(SystemExit, match="exists already"):
        _runs.begin(replace(given, name="kind-1"), "kind")


def test_what_cannot_be_built_leaves_no_folder(tmp_path: Path) -> None:
    _, folder = _runs.begin(Options(out=tmp_path), "kind")
    with pytest.raises(SystemExit, match="channels must"), _runs.explained(folder):
        UNet(1, 1, channels=())
    assert not folder.exists()


def fill(runs: Path, *kinds: str) -> None:
    """Runs of these kinds, with random values of odd sizes in place of what the examples keep."""
    volume, field = torch.rand(1, 9, 11, 10), torch.rand(2, 3, 7, 8)
    kept = {
        "audio": {name: torch.randn(1, 999) for name in ("noisy", "denoised", "clean")},
        "images": {"made": torch.randn(3, 6, 3, 5, 4)},
        "volume": dict.fromkeys(("measured", "mean", "one sample", "truth"), volume),
        "segment": {"scan": volume[0], "found": volume[0] > 0.5, "atlas": 2 * (volume[0] > 0.7)},
        "ocean": {"field": field, "network": -field, "water": field > 0.2, "held_out": field > 0.8},
    }
    kept["audio"]["sample_rate"] = torch.tensor(800)
    for kind in kinds:
        (runs / f"{kind}-1").mkdir(parents=True)
        _runs.keep(runs / f"{kind}-1", **kept[kind])


def test_gallery_draws_what_the_examples_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, *(row.kind for row in gallery.ROWS))
    out = tmp_path / "new" / "x.png"
    gallery.main(gallery.Options(tmp_path, out))
    assert "no finished run" not in capsys.readouterr().out
    assert 0 < out.stat().st_size < 500_000


def test_gallery_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = gallery.Options(tmp_path, tmp_path / "x.png")
    fill(tmp_path, "ocean", "images", "segment")
    gallery.main(options)
    said = capsys.readouterr().out
    for row in gallery.ROWS:
        assert (f"python examples/{row.script}" in said) == (row.kind in ("audio", "volume"))
    with pytest.raises(SystemExit, match="nothing to draw"):
        gallery.main(replace(options, runs=tmp_path / "none"))


def test_the_newest_run_is_drawn(tmp_path: Path) -> None:
    for number in (2, 10):
        (tmp_path / f"ocean-{number}").mkdir()
        _runs.keep(tmp_path / f"ocean-{number}", field=torch.zeros(1))
    (tmp_path / "ocean-11").mkdir()  # not finished
    assert gallery.newest(tmp_path, "ocean") == tmp_path / "ocean-10" / _runs.SHOWN
    assert gallery.newest(tmp_path, "volume") is None


def test_equal_steps_are_in_proportion_to_costs(tmp_path: Path) -> None:
    pytest.importorskip("monai")
    peer = Supervised(_peers.monai_unet(2, 1, 3, (4, 8, 8)))
    own = Supervised(UNet(2, 1, 3, channels=(16, 32), num_groups=4))
    data: Any = [{"x0": torch.randn(1, 32, 32), "target": torch.zeros(32, 32, dtype=torch.long)}] * 2
    own, peer = (Trainer(model, data, tmp_path) for model in (own, peer))
    there, back = (_peers.equal_steps(pair, 3, 1000) for pair in ((own, peer), (peer, own)))
    assert there > 1000 > back
    slow = Trainer(peer.model, data, tmp_path, augment=_slowly)
    assert _peers.equal_steps((peer, slow), 3, 1000) < 500  # reading the data counts
    assert all(p.grad is None for p in peer.model.parameters())


def _slowly(item: dict[str, Any]) -> dict[str, Any]:
    for _ in range(10):
        item["x0"].repeat(1, 100, 1).sort()
    return item


def test_report_adds_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for steps in (3, 4):
        options, folder = _runs.begin(Options(out=tmp_path, steps=steps, channels=(4, 8)), "kind")
        _runs.report(folder, options, {"rmse": f"0.{steps}"})
    _runs.report(tmp_path / "other", Options(), {"psnr": "30.0"})
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert lines[0] == "run,rmse,flags,psnr"
    assert lines[2] == "kind-2,0.4,--channels 4 8 --steps 4,"
    assert "kind-2" not in capsys.readouterr().out.splitlines()[-1]
