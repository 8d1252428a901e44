"""Padding and resampling against NumPy, plain loops and torch."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import convnd.functional as F
from convnd._spatial import pad
from convnd._torch.memory import channels_last
from convnd.testing import Case, interpolate_cases, pad_cases, reference

TORCH_MODES = {
    "linear": {1: "linear", 2: "bilinear", 3: "trilinear"},
    "cubic": {2: "bicubic"},
}


# As many as it takes to draw every mode with both signs.
MANY = settings(max_examples=max(settings().max_examples, 300))


@MANY
@given(pad_cases())
@example(
    Case(np.arange(1.0, 9.0).reshape(2, 1, 4), kwargs={"pad": (3, -2), "mode": "circular"}, operator="pad")
)
def test_pad_equals_numpy(case: Case) -> None:
    flat, mode = case.kwargs["pad"], case.kwargs["mode"]
    pairs = [(flat[i], flat[i + 1]) for i in range(len(flat) - 2, -1, -2)]
    expected = reference.pad(case.input, pairs, [mode] * len(pairs))
    np.testing.assert_array_equal(F.pad(torch.tensor(case.input), **case.kwargs).numpy(), expected)


@given(pad_cases())
def test_pad_gradient_counts_the_copies(case: Case) -> None:
    x = torch.tensor(case.input, requires_grad=True)
    (gradient,) = torch.autograd.grad(F.pad(x, **case.kwargs).sum(), x)
    # An entry's gradient is the number of its copies: pad a different power of two for each entry.
    labels = torch.arange(1, x.numel() + 1).view(x.shape).double()
    copies = torch.bincount(F.pad(labels, **case.kwargs).long().flatten(), minlength=x.numel() + 1)[1:]
    assert torch.equal(gradient, copies.view(x.shape).double())


@given(pad_cases(), st.sampled_from(("zeros", "circular")))
def test_padding_and_its_adjoint(case: Case, first: str) -> None:
    """With modes that differ from axis to axis, too."""
    flat, mode = case.kwargs["pad"], case.kwargs["mode"].replace("constant", "zeros")
    pairs = tuple((flat[i], flat[i + 1]) for i in range(len(flat) - 2, -1, -2))
    fits = first == "zeros" or max(pairs[0]) <= case.input.shape[2]
    modes = (first if fits else mode, *(mode,) * (len(pairs) - 1))
    x = torch.tensor(case.input)
    padded = pad.pad_axes(x, pairs, modes)
    y = torch.arange(1.0, padded.numel() + 1, dtype=x.dtype).view(padded.shape)
    back = pad.pad_axes_adjoint(y, pairs, modes)
    assert back.shape == x.shape
    assert (padded * y).sum() == (x * back).sum()


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_pad_crops_and_fills_as_torch(n: int) -> None:
    x = torch.randn(1, 2, *(3,) * n)
    pad = (-1, 2) * n
    expected = torch.nn.functional.pad(x, pad, value=3.0)
    assert torch.equal(F.pad(x, pad, value=3.0), expected)


@MANY
@given(interpolate_cases())
def test_interpolate_equals_plain_loops(case: Case) -> None:
    kwargs = dict(case.kwargs)
    scales = kwargs.get("scale_factor", (None,) * case.spatial_dims)
    sizes = kwargs.get("size")
    if sizes is None:
        sizes = [int(n * s) for n, s in zip(case.input.shape[2:], scales, strict=True)]
    mode, corners = kwargs["mode"], kwargs.get("align_corners", False)
    expected = reference.interpolate(case.input, sizes, scales, mode, corners)
    out = F.interpolate(torch.tensor(case.input), **kwargs)
    if mode.startswith("nearest"):
        np.testing.assert_array_equal(out.numpy(), expected)
    else:
        np.testing.assert_allclose(out.numpy(), expected, rtol=1e-10, atol=1e-10)


def resampled_by_torch(x: torch.Tensor, **kwargs: Any) -> torch.Tensor | None:
    """None where torch does not know the mode."""
    n = x.ndim - 2
    mode = TORCH_MODES.get(kwargs["mode"], {n: kwargs["mode"]}).get(n)
    return None if mode is None else torch.nn.functional.interpolate(x, **{**kwargs, "mode": mode})


@given(interpolate_cases(max_dims=3), st.sampled_from((None, False, True)))
def test_interpolate_equals_torch(case: Case, recompute: bool | None) -> None:
    x = torch.tensor(case.input)
    kwargs = dict(case.kwargs)
    if "scale_factor" in kwargs:
        kwargs["recompute_scale_factor"] = recompute
    expected = resampled_by_torch(x, **kwargs)
    if expected is not None:
        torch.testing.assert_close(F.interpolate(x, **kwargs), expected, rtol=1e-10, atol=1e-10)


@given(interpolate_cases(max_dims=3))
def test_interpolate_equals_torch_lifted_to_four_axes(case: Case) -> None:
    """torch on at most three axes, ours on the same data with size-1 axes in front."""
    kwargs = dict(case.kwargs)
    n = case.spatial_dims
    x = torch.tensor(case.input)
    if kwargs["mode"] == "nearest" and n == 2:
        x, n = x.unsqueeze(2), 3  # torch's kernel for two axes alone takes some scales for others
        kwargs |= {name: (1, *kwargs[name]) for name in ("size", "scale_factor") if name in kwargs}
    expected = resampled_by_torch(x, **kwargs)
    if expected is None:
        return
    missing = (1,) * (4 - n)
    for name in ("size", "scale_factor"):
        if name in kwargs:
            kwargs[name] = (*missing, *kwargs[name])
    out = F.interpolate(x.reshape(*x.shape[:2], *missing, *x.shape[2:]), **kwargs)
    torch.testing.assert_close(out.reshape(expected.shape), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("scale", [1.3, 2.1])
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "linear", "cubic"])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_scales_that_leave_or_double_a_size_mean_the_same_on_every_axis(
    n: int, mode: str, scale: float
) -> None:
    line = torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64)
    results = []
    for axis in range(n):
        shape = [3 if a == axis else 1 for a in range(n)]
        factors = [scale if a == axis else 1.0 for a in range(n)]
        x = line.view(1, 1, *shape)
        for contiguous in (x, channels_last(x.expand(2, 3, *shape))[:1, :1]):
            results.append(F.interpolate(contiguous, scale_factor=factors, mode=mode).flatten())
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_gradients_of_scales_that_leave_a_size(n: int, mode: str) -> None:
    """torch's cubic kernel for two axes takes that of the identity, though it resamples."""
    x = torch.randn(1, 1, *(3,) * n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: F.interpolate(x, scale_factor=1.3, mode=mode), x, fast_mode=True
    )


