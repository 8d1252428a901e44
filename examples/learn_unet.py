"""A U-Net from a list of channels: draw it, count it, run it; every option of UNet is a flag.

    python examples/learn_unet.py --channels 16 32 64 128
    python examples/learn_unet.py --spatial-dims 3 --strides 1,2,2 2 --attention none none full

One word is for all levels, several are one per level; numbers joined by commas are one per axis.
"""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from _learn import noisy_ball, picture, show, words

from dynunet import UNet

Network = partial(UNet, spatial_dims=2, in_channels=1, channels=(16, 32, 64), num_blocks=1)


def main(
    unet: Annotated[Any, tyro.conf.arg(constructor=Network)],
    size: int = 32,
    out: Path = Path("runs/learn_unet.png"),
) -> None:
    """Build a U-Net, print what it is made of, and draw what its levels make of a noisy ball, untrained.

    Args:
        unet: None, True and False are words like others: `--norm none`.
        size: entries of each axis of the input; any number will do.
        out: the picture.
    """
    n = unet.spatial_dims
    print(unet.summary((1, unet.in_channels, *[size] * n)))
    x = noisy_ball(n, size)
    given: dict[str, Any] = {}
    if unet.time_embedding is not None:
        given["t"] = torch.tensor([0.5])
    if unet.cond_channels > 0:
        given["cond"] = x.expand(-1, unet.cond_channels, *x.shape[2:])

    seen: list[torch.Tensor] = []  # of the encoder's levels, then of the decoder's from the bottom up
    for level in (*unet.encoder, *unet.decoder):
        level.blocks[-1].register_forward_hook(lambda block, inputs, y: seen.append(y))
    unet(x.expand(-1, unet.in_channels, *x.shape[2:]), **given)
    rows = [[("x", picture(x))]]
    for down, up in zip(seen, reversed(seen[len(unet.levels) :]), strict=False):
        shape = " x ".join(map(str, down.shape[1:]))
        sides = [(f"{shape}, down", down), (f"{shape}, up", up)]
        rows.append([(name, picture(y, channel)) for name, y in sides for channel in range(3)])
    show(out, rows)


if __name__ == "__main__":
    tyro.cli(main, config=(tyro.conf.OmitArgPrefixes,), registry=words())
