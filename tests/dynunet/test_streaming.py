"""Streams: a signal in parts of any size gives what it gives as a whole."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dynunet import Encoder, Stream, UNet
from dynunet.nn.causal import Memory, RunningMean

from .test_causal import NETWORK, causal, options
from .test_unet import conditions, data, filled


def in_parts(stream: Stream, x: Tensor, lengths: list[int], **given: Any) -> Tensor:
    """The joined output for a signal that is cut into these lengths, again and again."""
    dim, at, found = 2 + stream.axis, 0, []
    while at < x.shape[dim]:
        for length in lengths:
            n = min(length, x.shape[dim] - at)
            part = {k: v.narrow(dim, at, n) if k == "cond" else v for k, v in given.items()}
            found.append(stream(x.narrow(dim, at, n), **part))
            at += n
    return torch.cat([*found, stream.end()], dim)


def streaming(drawn: dict[str, Any]) -> dict[str, Any]:
    """Options that can stream in place of those that cannot."""
    fits = {"full": "window", "axial": "window+channel", "full+channel": "channel"}
    return {
        name: fits.get(value, value) if isinstance(value, str) else value for name, value in drawn.items()
    }


@settings(max_examples=16)
@given(
    st.sampled_from(((37,), (26, 3), (3, 21), (4, 18, 3), (2, 3, 2, 11))),
    st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any),
    options.map(streaming),
    st.booleans(),
)
def test_parts_give_what_the_whole_gives(
    sizes: tuple[int, ...], lengths: list[int], options: dict[str, Any], others: bool
) -> None:
    """Also where other axes are causal, too."""
    dims, axis = len(sizes), max(range(len(sizes)), key=lambda a: sizes[a])
    axes = [others or a == axis for a in range(dims)]
    ahead = [options.get("lookahead", 0) * (a == axis) for a in range(dims)]
    unet = causal(dims, axes, **options | {"lookahead": ahead})
    x, given = data(unet, sizes), conditions(unet)
    if unet.cond_channels:
        given["cond"] = data(unet, sizes)[:, :1]
    stream = Stream(unet, axis=axis)
    expected = unet(x, **given)
    torch.testing.assert_close(in_parts(stream, x, lengths, **given), expected)
    stream.reset()
    torch.testing.assert_close(in_parts(stream, x, [3], **given), expected)


@pytest.mark.parametrize("ahead", [0, 5, 63, 70])
def test_every_part_has_what_the_latency_promises(ahead: int) -> None:
    unet = causal(1, channels=(4, 6, 8), strides=8, lookahead=ahead)
    stream, x, given, had = Stream(unet), data(unet, (300,)), 0, 0
    assert stream.lookahead == ahead
    for part in x.split(17, -1):
        given += part.shape[-1]
        had += stream(part).shape[-1]
        assert given - ahead <= had <= given
    assert stream.latency == 17 + ahead
    assert had + stream.end().shape[-1] == 300


def test_single_precision_and_half() -> None:
    unet = causal(1, norm="group", attention=(None, "window"), channels=(8, 8), lookahead=2).float()
    x = data(unet, (200,)).float()
    torch.testing.assert_close(in_parts(Stream(unet), x, [7, 32]), unet(x), rtol=1e-5, atol=1e-5)
    half = unet.bfloat16()
    out, expected = in_parts(Stream(half), x.bfloat16(), [7, 32]), half(x.bfloat16())
    assert out.dtype == torch.bfloat16
    assert (out - expected).float().square().mean() < 1e-3 * expected.float().square().mean()


def test_streams_of_one_network_are_apart() -> None:
    unet = causal(1)
    x = data(unet, (40,), 3)
    expected, streams, found = unet(x), [Stream(unet) for _ in x], []
    for part in x.split(9, -1):
        found.append(torch.cat([stream(row[None]) for stream, row in zip(streams, part, strict=True)]))
    torch.testing.assert_close(torch.cat(found, -1), expected)
    torch.testing.assert_close(unet(x), expected)


@pytest.mark.parametrize(("sizes", "norm"), [((40,), "group"), ((40,), "rms"), ((20, 9), "rms")])
def test_an_encoder_tells_of_all_so_far(sizes: tuple[int, ...], norm: str) -> None:
    """Also when a part brings nothing new to its last level."""
    options: dict[str, Any] = {**NETWORK, "norm": norm, "strides": 4}
    encoder = filled(Encoder(len(sizes), 2, 5, causal=True, **options))  # type: ignore[arg-type]
    stream, x = Stream(encoder, axis=0), data(encoder, sizes)
    for at in range(0, sizes[0], 3):
        torch.testing.assert_close(stream(x[:, :, at : at + 3]), encoder(x[:, :, : at + 3]))


def test_a_mean_goes_on_for_hours() -> None:
    """Where float32 would stand still."""
    mean = RunningMean((True,))
    mean.memory = Memory(0, torch.full((1, 1, 1), 2.0**28, dtype=torch.float64), 2**28)
    mean(torch.full((1, 1, 1000), 3.0))
    assert mean.memory.kept.item() == 2.0**28 + 3000


def test_what_is_computed_is_not_computed_again() -> None:
    unet, made = causal(1, channels=(4, 6, 8), norm="rms"), []
    for layer in unet.modules():
        if isinstance(layer, nn.modules.conv._ConvNd):
            layer.register_forward_hook(lambda layer, inputs, out: made.append(out.numel()))
    x = data(unet, (256,))
    unet(x)
    whole = sum(made)
    made.clear()
    in_parts(Stream(unet), x, [16])
    assert sum(made) == whole


def test_long_parts_are_not_kept() -> None:
    unet = causal(1, norm="group", attention="window", lookahead=3)
    stream = Stream(unet)
    stream(data(unet, (4001,)))
    kept = [memory.kept for _, memory in stream._memories if memory.kept is not None]
    tensors = [t for some in kept for t in (some if isinstance(some, (list, tuple)) else [some])]
    assert max(t.untyped_storage().nbytes() for t in tensors if isinstance(t, Tensor)) < 8 * 1000


def test_what_cannot_stream_is_refused() -> None:
    for pattern, network, more in [
        ("axis must say along which.*none is: build the network with causal=True", UNet(1, 1, **NETWORK), {}),
        ("axis must say along which axis parts follow, unless one is causal; 2 of them are", causal(2), {}),
        ("not causal along axis 1: build it with causal=True", causal(2, (True, False)), {"axis": 1}),
        ("axis must be from 0 to 1, got 2", causal(2), {"axis": 2}),
        (
            r"SelfAttention 'encoder.1.attentions.0' of the model: its.*use 'window'",
            causal(1, attention=(None, "full")),
            {},
        ),
        ("AxialAttention 'middle.attention'", causal(1, mid_attention="axial"), {}),
        ("has an in_layer of your own", UNet(1, 1, causal=True, in_layer=torch.tanh, **NETWORK), {}),
    ]:
        with pytest.raises(ValueError, match=pattern):
            Stream(network, **more)
    with pytest.raises(
        TypeError,
        match="model must be a UNet, Encoder or SpectralMask, as the model of a Diffusion is, got Linear",
    ):
        Stream(torch.nn.Linear(1, 1))  # type: ignore[arg-type]


def test_bad_parts_are_refused() -> None:
    unet = causal(2, (True, False))
    stream, x = Stream(unet), data(unet, (4, 3))
    with pytest.raises(ValueError, match="must have been given samples before its end"):
        stream.end()
    stream(x)
    for wrong in (x[:1], x[..., :2], x.float(), x[0]):
        with pytest.raises(ValueError, match="x must be like the parts before but for its size on axis 0"):
            stream(wrong)
    with pytest.raises(TypeError, match="x must be a tensor, got list"):
        stream([1])  # type: ignore[arg-type]
    stream.end()
    with pytest.raises(ValueError, match=r"the stream has ended: reset\(\) begins another"):
        stream(x)
    stream.reset()
    assert stream(x[:1]).shape == (1, 3, 4, 3)
    with pytest.raises(ValueError, match=r"model must be in evaluation mode, call its eval\(\)"):
        Stream(unet.train())(x)
