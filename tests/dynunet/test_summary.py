"""The summary against closed forms and against what autograd keeps; the drawing as text."""

import time
from collections.abc import Sequence
from math import prod
from typing import Any

import pytest
import torch
from expecttest import assert_expected_inline
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import scaled_dot_product_attention

from convnd import ConvNd, ConvTransposeNd
from convnd.testing import spatial_shapes
from dynunet import Encoder, UNet
from dynunet.summary import Part, Summary, drawing, summarize


def small(dims: int, **options: Any) -> UNet:
    return UNet(
        dims, 2, 3, **{"channels": (4, 6), "num_blocks": 1, "num_groups": 2, "num_heads": 2, **options}
    )


def parts(summary: Summary) -> dict[str, Part]:
    return {part.name: part for part in summary.parts}


@settings(max_examples=40, deadline=None)
@given(
    spatial_shapes(max_dims=4), st.integers(1, 3), st.sampled_from((1, 2)), st.integers(1, 2), st.booleans()
)
def test_flops_of_a_convolution(
    sizes: tuple[int, ...], kernel: int, groups: int, stride: int, transposed: bool
) -> None:
    """Each output is a sum of products, each multiplied and added: also beyond three axes."""
    n = len(sizes)
    if transposed:
        layer: nn.Module = ConvTransposeNd(n, 4, 6, stride, stride, groups=groups)
        positions, taps = prod(sizes), stride**n
    else:
        layer = ConvNd(n, 4, 6, kernel, stride, "same", groups=groups)
        positions, taps = prod(-(-s // stride) for s in sizes), kernel**n
    summary = summarize(nn.Sequential(layer), (2, 4, *sizes))
    assert summary.flops == 2 * 2 * positions * taps * 4 * 6 // groups
    assert summary.parameters == taps * 4 * 6 // groups + 6
    assert summary.parts[0].shape == layer(torch.zeros(2, 4, *sizes)).shape


@pytest.mark.parametrize("dims", [1, 2, 3, 4])
def test_flops_of_a_network(dims: int) -> None:
    sizes = (5, 6, 4, 3)[:dims]
    fine, coarse = prod(sizes), prod(-(-s // 2) for s in sizes)
    summary = small(dims).summary((2, 2, *sizes))

    def block(positions: int, inputs: int, outputs: int) -> int:
        shortcut = inputs * outputs if inputs != outputs else 0
        return 2 * 2 * positions * (3**dims * outputs * (inputs + outputs) + shortcut)

    expected = {
        "stem": 2 * 2 * fine * 3**dims * 2 * 4,
        "encoder.0": block(fine, 4, 4),
        "encoder.0.down": 2 * 2 * coarse * 3**dims * 4 * 4,
        "encoder.1": block(coarse, 4, 6),
        "middle": 2 * block(coarse, 6, 6),
        "decoder.0": block(coarse, 12, 6) + block(coarse, 10, 6),
        "decoder.0.up": 2 * 2 * fine * 3**dims * 6 * 6,
        "decoder.1": block(fine, 10, 4) + block(fine, 8, 4),
        "head": 2 * 2 * fine * 3**dims * 4 * 3,
    }
    assert {part.name: part.flops for part in summary.parts} == expected
    assert summary.flops == sum(expected.values())
    shapes = {part.name: part.shape for part in summary.parts}
    at_fine, at_coarse = (2, 4, *sizes), (2, 6, *(-(-s // 2) for s in sizes))
    assert shapes == {
        "stem": at_fine,
        "encoder.0": at_fine,
        "encoder.0.down": (2, 4, *at_coarse[2:]),
        "encoder.1": at_coarse,
        "middle": at_coarse,
        "decoder.0": at_coarse,
        "decoder.0.up": (2, 6, *sizes),
        "decoder.1": at_fine,
        "head": (2, 3, *sizes),
    }


@pytest.mark.parametrize("dims", [1, 2, 3, 4])
def test_flops_of_attention(dims: int) -> None:
    sizes = (6, 2, 4, 2)[:dims]
    tokens, c = prod(-(-s // 2) for s in sizes), 6
    plain = parts(small(dims).summary((3, 2, *sizes)))["middle"]
    attended = parts(small(dims, mid_attention="full").summary((3, 2, *sizes)))["middle"]
    projections, pairs = 2 * tokens * (3 + 1) * c * c, 2 * 2 * tokens**2 * c
    assert attended.flops - plain.flops == 3 * (projections + pairs)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"block": "plain", "norm": "batch", "activation": "relu", "downsample": "max", "upsample": "transpose"},
    {"block": "convnext", "norm": "layer", "attention": "axial"},
    {"attention": "full+channel", "skip_attention": True, "num_classes": 3, "time_embedding": True},
    {"attention": "window+linear", "positions": "rotary", "upsample": "shuffle", "cond_channels": 2},
    {"gradient_checkpointing": True, "context_features": 3, "attention": "channel", "cond_features": 2},
]


def kept(network: nn.Module, *args: Any, **kwargs: Any) -> int:
    """Bytes that autograd keeps of a real run on the CPU."""
    own = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}
    storages = {}

    def keep(x: Tensor) -> Tensor:
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage()
        return x

    with saved_tensors_hooks(keep, lambda x: x):
        network(*args, **kwargs)
    return sum(s.nbytes() for address, s in storages.items() if address not in own)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dims", [1, 2, 3, 4])
def test_activations_are_what_autograd_keeps(dims: int, options: dict[str, Any]) -> None:
    sizes = ((40,), (18, 16), (8, 9, 8), (8, 4, 5, 4))[dims - 1]
    unet = small(dims, **options)
    summary = unet.summary((2, 2, *sizes))
    inputs: dict[str, Any] = {}
    if unet.time_embedding is not None:
        inputs["t"] = torch.rand(2)
    if unet.cond_channels:
        inputs["cond"] = torch.randn(2, 2, *sizes)
    unet.train(unet.spec.gradient_checkpointing)
    real = kept(unet, torch.randn(2, 2, *sizes), **inputs)
    # Beyond three axes convnd returns parts of larger tensors, which are kept whole.
    assert summary.activations == pytest.approx(real, rel=0.02 if dims < 4 else 0.05)


@pytest.mark.parametrize("options", OPTIONS)
def test_parameters_add_up(options: dict[str, Any]) -> None:
    unet = small(2, **options)
    summary = unet.summary((1, 2, 9, 8))
    assert summary.parameters == sum(p.numel() for p in unet.parameters())
    own = {name: sum(p.numel() for p in module.parameters()) for name, module in unet.named_modules()}
    for part in (part for part in summary.parts if part.name != "(other)"):
        inside = sum(own[name] for name in (f"{part.name}.down", f"{part.name}.up") if name in own)
        assert part.parameters == own[part.name] - inside


def test_shared_parameters_count_once() -> None:
    layer = nn.Conv1d(2, 2, 1)
    summary = summarize(nn.Sequential(layer, layer), (1, 2, 5))
    assert [part.name for part in summary.parts] == ["0"]
    assert summary.parameters == 6
    assert summary.flops == 2 * 40


def test_no_size_costs_time_or_memory() -> None:
    size = (1, 16, 512, 512, 512, 512)
    unet = UNet(4, 16, channels=(16, 32), attention="full", positions="rotary")
    start = time.perf_counter()
    summary = unet.summary(size)
    assert time.perf_counter() - start < 10
    assert parts(summary)["head"].shape == size
    assert parts(summary)["stem"].flops == 2 * 512**4 * 16 * 16 * 3**4
    assert summary.activations > 1e13


def test_the_network_stays_as_it_is() -> None:
    unet = small(2, norm="batch", num_classes=2).train()
    unet.stem.requires_grad_(False)
    before = {k: v.clone() for k, v in unet.state_dict().items()}
    texts = [unet.summary((1, 2, 8, 8))]
    with torch.no_grad():
        texts.append(unet.summary((1, 2, 8, 8)))
    with torch.inference_mode():
        texts.append(unet.eval().summary([1, 2, 8, 8]))
    texts.append(unet.requires_grad_(False).summary((1, 2, 8, 8)))
    assert len(set(texts)) == 1, "it is what training costs, whatever the state of the network"
    assert all(torch.equal(v, before[k]) for k, v in unet.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in unet.modules())
    assert summarize(unet.double(), (1, 2, 8, 8)).activations > 1.9 * texts[0].activations


def test_inputs_of_the_network() -> None:
    unet = small(2, context_features=5, attention="channel", time_embedding=True)
    few, many = (unet.summary((2, 2, 8, 8), context=torch.zeros(2, tokens, 5)) for tokens in (1, 9))
    assert many.flops > few.flops
    with pytest.raises(ValueError, match=r"context must be \(2, tokens, 5\)"):
        unet.summary((2, 2, 8, 8), context=torch.zeros(2, 9, 4))
    assert small(1, norm="batch", deep_supervision=1).summary((1, 2, 1)).flops > 0, "it is evaluated"
    encoder = parts(Encoder(3, 1, 7, channels=(4, 8)).summary((2, 1, 6, 5, 4)))
    assert [*encoder] == ["stem", "encoder.0", "encoder.0.down", "encoder.1", "head", "classifier"]
    assert encoder["classifier"].shape == (2, 7)


def test_checkpointed_blocks_keep_what_the_parts_before_give_them() -> None:
    plain, checkpointed = (
        parts(small(2, gradient_checkpointing=on).summary((2, 2, 8, 8))) for on in (False, True)
    )
    assert plain.keys() == checkpointed.keys()
    assert "(other)" not in plain
    # The stem reads 2 channels, and what it gives has 4.
    assert checkpointed["stem"].activations == 3 * plain["stem"].activations
    assert sum(p.flops for p in plain.values()) == sum(p.flops for p in checkpointed.values())


class Attends(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return scaled_dot_product_attention(x, x[..., :3, :], x[..., :3, :])


def test_attention_of_any_number_of_axes() -> None:
    for batch in ((2,), (2, 3), (2, 3, 4)):
        summary = summarize(nn.Sequential(Attends()), (*batch, 5, 6))
        assert summary.flops == 2 * 2 * prod(batch) * 5 * 3 * 6
        assert summary.parts[0].shape == (*batch, 5, 6)


class Loose(nn.Module):
    """Computes outside of its children, and has one that does not run."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 3))
        self.idle = nn.Linear(2, 2)
        self.last = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last((x.movedim(1, -1) @ self.weight.T).exp())


def test_what_is_in_no_part_is_counted_too() -> None:
    summary = parts(summarize(Loose(), (2, 3, 5)))
    assert [*summary] == ["last", "idle", "(other)"]
    assert summary["(other)"] == Part("(other)", None, 12, 2 * 10 * 12, 4 * 10 * (3 + 4))
    assert summary["idle"] == Part("idle", None, 6, 0, 0)
    assert summary["last"] == Part("last", (2, 5, 1), 5, 2 * 10 * 4, 0)


@pytest.mark.parametrize(
    "shape",
    [(1, 2, 8), (1, 2, 8, 8, 8), (1, 2, 8, 0), (1, 2, -8, 8), (1, 2, 8.0, 8), (1, 2, True, 8), (), "1288", 7],
)
def test_bad_shapes_are_refused(shape: Any) -> None:
    with pytest.raises(
        ValueError, match=r"input_shape must be \(N, C, \*spatial\), with 2 spatial axes, all .*, got"
    ):
        summarize(small(2), shape)


def test_channels_that_do_not_fit_are_refused_by_the_network() -> None:
    with pytest.raises(
        ValueError, match=r"x must be \(N, 2, \*spatial\) with 2 spatial axes, got shape \(1, 3, 8, 8\)"
    ):
        small(2).summary((1, 3, 8, 8))
    with pytest.raises(
        ValueError, match=r"input_shape must be \(N, C, \*spatial\), all of them ints of at least 1"
    ):
        summarize(nn.Conv1d(1, 1, 1), (1, 1))


def test_the_table() -> None:
    unet = UNet(3, 1, channels=(16, 32), num_blocks=1, time_embedding=True)
    assert_expected_inline(
        str(unet.summary((1, 1, 64, 64, 64))._replace(drawing="")),
        """\
part            output shape           parameters   FLOPs  activations
----------------------------------------------------------------------
time_embedding  1 x 64                      5,248  10.2 k        576 B
stem            1 x 16 x 64 x 64 x 64         448   226 M        1 MiB
encoder.0       1 x 16 x 64 x 64 x 64      14,960  7.25 G       96 MiB
encoder.0.down  1 x 16 x 32 x 32 x 32       6,928   453 M       16 MiB
encoder.1       1 x 32 x 32 x 32 x 32      44,256  2.75 G       18 MiB
middle          1 x 32 x 32 x 32 x 32     115,136  7.25 G       48 MiB
decoder.0       1 x 32 x 32 x 32 x 32     160,352  10.2 G       66 MiB
decoder.0.up    1 x 32 x 64 x 64 x 64      27,680  14.5 G       32 MiB
decoder.1       1 x 16 x 64 x 64 x 64      52,064    26 G      336 MiB
head            1 x 1 x 64 x 64 x 64          465   226 M       48 MiB
----------------------------------------------------------------------
total                                     427,537  68.9 G      661 MiB
FLOPs: multiplications and additions of one forward pass, about a third of a training step.
Activations: kept for the backward pass, an estimate; autocast halves convolutions' inputs.""",
    )


def test_units() -> None:
    numbers = (1, 999, 1000, 999_600, 1_234_567, 10**20)
    rows = [str(Summary((Part("a", (1,), n, n, n),))).splitlines()[2].split(maxsplit=3) for n in numbers]
    cells = [" ".join(row[3].split()) for row in rows]
    assert cells == [
        "1 1 B",
        "999 999 B",
        "1 k 0.977 KiB",
        "1 M 976 KiB",
        "1.23 M 1.18 MiB",
        "1e+05 P 8.88e+04 PiB",
    ]


def test_drawing_of_a_network() -> None:
    unet = UNet(
        3,
        1,
        2,
        channels=(16, 32, 64),
        num_blocks=(1, 2, 2),
        kernel_size=[(1, 3, 3), (3, 3, 3), (3, 3, 3)],
        strides=[(1, 2, 2), (2, 2, 2)],
        attention=(None, "channel+spatial", "full"),
        skip_attention=(True, False, False),
        mid_attention="full",
    )
    assert_expected_inline(
        drawing(unet),
        """\
x: 1 channel                                                                        y: 2 channels
  v stem                                                                                 head ^
+------------------------------+                                 +------------------------------+
| 16 channels                  | ------- 2 skips, gated -------> | 16 channels                  |
| 1 block, kernel 1x3x3        |                                 | 2 blocks, kernel 1x3x3       |
+------------------------------+                                 +------------------------------+
    v stride 1x2x2                                                             stride 1x2x2 ^
  +------------------------------+                             +------------------------------+
  | 32 channels                  | -------- 3 skips ---------> | 32 channels                  |
  | 2 blocks, kernel 3           |                             | 3 blocks, kernel 3           |
  | attention: channel + spatial |                             | attention: channel + spatial |
  +------------------------------+                             +------------------------------+
      v stride 2                                                                 stride 2 ^
    +------------------------------+                         +------------------------------+
    | 64 channels                  | ------ 3 skips -------> | 64 channels                  |
    | 2 blocks, kernel 3           |                         | 3 blocks, kernel 3           |
    | attention: full              |                         | attention: full              |
    +------------------------------+                         +------------------------------+
      |                              +---------------------+                              ^
      +----------------------------> | middle: 64 channels | -----------------------------+
                                     | attention: full     |
                                     +---------------------+""",
    )


def test_drawing_of_one_level() -> None:
    assert_expected_inline(
        drawing(UNet(1, 3, channels=(8,), num_blocks=1)),
        """\
x: 3 channels                                    y: 3 channels
  v stem                                              head ^
+--------------------+                  +--------------------+
| 8 channels         | --- 2 skips ---> | 8 channels         |
| 1 block, kernel 3  |                  | 2 blocks, kernel 3 |
+--------------------+                  +--------------------+
  |                 +--------------------+                 ^
  +---------------> | middle: 8 channels | ----------------+
                    +--------------------+""",
    )


def test_drawing_of_an_encoder() -> None:
    assert_expected_inline(
        drawing(Encoder(2, 3, 1, channels=(8, 16))),
        """\
x: 3 channels
  v stem
+--------------------+
| 8 channels         |
| 2 blocks, kernel 3 |
+--------------------+
    v stride 2
  +--------------------+
  | 16 channels        |
  | 2 blocks, kernel 3 |
  +--------------------+
    v head
  y: 1 feature""",
    )


names = st.sampled_from((None, "full", "window+channel", "axial+channel+spatial"))
kernels = st.sampled_from((1, 3, (1, 3, 3), (3, 5, 7)))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.data())
def test_drawings_are_narrow_and_symmetric(count: int, data: st.DataObject) -> None:
    def each(values: st.SearchStrategy[Any], number: int = count) -> Sequence[Any]:
        return data.draw(st.lists(values, min_size=number, max_size=number))

    with torch.device("meta"):  # weights of any size cost nothing
        unet = UNet(
            3,
            1,
            channels=each(st.sampled_from((4, 64, 1024))),
            num_blocks=each(st.integers(1, 12)),
            num_heads=1,
            kernel_size=[k if isinstance(k, tuple) else (k,) * 3 for k in each(kernels)],
            strides=each(st.sampled_from(((1, 2, 2), (2, 2, 2))), count - 1),
            attention=each(names),
            skip_attention=each(st.sampled_from((True, False, "channel"))),
            skips=data.draw(st.sampled_from(("block", "level"))),
            mid_blocks=data.draw(st.integers(0, 2)),
            mid_attention=data.draw(names),
        )
    lines = drawing(unet).splitlines()
    width = max(map(len, lines))
    assert width <= 100
    for line in lines:
        assert line == line.rstrip()
        if line.lstrip().startswith("+-") and line.count("+") == 4:
            padded = line.ljust(width)
            assert padded == padded[::-1]
    for level in unet.levels:
        assert sum(f"| {level.channels} channels" in line for line in lines) >= 1
