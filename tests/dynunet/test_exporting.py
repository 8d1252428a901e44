"""Exported models: programs that give what the networks give, and a runner that gives what the library gives.

Every export compares its program with the network, at sizes it was not traced at; the tests compare again.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile as sf
import torch
from torch import Tensor, nn

from dynunet import Diffusion, Encoder, SpectralMask, Supervised, UNet
from dynunet.data import FolderDataset
from dynunet.diffusion import Consistency, coordinates
from dynunet.exporting import export, network
from dynunet.exporting.about import about
from dynunet.exporting.network import Input
from dynunet.exporting.run import Exported
from dynunet.prediction import predict
from dynunet.restoration import restore

from .target_writers import label_map, run, scan_of
from .test_cli_files import ends

SMALL: dict[str, Any] = {"num_blocks": 1, "num_groups": 2, "skips": "level", "mid_blocks": 0}
WITHOUT_TORCH = "import runpy, sys; sys.modules['torch'] = sys.modules['dynunet'] = None; "


def untaught(model: Any) -> Any:
    """With random weights everywhere: those of a new network give 0."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def assert_close(found: np.ndarray, wanted: Tensor | np.ndarray, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(found, np.asarray(wanted), rtol=0, atol=tolerance)


def alone(folder: Path, expression: str, **arrays: Any) -> np.ndarray:
    """What the runner makes of arrays, in a process that has no torch."""
    np.savez(folder / "given.npz", **arrays)
    code = (
        "import numpy as np; from run import Exported; model = Exported('.'); "
        f"np.save('made.npy', eval({expression!r}, dict(np.load('given.npz'), model=model)))"
    )
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH + code], check=True, cwd=folder)
    return np.load(folder / "made.npy")


def runs(folder: Path, *words: object) -> None:
    """The same of its command line."""
    code = WITHOUT_TORCH + "del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, folder / "run.py", *words]
    subprocess.run([str(word) for word in command], check=True)


class OfTorch(Exported):
    """The runner with a network of torch, so that nothing has to be exported."""

    def __init__(self, model: Any, dims: int, steps: int | None = None, spacing: str = "uniform") -> None:
        given = {"x": Input("float32", ("batch", 1, *("size",) * dims))}
        self.about = json.loads(json.dumps(about(model, given, "", steps, spacing))) | {
            "outputs": 1,
            "least": [1],
        }
        self.model = model.model

    def network(self, **given: Any) -> np.ndarray:
        x = torch.from_numpy(given.pop("x")).float()
        if "t" in given:
            given["t"] = torch.full(x.shape[:1], given["t"])
        return self.model(x, **{k: v for k, v in given.items() if v is not None and np.size(v)}).numpy()


def bent(x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
    """A network of any number of axes, which is told of its times and classes."""
    place = torch.as_tensor(-1 if class_labels is None else class_labels)
    return torch.tanh(x) * (1 + t + place).view(-1, *(1,) * (x.ndim - 1)) + x.roll(1, -1) / 2


@pytest.mark.parametrize("spacing", ["uniform", "karras"])
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction", "flow", "edm"])
@pytest.mark.parametrize("schedule", ["linear", "cosine", "flow", "edm"])
def test_factors_of_steps_are_ddim(schedule: str, prediction: str, spacing: str) -> None:
    diffusion = Diffusion(bent, schedule, prediction)
    runner, noise = OfTorch(diffusion, 1, 7, spacing), torch.randn(3, 1, 9)
    wanted = diffusion.sample(
        noise.shape, 7, sampler="ddim", spacing=spacing, generator=lambda size: noise, progress=False
    )
    size = max(1.0, wanted.abs().max().item())
    assert_close(runner.sample(noise.numpy()) / size, wanted / size)


def test_a_bridge_starts_from_its_condition() -> None:
    """With another condition after it, in windows."""

    def network(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        return bent(x, t) + torch.as_tensor(cond).roll(1, 1)[:, :1]

    noise, cond = torch.randn(3, 1, 9), torch.randn(3, 2, 9)
    options: dict[str, Any] = {"sampler": "ddim", "generator": lambda size: noise, "progress": False}
    for schedule, prediction in [("bridge", "sample"), ("bridge_ve", "v_prediction"), ("bridge", "edm")]:
        diffusion = Diffusion(network, schedule, prediction)
        runner = OfTorch(diffusion, 1, 4)
        wanted = diffusion.sample(noise.shape, 4, cond=cond, window=6, overlap=2, **options)
        runner.about["windows"] = {"size": [6], "overlap": [2]}
        assert_close(runner.sample(noise.numpy(), cond.numpy()), wanted)


def test_a_bridge_begins_as_it_restores(tmp_path: Path) -> None:
    """Without noise; in few steps, and to sample, with it."""
    sf.write(tmp_path / "0.wav", np.zeros(200), 8000)
    units = FolderDataset(tmp_path, coloured=True, size=64, validation=0).units
    network = UNet(1, 1, channels=(4,), cond_channels=1, time_embedding=True, **SMALL)
    starts = []
    for made, data in [(Diffusion, units), (Consistency, units), (Diffusion, None)]:
        model = made(network, "bridge", "sample", data=data)
        starts.append(OfTorch(model, 1, 2).about["start"])
    assert starts == [0, 1, 1]


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.5])
def test_guidance(scale: float) -> None:
    diffusion, labels, noise = Diffusion(bent), torch.tensor([0, 2]), torch.randn(2, 1, 6, 5)
    options: dict[str, Any] = {"sampler": "ddim", "guidance_scale": scale, "class_labels": labels}
    wanted = diffusion.sample(noise.shape, 4, generator=lambda size: noise, progress=False, **options)
    runner = OfTorch(diffusion, 2, 4)
    runner.about["inputs"]["class_labels"] = {"none": -1}
    assert_close(runner.sample(noise.numpy(), guidance=scale, class_labels=labels.numpy()), wanted)


