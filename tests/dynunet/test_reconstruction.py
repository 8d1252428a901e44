"""Reconstruction by networks: what is kept, what does not matter, and what is refused."""

from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from torch import Tensor, nn

from dynunet import Diffusion, UNet
from dynunet.diffusion import DPS, MMPS, PiGDM, RePaint
from dynunet.diffusion.predictions import PREDICTIONS
from dynunet.diffusion.samplers import SAMPLERS
from dynunet.diffusion.schedules import SCHEDULES
from dynunet.operators import Clip, Downsample, Mask, Operator, Project

from .measurements import SIZES, operators

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of diffusers
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]

GUIDED: dict[str, Any] = {"mmps": MMPS(), "pigdm": PiGDM(), "dps": DPS()}


def network(dims: int, seed: int = 0, **options: Any) -> UNet:
    """A network whose estimates depend on its input, unlike those of a new one."""
    torch.manual_seed(seed)
    unet = UNet(dims, 1, channels=(4, 6), num_groups=2, time_embedding=True, **options)
    for p in unet.parameters():
        nn.init.normal_(p, std=0.2)
    return unet.double()


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Pointwise(nn.Module):
    """A smooth function of every entry: quick, and exact in windows."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.8, dtype=torch.float64))
        self.largest, self.trained = 0, False

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        self.largest, self.trained = max(self.largest, x.numel()), self.weight.requires_grad
        shift = 0 if cond is None else cond
        return (self.weight * x + 0.1 * t.view(-1, *(1,) * (x.ndim - 1))).tanh() + 0.1 * shift


@pytest.mark.parametrize("dims", [1, 2, 3, 4])
def test_what_is_measured_without_noise_is_kept(dims: int) -> None:
    diffusion, shape = Diffusion(network(dims)), (2, 1, *SIZES[:dims])
    truth = 0.5 * randn(*shape, seed=7)
    for i, (name, operator) in enumerate(operators(dims).items()):
        y = operator(truth)
        method = list(GUIDED)[(i + dims) % 3]
        out = diffusion.reconstruct(
            y, operator, num_samples=2, steps=2, method=method, shape=shape, progress=False
        )
        assert out.shape == (2, *shape)
        assert out.dtype == torch.float64
        assert out.isfinite().all(), (name, method)
        for sample in out:
            again = operator(sample)
            if name == "mask":
                assert torch.equal(again, y), "to the bit"
            elif name in ("clip", "quantise"):
                torch.testing.assert_close(again, y, rtol=0, atol=1e-12)
            elif operator.linear:
                limit = 1e-3 if name in ("blur", "fourier") else 1e-6
                assert (again - y).norm() <= limit * y.norm(), (name, method)


@pytest.mark.parametrize("operator", ["maximum", "both", "function", "clip"])
def test_measurements_that_are_not_linear_are_approached(operator: str) -> None:
    diffusion, shape = Diffusion(network(2)), (1, 1, *SIZES[:2])
    A = operators(2)[operator]
    y = A(0.7 * randn(*shape, seed=7))
    out = diffusion.reconstruct(y, A, num_samples=4, steps=10, method="mmps", shape=shape, progress=False)
    without = diffusion.sample((4, *shape[1:]), 10, dtype=torch.float64, progress=False)
    assert torch.stack([A(x) - y for x in out]).norm() < 0.2 * (A(without) - y).norm()


def test_the_precision_is_that_of_the_measurement() -> None:
    y = torch.zeros(1, 1, 3)
    for dtype, wanted in [(torch.float32,) * 2, (torch.float64,) * 2, (torch.bfloat16, torch.float32)]:
        for model in (network(1), network(1).float()):
            out = Diffusion(model).reconstruct(y.to(dtype), Downsample(2), steps=2, progress=False)
            assert out.dtype == wanted


@pytest.mark.parametrize("method", ["mmps", "pigdm", "dps", "repaint"])
def test_a_sample_does_not_depend_on_what_is_made_at_once(method: str) -> None:
    diffusion = Diffusion(network(1, num_classes=3))
    known = randn(3, 1, 6, seed=5) > -0.3
    y, noise_std = randn(3, 1, 6), 0.0 if method == "repaint" else 0.3
    labels = torch.tensor([0, 1, 2])

    def made(rows: list[int], batch_size: int | None, num_samples: int = 3) -> Tensor:
        seeds = [100 * k + row for k in range(num_samples) for row in rows]
        return diffusion.reconstruct(
            y[rows],
            Mask(known[rows]),
            noise_std,
            num_samples,
            3,
            method=MMPS(10, 0.1) if method == "mmps" else method,  # samples stop at different iterations
            batch_size=batch_size,
            sampler="ddpm",
            class_labels=labels[rows],
            guidance_scale=1.5,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            progress=False,
        )

    whole = made([0, 1, 2], None)
    for batch_size in (1, 2):
        torch.testing.assert_close(made([0, 1, 2], batch_size), whole, rtol=1e-9, atol=1e-9)
    split = torch.cat([made([0], None), made([1, 2], 2)], dim=1)
    torch.testing.assert_close(split, whole, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(whole[0], whole[1])


@pytest.mark.parametrize("method", GUIDED)
def test_every_sampler_schedule_and_prediction(method: str) -> None:
    A, y = Downsample(2), 0.5 * randn(1, 1, 3)
    options: Any = {"steps": 4, "method": method, "progress": False}
    for schedule in SCHEDULES:
        for i, sampler in enumerate(SAMPLERS):
            prediction = [*PREDICTIONS][i % len(PREDICTIONS)]
            diffusion = Diffusion(Pointwise(), schedule, prediction)
            out = diffusion.reconstruct(y, A, 0.1, sampler=sampler, **options)
            assert out.isfinite().all(), (schedule, sampler, prediction)
    scheduler = EulerDiscreteScheduler(prediction_type="epsilon")
    out = Diffusion(Pointwise(), "linear").reconstruct(y, A, sampler=scheduler, **options)
    torch.testing.assert_close(A(out[0]), y, rtol=0, atol=1e-9)
    for spacing, eta, clip in [("karras", 0.5, 1.0), ("log_snr", None, "dynamic"), ("trailing", 1.0, 0.5)]:
        chosen = {"sampler": "ddim" if eta else "heun", "eta": eta, "clip": clip, "spacing": spacing}
        out = Diffusion(Pointwise()).reconstruct(y, A, 0.1, **chosen, **options)
        assert out.abs().max() <= (1 if clip != 0.5 else 0.5), "estimates stay in range, and so does the last"


@pytest.mark.parametrize("method", GUIDED)
def test_windows_change_nothing_but_memory(method: str) -> None:
    model = Pointwise()
    diffusion = Diffusion(model, prediction="sample")
    y, cond = 0.5 * randn(1, 1, 6, 5), randn(1, 1, 12, 10, seed=2)
    options: Any = {"method": method, "steps": 3, "cond": cond, "progress": False, "batch_size": 1}

    def made(**windows: Any) -> Tensor:
        chance = torch.Generator().manual_seed(1)
        return diffusion.reconstruct(y, Downsample(2), 0.1, 2, generator=chance, **options, **windows)

    whole, model.largest = made(), 0
    torch.testing.assert_close(made(window=(5, 4), overlap=2), whole, rtol=1e-9, atol=1e-9)
    assert model.largest <= 4 * 20, "a few windows at once"
    assert (model.weight.requires_grad, model.trained) == (True, False), "no gradients of weights are taken"


def test_gradient_checkpointing_changes_nothing() -> None:
    plain, saving = network(2), network(2, gradient_checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    y = 0.5 * randn(1, 1, 3, 2)

    def made(model: UNet, **options: Any) -> Tensor:
        chance = torch.Generator().manual_seed(1)
        return Diffusion(model).reconstruct(
            y, Downsample(2), 0.1, steps=3, generator=chance, progress=False, **options
        )

    torch.testing.assert_close(made(saving), made(plain), rtol=1e-10, atol=1e-10)
    windows: Any = {"window": 3, "overlap": 1}
    torch.testing.assert_close(made(saving, **windows), made(plain, **windows), rtol=1e-10, atol=1e-10)


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiled_networks_give_several_gradients() -> None:
    plain, y = Pointwise(), 0.5 * randn(1, 1, 3)

    def made(model: Any, **options: Any) -> Tensor:
        chance = torch.Generator().manual_seed(1)
        return Diffusion(model).reconstruct(
            y, Downsample(2), 0.1, steps=2, generator=chance, progress=False, **options
        )

    compiled = torch.compile(plain, backend="aot_eager")
    torch.testing.assert_close(made(compiled), made(plain), rtol=1e-9, atol=1e-9)
    windows: Any = {"window": 4, "overlap": 2}
    torch.testing.assert_close(made(compiled, **windows), made(plain, **windows), rtol=1e-9, atol=1e-9)


def kept_by_graph(run: Any) -> int:
    """The most bytes of tensors that autograd keeps at a time."""
    now = most = 0

    class Kept:
        def __init__(self, tensor: Tensor) -> None:
            nonlocal now, most
            self.tensor, self.size = tensor.detach(), tensor.numel() * tensor.element_size()
            now += self.size
            most = max(most, now)

        def __del__(self) -> None:
            nonlocal now
            now -= self.size

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        run()
    return most


def test_memory_is_that_of_one_evaluation_with_gradient() -> None:
    diffusion, x = Diffusion(network(2).requires_grad_(False)), randn(1, 1, 20, 20)
    A = Downsample(2)

    def one() -> None:
        estimate = diffusion.predict(x.clone().requires_grad_(), 0.5)
        estimate.sum().backward()

    def made(**options: Any) -> None:
        diffusion.reconstruct(A(x), A, 0.1, steps=2, method=MMPS(4, 0.0), progress=False, **options)

    once = kept_by_graph(one)
    whole = kept_by_graph(made)
    assert whole <= 1.2 * once, (whole, once)
    windows = kept_by_graph(lambda: made(window=8, overlap=2))
    assert windows < 0.7 * once, (windows, once)


def test_gradients_are_taken_whatever_the_mode_around() -> None:
    diffusion, y = Diffusion(network(1)), 0.5 * randn(1, 1, 3)

    def made() -> Tensor:
        chance = torch.Generator().manual_seed(1)
        return diffusion.reconstruct(y, Downsample(2), 0.1, steps=3, generator=chance, progress=False)

    plain = made()
    assert not plain.requires_grad
    with torch.no_grad():
        assert torch.equal(made(), plain)
    with torch.inference_mode():
        assert torch.equal(made(), plain)
        diffusion.reconstruct(y.clone(), Downsample(2), steps=2, progress=False)
    assert all(p.requires_grad and p.grad is None for p in diffusion.parameters())
    assert diffusion.training


@pytest.mark.parametrize("method", ["mmps", "pigdm", "dps", "repaint"])
def test_missing_entries_have_no_influence(method: str) -> None:
    diffusion, known = Diffusion(network(2)), randn(2, 1, 4, 4, seed=4) > 0
    y, options = randn(2, 1, 4, 4), {"steps": 3, "progress": False, "method": method}

    def made(y: Tensor, operator: Operator, known: Tensor | None) -> Tensor:
        chance = torch.Generator().manual_seed(1)
        return diffusion.reconstruct(y, operator, 0.0, known=known, generator=chance, **options)[0]

    holes = torch.where(known, y, torch.nan)
    wanted = made(torch.where(known, y, 0), Mask(known), None)
    torch.testing.assert_close(made(holes, Mask(known | True), known), wanted, rtol=1e-9, atol=1e-9)
    assert torch.equal(wanted[known], y[known])
    chance = torch.Generator().manual_seed(1)
    filled = diffusion.inpaint(holes, known, generator=chance, sampler=None, **options)
    torch.testing.assert_close(filled, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", GUIDED)
def test_missing_entries_of_any_measurement(method: str) -> None:
    diffusion, shape = Diffusion(Pointwise()), (1, 1, *SIZES[:2])
    for name, operator in operators(2).items():
        y = operator(0.5 * randn(*shape, seed=7))
        known = randn(*y.shape, seed=8) > 0
        options: Any = {"method": method, "steps": 3, "shape": shape, "progress": False}
        made = [
            diffusion.reconstruct(
                torch.where(known, y, other),
                operator,
                known=known,
                generator=torch.Generator().manual_seed(1),
                **options,
            )
            for other in (torch.nan, 5.0)
        ]
        assert torch.equal(*made), name
        if name in ("average", "mask", "stride", "clip"):
            assert torch.where(known, operator(made[0][0]) - y, 0).abs().max() < 1e-9, name


def test_noise_of_each_entry() -> None:
    """Without noise an entry counts fully, with very much not at all."""
    diffusion, y = Diffusion(network(1)), randn(1, 1, 6)
    known = torch.tensor([True, True, False, True, False, False]).view(1, 1, 6)

    def made(operator: Operator, noise_std: Any) -> Tensor:
        chance = torch.Generator().manual_seed(1)
        options: Any = {"method": MMPS(20, 1e-12), "generator": chance, "progress": False}
        return diffusion.reconstruct(operator(y), operator, noise_std, steps=3, **options)

    whole = Mask(torch.ones(1, 1, 6).bool())
    levels = torch.where(known, 0.1, 1e9)
    wanted = made(Mask(known), 0.1)
    torch.testing.assert_close(made(whole, levels), wanted, rtol=1e-6, atol=1e-6)
    assert torch.equal(made(whole, torch.where(known, 0.0, 1.0))[0][known], y[known]), "to the bit"


def test_no_samples_and_callbacks() -> None:
    diffusion, seen = Diffusion(network(1)), []
    out = diffusion.reconstruct(torch.zeros(0, 1, 3), Downsample(2), steps=2, progress=False)
    assert out.shape == (1, 0, 1, 6)
    diffusion.reconstruct(
        torch.zeros(2, 1, 3),
        Downsample(2),
        num_samples=3,
        steps=2,
        batch_size=2,
        progress=False,
        callback=lambda step, t, x, x0: seen.append((step, len(x))),
    )
    assert seen == [(0, 4), (1, 4), (0, 2), (1, 2)]


Y = torch.zeros(2, 1, 4)


@pytest.mark.parametrize(
    ("error", "pattern", "options"),
    [
        (TypeError, "y must be a floating-point tensor, got dtype torch.int64", {"y": Y.long()}),
        (ValueError, "y must be finite, got 8", {"y": Y / 0}),
        (ValueError, "y, where it is known, must be finite", {"y": Y / 0, "known": Y == 0}),
        (TypeError, "known must be a bool tensor", {"known": Y}),
        (ValueError, "noise_std must be at least 0 and finite, got -1", {"noise_std": -1}),
        (ValueError, "noise_std must be a number, or broadcast", {"noise_std": torch.zeros(3)}),
        (ValueError, "num_samples must be at least 1, got 0", {"num_samples": 0}),
        (ValueError, "batch_size must be at least 1, got 0", {"batch_size": 0}),
        (ValueError, "method must be one of 'mmps', 'pigdm', 'dps', 'repaint'", {"method": "ddrm"}),
        (TypeError, "method must be a name or an object", {"method": 3}),
        (ValueError, "'repaint' fills masks alone, .* got Downsample", {"method": "repaint"}),
        (TypeError, "reconstruct takes no start", {"start": (Y, 0.5)}),
        (ValueError, "sampler must be one of", {"sampler": "dpm"}),
        (ValueError, "eta must be left out", {"eta": 0.5}),
        (ValueError, "clip must be positive", {"clip": -1}),
        (ValueError, "generator must be .* 3 \\* 2 samples, got 2", {"generator": [torch.Generator()] * 2}),
        (ValueError, r"y must have the shape that Downsample", {"shape": (2, 1, 10)}),
        (ValueError, "shape must fit the model, with 1 channels", {"shape": (2, 2, 8)}),
        (ValueError, "shape of the data must fit the model", {"y": torch.zeros(2, 2, 4)}),
        (ValueError, "shape must be given: .* Project", {"operator": Project(0)}),
        (ValueError, "shape must be given: .* Function", {"operator": torch.sin}),
        (TypeError, "function must be a function of data", {"operator": 3}),
        (ValueError, "must return the dtype", {"operator": lambda x: x.double(), "shape": Y.shape}),
        (ValueError, "with the axes and samples", {"operator": lambda x: x.mean(-1), "shape": Y.shape}),
        (ValueError, "finite data as finite", {"operator": lambda x: (x - 9).log(), "shape": Y.shape}),
        (ValueError, "operator must be differentiable", {"operator": lambda x: x.detach(), "shape": Y.shape}),
        (
            ValueError,
            "the derivative of Function.* must be finite",
            {"operator": lambda x: (x - x.detach()).sqrt(), "shape": Y.shape, "y": Y + 1},
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(error: Any, pattern: str, options: dict[str, Any]) -> None:
    diffusion = Diffusion(network(1))
    arguments: dict[str, Any] = {"y": Y, "operator": Downsample(2), "num_samples": 3, "steps": 2}
    with pytest.raises(error, match=pattern):
        diffusion.reconstruct(**{**arguments, "progress": False, **options})


def test_models_without_gradients_or_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="model must be differentiable"):
        Diffusion(lambda x, t: x.detach(), prediction="sample").reconstruct(Y, Downsample(1), progress=False)
    with pytest.raises(ValueError, match="model must give finite estimates, got 8 of 8"):
        Diffusion(lambda x, t: x / 0 * 0).reconstruct(Y, Clip(0, 1), progress=False)
    with pytest.raises(ValueError, match="noise_std must be 0"):
        Diffusion(network(1)).reconstruct(Y, Mask(Y == 0), 0.1, method="repaint", progress=False)
    scheduler = EulerDiscreteScheduler()
    with pytest.raises(ValueError, match="sampler must be a name or a function here"):
        Diffusion(network(1)).reconstruct(Y, Mask(Y == 0), method=RePaint(), sampler=scheduler)
    for method, pattern in [
        (lambda: MMPS(0), "max_iterations must be at least 1"),
        (lambda: PiGDM(tolerance=-1), "tolerance must be in"),
        (lambda: DPS(0), "scale must be positive"),
        (lambda: RePaint(0), "resamplings must be at least 1"),
    ]:
        with pytest.raises(ValueError, match=pattern):
            method()
