"""On what the rows ran: device, versions, flags."""

import os
import platform
import subprocess
from importlib import metadata
from typing import Any

import torch

from .rows import Row, Setting

PACKAGES = (
    "torch triton accelerate diffusers monai torchnd einops numpy safetensors huggingface_hub hypothesis"
).split()


def rows(setting: Setting) -> list[Row]:
    return [Row("environment", lambda: about(setting))]


def about(setting: Setting) -> dict[str, Any]:
    if setting.gpu and not torch.cuda.is_available():
        raise RuntimeError(f"no GPU: torch {torch.__version__} sees none; --device cpu runs without")
    figures: dict[str, Any] = {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cudnn.allow_tf32": torch.backends.cudnn.allow_tf32,
        "matmul.allow_tf32": torch.backends.cuda.matmul.allow_tf32,
        "cudnn.benchmark": torch.backends.cudnn.benchmark,
    }
    if setting.gpu:
        properties = torch.cuda.get_device_properties(0)
        figures |= {
            "device": properties.name,
            "devices": torch.cuda.device_count(),
            "memory GiB": properties.total_memory / 2**30,
            "capability": ".".join(map(str, torch.cuda.get_device_capability())),
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": _driver(),
        }
    return figures


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version,clocks.sm,clocks.max.sm", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