BYTES = st.integers(0, 255).map(lambda seed: torch.Generator().manual_seed(seed))


@given(interpolate_cases(min_dims=2, max_dims=2), st.sampled_from(("linear", "cubic")), st.booleans(), BYTES)
def test_bytes_are_resampled_as_torch_does_on_two_axes_of_many(
    case: Case, mode: str, antialias: bool, generator: torch.Generator
) -> None:
    kwargs = {**case.kwargs, "mode": mode, "antialias": antialias}
    if antialias:
        kwargs.pop("align_corners", None)
    x = torch.randint(0, 256, case.input.shape, dtype=torch.uint8, generator=generator)
    which = "size" if "size" in kwargs else "scale_factor"
    out = F.interpolate(x, **kwargs)
    lifted = {**kwargs, which: (1, *kwargs[which], 1)}
    assert torch.equal(F.interpolate(x[:, :, None, ..., None], **lifted)[:, :, 0, ..., 0], out)
    expected = resampled_by_torch(x, **kwargs) if out.shape[2:].numel() > 1 else out  # or torch may fail
    assert expected is not None
    assert torch.equal(expected, out)


@given(interpolate_cases(min_dims=2, max_dims=2), st.sampled_from(("linear", "cubic")), st.integers(0, 2))
@example(Case(np.eye(2)[None, None], kwargs={"scale_factor": (2.0, 1.3)}), "cubic", 0)
@example(Case(np.eye(2)[None, None], kwargs={"scale_factor": (1.0, 1.3)}), "cubic", 0)
def test_antialiasing_equals_torch_lifted_to_three_axes(case: Case, mode: str, at: int) -> None:
    kwargs = {"antialias": True, **case.kwargs, "mode": mode}
    x = torch.tensor(case.input)
    out = F.interpolate(x, **kwargs)
    which = "size" if "size" in kwargs else "scale_factor"
    lifted = {**kwargs, which: (*kwargs[which][:at], 1, *kwargs[which][at:])}
    torch.testing.assert_close(F.interpolate(x.unsqueeze(2 + at), **lifted).squeeze(2 + at), out)
    # torch is wrong where the last axis ends with one entry: there it is asked with the axes exchanged.
    swapped = out.shape[-1] == 1
    if swapped:
        x, out, kwargs[which] = x.mT, out.mT, kwargs[which][::-1]
    if out.shape[-1] > 1:
        expected = torch.nn.functional.interpolate(x, **{**kwargs, "mode": TORCH_MODES[mode][2]})
        torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "linear", "cubic", "area"])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_interpolate_gradcheck(n: int, mode: str) -> None:
    x = torch.randn(1, 1, *(3,) * n, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: F.interpolate(x, size=(5, 2, 3, 4, 2)[:n], mode=mode), x, fast_mode=True
    )


def test_label_maps_keep_their_values_and_dtype() -> None:
    labels = torch.arange(16).view(1, 1, 2, 2, 2, 2)
    out = F.interpolate(labels, scale_factor=2)
    assert out.dtype == torch.int64
    assert torch.equal(out[..., ::2, ::2, ::2, ::2], labels)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_bad_input_is_refused(n: int) -> None:
    x = torch.zeros(1, 2, *(3,) * n)
    for error, pattern, kwargs in [
        (ValueError, "mode must be one of 'nearest'", {"size": 2, "mode": "spline"}),
        (ValueError, "exactly one of size and scale_factor", {}),
        (ValueError, "exactly one of size and scale_factor", {"size": 2, "scale_factor": 2}),
        (ValueError, "align_corners must be left out", {"size": 2, "align_corners": True}),
        (ValueError, "size must be at least 1, got 0", {"size": 0}),
    ]:
        with pytest.raises(error, match=pattern):
            F.interpolate(x, **kwargs)
    with pytest.raises(TypeError, match="input must be a floating-point"):
        F.interpolate(x.long(), size=2, mode="linear")
    with pytest.raises(ValueError, match="pad must have two entries"):
        F.pad(x, (1,))
    with pytest.raises(ValueError, match="mode must be one of 'constant'"):
        F.pad(x, (1, 1), mode="mirror")
    with pytest.raises(ValueError, match="must be less than the size of the axis"):
        F.pad(x, (3, 0) * n, mode="reflect")
    with pytest.raises(ValueError, match="must be at most the size of the axis"):
        F.pad(x, (4, 0) * n, mode="circular")
    with pytest.raises(ValueError, match="pad must not crop more"):
        F.pad(x, (-2, -2))
    with pytest.raises(ValueError, match="must leave an entry to repeat"):
        F.pad(x, (-3, 3), mode="circular")
    with pytest.raises(ValueError, match="scale_factor must be positive"):
        F.interpolate(x, scale_factor=float("inf"))
