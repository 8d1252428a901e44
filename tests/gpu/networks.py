"""U-Nets of every option on the device against the CPU in float64, outputs and all gradients."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dynunet import Encoder, UNet
from dynunet.nn.option import ATTENTIONS, BLOCKS, DOWNSAMPLES, NORMS, SKIPS, TIME_EMBEDDINGS, UPSAMPLES
from tests.dynunet.test_unet import filled

from .calls import random
from .compare import FLOAT32, Call, Mismatch, Precision, channels_last, check, tf32
from .rows import Row, Setting

SIZES = {1: (16,), 2: (9, 8), 3: (6, 5, 8), 4: (4, 5, 4, 6)}
EXACT = Precision("float64", torch.float64, 1e-8)
AUTOCAST = 0.1  # of the length of a result, in bfloat16 throughout a network
KINKED = 0.3  # the same where the sign of what is rounded decides


def options() -> Iterator[dict[str, Any]]:
    """Each option by itself, then some together."""
    yield {}
    choices: dict[str, tuple[Any, ...]] = {
        "attention": (*ATTENTIONS, "channel+spatial"),
        "block": BLOCKS,
        "norm": (*NORMS, None),
        "downsample": DOWNSAMPLES,
        "upsample": UPSAMPLES,
        "skip_attention": (True, "channel"),
        "skips": SKIPS[1:],
        "mid_blocks": (0, 1),
        "padding_mode": ("reflect", "replicate", "circular"),
        "time_embedding": TIME_EMBEDDINGS,
        "activation": ("relu", "gelu"),
        "kernel_size": (1, 5),
        "strides": (1, 3),
        "mid_attention": ("full",),
        "cond_channels": (2,),
        "cond_features": (3,),
        "deep_supervision": (1,),
        "gradient_checkpointing": (True,),
    }
    for name, values in choices.items():
        for value in values:
            yield {name: value}
    yield {"causal": True, "lookahead": 3}
    yield {"causal": True, "attention": "window+channel", "downsample": "max", "upsample": "linear"}
    yield {"attention": "full", "positions": "rotary"}
    yield {"attention": "window", "positions": "sinusoidal"}
    yield {"attention": "full", "context_features": 3}
    yield {"time_embedding": True, "num_classes": 3, "modulation": "scale_shift"}
    yield {"time_embedding": True, "cond_channels": 2, "attention": (None, "full"), "mid_attention": "full"}


def arguments(unet: Any, sizes: Sequence[int]) -> tuple[list[Tensor], list[str]]:
    """What a network takes beside x, and the names of it; labels are told apart by their dtype."""
    given: dict[str, Tensor] = {}
    if unet.time_embedding is not None:
        given["t"] = torch.tensor([0.25, 0.75], dtype=torch.float64)
    if unet.num_classes:
        given["class_labels"] = torch.tensor([1, -1])
    if unet.cond_channels:
        given["cond"] = random(2, unet.cond_channels, *sizes)
    if unet.config.get("cond_features"):
        given["features"] = random(2, unet.config["cond_features"])
    if unet.config.get("context_features"):
        given["context"] = random(2, 3, unet.config["context_features"])
    return list(given.values()), list(given)


class Named(nn.Module):
    """A network that takes all of its arguments by position."""

    def __init__(self, network: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, x: Tensor, *given: Tensor) -> Any:
        return self.network(x, **dict(zip(self.names, given, strict=True)))


def small(n: int, kind: Any = UNet, outputs: int = 3, **given: Any) -> Any:
    """A network of two levels, with no weight at zero."""
    sizes = {"channels": (8, 16), "num_groups": 4, "num_heads": 2, "num_blocks": 1, **given}
    torch.manual_seed(0)
    return filled(kind(n, 2, outputs, **sizes))


def call(n: int, training: bool = True, **given: Any) -> Call:
    network = small(n, **given)
    sizes = tuple(-(-s // 2) * 2 for s in SIZES[n])  # a circular axis is divided by its stride
    constants, names = arguments(network, sizes)
    label = labelled({k: v for k, v in given.items() if k != "kind"})
    module = Named(network.train(training), names)
    return Call(f"{n}-D {label}", module, [random(2, 2, *sizes)], constants)


def unets(setting: Setting) -> list[Row]:
    chosen = (FLOAT32,) if setting.quick else (EXACT, FLOAT32)
    ranks = (4,) if setting.quick else (1, 2, 3, 4)

    def run(n: int, given: dict[str, Any]) -> dict[str, Any]:
        one = call(n, **given)
        return {**check([one], setting, chosen, layouts=False), **_mixed(one, setting, given)}

    def encoder(n: int) -> dict[str, Any]:
        return check([call(n, kind=Encoder, attention=(None, "full"))], setting, chosen, layouts=False)

    def last(n: int) -> dict[str, Any]:
        return _memory_format(call(n, attention=(None, "full")), setting)

    every = list(options())[:: 6 if setting.quick else 1]
    rows = [
        Row(f"{n}-D {labelled(given)}", lambda n=n, given=given: run(n, given))
        for given in every
        for n in ranks
    ]
    rows += [Row(f"{n}-D encoder", lambda n=n: encoder(n)) for n in ranks]
    return rows + [Row(f"{n}-D channels last", lambda n=n: last(n)) for n in ranks]


def labelled(given: dict[str, Any]) -> str:
    """Options in the name of a row."""
    return ", ".join(f"{k}={v}" for k, v in given.items()) or "defaults"


def _distances(got: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference of a result, as a part of the length of all gradients, or of the output."""

    def lengths(kind: str) -> float:
        return sum(float(x.double().square().sum()) for k, x in expected.items() if k.startswith(kind)) ** 0.5

    worst = 0.0
    for kind in ("output", "gradient"):
        names = [k for k in expected if k.startswith(kind)]
        away = sum(float((got[k].cpu().double() - expected[k].cpu().double()).square().sum()) for k in names)
        part = away**0.5 / max(lengths(kind), 1e-9)
        worst = max(worst, part if part == part else float("inf"))
    return worst


def _mixed(one: Call, setting: Setting, given: dict[str, Any]) -> dict[str, float]:
    """Under autocast to bfloat16, as training has it."""
    allowed = KINKED if given.get("activation") == "relu" else AUTOCAST
    expected = one.results()
    with torch.autocast(setting.device, torch.bfloat16):
        got = one.at(setting.device, torch.float32).results()
    found = _distances(got, expected)
    if not found <= allowed:
        raise Mismatch(f"autocast: off by {found:.3g} of the length, allowed {allowed}", {"autocast": found})
    return {"autocast": found}


def _memory_format(one: Call, setting: Setting) -> dict[str, float]:
    """Weights and input channels-last."""
    expected = one.results()
    placed = one.at(setting.device, torch.float32)
    network: Any = placed.function
    with torch.no_grad():
        for p in network.parameters():
            if p.ndim > 2:
                p.data = channels_last(p.data)
    with tf32(False):
        found = _distances(placed.laid_out(channels_last).results(), expected)
    if not found <= FLOAT32.tolerance:
        raise Mismatch(f"off by {found:.3g} of the length", {"channels last": found})
    return {"channels last": found}


def output(one: Call, setting: Setting) -> dict[str, float]:
    """The output alone in float32, where gradients are sums of what cancels: norms of few entries."""
    expected = {key: value for key, value in one.results().items() if key.startswith("output")}
    with tf32(False):
        found = _distances(one.at(setting.device, torch.float32).results(), expected)
    if not found <= FLOAT32.tolerance:
        raise Mismatch(f"off by {found:.3g} of the length", {"output in float32": found})
    return {"output in float32": found}
