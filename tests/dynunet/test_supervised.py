"""Segmentation, classification and regression: losses beside torch's and MONAI's, predictions in windows."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from monai.inferers.inferer import SlidingWindowInferer
from monai.losses.dice import DiceLoss
from monai.losses.focal_loss import FocalLoss
from torch import Tensor, nn
from torch.nn import functional as T

from convnd import inflate
from dynunet import Diffusion, Encoder, Supervised, Trainer, UNet, load
from dynunet.training import TrainOptions
from dynunet.training.evaluation import validate
from dynunet.training.order import Stream
from dynunet.training.run import read_log

RANKS = (1, 2, 3, 4)
SMALL: dict[str, Any] = {"channels": (4, 8), "num_groups": 2, "num_blocks": 1}


class Identity(nn.Module):
    """Logits as they are given."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def logits_and_labels(n: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    logits = torch.randn(2, classes, *range(5, 5 + n), generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (2, *logits.shape[2:]), generator=generator)


def loss(output: Tensor, target: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
    return Supervised(Identity(), **options).loss(output, target=target, mask=mask)


@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 3.0)])
@pytest.mark.parametrize("n", RANKS)
def test_cross_entropy_is_torchs(n: int, weights: tuple[float, ...] | None) -> None:
    x, y = logits_and_labels(n)
    y[y == 1] = torch.where(torch.rand(int((y == 1).sum())) < 0.5, 1, 255)
    weight = None if weights is None else torch.tensor(weights, dtype=x.dtype)
    expected = T.cross_entropy(x, y, weight, ignore_index=255)
    torch.testing.assert_close(loss(x, y, loss="ce", ignore_index=255, class_weights=weights), expected)


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("n", [2, 3])
def test_dice_is_monais(n: int, background: bool) -> None:
    x, y = logits_and_labels(n)
    monai_loss = DiceLoss(include_background=background, to_onehot_y=True, softmax=True)
    expected = monai_loss(x, y.unsqueeze(1))
    options: dict[str, Any] = {"loss": "dice", "include_background": background}
    torch.testing.assert_close(loss(x, y, dice_per_sample=True, **options), expected)
    over_batch = DiceLoss(include_background=background, to_onehot_y=True, softmax=True, batch=True)
    torch.testing.assert_close(loss(x, y, **options), over_batch(x, y.unsqueeze(1)))


@pytest.mark.parametrize("n", [2, 3])
def test_dice_of_several_labels_is_monais(n: int) -> None:
    x, _ = logits_and_labels(n)
    y = torch.rand(x.shape) > 0.5
    expected = DiceLoss(sigmoid=True)(x, y.double())
    torch.testing.assert_close(loss(x, y, loss="dice", multilabel=True, dice_per_sample=True), expected)


@pytest.mark.parametrize("per_sample", [True, False])
@pytest.mark.parametrize("n", RANKS)
def test_dice_is_nnunets(n: int, per_sample: bool) -> None:
    """MemoryEfficientSoftDiceLoss in NumPy, ``-(2 TP + s) / (sum t + sum p + s)`` without background."""
    x, y = logits_and_labels(n)
    p = np.exp(x.numpy()) / np.exp(x.numpy()).sum(1, keepdims=True)
    t = np.moveaxis(np.eye(3)[y.numpy()], -1, 1)
    axes = tuple(range(2, 2 + n)) if per_sample else (0, *range(2, 2 + n))
    dice = (2 * (p * t).sum(axes) + 1e-5) / ((p + t).sum(axes) + 1e-5)
    expected = torch.tensor(1 - dice[..., 1:].mean())
    torch.testing.assert_close(loss(x, y, loss="dice", dice_per_sample=per_sample), expected)
    both = expected + T.cross_entropy(x, y)
    torch.testing.assert_close(loss(x, y, dice_per_sample=per_sample), both)


@pytest.mark.parametrize("n", [2, 3])
def test_focal_loss_is_monais(n: int) -> None:
    x, y = logits_and_labels(n)
    x = x.float()  # MONAI computes in single precision
    expected = FocalLoss(to_onehot_y=True, use_softmax=True, gamma=2.0)(x, y.unsqueeze(1))
    # MONAI's mean is over the classes as well, of which all but the true one have no error.
    torch.testing.assert_close(loss(x, y, loss="focal"), expected * x.shape[1])
    several = torch.rand(x.shape) > 0.5
    expected = FocalLoss(gamma=2.0)(x, several.double())
    torch.testing.assert_close(loss(x, several, loss="focal", multilabel=True), expected)


