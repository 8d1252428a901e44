"""Causal networks, and signals that they are given in parts, against float64 on the CPU."""

import copy
from collections.abc import Iterator
from math import isinf
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dynunet import Diffusion, Encoder, SpectralMask, Stream, UNet
from dynunet.nn.causal import Memory
from dynunet.nn.overlap import Overlap
from tests.dynunet.test_causal import causal as causal_network
from tests.dynunet.test_causal import options
from tests.dynunet.test_streaming import in_parts, streaming
from tests.dynunet.test_unet import conditions, data, filled

from .calls import drawn
from .compare import Mismatch, check, error, tf32
from .networks import EXACT, call, labelled, output
from .rows import Row, Setting

SIZES = {1: (37,), 2: (26, 3), 3: (4, 18, 3), 4: (2, 3, 2, 11)}  # parts are along the longest axis
ALLOWED = {torch.float64: 1e-9, torch.float32: 1e-4}
PARTS = [5, 0, 9, 1]
HALF = 1e-3  # of the power of the output may be that of the error in bfloat16


def streams(setting: Setting) -> list[Row]:
    return [*parts(setting), *causal(setting)]


def causal(setting: Setting) -> list[Row]:
    """Outputs and gradients of networks with the options that the tests draw."""
    ranks, count = ((3,), 2) if setting.quick else ((1, 2, 3, 4), 8)

    def run(n: int, given: dict[str, Any]) -> dict[str, Any]:
        one = call(n, training=False, **given)
        return {**check([one], setting, [EXACT], layouts=False), **output(one, setting)}

    rows = [
        Row(f"{n}-D {labelled(given)}", lambda n=n, given=given: run(n, {"causal": True, **given}))
        for n in ranks
        for given in drawn(options, count)
    ]
    encoder = {"kind": Encoder, "causal": True, "attention": "window+channel"}
    return rows + [Row(f"{n}-D encoder", lambda n=n: run(n, encoder)) for n in ranks]


def parts(setting: Setting) -> list[Row]:
    """Parts of a signal on the device against the whole; what is remembered stays on the device."""
    ranks, count = ((2,), 2) if setting.quick else ((1, 2, 3, 4), 6)
    rows = [
        Row(f"{n}-D {labelled(given)}", lambda n=n, given=given: _streamed(setting, n, given))
        for n in ranks
        for given in drawn(options.map(streaming), count)
    ]
    rows += [Row(f"{n}-D encoder", lambda n=n: _encoded(setting, n)) for n in ranks]
    for ahead in (0, 2):
        name = f"masks of spectra, {ahead} ahead"
        rows += [Row(f"{n}-D {name}", lambda n=n, a=ahead: _masked(setting, n, a)) for n in ranks]
    schedules = ("cosine", "bridge")
    return rows + [Row(f"live sound, {name}", lambda s=name: _live(setting, s)) for name in schedules]


def _streamed(setting: Setting, n: int, given: dict[str, Any]) -> dict[str, Any]:
    sizes = SIZES[n]
    axis = sizes.index(max(sizes))
    axes = [a == axis for a in range(n)]
    ahead = [given.get("lookahead", 0) * a for a in axes]
    unet = causal_network(n, axes, **given | {"lookahead": ahead})
    x = data(unet, sizes)
    more = {k: v.double() if v.is_floating_point() else v for k, v in conditions(unet).items()}
    if unet.cond_channels:
        more["cond"] = data(unet, sizes)[:, :1]
    return _compared(setting, unet, x, unet(x, **more), **more)


