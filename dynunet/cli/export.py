"""``dynunet export``: a trained model as a program that needs none of this package."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from ..hub import check_run
from .flags import check_counts, check_length


@dataclass(frozen=True)
class Export:
    """Write a trained model as a program that needs none of this package: in ONNX, or of torch.export.

    Beside it are export.json, which says what goes in and what comes out, and for ONNX run.py, which samples,
    restores or predicts with NumPy and onnxruntime alone.
    """

    run_folder: Positional[Path]
    """folder of the run, or owner/name of one on the Hub"""
    out: Path
    """folder for the files, a new or an empty one"""
    to: Literal["onnx", "torch"] = "onnx"
    """onnx, or torch for an archive of torch.export"""
    steps: int | None = None
    """of the sampler, DDIM: by default 20, to restore 1, of a model of dynunet distill its own"""
    length: float | None = None
    """of the average of the weights, of a run with --ema-lengths: 0.05 is short, 0.2 long"""
    overwrite: bool = False
    """replace a model that was exported to the folder before"""

    def check(self) -> None:
        check_counts(steps=self.steps)
        check_length(self.length)
        check_run(self.run_folder)

    def run(self) -> None:
        from ..exporting import export

        options = {"steps": self.steps, "length": self.length, "overwrite": self.overwrite}
        out = export(self.run_folder, self.out, self.to, **options)
        how = f"python {out / 'run.py'} --help" if self.to == "onnx" else "torch.export.load"
        print(f"exported: {out}. To use it: {how}")