@pytest.mark.parametrize("name", ["ce", "dice", "dice+ce", "focal"])
@pytest.mark.parametrize("n", RANKS)
def test_what_does_not_count_has_no_influence(n: int, name: str) -> None:
    """Left out of a signal, ignored by its label, or missing by the mask: the same loss and gradient."""
    x, y = logits_and_labels(n)
    keep = torch.rand(y.shape) > 0.3
    flat = x.movedim(1, -1)[keep].T.unsqueeze(0), y[keep].unsqueeze(0)
    expected = loss(*flat, loss=name)
    ignored = torch.where(keep, y, -1)
    torch.testing.assert_close(loss(x, ignored, loss=name, ignore_index=-1), expected)
    missing = torch.where(keep.unsqueeze(1), x, torch.nan).requires_grad_()
    masked = loss(missing, y, keep.unsqueeze(1), loss=name)
    torch.testing.assert_close(masked, expected)
    masked.backward()
    assert missing.grad is not None
    assert missing.grad.isfinite().all()


@pytest.mark.parametrize("name", ["l1", "l2", "huber"])
def test_regression_leaves_out_nan(name: str) -> None:
    x, y = torch.randn(2, 3, 5, 6), torch.randn(2, 3, 5, 6)
    keep = torch.rand(y.shape) > 0.3
    function = {"l1": T.l1_loss, "l2": T.mse_loss, "huber": T.huber_loss}[name]
    expected = function(x[keep], y[keep])
    actual = loss(x, torch.where(keep, y, torch.nan), task="regression", loss=name)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("options", [{"loss": "ce"}, {"loss": "focal", "class_weights": (1, 2, 3)}])
def test_sums_add_up_over_batches(options: dict[str, Any]) -> None:
    x, y = logits_and_labels(2)
    y[0, :3] = 255
    model = Supervised(Identity(), ignore_index=255, **options)
    parts = [model.loss_sum(x[i : i + 1], target=y[i : i + 1]) for i in range(2)]
    (a, m), (b, n) = parts
    torch.testing.assert_close((a + b) / (m + n), model.loss(x, target=y))
    with pytest.raises(ValueError, match="loss must be a mean over entries to be summed, got 'dice'"):
        Supervised(Identity(), loss="dice").loss_sum(x, target=y)


def tasks(n: int) -> dict[str, tuple[Supervised, dict[str, Tensor]]]:
    """A model of each task, and an item whose target is a function of the data."""
    torch.manual_seed(0)
    x = torch.randn(2, 1, *(6,) * n)
    classes = (x[:, 0] > 0).long() + (x[:, 0] > 1).long()
    fields, several = torch.cat([x, -x], 1), torch.cat([x > 0, x > 1, x < 1], 1)
    unet, encoder = UNet(n, 1, 3, **SMALL), Encoder(n, 1, 3, **SMALL)
    deep, two = UNet(n, 1, 3, deep_supervision=1, **SMALL), UNet(n, 1, 2, **SMALL)
    made: dict[str, tuple[Supervised, Tensor]] = {
        "segmentation": (Supervised(unet), classes),
        "multilabel": (Supervised(unet, multilabel=True), several),
        "deep supervision": (Supervised(deep), classes),
        "classification": (Supervised(encoder, "classification"), torch.tensor([0, 2])),
        "regression of values": (Supervised(encoder, "regression"), torch.randn(2, 3)),
        "regression of fields": (Supervised(two, "regression", "l1"), fields),
    }
    return {name: (model, {"x0": x, "target": target}) for name, (model, target) in made.items()}