def _masked(setting: Setting, n: int, ahead: int) -> dict[str, Any]:
    last = [axis == n - 1 for axis in range(n)]
    sizes = sorted(SIZES[n])
    network: dict[str, Any] = {"channels": (4, 6), "num_groups": 2, "num_blocks": 1, "norm": "layer"}
    unet = UNet(n, 9, causal=last, lookahead=[ahead * a for a in last], **network)
    made = SpectralMask(filled(unet), 16, 4).double().eval()
    x = torch.randn(2, 1, *sizes, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return _compared(setting, made, x, made(x))


def _compared(setting: Setting, made: Any, x: Tensor, expected: Tensor, **given: Any) -> dict[str, Any]:
    """The parts of a signal in every precision."""
    figures: dict[str, Any] = {}
    axis = x.shape[2:].index(max(x.shape[2:]))
    for dtype in (*ALLOWED, torch.bfloat16):

        def placed(value: Any, dtype: torch.dtype = dtype) -> Any:
            return value.to(setting.device, dtype if value.is_floating_point() else None)

        stream = Stream(copy.deepcopy(made).to(setting.device, dtype), axis=axis)
        with tf32(False), torch.no_grad():
            more = {name: placed(value) for name, value in given.items()}
            whole = stream.model(placed(x), **more) if dtype == torch.bfloat16 else expected
            out = in_parts(stream, placed(x), PARTS, **more)
        name = str(dtype).removeprefix("torch.")
        if dtype == torch.bfloat16:
            away = (out - whole).float().square().mean() / whole.float().square().mean().clamp(min=1e-3)
            figures[name], allowed = float(away), HALF
        else:
            figures[name], allowed = error(out, whole), ALLOWED[dtype]
        figures["remembered"] = _on_device(stream, setting)
        if not figures[name] <= allowed:
            raise Mismatch(f"{name}: parts off by {figures[name]:.3g}, allowed {allowed}", figures)
    return figures


def _encoded(setting: Setting, n: int) -> dict[str, float]:
    """An encoder tells of all so far after each part."""
    network: dict[str, Any] = {"channels": (4, 6), "num_groups": 2, "num_blocks": 1, "strides": 4}
    made: Any = Encoder(n, 2, 5, causal=True, **network)
    encoder = filled(made)
    x = data(encoder, SIZES[n])
    axis = SIZES[n].index(max(SIZES[n]))
    stream = Stream(copy.deepcopy(encoder).to(setting.device), axis=axis)
    worst, at = 0.0, 0
    for part in x.split(5, 2 + axis):
        at += part.shape[2 + axis]
        worst = max(worst, error(stream(part.to(setting.device)), encoder(x.narrow(2 + axis, 0, at))))
    if not worst <= ALLOWED[torch.float64]:
        raise Mismatch(f"features off by {worst:.3g}", {"float64": worst})
    return {"float64": worst, "remembered": _on_device(stream, setting)}


def _remembered(value: Any) -> Iterator[Tensor]:
    """The tensors of a memory."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _remembered(each)
    elif isinstance(value, (Memory, Overlap)):
        yield from _remembered([*vars(value).values()])


def _on_device(stream: Stream, setting: Setting) -> int:
    """How many tensors a stream remembers; all are on its device."""
    held = list(_remembered([memory for _, memory in stream._memories]))
    elsewhere = [tuple(t.shape) for t in held if t.device.type != torch.device(setting.device).type]
    if elsewhere or not held:
        raise Mismatch(f"{len(elsewhere)} of {len(held)} are elsewhere: {elsewhere[:4]}", {})
    return len(held)


def _live(setting: Setting, schedule: str) -> dict[str, float]:
    """Sound in parts by a trained model on the device, against the whole on the CPU."""
    from dynunet.diffusion.noise import PlacedNoise
    from dynunet.live import LiveSound

    torch.manual_seed(0)
    network: dict[str, Any] = {"channels": (4, 8), "strides": 4, "num_groups": 2, "num_blocks": 1}
    unet = UNet(1, 1, cond_channels=1, time_embedding=True, causal=True, lookahead=7, **network)
    for parameter in unet.parameters():
        nn.init.normal_(parameter, std=0.2)
    about = {
        "kind": "audio", "spatial_dims": 1, "channels": 1, "sample_rate": 8000, "cond_channels": 1,
        "restoration": {"coloured": True, "snr": [0, 10]},
    }  # fmt: skip
    model = Diffusion(unet, schedule, "sample", data=about).eval()
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 1001)).astype(np.float32)
    how: dict[str, Any] = {"generator": PlacedNoise(3), "progress": False}
    expected = model.sample((1, 1, 1001), 1, cond=torch.from_numpy(x)[None], **how)[0]
    with tf32(False):
        live = LiveSound(model, 8000, seed=3, device=setting.device)
        parts = [live(part, ended=i == 2) for i, part in enumerate(np.split(x, [100, 990], 1))]
    found = error(torch.from_numpy(np.concatenate(parts, 1)), expected)
    if isinf(found) or found > ALLOWED[torch.float32]:
        raise Mismatch(f"sound off by {found:.3g}", {"float32": found})
    return {"float32": found}