def test_few_steps_draw_noise() -> None:
    model, noise = Consistency(bent, steps=2), torch.randn(1, 1, 8)
    draws = iter([noise, torch.from_numpy(np.random.default_rng(0).standard_normal((1, 1, 8), np.float32))])
    wanted = model.sample(noise.shape, generator=lambda size: next(draws), progress=False)
    assert_close(OfTorch(model, 1).sample(noise.numpy()), wanted)


SIZES = [
    ((50,), (20,), (9,)),
    ((7, 12), (8, 5), (3, 1)),
    ((6, 5, 9), (4, 4, 4), (0, 1, 3)),
    ((9,), (4,), (3,)),
]


@pytest.mark.parametrize(("sizes", "window", "overlap"), SIZES)
def test_windows(sizes: tuple[int, ...], window: tuple[int, ...], overlap: tuple[int, ...]) -> None:
    noise = torch.randn(2, 1, *sizes)
    windows: dict[str, Any] = {"window": window, "overlap": overlap}
    about = {"size": window, "overlap": overlap}
    diffusion = Diffusion(bent)
    runner = OfTorch(diffusion, len(sizes), 3)
    runner.about["windows"] = about
    options: dict[str, Any] = {"sampler": "ddim", "generator": lambda size: noise, "progress": False}
    assert_close(runner.sample(noise.numpy()), diffusion.sample(noise.shape, 3, **options, **windows))
    supervised = Supervised(lambda x: torch.cat([x.roll(1, -1), x.flip(-1)], 1), "regression")
    runner = OfTorch(supervised, len(sizes))
    runner.about |= {"windows": about, "outputs": 2}
    assert_close(runner.windowed(noise.numpy()), supervised.predict(noise, **windows))


def test_coordinates() -> None:
    def told(x: Tensor, cond: Tensor) -> Tensor:
        return x + cond.sum(1, keepdim=True)

    runner, x = OfTorch(Supervised(told, "regression"), 3), torch.randn(2, 1, 4, 1, 3)
    runner.about["coordinates"] = True
    runner.network = lambda **given: told(*(torch.from_numpy(given[name]) for name in ("x", "cond"))).numpy()
    assert_close(runner.windowed(x.numpy()), told(x, coordinates(x.shape)))


@pytest.mark.inductor
def test_restores_files(tmp_path: Path) -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, 150).astype(np.float32)
    sf.write(tmp_path / "a.wav", sound, 8000, "FLOAT")
    dataset = FolderDataset(tmp_path, coloured=True, size=64, validation=0)
    unet = UNet(1, 1, channels=(4, 8), time_embedding=True, cond_channels=1, **SMALL)
    untaught(Diffusion(unet, data=dataset.units)).save_pretrained(tmp_path / "run")
    run("export", tmp_path / "run", "--out", tmp_path / "out")
    restore(tmp_path / "run", tmp_path / "a.wav", tmp_path / "b.wav", progress=False, device="cpu")
    noise = torch.randn(1, 1, 150, generator=torch.Generator().manual_seed(0))
    made = alone(tmp_path / "out", "model.of_file(x, noise)", x=sound[None], noise=noise.numpy())
    assert_close(made[0], sf.read(tmp_path / "b.wav", dtype="float32")[0], 1e-6)


