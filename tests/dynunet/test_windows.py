"""Windows: joined they are the whole, whatever the rank, and they know where they are."""

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import convnd.functional as F
from dynunet import Diffusion, UNet
from dynunet.diffusion import coordinates, random_crops, windowed
from dynunet.windows import check_windows


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def local_network(dims: int, radius: int) -> Any:
    """The same everywhere, nonlinear, and sees ``radius`` entries to each side."""
    weight = randn(1, 1, *(2 * radius + 1,) * dims, seed=1) / (2 * radius + 1) ** dims

    def model(x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        y = torch.tanh(F.conv(x, weight, padding=radius)) * (1 + t.to(x.dtype).view(-1, *(1,) * (dims + 1)))
        return y if cond is None else y + cond.sin()

    return model


@pytest.mark.parametrize(("dims", "size"), [(1, (97,)), (2, (23, 31)), (3, (13, 11, 17))])
@pytest.mark.parametrize("sampler", ["dpmpp_2m", "ddpm", "heun"])
def test_windowed_sampling_is_plain_sampling(dims: int, size: tuple[int, ...], sampler: str) -> None:
    diffusion = Diffusion(local_network(dims, 1), prediction="sample")
    cond = randn(2, 1, *size, seed=2)

    def draw(**options: Any) -> Tensor:
        generator = torch.Generator().manual_seed(3)
        return diffusion.sample(
            (2, 1, *size),
            4,
            sampler=sampler,
            cond=cond,
            dtype=torch.float64,
            generator=generator,
            progress=False,
            **options,
        )

    whole = draw()
    torch.testing.assert_close(draw(window=9, overlap=4), whole, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(draw(window=9, overlap=0), whole), "without overlap there are seams"


@given(st.data())
def test_windows_joined_are_the_whole(data: st.DataObject) -> None:
    dims = data.draw(st.integers(1, 4), "dims")
    most = {1: 60, 2: 20, 3: 9, 4: 6}[dims]
    window = data.draw(st.integers(3, most), "window")
    overlap = data.draw(st.integers(2, window - 1), "overlap")
    size = data.draw(st.lists(st.integers(1, most), min_size=dims, max_size=dims), "size")
    radius = min(-(-3 * overlap // 8), overlap // 2, 2 if dims < 4 else 1)
    x, t, cond = randn(2, 1, *size), torch.tensor([0.2, 0.9]), randn(2, 1, *size, seed=4)
    model = local_network(dims, radius)
    batch_size = data.draw(st.integers(1, 7), "batch_size")

    def estimate(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        assert len(x) <= max(batch_size, 2)
        assert all(s <= window for s in x.shape[2:])
        return model(x, t, **cond)

    x.requires_grad_()
    whole = model(x, t, cond)
    out = windowed(estimate, window, overlap, batch_size)(x, t, {"cond": cond})
    torch.testing.assert_close(out, whole, rtol=1e-10, atol=1e-10)
    gradients = [torch.autograd.grad(y.sin().sum(), x)[0] for y in (out, whole)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


def test_every_condition_reaches_its_window() -> None:
    x = randn(3, 1, 12, 10)
    given = {
        "class_labels": torch.arange(3),
        "context": randn(3, 2, 5, seed=1),
        "features": randn(3, 4, seed=2),
        "cond": randn(3, 2, 6, 5, seed=3),
        "scale": 2.0,
    }
    resized = F.interpolate(given["cond"], (12, 10), mode="linear")

    def estimate(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        n = cond["class_labels"]
        assert torch.equal(cond["context"], given["context"][n])
        assert torch.equal(cond["features"], given["features"][n])
        assert torch.equal(t, n.to(t.dtype))
        return x * cond["scale"] + cond["cond"].sum(1, keepdim=True)

    out = windowed(estimate, (5, 4), (2, 1))(x, torch.arange(3.0), given)
    torch.testing.assert_close(out, 2 * x + resized.sum(1, keepdim=True))


def test_context_of_a_signal_is_not_cut() -> None:
    """In 1-D the context has as many axes as the data, and may have its length."""
    context = randn(2, 3, 20, seed=1)

    def estimate(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        assert cond["context"].shape[1:] == (3, 20)
        return x

    windowed(estimate, 8)(randn(2, 1, 20), torch.zeros(2), {"context": context})


def test_a_network_that_knows_where_it_is() -> None:
    """The estimate is where the window is: sampled in windows, the volume is its own coordinates."""
    shape = (2, 2, 14, 19)
    diffusion = Diffusion(lambda x, t, cond: cond, prediction="sample")
    at = coordinates(shape)
    out = diffusion.sample(shape, 3, window=8, overlap=4, cond=at, progress=False)
    torch.testing.assert_close(out, at)


@pytest.mark.parametrize("dims", [1, 2, 3, 4])
def test_random_crops_are_where_they_say(dims: int) -> None:
    size = (9, 7, 5, 6)[:dims]
    x = coordinates((3, 1, *size), dtype=torch.float64)
    crops, at = random_crops(x, 6, torch.Generator().manual_seed(0))
    assert crops.shape == (3, dims, *(min(6, s) for s in size))
    assert torch.equal(crops, at)
    for corner in product((0, -1), repeat=dims):
        assert x[0][(slice(None), *corner)].tolist() == [1.0 if c else -1.0 for c in corner]


def test_memory_is_that_of_a_few_windows() -> None:
    seen: list[torch.Size] = []

    def model(x: Tensor, t: Tensor) -> Tensor:
        seen.append(x.shape)
        return 0 * x

    diffusion = Diffusion(model, prediction="sample")
    diffusion.sample((5, 1, 40, 40), 1, window=16, overlap=4, progress=False)
    assert max(shape.numel() for shape in seen) <= 4 * 16 * 16


def test_windows_of_a_network_in_every_restoration() -> None:
    unet = UNet(2, 1, channels=(4, 8), num_groups=2, time_embedding=True)
    diffusion = Diffusion(unet)
    y = torch.randn(1, 1, 20, 18)
    options: Any = {"window": 8, "overlap": 4, "steps": 2, "progress": False}
    for out in (
        diffusion.denoise(y, 0.3, **options),
        diffusion.inpaint(y, y > 0, **options),
        diffusion.sdedit(y, **options),
    ):
        assert out.shape == y.shape
        assert out.isfinite().all()


def test_bad_windows_are_refused() -> None:
    assert check_windows(8, None, 2) == ((8, 8), (2, 2))
    for error, pattern, arguments in [
        (ValueError, r"overlap must be less than window, \(4, 4\), .* got \(4, 3\)", (4, (4, 3), 2)),
        (ValueError, "window must be an int or have one entry for each of the 2", ((4, 4, 4), None, 2)),
        (ValueError, "overlap must be at least 0", (4, -1, 2)),
        (TypeError, "window must be an int", (2.5, None, 2)),
    ]:
        with pytest.raises(error, match=pattern):
            check_windows(*arguments)
