"""torch's own sample and error inputs, at their own rank and lifted to four and more axes.

Lifting inserts axes of size 1 at one place of the input and of the kernel, and neutral entries at the
same place of every argument given per axis. The result must be that of torch with those axes inserted.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.testing._internal.common_methods_invocations import op_db

import convnd.functional as F

Check = tuple[str, Callable[[], None]]

NEUTRAL = {
    "stride": 1,
    "padding": 0,
    "dilation": 1,
    "kernel_size": 1,
    "output_padding": 0,
    "output_size": 1,
    "output_ratio": None,
    "size": 1,
    "scale_factor": 1.0,
    "upscale_factor": 1,
    "downscale_factor": 1,
}
OPERANDS = ("input", "weight", "indices")


@dataclass(frozen=True)
class Operator:
    ours: Callable[..., Any]
    spatial_dims: int | None  # None: as many as the pad of a sample says


def _family(name: str, ours: Callable[..., Any], ranks: Sequence[int] = (1, 2, 3)) -> dict[str, Operator]:
    return {f"nn.functional.{name}{n}d": Operator(ours, n) for n in ranks}


OPERATORS: dict[str, Operator] = {
    **_family("conv", F.conv),
    **_family("conv_transpose", F.conv_transpose),
    **_family("max_pool", F.max_pool),
    **_family("avg_pool", F.avg_pool),
    **_family("adaptive_avg_pool", F.adaptive_avg_pool),
    **_family("adaptive_max_pool", F.adaptive_max_pool),
    **_family("fractional_max_pool", F.fractional_max_pool, (2, 3)),
    **_family("max_unpool", F.max_unpool),
    "nn.functional.pad": Operator(F.pad, None),
    "nn.functional.interpolate": Operator(F.interpolate, None),
    "nn.functional.unfold": Operator(F.unfold, 2),
    "nn.functional.pixel_shuffle": Operator(F.pixel_shuffle, 2),
    "nn.functional.pixel_unshuffle": Operator(F.pixel_unshuffle, 2),
}


def _infos() -> Iterator[tuple[Any, Operator]]:
    for info in op_db:
        if info.name in OPERATORS:
            yield info, OPERATORS[info.name]


def _arguments(operator: Operator, sample: Any) -> tuple[dict[str, Any], int]:
    """The sample's arguments by name, and its number of spatial axes."""
    bound = inspect.signature(operator.ours).bind(sample.input, *sample.args, **sample.kwargs).arguments
    if operator.spatial_dims is not None:
        return bound, operator.spatial_dims
    return bound, len(bound["pad"]) // 2 if "pad" in bound else sample.input.ndim - 2


def _lift(arguments: dict[str, Any], n: int, at: int, extra: int) -> dict[str, Any]:
    """The same call with ``extra`` axes of size 1 before spatial axis ``at``."""
    lifted = dict(arguments)
    for name, value in arguments.items():
        if name in OPERANDS and isinstance(value, Tensor):
            lifted[name] = _insert(value, n, at, extra)
        elif name == "pad":
            place = 2 * (n - at)
            lifted[name] = (*value[:place], *(0, 0) * extra, *value[place:])
        elif name == "_random_samples" and value is not None:
            if n == 2:
                value = value.flip(-1)  # torch's two-axis kernel alone takes the last axis first
            zeros = value.new_zeros(*value.shape[:-1], extra)
            lifted[name] = torch.cat([value[..., :at], zeros, value[..., at:]], -1)
        elif name in NEUTRAL and value is not None and not isinstance(value, str):
            each = tuple(value) if isinstance(value, Sequence) else (value,) * n
            if not each:
                continue
            each = each * n if len(each) == 1 else each
            head = len(each) - n  # a whole shape as output_size
            neutral = (NEUTRAL[name],) * extra
            lifted[name] = (*each[: head + at], *neutral, *each[head + at :])
    if lifted.get("output_ratio") is not None:
        ratios = lifted.pop("output_ratio")
        sizes = lifted["input"].shape[-n - extra :]
        lifted["output_size"] = tuple(
            1 if r is None else int(size * r) for size, r in zip(sizes, ratios, strict=True)
        )
    return lifted


def _insert(x: Tensor, n: int, at: int, extra: int) -> Tensor:
    place = x.ndim - n + at
    return x.detach().reshape(*x.shape[:place], *(1,) * extra, *x.shape[place:])


def _flat(out: Any) -> list[Tensor]:
    return [out] if isinstance(out, Tensor) else list(out)


def _gradients(outputs: list[Tensor], inputs: list[Tensor]) -> tuple[Tensor, ...]:
    out = next(o for o in outputs if o.is_floating_point())
    direction = torch.linspace(-1, 1, out.numel(), dtype=out.dtype, device=out.device).reshape(out.shape)
    return torch.autograd.grad(out, inputs, direction)