def test_samples_classes(tmp_path: Path) -> None:
    unet = UNet(2, 1, channels=(4,), time_embedding=True, num_classes=3, context_features=2, **SMALL)
    diffusion = untaught(Diffusion(unet, "flow", "flow"))
    labels, context = torch.tensor([0, 2]), torch.randn(2, 3, 2)
    noise = torch.randn(2, 1, 7, 9)
    assert diffusion.export(tmp_path / "out", steps=5) == tmp_path / "out"
    given: dict[str, Any] = {"class_labels": labels, "context": context}
    options: dict[str, Any] = {"sampler": "ddim", "progress": False, "generator": lambda size: noise}
    wanted = diffusion.sample(noise.shape, 5, guidance_scale=2.0, **options, **given)
    arrays = {"noise": noise.numpy(), "labels": labels.numpy(), "context": context.numpy()}
    how = "model.sample(noise, guidance=2.0, class_labels=labels, context=context)"
    assert_close(alone(tmp_path / "out", how, **arrays), wanted)
    free = diffusion.sample(noise.shape, 5, **options)
    assert_close(alone(tmp_path / "out", "model.sample(noise)", **arrays), free)


def test_predicts_files(tmp_path: Path) -> None:
    for i in range(3):
        labels = label_map(3, i)
        for name, values in ("scans", scan_of(labels, i)), ("masks", labels):
            (tmp_path / name).mkdir(exist_ok=True)
            np.save(tmp_path / name / f"{i}.npy", values)
    dataset = FolderDataset(tmp_path / "scans", targets=tmp_path / "masks", size=8, validation=0)
    unet = UNet(3, 1, 3, channels=(4,), **SMALL)
    model = untaught(Supervised(unet, classes=dataset.classes, data=dataset.units))
    model.export(tmp_path / "out")
    predict(model, tmp_path / "scans", tmp_path / "labels", progress=False)
    made, wanted = [], []
    for i in range(2):
        runs(tmp_path / "out", tmp_path / "scans" / f"{i}.npy", tmp_path / f"{i}.npy")
        made.append(np.load(tmp_path / f"{i}.npy"))
        wanted.append(np.load(tmp_path / "labels" / f"{i}.npy"))
    for a, b in zip(made, wanted, strict=True):
        assert np.array_equal(a, b)
    assert len(np.unique(wanted[0])) > 1


@pytest.mark.inductor
def test_four_axes(tmp_path: Path) -> None:
    model = untaught(Supervised(UNet(4, 1, channels=(4,), norm=None, **SMALL), "regression"))
    model.export(tmp_path / "out")
    program = onnx.load(tmp_path / "out" / "model.onnx")
    axes = [len(w.dims) - 2 for w in program.graph.initializer if "conv" in w.name or "stem" in w.name]
    assert max(axes, default=0) <= 3
    for shape in (2, 1, 3, 4, 1, 5), (1, 1, 6, 2, 4, 3):
        x = torch.randn(shape)
        assert_close(Exported(tmp_path / "out").windowed(x.numpy()), model.predict(x))


def test_archives_of_torch(tmp_path: Path) -> None:
    model = untaught(
        Supervised(Encoder(1, 2, 3, channels=(4,), num_blocks=1, num_groups=2), "classification")
    )
    model.export(tmp_path / "out", "torch")
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    for shape in (1, 2, 1), (5, 2, 30):
        x = torch.randn(shape)
        assert_close(program(x=x).softmax(1), model.predict(x, probabilities=True))


# Options of a network, beyond those of the tests above, that a program may depend on.
OPTIONS: list[dict[str, Any]] = [
    {},
    *({"norm": norm} for norm in ("batch", "instance", "layer", "rms", None)),
    *({"activation": name} for name in ("relu", "leaky_relu", "elu", "gelu", "tanh")),
    *({"attention": [None, name]} for name in ("full", "linear", "axial", "cbam")),
    *({"mid_attention": name, "mid_blocks": 1} for name in ("full", "axial", "channel+spatial")),
    *({"skip_attention": name} for name in (True, "full", "spatial")),
    *({"positions": name, "attention": [None, "full+axial"]} for name in ("rotary", "sinusoidal")),
    *({"downsample": name} for name in ("max", "avg")),
    *({"upsample": name} for name in ("linear", "transpose", "shuffle")),
    *({"padding_mode": name} for name in ("reflect", "replicate", "circular")),
    *({"time_embedding": name} for name in ("sinusoidal", "ddpm", "fourier")),
    {"time_embedding": True, "num_classes": 3, "cond_features": 2, "modulation": "scale_shift"},
    {"cond_channels": 2, "context_features": 4, "attention": [None, "full"]},
    {"skips": "block", "mid_blocks": 2, "num_blocks": 2},
    {"causal": True, "lookahead": 3},
    {"causal": True, "attention": [None, "full+axial"]},
    {"block": "plain"},
    {"block": "convnext"},
    {"strides": 3, "kernel_size": [5, 1]},
    {"channels": (4, 2, 4), "deep_supervision": 1},
]