@pytest.mark.parametrize("name", list(tasks(1)))
@pytest.mark.parametrize("n", RANKS)
def test_every_task_learns_by_heart_and_is_loaded_again(n: int, name: str, tmp_path: Path) -> None:
    model, item = tasks(n)[name]
    x = item["x0"]
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        error = model.loss(**item)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        losses.append(error.item())
    assert losses[-1] < 0.7 * losses[0]
    model.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert type(again) is Supervised
    expected = model.predict(x)
    assert expected.shape == item["target"].shape
    assert torch.equal(again.predict(x), expected)
    if model.task != "regression":
        chances = model.predict(x, probabilities=True)
        assert ((0 <= chances) & (chances <= 1)).all()
        labels = chances > 0.5 if model.multilabel else chances.argmax(1)
        assert torch.equal(labels, expected)


@pytest.mark.parametrize("overlap", [0.25, 0.5])
@pytest.mark.parametrize("n", [2, 3])
def test_windows_are_monais(n: int, overlap: float) -> None:
    torch.manual_seed(0)
    unet = UNet(n, 1, 2, norm="instance", **SMALL).eval()
    x = torch.randn(2, 1, *(21, 13, 18)[:n])
    inferer = SlidingWindowInferer((8,) * n, 4, overlap, mode="gaussian")
    with torch.no_grad():
        expected: Any = inferer(x, unet)
    model = Supervised(unet, "regression")
    actual = model.predict(x, window=8, overlap=int(8 * overlap))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm", [None, "rms", "layer", "batch"])