def _last_of_its_index(indices: Tensor, n: int) -> Tensor:
    """Where an entry of unpooling stays: torch's gradient goes to those that were overwritten, too."""
    rows = indices.reshape(-1, indices.shape[-n:].numel()).tolist()
    last = [[index not in row[i + 1 :] for i, index in enumerate(row)] for row in rows]
    return torch.tensor(last).view(indices.shape)


def _assert_close(got: Tensor, expected: Tensor) -> None:
    """1e-10 in double precision; in single, torch's relative tolerance of the largest value.

    Where large terms cancel, torch's own single-precision sums are off by more than its elementwise
    tolerance: against double precision 16 of 286 convolutions of these samples are, and 17 of ours.
    """
    rtol, atol = 1e-10, 1e-10
    if expected.dtype == torch.float32:
        rtol = 1.3e-6
        atol = max(1e-5, rtol * expected.detach().abs().max().item() if expected.numel() else 0.0)
    torch.testing.assert_close(got.reshape(expected.shape), expected, rtol=rtol, atol=atol)


def _compare(info: Any, operator: Operator, sample: Any, at: int, extra: int) -> None:
    arguments, n = _arguments(operator, sample)
    seed = 42  # the one that torch sets before operators that draw random numbers
    torch.manual_seed(seed)
    theirs_in = [t for t in (sample.input, *sample.args) if isinstance(t, Tensor) and t.requires_grad]
    expected = _flat(info.op(sample.input, *sample.args, **sample.kwargs))
    if "fractional" in info.name and arguments.get("_random_samples") is None:
        batch = sample.input.shape[:2] if sample.input.ndim == n + 2 else (1, sample.input.shape[0])
        torch.manual_seed(seed)
        arguments["_random_samples"] = torch.rand(
            *batch, n, dtype=sample.input.dtype, device=sample.input.device
        )
    call = _lift(arguments, n, at, extra) if extra else arguments
    names = [k for k, v in arguments.items() if any(v is t for t in theirs_in)]
    ours_in = [call[k].detach().requires_grad_() for k in names]
    call = {**call, **dict(zip(names, ours_in, strict=True))}
    if operator.ours not in (F.conv, F.conv_transpose, F.pad):
        call["spatial_dims"] = n + extra
    got = _flat(operator.ours(**call))
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert a.numel() == b.numel(), f"shape {tuple(a.shape)}, expected {tuple(b.shape)} with unit axes"
        _assert_close(a, b)
        assert a.shape == b.shape or extra
    if names and expected[0].numel() and expected[0].requires_grad:
        for a, b in zip(_gradients(got, ours_in), _gradients(expected, theirs_in), strict=True):
            _assert_close(a, b * _last_of_its_index(arguments["indices"], n) if "indices" in arguments else b)


def samples(ranks: Sequence[int], dtype: torch.dtype = torch.float64, device: str = "cpu") -> Iterator[Check]:
    """Every sample input at its own rank (0) or lifted to each of ``ranks``, at every place."""
    for info, operator in _infos():
        for i, sample in enumerate(info.sample_inputs(device, dtype, requires_grad=True)):
            _, n = _arguments(operator, sample)
            for rank in ranks:
                extra = rank - n if rank else 0
                for at in range(n + 1) if extra > 0 else ([0] if not rank else []):
                    name = f"{info.name}{info.variant_test_name}[{i}] at {at} to rank {rank or n}"
                    yield name, lambda i=info, o=operator, s=sample, a=at, e=extra: _compare(i, o, s, a, e)


def errors() -> Iterator[Check]:
    """Every error input must be refused."""
    for info, operator in _infos():
        if info.error_inputs_func is None:
            continue
        for i, error in enumerate(info.error_inputs("cpu")):
            yield f"{info.name} error[{i}]", lambda o=operator, e=error: _refused(o, e)


def _refused(operator: Operator, error: Any) -> None:
    sample = error.sample_input
    legal = sample.kwargs.get("padding") == "same"  # also with stride: a documented extension
    n = operator.spatial_dims
    # So are no channels.
    legal = legal or (operator.ours is F.max_pool and n is not None and 0 in sample.input.shape[:-n])
    options = {} if operator.spatial_dims is None else {"spatial_dims": operator.spatial_dims}
    if operator.ours in (F.conv, F.conv_transpose):
        options = {}
    try:
        out = operator.ours(sample.input, *sample.args, **sample.kwargs, **options)
    except Exception:
        return
    assert legal, f"accepted {tuple(sample.input.shape)} {sample.args} {sample.kwargs}: {error.error_regex}"
    assert out.isfinite().all()
