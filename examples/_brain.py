"""The brain of the 3-D example: read it, remove blocks of it, fill them in by hand, and compare."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from math import pi
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dynunet.data import FolderDataset
from dynunet.diffusion import coordinates
from dynunet.metrics import psnr
from dynunet.plotting import slices

TEMPLATE = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
EMPTY = -0.8  # the grey value below which there is nothing, in [-1, 1]

Block = tuple[slice, ...]


def read(data: Path | None, spacing: float) -> Tensor:
    """A volume ``(1, X, Y, Z)`` in [-1, 1], of entries this many millimetres wide."""
    if data is None:
        package = find_spec("nilearn")
        data = Path(str(package.origin)).parent / TEMPLATE if package else Path("nilearn") / TEMPLATE
    if not data.exists():
        raise SystemExit(
            f"looked for a brain scan (nii, nii.gz) at {data}: none there. The MNI152 template comes with "
            "nilearn: pip install nilearn. For a scan of your own: --data PATH"
        )
    whole = FolderDataset([data], 3, spacing=(spacing,), split="all")
    print(whole.report())
    return whole[0]["x0"].clamp(-1, 1)


def choose(volume: Tensor, size: int, number: int, taken: Tensor) -> list[Block]:
    """Blocks at random places, full of tissue and not touching what is taken, which then has them too.

    Taken are also their mirror images along the first axis: the template is the same on both sides.
    """
    found: list[Block] = []
    shape = volume.shape[1:]
    if min(shape) < 2 * size:
        raise ValueError(f"--removed must be at most half of the volume, {tuple(shape)}, got {size}")
    for _ in range(100_000):
        block = tuple(slice(a := int(torch.randint(n - size + 1, ())), a + size) for n in shape)
        mirrored = slice(shape[0] - block[0].stop, shape[0] - block[0].start), *block[1:]
        if (
            taken[0][block].any()
            or taken[0][mirrored].any()
            or (volume[0][block] < EMPTY).float().mean() > 0.1
        ):
            continue
        for part in (block, mirrored):
            taken[0][part] = True
        found.append(block)
        if len(found) == number:
            return found
    raise ValueError(f"--removed: {number} blocks of {size} entries find no place in the volume, choose less")


def around(block: Block, size: int, shape: Sequence[int]) -> Block:
    """A crop with a block in its middle, as far as the volume reaches."""
    starts = [(b.start + b.stop - size) // 2 for b in block]
    starts = [min(max(at, 0), max(n - size, 0)) for at, n in zip(starts, shape, strict=True)]
    return tuple(slice(at, min(at + size, n)) for at, n in zip(starts, shape, strict=True))


def crops(x: Tensor, places: Sequence[Block]) -> Tensor:
    """``(N, C, *size)`` out of ``(C, X, Y, Z)``."""
    return torch.stack([x[:, *place] for place in places])


class Waves(Dataset[dict[str, Tensor]]):
    """Crops with the coordinates that they come with as waves, see :func:`waves`."""

    def __init__(self, files: FolderDataset) -> None:
        self.files, self.units, self.report = files, files.units, files.report

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        item = self.files[index]
        return item | {"cond": waves(item["cond"])}


def waves(x: Tensor) -> Tensor:
    """Coordinates and their sines and cosines, ``(33, X, Y, Z)``, which tell places that are close apart.

    A network learns fine detail from them far sooner (Tancik et al. 2020).
    """
    return torch.cat([x, *(f(pi * 2**k * x) for k in range(5) for f in (torch.sin, torch.cos))])


def where(volume: Tensor) -> Tensor:
    """Where the entries of a volume are, as :class:`Waves` gives it for crops."""
    return waves(coordinates((1, *volume.shape))[0])


def biharmonic(x: Tensor, removed: Tensor, known: Tensor) -> Tensor:
    """Gaps filled by the smoothest function through the known entries within three of them (scipy).

    In three dimensions the kernel |r| is that of the biharmonic equation.
    """
    from scipy.interpolate import RBFInterpolator
    from scipy.ndimage import binary_dilation

    x = x.clone()
    for crop, gap, there in zip(x[:, 0], removed[:, 0], known[:, 0], strict=True):
        near = torch.from_numpy(binary_dilation(gap.numpy(), iterations=3)) & there
        smooth = RBFInterpolator(near.nonzero().numpy(), crop[near].double().numpy(), kernel="linear")
        crop[gap] = torch.from_numpy(smooth(gap.nonzero().numpy())).float()
    return x


def mean(x: Tensor, known: Tensor) -> Tensor:
    """Gaps filled with the mean of what is known of each crop."""
    x = torch.where(known, x, 0)
    return torch.where(known, x, x.flatten(1).sum(1).div(known.flatten(1).sum(1)).view(-1, 1, 1, 1, 1))


def compare(filled: Mapping[str, Tensor], truth: Tensor, removed: Tensor, new: int) -> dict[str, str]:
    """Print and return the PSNR over all removed entries: of the first, new blocks, and of the others."""
    print(f"\nPSNR in dB of removed blocks:\n\n{'':18}{'never seen':>11}{'seen in training':>18}")
    figures = {}
    for name, x in filled.items():
        values = []
        for rows in (slice(new), slice(new, None)):
            made, real = (part[rows][removed[rows]].view(1, 1, -1) for part in (x, truth))
            values.append(psnr(made, real).item())
        print(f"{name:18}{values[0]:11.2f}{values[1]:18.2f}")
        figures |= {name: f"{values[0]:.2f}", f"{name} seen": f"{values[1]:.2f}"}
    return figures


def draw(filled: Mapping[str, Tensor], path: Path) -> None:
    """Slices through the removed block of one crop, a row for each way to fill it."""
    slices(torch.stack([x[0] for x in filled.values()]), path, labels=list(filled))
