"""The model of a plan and a batch for it, both without numbers, to estimate their memory."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..data.classes import IGNORED
from ..data.spec import DataSpec
from ..defaults import LABEL_MAPS
from ..diffusion import Diffusion
from ..nn.encoder import Encoder
from ..nn.unet import UNet
from ..supervised import Supervised
from .fingerprint import Fingerprint
from .patches import Candidate
from .topology import channels_of

__all__ = ["batch_of", "inputs_of", "model_of", "network_options"]


def network_options(candidate: Candidate, width: int) -> dict[str, Any]:
    """Arguments of :class:`dynunet.UNet`."""
    strides, kernels = candidate.topology
    return {
        "channels": channels_of(len(kernels), width),
        "strides": strides,
        "kernel_size": kernels,
    }


def model_of(data: Fingerprint, candidate: Candidate, width: int, device: str | torch.device = "meta") -> Any:
    """The model, as ``dynunet train`` would build it; on the ``meta`` device it has no numbers."""
    dims, spec, options = len(data.shape), data.spec, network_options(candidate, width)
    conditions = {"cond_channels": spec.cond_channels}
    with torch.device(device):
        if not data.supervised:
            classes = None if spec.classes is None else len(spec.classes)
            unet = UNet(
                dims, spec.channels, time_embedding=True, num_classes=classes, **conditions, **options
            )
            return Diffusion(unet)
        network = UNet if data.maps else Encoder
        if data.maps and data.classes is not None:
            options |= LABEL_MAPS
        ignored = IGNORED if data.task == "segmentation" else None
        return Supervised(
            network(dims, spec.channels, data.outputs, **conditions, **options),
            data.task,
            ignore_index=ignored,
        )


def batch_of(data: Fingerprint, candidate: Candidate) -> dict[str, Tensor]:
    """Keywords of its loss, as the data set would give them."""
    n, size = candidate.batch, candidate.size
    made = inputs_of(data.spec, n, size)
    if data.supervised:
        places = size if data.maps else ()
        values = data.task == "regression"
        made["target"] = _empty(n, data.outputs, *places) if values else _empty(n, *places, dtype=torch.int64)
    return made


def inputs_of(spec: DataSpec, n: int, size: Sequence[int]) -> dict[str, Tensor]:
    """Keywords of the loss of ``n`` examples, but for a target."""
    made = {"x0": _empty(n, spec.channels, *size)}
    if spec.cond_channels:
        made["cond"] = _empty(n, spec.cond_channels, *size)
    if spec.missing is not None:
        made["mask"] = _empty(n, spec.channels, *size, dtype=torch.bool)
    if spec.classes is not None:
        made["class_labels"] = _empty(n, dtype=torch.int64)
    return made


def _empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")