@pytest.mark.parametrize("n", RANKS)
def test_windows_equal_the_whole_for_a_network_that_is_the_same_everywhere(n: int, norm: str | None) -> None:
    """Where each window sees all that its middle depends on: of kernels of one entry, everywhere."""
    torch.manual_seed(0)
    local: dict[str, Any] = {"kernel_size": 1, "downsample": "max", "upsample": "transpose"}
    unet = UNet(n, 1, 2, norm=norm, **local, **SMALL)
    for p in unet.parameters():
        nn.init.normal_(p, std=0.3)
    model = Supervised(unet, "regression")
    x = torch.randn(1, 1, *(10,) * n)
    actual = model.predict(x, window=4, overlap=2)  # aligned to the stride of 2
    torch.testing.assert_close(actual, model.predict(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n", RANKS)
def test_mirrored_predictions_do_not_depend_on_reflections(n: int) -> None:
    torch.manual_seed(0)
    unet = UNet(n, 1, 2, cond_channels=1, **SMALL)
    for p in unet.parameters():
        nn.init.normal_(p, std=0.2)
    model = Supervised(unet)
    x, cond = torch.randn(2, 1, 1, *(6,) * n)
    axes = tuple({2, n + 1})
    turned = model.predict(x.flip(axes), cond=cond.flip(axes), mirror=True, probabilities=True).flip(axes)
    torch.testing.assert_close(model.predict(x, cond=cond, mirror=True, probabilities=True), turned)
    assert not torch.allclose(model.predict(x, cond=cond, probabilities=True), turned)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": torch.zeros(2, 4, 4, dtype=torch.long)}, r"target must have the shape \(2, 5, 5\)"),
        ({"target": torch.full((2, 5, 5), 3)}, r"target must have labels from 0 to 2, got \[3\]"),
        ({"target": torch.zeros(2, 5, 5)}, "target must be integers, got torch.float32"),
        ({"target": [0]}, "target must be a tensor, got list"),
        ({"x0": torch.full((2, 3, 5, 5), torch.nan)}, "x0 must be finite"),
        ({"mask": torch.ones(2, 1, 5, 5)}, "mask must be a bool tensor"),
    ],
)
def test_bad_items_are_refused(change: dict[str, Any], message: str) -> None:
    item = {"x0": torch.randn(2, 3, 5, 5), "target": torch.zeros(2, 5, 5, dtype=torch.long), **change}
    with pytest.raises((ValueError, TypeError), match=message):
        Supervised(Identity()).loss(item.pop("x0"), **item)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "detection"}, "task must be one of"),
        ({"loss": "l2"}, "loss must be one of 'ce', 'dice'"),
        ({"task": "regression", "loss": "dice"}, "loss must be one of 'l1'"),
        ({"task": "regression", "multilabel": True}, "multilabel must be False for regression"),
        ({"loss": T.cross_entropy}, "loss must be one of"),
        ({"class_weights": (1, -1)}, "class_weights must be positive"),
        ({"ignore_index": 0.5}, "ignore_index must be an int"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        Supervised(Identity(), **options)


def test_nothing_that_counts_gives_zero() -> None:
    x = torch.randn(1, 3, 4, requires_grad=True)
    for name in ("ce", "focal"):
        error = loss(x, torch.full((1, 4), 9), loss=name, ignore_index=9)
        assert error.item() == 0
        error.backward()


@pytest.mark.parametrize("name", ["segmentation", "multilabel", "classification", "regression of fields"])
def test_metrics_are_those_of_the_predictions(name: str) -> None:
    """Of two batches together, by their definitions."""
    model, item = tasks(2)[name]
    model.eval()
    parts = [{key: value[i : i + 1] for key, value in item.items()} for i in range(2)]
    figures = model.metrics(torch.stack([model.validation_sums(**part)[1] for part in parts]).sum(0))
    found, truth = model.predict(item["x0"]), item["target"]
    if name == "classification":
        expected = {"accuracy": (found == truth).double().mean()}
    elif name == "regression of fields":
        expected = {"rmse": (found - truth).double().square().mean().sqrt()}
    else:
        sets = (
            [(found[:, c], truth[:, c]) for c in range(3)]
            if name == "multilabel"
            else [(found == c, truth == c) for c in (1, 2)]
        )
        values = [2 * (a & b).sum() / (a.sum() + b.sum()).double() for a, b in sets]
        expected = {"dice": torch.stack(values).nanmean()}
    assert figures == pytest.approx({key: float(value) for key, value in expected.items()})
    assert tuple(figures) == model.metric_names


@pytest.mark.parametrize(
    ("n", "name"), [*((1, name) for name in tasks(1)), *((n, "segmentation") for n in (2, 3, 4))]
)
def test_the_trainer_trains_every_task_and_resumes_exactly(n: int, name: str, tmp_path: Path) -> None:
    def items() -> list[dict[str, Tensor]]:
        _, item = tasks(n)[name]
        return [{key: value[i] for key, value in item.items()} for i in range(2)]

    how: dict[str, Any] = {
        "batch_size": 2,
        "sample_every": 2 if n < 3 else 0,
        "validate_every": 2,
        "progress": False,
    }
    how |= {"validation": items(), "num_samples": 2, "validation_samples": 2, "save_every": 2, "cpu": True}
    whole = Trainer(tasks(n)[name][0], items(), tmp_path / "whole", **how).fit(steps=4)
    first = Trainer(tasks(n)[name][0], items(), tmp_path / "two", callbacks=[stop_at(2)], **how)
    with pytest.raises(KeyboardInterrupt):
        first.fit(steps=4)
    again = Trainer(diffusion=tasks(n)[name][0], dataset=items(), out=tmp_path / "two", **how)
    resumed = again.fit(steps=4, resume=True)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    (metric,) = whole.metric_names
    logs = [read_log(tmp_path / run / "log.csv") for run in ("whole", "two")]
    value, other = (row[-1][f"validation_{metric}"] for row in logs)
    assert value == other != ""
    assert Supervised.from_pretrained(tmp_path / "two").task == whole.task


def stop_at(step: int) -> Any:
    def callback(reached: int, row: Any) -> None:
        if reached == step:
            raise KeyboardInterrupt

    return callback


def test_load_gives_back_what_was_saved(tmp_path: Path) -> None:
    unet = UNet(1, 1, time_embedding=True, **SMALL)
    for model in (unet, Diffusion(unet), Supervised(unet), Encoder(1, 1, 2, **SMALL)):
        model.save_pretrained(tmp_path)
        again = load(tmp_path, dtype=torch.float64)
        assert type(again) is type(model)
        assert next(again.parameters()).dtype == torch.float64
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"_format": 1', '"_format": 2'))
    with pytest.raises(ValueError, match="a newer version of dynunet"):
        load(tmp_path)
    config.write_text('{"_class": "Cosine", "_format": 1}')
    with pytest.raises(ValueError, match="_class must be a model, got 'Cosine'"):
        load(tmp_path)
    config.unlink()
    with pytest.raises(ValueError, match=r"config\.json is missing"):
        load(tmp_path)


@pytest.mark.parametrize("n", RANKS)
def test_mirrored_outputs_are_the_mean_over_reflections(n: int) -> None:
    """Of the data and of the conditions that have its axes; tokens of a context have none of them."""
    torch.manual_seed(0)
    unet = UNet(n, 1, 2, cond_channels=1, context_features=3, **SMALL).eval()
    for p in unet.parameters():
        nn.init.normal_(p, std=0.2)
    x, cond = torch.randn(2, 1, 1, *(6,) * n)
    context = torch.randn(1, 6, 3)  # with one spatial axis of as many axes as the data
    axes = [tuple(2 + i for i in range(n) if number >> i & 1) for number in range(2**n)]
    with torch.no_grad():
        outputs = [unet(x.flip(a), cond=cond.flip(a), context=context).flip(a) for a in axes]
    actual = Supervised(unet, "regression").predict(x, mirror=True, cond=cond, context=context)
    torch.testing.assert_close(actual, torch.stack(outputs).mean(0))


def test_units_and_the_inflated_network_are_kept(tmp_path: Path) -> None:
    model = Supervised(UNet(2, 1, 3, **SMALL), classes={"bone": 7, "skin": 2, "air": 0})
    model.data = {"kind": "images", "range": [0, 255]}
    inflated: Any = inflate(model, 3)
    for saved, n in ((model, 2), (inflated, 3)):
        saved.save_pretrained(tmp_path)
        again = load(tmp_path)
        assert again.data == {"kind": "images", "range": [0, 255]}
        assert again.classes == {"bone": 7, "skin": 2, "air": 0}
        x = torch.randn(1, 1, *(6,) * n)
        torch.testing.assert_close(again.predict(x), saved.eval().predict(x))
    with pytest.raises(TypeError, match="data must be None or a dict"):
        model.data = [1]  # type: ignore[assignment]


class Process:
    """What validation asks of an engine, in one of two processes."""

    def __init__(self, model: Supervised, index: int) -> None:
        self.options = TrainOptions(validation_samples=2, batch_size=2)
        self.average, self.summed = model, []
        self.accelerator = SimpleNamespace(process_index=index, num_processes=2, autocast=nullcontext)

    def to_device(self, batch: Any) -> Any:
        return dict(batch)

    def over_processes(self, sums: Tensor) -> Tensor:
        self.summed.append(sums)
        return sums

    def mean(self, sums: Tensor) -> float:
        return self.over_processes(sums)[0].item()


@pytest.mark.parametrize("name", ["segmentation", "classification", "regression of fields"])
def test_a_process_without_a_batch_takes_part_in_the_sums(name: str) -> None:
    """Or the others would wait for it."""
    model, item = tasks(2)[name]
    stream = Stream([{key: value[i] for key, value in item.items()} for i in range(2)], 0, "target")
    processes: list[Any] = [Process(model.eval(), index) for index in range(2)]
    one, other = processes
    figures = [set(validate(process, stream)) for process in processes]
    assert figures[0] == figures[1] == {"validation_loss", f"validation_{model.metric_names[0]}"}
    for a, b in zip(one.summed, other.summed, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert a.any()
        assert not b.any()


@pytest.mark.parametrize("name", list(tasks(1)))
def test_sums_of_held_out_data_hold_the_loss(name: str) -> None:
    model, item = tasks(2)[name]
    model.eval()
    (total, count), _ = model.validation_sums(**item)
    torch.testing.assert_close(total / count, model.loss(**item))


def test_a_loss_of_diffusion_is_refused_where_the_model_has_its_own(tmp_path: Path) -> None:
    model, item = tasks(1)["regression of fields"]
    trainer = Trainer(
        model, [{key: value[0] for key, value in item.items()}], tmp_path, loss="huber", cpu=True
    )
    with pytest.raises(
        ValueError, match="loss must be left out for a Supervised, which has its own, got 'huber'"
    ):
        trainer.fit(1)


@pytest.mark.parametrize("classes", ["bone", ("a", "a"), {"a": 1, "b": 1}, (1, 2), 3])
def test_classes_are_different_names(classes: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="classes must be"):
        Supervised(Identity(), classes=classes)
