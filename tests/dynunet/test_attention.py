"""Attention against torch's own, against all pairs of positions one by one, and its laws."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product, repeat
from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from convnd import ConvNd, inflate
from convnd.testing import spatial_shapes
from dynunet.attention import (
    ATTENTIONS,
    AttentionGate,
    CrossAttention,
    SelfAttention,
    WindowAttention,
    attention_names,
    make_attention,
    needs_heads,
)
from dynunet.nn import attention as module_under_test
from dynunet.nn.blocks import Parts

KINDS = ("full", "linear", "axial", "window", "channel", "spatial", "cbam")
TOKEN_KINDS = ("full", "axial", "window")
POSITIONS = (None, "rotary", "sinusoidal")
Sizes = tuple[int, ...]
shapes = spatial_shapes(max_dims=4)


def parts(n: int, modes: str | tuple[str, ...] = "zeros", norm: str | None = "group") -> Parts:
    return Parts(n, norm, "silu", 2, 1e-5, (modes,) * n if isinstance(modes, str) else modes)


def filled(module: Any, seed: int = 0) -> Any:
    """Random values everywhere, in double precision: what starts at zero would make the laws empty."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            fan = max(p[0].numel() if p.ndim > 1 else 2, 1)
            p.copy_(torch.randn(p.shape, generator=generator) / fan**0.5)
    return module.double().eval()