@pytest.mark.inductor
@pytest.mark.parametrize("to", ["onnx", "torch"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_every_option(rank: int, options: dict[str, Any], to: str, tmp_path: Path) -> None:
    """At sizes that it was not traced at, which :func:`export` compares, and at the least that it names."""
    given = {"channels": (4, 8), "num_heads": 2, **SMALL, **options}
    own = untaught(UNet(rank, 2, **given))
    model = Diffusion(own) if own.time_embedding else Supervised(own, "regression")
    if to == "onnx":
        assert least(model, tmp_path / "out", to) == network._sizes(own.spec, (1, 1))
    else:
        assert len(least(model, tmp_path / "out", to)) == rank


def least(model: Any, folder: Path, to: str) -> list[int]:
    """The least sizes of a program, which it was compared at."""
    model.export(folder, to)
    return json.loads((folder / "export.json").read_text())["least"]


@pytest.mark.parametrize("name", ["attention", "skip_attention", "mid_attention"])
def test_windows_of_attention_are_refused(name: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {name: "window"}
    unet = UNet(2, 1, channels=(4, 8), num_heads=2, time_embedding=True, **options)
    with pytest.raises(ValueError, match=f"^{name} must not have 'window'.*use 'full', 'axial' or 'linear'"):
        Diffusion(unet).export(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_exported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="must have a dynunet"):
        Diffusion(bent).export(out)
    masking = SpectralMask(UNet(1, 9, channels=(4,)), n_fft=16)
    with pytest.raises(ValueError, match="spectral_mask must be left out"):
        Supervised(masking, "regression").export(out)
    with pytest.raises(TypeError, match="must be a Diffusion or a Supervised, got a UNet"):
        export(UNet(1, 1, channels=(4,)), out)  # type: ignore[arg-type]
    encoder = Encoder(1, 1, 2, channels=(4,), in_layer=lambda x: x if x.sum() > 0 else -x)
    with pytest.raises(ValueError, match=r"^in_layer must be something"):
        Supervised(encoder, "classification").export(out, "torch")
    encoder.in_layer = lambda x: x @ torch.ones(1, 1000, 1)
    with pytest.raises(RuntimeError, match="size"):  # of the layer itself
        Supervised(encoder, "classification").export(out, "torch")
    small = Supervised(Encoder(1, 1, 2, channels=(4,)), "classification")
    with pytest.raises(ValueError, match="to must be one of"):
        small.export(out, "tflite")
    with pytest.raises(ValueError, match="steps must be left out"):
        export(small, out, steps=3)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"pip install 'dynunet\[export\]'"):
        small.export(out)
    assert not [*tmp_path.iterdir()]


def test_nothing_is_replaced_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Supervised(Encoder(1, 1, 2, channels=(4,)), "classification")
    model.save_pretrained(tmp_path / "run")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    ends(2, "export", tmp_path / "run", "--to", "torch", "--out", tmp_path / "out", "--overwrite")
    assert "must be new or empty" in capsys.readouterr().err
    (tmp_path / "out" / "mine").rename(tmp_path / "out" / "run.py")  # of an exported model
    ends(2, "export", tmp_path / "run", "--to", "torch", "--out", tmp_path / "out")
    assert "choose another folder or give --overwrite" in capsys.readouterr().err
    run("export", tmp_path / "run", "--to", "torch", "--out", tmp_path / "out", "--overwrite")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["export.json", "model.pt2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]


def test_a_wrong_program_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(program: Any, path: Path) -> Any:
        return lambda given: program.module()(**given) + 1

    monkeypatch.setattr(network, "_archive", wrong)
    with pytest.raises(ValueError, match="program must give what the network gives, got an error of 1"):
        untaught(Supervised(Encoder(1, 1, 2, channels=(4,)), "regression")).export(tmp_path / "out", "torch")
    assert not [*tmp_path.iterdir()]


def test_a_program_that_fails_is_not_one_of_larger_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(program: Any, path: Path) -> Any:
        return lambda given: program.module()(**given) if given["x"].shape[-1] > 1 else 1 / 0

    monkeypatch.setattr(network, "_archive", failing)
    with pytest.raises(ZeroDivisionError):
        untaught(Supervised(Encoder(1, 1, 2, channels=(4,)), "regression")).export(tmp_path / "out", "torch")
    assert not [*tmp_path.iterdir()]
