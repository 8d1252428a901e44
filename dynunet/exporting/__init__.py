"""Trained models as programs that need neither this package nor, as ONNX, torch.

``diffusion.export(folder)``, ``supervised.export(folder)`` and ``dynunet export RUN --out FOLDER`` write

    model.onnx      the network, for any batch and sizes (or ``model.pt2``, an archive of :mod:`torch.export`)
    export.json     its inputs, the steps of the sampler with their times and scales, classes, units, windows
    run.py          a runner in NumPy and onnxruntime: samples, restores or predicts, as the model does

The program is run beside the network before anything is written.
"""

from .folder import export

__all__ = ["export"]