def data(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(name: str, made_of: Parts, positions: str | None = None, shifted: bool = False) -> Any:
    """Attention with random values, 8 channels and 2 heads, and small windows."""
    attention = make_attention(made_of, 8, 2, attention_names(name, "name"), positions, shifted)
    if isinstance(attention, WindowAttention):
        attention.window, attention.shift = 3, 1 if shifted else 0
    return filled(attention)


# Values: every pair of positions one by one.


def same_window(i: int, j: int, size: int, shift: int, circular: bool) -> bool:
    """Returns True if two entries of an axis are in one window of 3 (Liu et al. 2021, figure 4)."""
    if size <= 3:
        return True
    i, j = i - shift, j - shift
    return (i % size // 3 == j % size // 3) if circular else (i // 3 == j // 3)


def neighbourhoods(name: str, sizes: Sizes, modes: Sizes | tuple[str, ...], shift: int) -> list[np.ndarray]:
    """Who attends to whom, as matrices (T, T); the results of several are added."""
    places = list(product(*map(range, sizes)))

    def matrix(meet: Callable[[Sizes, Sizes], bool]) -> np.ndarray:
        return np.array([[meet(p, s) for s in places] for p in places])

    if name == "full":
        return [matrix(lambda p, s: True)]
    if name == "window":
        rings = [mode == "circular" for mode in modes]
        return [matrix(lambda p, s: all(map(same_window, p, s, sizes, repeat(shift), rings)))]
    lines = [a for a, size in enumerate(sizes) if size > 1]
    return [matrix(lambda p, s, a=a: p[:a] == s[:a] and p[a + 1 :] == s[a + 1 :]) for a in lines]


def phases(sizes: Sizes, modes: tuple[str, ...], pairs: int) -> np.ndarray:
    """Angle of every position (T) and pair: the pairs are dealt to the axes in turns, or the other way."""
    n = len(sizes)
    matrix = np.zeros((n, pairs))
    few, rounds = min(n, pairs), -(-max(n, pairs) // min(n, pairs))
    for turn in range(max(n, pairs)):
        axis, pair = turn % n, turn % pairs
        frequency = (10_000 ** (1 / n)) ** (-(turn // few) / rounds)
        if modes[axis] == "circular":
            frequency = max(round(frequency * sizes[axis] / (2 * np.pi)), 1) * 2 * np.pi / sizes[axis]
        matrix[axis, pair] = frequency
    return np.array(list(product(*map(range, sizes)))) @ matrix


def turned(heads: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Queries or keys (T, heads, D), their pairs as complex numbers that are rotated."""
    p = angles.shape[1]
    z = (heads[..., :p] + 1j * heads[..., p : 2 * p]) * np.exp(1j * angles)[:, None]
    return np.concatenate([z.real, z.imag, heads[..., 2 * p :]], axis=-1)


def by_pairs(
    m: Any, x: Tensor, masks: list[np.ndarray], positions: str | None, modes: tuple[str, ...]
) -> Tensor:
    """``x + W out`` for one sample at a time, in NumPy."""
    sizes, (w, b), heads = x.shape[2:], m.query_key_value.parameters(), m.num_heads
    results = []
    for normed in m.norm(x).detach().numpy():
        tokens = normed.reshape(x.shape[1], -1).T
        if positions == "sinusoidal":
            angles = phases(sizes, modes, tokens.shape[1] // 2)
            waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
            tokens = tokens + np.pad(waves, ((0, 0), (0, tokens.shape[1] % 2)))
        q, k, v = np.split(tokens @ w.detach().numpy().T + b.detach().numpy(), 3, axis=1)
        q, k, v = (t.reshape(len(tokens), heads, -1) for t in (q, k, v))
        if positions == "rotary":
            angles = phases(sizes, modes, q.shape[-1] // 2)
            q, k = turned(q, angles), turned(k, angles)
        out = np.zeros_like(v)
        scores = np.exp(np.einsum("ihd,jhd->hij", q, k) / q.shape[-1] ** 0.5)
        for mask in masks:
            allowed = scores * mask
            out += np.einsum("hij,jhd->ihd", allowed / allowed.sum(-1, keepdims=True), v)
        results.append(m.projection(torch.from_numpy(out).flatten(1)).T.reshape(x.shape[1:]))
    return x + torch.stack(results)


@pytest.mark.parametrize("sizes", [(6,), (2, 3), (2, 3, 1), (2, 1, 3, 2)])
def test_full_attention_equals_multi_head_attention(sizes: Sizes) -> None:
    plain = parts(len(sizes), norm=None)
    ours, theirs = SelfAttention(plain, 8, 2).double(), nn.MultiheadAttention(8, 2, batch_first=True).double()
    nn.init.normal_(theirs.in_proj_bias)
    nn.init.normal_(theirs.out_proj.bias)
    ours.query_key_value.load_state_dict({"weight": theirs.in_proj_weight, "bias": theirs.in_proj_bias})
    ours.projection.load_state_dict(theirs.out_proj.state_dict())
    x = data(3, 8, *sizes)
    tokens = x.flatten(2).transpose(1, 2)
    expected = x + theirs(tokens, tokens, tokens, need_weights=False)[0].transpose(1, 2).reshape(x.shape)
    torch.testing.assert_close(ours(x), expected)


@pytest.mark.parametrize(
    ("name", "shifted"), [("full", False), ("axial", False), ("window", False), ("window", True)]
)
@given(st.data(), shapes, st.sampled_from(POSITIONS))
def test_each_position_attends_to_its_neighbourhood(
    name: str, shifted: bool, draw: st.DataObject, sizes: Sizes, positions: str | None
) -> None:
    modes = tuple(draw.draw(st.sampled_from(("zeros", "circular"))) for _ in sizes)
    m, x = make(name, parts(len(sizes), modes), positions, shifted), data(2, 8, *sizes)
    masks = neighbourhoods(name, sizes, modes, shift=1 if shifted else 0)
    torch.testing.assert_close(m(x), by_pairs(m, x, masks, positions, modes))


@pytest.mark.parametrize(("sizes", "dim"), [((5,), 7), ((3, 4), 5), ((2, 3, 2), 2), ((3, 2, 2, 2), 3)])
@pytest.mark.parametrize("positions", ["rotary", "sinusoidal"])
def test_positions_of_any_width_on_any_number_of_axes(sizes: Sizes, dim: int, positions: str) -> None:
    """Odd heads, and heads with fewer pairs than axes."""
    zeros = ("zeros",) * len(sizes)
    for channels, heads in [(dim, 1), (2 * dim, 2)]:
        m = filled(make_attention(parts(len(sizes), norm=None), channels, heads, ("full",), positions))
        x = data(1, channels, *sizes)
        expected = by_pairs(m, x, neighbourhoods("full", sizes, zeros, 0), positions, zeros)
        torch.testing.assert_close(m(x), expected)


def test_windows_have_eight_entries_and_shift_by_four() -> None:
    """A change at one entry reaches its window and nothing else."""
    for shifted, first, last in [(False, 8, 16), (True, 4, 12)]:
        m = filled(make_attention(parts(1, norm=None), 8, 2, ("window",), None, shifted))
        x = data(1, 8, 20)
        changed = x.clone()
        changed[..., 9] += 1
        moved = (m(changed) - m(x)).abs().amax((0, 1)).nonzero().flatten().tolist()
        assert moved == list(range(first, last)), f"shifted={shifted}"


@given(shapes)
def test_linear_attention_equals_its_quadratic_form(sizes: Sizes) -> None:
    m, x = make("linear", parts(len(sizes))), data(2, 8, *sizes)
    tokens = m.norm(x).flatten(2).mT
    q, k, v = m.query_key_value(tokens).unflatten(-1, (3, 2, 4)).unbind(2)
    weights = torch.einsum("bihd,bjhd->bhij", q.softmax(-1), k.softmax(1))
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    out = m.projection(torch.einsum("bhij,bjhd->bihd", weights, v).flatten(2))
    torch.testing.assert_close(m(x), x + out.mT.reshape(x.shape))


@given(shapes)
def test_channel_attention_is_squeeze_and_excitation(sizes: Sizes) -> None:
    m, x = make("channel", parts(len(sizes))), data(2, 8, *sizes)
    for i, sample in enumerate(x):
        squeezed = sample.reshape(8, -1).sum(1) / prod(sizes)
        hidden = (m.squeeze.weight @ squeezed + m.squeeze.bias).clamp(min=0)
        gates = 1 / (1 + torch.exp(-(m.excite.weight @ hidden + m.excite.bias)))
        torch.testing.assert_close(m(x)[i], torch.einsum("c...,c->c...", sample, gates))
    assert make_attention(parts(1), 256, 1, ("channel",)).get_submodule("squeeze").out_features == 16


@pytest.mark.parametrize("sizes", [(9,), (4, 5), (2, 3, 4)])
@pytest.mark.parametrize("mode", ["zeros", "replicate", "mixed"])
def test_spatial_attention_of_cbam(sizes: Sizes, mode: str) -> None:
    n = len(sizes)
    modes = ("circular", *("replicate",) * (n - 1)) if mode == "mixed" else (mode,) * n
    sizes = (max(sizes[0], 3), *sizes[1:])
    m, x = make("spatial", parts(n, modes)), data(2, 8, *sizes)
    pooled = torch.stack([x.mean(1), x.max(1).values], 1)
    for axis, kind in enumerate(modes):
        before, after = torch.arange(-3, 0), torch.arange(sizes[axis], sizes[axis] + 3)
        index = torch.cat([before, torch.arange(sizes[axis]), after])
        inside = (index >= 0) & (index < sizes[axis])
        index = index % sizes[axis] if kind == "circular" else index.clamp(0, sizes[axis] - 1)
        pooled = pooled.index_select(2 + axis, index)
        if kind == "zeros":
            pooled = pooled * inside.view(-1, *(1,) * (n - 1 - axis))
    conv = (torch.conv1d, torch.conv2d, torch.conv3d)[n - 1]
    torch.testing.assert_close(m(x), x * conv(pooled, m.conv.weight, m.conv.bias).sigmoid())


@given(shapes)
def test_attention_gate_formula(sizes: Sizes) -> None:
    m = filled(AttentionGate(parts(len(sizes)), 6, 4))
    skip, gate = data(2, 6, *sizes), data(2, 4, *sizes, seed=2)
    w, u, psi = (conv.weight.flatten(1) for conv in (m.skip, m.gate, m.psi))
    inner = torch.einsum("oc,nc...->no...", w, skip) + torch.einsum("oc,nc...->no...", u, gate)
    inner = inner + m.gate.bias.view(-1, *(1,) * len(sizes))
    alpha = (torch.einsum("oc,nc...->no...", psi, inner.relu()) + m.psi.bias).sigmoid()
    assert alpha.shape == (2, 1, *sizes)
    torch.testing.assert_close(m(skip, gate), skip * alpha)


@given(shapes, st.integers(1, 5))
def test_cross_attention_equals_multi_head_attention(sizes: Sizes, tokens: int) -> None:
    ours = filled(CrossAttention(parts(len(sizes)), 8, 2, 5))
    theirs = nn.MultiheadAttention(8, 2, kdim=5, vdim=5, batch_first=True).double()
    w, b = ours.key_value.weight, ours.key_value.bias
    state = {
        "q_proj_weight": ours.query.weight,
        "k_proj_weight": w[:8],
        "v_proj_weight": w[8:],
        "in_proj_bias": torch.cat([ours.query.bias, b]),
        "out_proj.weight": ours.projection.weight,
        "out_proj.bias": ours.projection.bias,
    }
    theirs.load_state_dict(state)
    x, context = data(2, 8, *sizes), data(2, tokens, 5, seed=2)
    out = theirs(ours.norm(x).flatten(2).mT, context, context, need_weights=False)[0]
    torch.testing.assert_close(ours(x, context), x + out.mT.reshape(x.shape))


def test_cbam_is_channel_then_spatial() -> None:
    x = data(2, 8, 5, 4)
    both, one, two = (make(name, parts(2)) for name in ("cbam", "channel", "spatial"))
    one.load_state_dict(both[0].state_dict())
    two.load_state_dict(both[1].state_dict())
    torch.testing.assert_close(both(x), two(one(x)))
    twice = make("linear+full", parts(2))
    torch.testing.assert_close(twice(x), twice[1](twice[0](x)))


# Laws.


@given(shapes, st.sampled_from(KINDS), st.integers(0, 4), st.booleans())
@example((4, 5, 1), "axial", 0, False)
def test_a_size_one_axis_changes_nothing(sizes: Sizes, name: str, at: int, shifted: bool) -> None:
    at = min(at, len(sizes))
    low, high = (make(name, parts(n), None, shifted) for n in (len(sizes), len(sizes) + 1))
    state = {k: v.select(2 + at, 3) if v.ndim == len(sizes) + 3 else v for k, v in high.state_dict().items()}
    low.load_state_dict(state)
    x = data(2, 8, *sizes)
    torch.testing.assert_close(high(x.unsqueeze(2 + at)).squeeze(2 + at), low(x))


@given(shapes, st.sampled_from(KINDS), st.randoms(use_true_random=False), st.booleans())
def test_permuting_axes_permutes_the_output(sizes: Sizes, name: str, random: Any, shifted: bool) -> None:
    n = len(sizes)
    order = random.sample(range(n), n)
    axes = (0, 1, *(2 + a for a in order))
    modes = tuple(random.choice(("zeros", "replicate")) for _ in sizes)
    m = make(name, parts(n, modes), None, shifted)
    moved = make(name, parts(n, tuple(modes[a] for a in order)), None, shifted)
    moved.load_state_dict({k: v.permute(axes) if v.ndim == n + 2 else v for k, v in m.state_dict().items()})
    x = data(2, 8, *sizes)
    torch.testing.assert_close(moved(x.permute(axes)), m(x).permute(axes))


@given(shapes, st.sampled_from(KINDS), st.sampled_from(POSITIONS), st.booleans(), st.booleans())
def test_a_sample_depends_neither_on_its_batch_nor_on_memory_order(
    sizes: Sizes, name: str, positions: str | None, shifted: bool, channels_last: bool
) -> None:
    m, x = make(name, parts(len(sizes)), positions, shifted), data(3, 8, *sizes)
    other = x.movedim(1, -1).contiguous().movedim(-1, 1) if channels_last else x
    torch.testing.assert_close(m(other)[1:2], m(x[1:2]))


@pytest.mark.parametrize("sizes", [(9,), (6, 3), (3, 2, 6)])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("positions", [None, "rotary"])
@pytest.mark.parametrize("name", ["full", "axial", "window"])
def test_a_circular_axis_has_no_place_where_it_is_cut(
    sizes: Sizes, shifted: bool, positions: str | None, name: str
) -> None:
    """Rotary positions turn by whole turns, and shifted windows reach around."""
    m, x = make(name, parts(len(sizes), "circular"), positions, shifted), data(2, 8, *sizes)
    for axis, size in enumerate(sizes, start=2):
        by = 3 if name == "window" and size > 3 else 1
        torch.testing.assert_close(m(x.roll(by, axis)), m(x).roll(by, axis))


@settings(max_examples=40)
@given(shapes, st.integers(2, 9), st.booleans())
def test_rotary_scores_depend_on_differences_of_positions(sizes: Sizes, dim: int, circular: bool) -> None:
    n = len(sizes)
    made_of = parts(n, "circular" if circular else "zeros")
    rotate = make_attention(made_of, dim, 1, ("full",), "rotary").get_submodule("rotate")
    q, k = data(2, dim)
    same = torch.stack([q, k]).view(1, *(1,) * n, 2, 1, dim).expand(1, *sizes, 2, 1, dim)
    q, k = rotate(same).flatten(1, n)[0, :, :, 0].unbind(1)
    seen: dict[Any, float] = {}
    places = list(product(*map(range, sizes)))
    for (p, a), (s, b) in product(zip(places, q @ k.T, strict=True), enumerate(places)):
        difference = tuple((j - i) % m if circular else j - i for i, j, m in zip(p, b, sizes, strict=True))
        assert abs(seen.setdefault(difference, a[s].item()) - a[s].item()) < 1e-9, difference
    if not circular and dim > 3:
        assert len({round(score, 6) for score in seen.values()}) > len(seen) // 2, "they tell places apart"


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("side", ["leading", "trailing"])
def test_inflated_attention_repeats_the_old_one(
    side: str, name: str, positions: str | None, shifted: bool
) -> None:
    m = filled(nn.Sequential(ConvNd(2, 8, 8, 1), make(name, parts(2, "circular"), positions, shifted)))
    more = inflate(m, 3, new_axes=side, kernel_size=3, padding_mode="circular")
    x, at = data(2, 8, 7, 5), 2 if side == "leading" else 4

    def repeated(x: Tensor) -> Tensor:
        return x.unsqueeze(at).expand(*x.shape[:at], 4, *x.shape[at:])

    torch.testing.assert_close(more(repeated(x)), repeated(m(x)))


@pytest.mark.parametrize("name", KINDS)
def test_attention_starts_near_the_identity(name: str) -> None:
    torch.manual_seed(0)
    x = data(2, 16, 5, 6).float()
    m = make_attention(parts(2), 16, 2, attention_names(name, "name"))
    out = m(x)
    if needs_heads(attention_names(name, "name")):
        assert torch.equal(out, x)
    assert (out / x > 0.7).all()
    assert torch.equal(CrossAttention(parts(2), 16, 2, 3)(x, torch.randn(2, 4, 3)), x)
    gate = AttentionGate(parts(2), 16, 8)(x, x[:, :8])
    assert ((gate / x > 0.7) & (gate / x < 1)).all()


# Precision, gradients, memory.


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("norm", ["group", None])
@pytest.mark.parametrize("name", KINDS)
def test_half_precision_with_large_activations(name: str, norm: str | None, dtype: torch.dtype) -> None:
    for positions in POSITIONS:
        m = make(name, parts(2, norm=norm), positions, shifted=True)
        x = data(2, 8, 7, 5) * 1e3
        exact = m(x)
        low = m.float()
        half = x.float().requires_grad_()
        with torch.autocast("cpu", dtype=dtype):
            out = low(half)
        out.float().square().mean().sqrt().backward()
        tensors = [out, half.grad, *(p.grad for p in low.parameters())]
        assert all(t is not None and t.isfinite().all() for t in tensors)
        cast = low.to(dtype)(x.to(dtype))
        assert cast.dtype == dtype
        assert cast.isfinite().all()
        if norm is not None and needs_heads((name,)):  # else rounding decides between large scores
            assert (out.double() - exact).abs().max() < 0.02 * exact.abs().max()


@pytest.mark.parametrize(
    ("name", "size", "positions", "dtype"),
    [
        (
            "linear",
            300_000,
            None,
            torch.float16,
        ),  # weights of 1 / T are subnormal, and a sum over T overflows
        ("full", 1_500, "rotary", torch.bfloat16),  # which has no odd positions beyond 256
        ("full", 1_500, "sinusoidal", torch.bfloat16),
    ],
)
def test_half_precision_with_many_positions(
    name: str, size: int, positions: str | None, dtype: torch.dtype
) -> None:
    m = make(name, parts(1, norm=None), positions)
    x = data(1, 8, size) + (20 if name == "linear" else 0)
    with torch.no_grad():
        exact, low = m(x) - x, m.float()
        with torch.autocast("cpu", dtype=dtype):
            out = low(x.float()) - x
        cast = low.to(dtype)(x.to(dtype)) - x.to(dtype)
    assert (out - exact).abs().max() < 0.02 * exact.abs().max()
    assert (cast - exact).abs().mean() < 0.02 * exact.abs().max()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("positions", POSITIONS)
def test_gradients(name: str, positions: str | None) -> None:
    for sizes in [(4,), (4, 1, 3)]:
        m, x = make(name, parts(len(sizes)), positions, shifted=True), data(1, 8, *sizes)
        m(x).square().sum().backward()
        missing = [k for k, p in m.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert not missing
        assert torch.autograd.gradcheck(m, (x.requires_grad_(),), fast_mode=True)


def test_gradients_of_gate_and_cross_attention() -> None:
    x, context = data(2, 6, 2, 3).requires_grad_(), data(2, 3, 5).requires_grad_()
    gate, cross = filled(AttentionGate(parts(2), 6, 6)), filled(CrossAttention(parts(2), 6, 3, 5))
    for m, other in [(gate, data(2, 6, 2, 3, seed=3).requires_grad_()), (cross, context)]:
        m(x, other).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in m.parameters())
        assert torch.autograd.gradcheck(m, (x, other), fast_mode=True)


class Operations(TorchDispatchMode):
    """Records the operations that are run, and the entries of the largest result."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.names.append(func.__name__)
        results = out if isinstance(out, tuple | list) else (out,)
        self.largest = max([self.largest, *(t.numel() for t in results if isinstance(t, Tensor))])
        return out


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["full", "linear", "axial", "window"])
def test_memory_is_linear_and_channels_last_is_not_copied(n: int, name: str) -> None:
    sizes = {1: (625,), 2: (25, 25), 3: (5, 5, 25), 4: (5, 5, 5, 5)}[n]
    m = make_attention(parts(n), 8, 2, (name,), None, True)
    x = data(2, *sizes, 8).float().movedim(-1, 1)
    with Operations() as operations:
        m(x)
    assert operations.largest <= 2 * 625 * 3 * 8, "nothing is larger than queries, keys and values"
    if name != "linear":
        assert "_scaled_dot_product_flash_attention_for_cpu.default" in operations.names
    if name == "full":
        assert not {"clone.default", "copy_.default", "_to_copy.default"} & set(operations.names)


@pytest.mark.parametrize("name", TOKEN_KINDS)
def test_more_samples_and_heads_than_a_kernel_takes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    m, x = make(name, parts(2)), data(3, 8, 4, 5)
    m.num_heads = 4
    expected, native = m(x), module_under_test.scaled_dot_product_attention

    def limited(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        assert max(q.shape[:2]) <= 2, "a CUDA kernel would refuse"
        return native(q, k, v)

    monkeypatch.setattr(module_under_test, "GRID_LIMIT", 2)
    monkeypatch.setattr(module_under_test, "scaled_dot_product_attention", limited)
    torch.testing.assert_close(m(x), expected)


def test_windows_of_one_shape_are_done_in_one_call() -> None:
    m, x = make_attention(parts(2), 8, 2, ("window",), None, True), data(1, 8, 32, 24).float()
    with Operations() as operations:
        m(x)
    calls = operations.names.count("_scaled_dot_product_flash_attention_for_cpu.default")
    assert calls == 4, "whole windows, and half ones at both ends, on each axis"


@pytest.mark.parametrize("name", KINDS)
def test_attention_is_one_graph_for_any_size(name: str) -> None:
    """Of the batch and, but for windows, whose number they decide, of the axes."""
    torch.compiler.reset()
    m, x = make(name, parts(2), "rotary", shifted=True), data(2, 8, 7, 5)
    torch.testing.assert_close(torch.compile(m, backend="eager", fullgraph=True)(x), m(x))
    axes, sizes = ((0,), (7, 5)) if name == "window" else ((0, 2, 3), (9, 6))
    open_sizes = dict.fromkeys(axes, torch.export.Dim.DYNAMIC)
    exported = torch.export.export(m, (x,), dynamic_shapes=(open_sizes,)).module()
    more = data(5, 8, *sizes)
    torch.testing.assert_close(exported(more), m(more))


@pytest.mark.parametrize(
    ("name", "causal"), [("axial", ()), ("axial", (True, False)), ("full", (True, False))], ids=str
)
def test_an_exported_program_holds_for_every_size(name: str, causal: tuple[bool, ...]) -> None:
    """Torch guards against sizes of 1 whatever the program is; other formats have no guards."""
    m = make(name, replace(parts(2, norm=None), causal=causal))
    open_sizes = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    exported = torch.export.export(m, (data(2, 8, 3, 4),), dynamic_shapes=(open_sizes,))
    guarded, free = exported.module(), exported.module(check_guards=False)
    for sizes in product((1, 2, 5), repeat=2):
        x = data(3, 8, *sizes)
        torch.testing.assert_close((free if 1 in sizes else guarded)(x), m(x))


def test_an_empty_batch() -> None:
    for name in KINDS:
        assert make(name, parts(2), "rotary", shifted=True)(data(0, 8, 7, 5)).shape == (0, 8, 7, 5)


# Names and errors.


def test_names() -> None:
    assert set(ATTENTIONS) == set(KINDS)
    assert attention_names(None, "attention") == ()
    assert attention_names("full", "attention") == ("full",)
    assert attention_names("cbam", "attention") == ("channel", "spatial")
    assert attention_names("window+cbam+linear", "a") == ("window", "channel", "spatial", "linear")
    assert [name for name in KINDS if needs_heads((name,))] == ["full", "linear", "axial", "window"]
    assert not needs_heads(())
    assert needs_heads(("channel", "axial"))
    assert isinstance(make_attention(parts(2), 8, 3, ()), nn.Identity)
    x = data(1, 8, 3, 3).float()
    assert make_attention(parts(2), 8, 3, ("cbam",))(x).shape == x.shape, "these have no heads to divide"


@pytest.mark.parametrize("value", ["fast", "", "full+", "full+fast", "Full", 3, True, ("full",), ["full"]])
def test_other_names_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^mid_attention.*'full', 'linear'.*'cbam'.*joined by") as error:
        attention_names(value, "mid_attention")
    assert str(error.value).endswith(f"got {value!r}")


def test_positions_that_cannot_be_had_are_refused() -> None:
    for pattern, channels, heads, positions in [
        ("positions='rotary' needs at least 2 channels per head, got 1", 4, 4, "rotary"),
        ("positions='sinusoidal' needs at least 2 channels, got 1", 1, 1, "sinusoidal"),
        ("positions, if not None, must be one of 'rotary', 'sinusoidal', got 'learned'", 4, 2, "learned"),
    ]:
        with pytest.raises(ValueError, match=pattern):
            make_attention(parts(2), channels, heads, ("full",), positions)
