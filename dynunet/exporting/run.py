"""An exported model with NumPy and onnxruntime alone: python run.py --help, or from run import Exported."""

import argparse
import json
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


class Exported:
    """A folder that was exported to; about is its export.json. Arrays are (N, C, *spatial)."""

    def __init__(self, folder: Path | str) -> None:
        self.about = json.loads(Path(folder, "export.json").read_text("utf-8"))
        self.session = onnxruntime.InferenceSession(str(Path(folder, "model.onnx")))

    def network(self, **given: Any) -> np.ndarray:
        """The network's output for its inputs: one number is for all samples, one left out means none."""
        fed, sizes = {}, {"batch": len(given["x"]), "tokens": 1}
        if (np.array(given["x"].shape[2:]) < self.about["least"]).any():
            raise ValueError(f"sizes must be at least {self.about['least']}, got {given['x'].shape[2:]}")
        for name, about in self.about["inputs"].items():
            value = about["none"] if given.get(name) is None else given[name]
            value = value if np.ndim(value) else np.full([sizes.get(n) or n for n in about["shape"]], value)
            fed[name] = np.asarray(value, about["dtype"])
        return np.asarray(self.session.run(None, fed)[0])

    def windowed(self, x: np.ndarray, cond: np.ndarray | None = None, **given: Any) -> np.ndarray:
        """The output, of a model of crops a weighted mean over windows; with the place of entries as cond."""
        cond = x[:, :0] if cond is None else cond
        if self.about["coordinates"]:
            axes = np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else [0] for n in x.shape[2:]), indexing="ij")
            cond = np.concatenate([cond, np.stack([axes] * len(x))], 1)
        if (windows := self.about["windows"]) is None:
            return self.network(x=x, cond=cond, **given)
        spans, bell = [], self.about["does"] == "predict"  # else cos^2 in the middle quarter of overlaps
        for size, window, overlap in zip(x.shape[2:], windows["size"], windows["overlap"], strict=True):
            last, place = max(size - window, 0), np.arange(min(window, size)) + 0.5
            margin = min(-(-3 * overlap // 8), overlap // 2)
            rise = np.sin(np.pi / 2 * ((place - margin) / max(overlap - 2 * margin, 1e-9)).clip(0, 1)) ** 2
            rise = np.exp(-16 * (place / len(place) - 0.5) ** 2) if bell else rise
            starts = [*range(0, last, max(window - overlap, 1)), last]
            spans.append([(a, rise ** (bell or a > 0) * rise[::-1] ** (bell or a < last)) for a in starts])
        total, weights = np.zeros((len(x), self.about["outputs"], *x.shape[2:])), np.zeros(x.shape[2:])
        for span in product(*spans):
            at, weight = [slice(a, a + len(w)) for a, w in span], prod(np.ix_(*(w for _, w in span)))
            weight = np.maximum(weight, max(np.min(weight), 1e-3) if bell else 0)
            total[:, :, *at] += weight * self.network(x=x[:, :, *at], cond=cond[:, :, *at], **given)
            weights[*at] += weight
        return (total / weights).astype(np.float32)

    def sample(self, noise: np.ndarray, cond: Any = None, guidance: float = 1.0, **given: Any) -> np.ndarray:
        """Data from standard normal noise, in the network's units; class_labels and others as conditions."""
        draw, free = np.random.default_rng(0), given | {"class_labels": None, "context": None}
        x = self.about["start"] * noise.astype(np.float32)
        for step in self.about["steps"]:
            shown = step["input"] * x + (step["cond"] * cond[:, : x.shape[1]] if step["cond"] else 0)
            y, t = self.windowed(shown, cond, t=step["t"], **given), step["t"]
            y += (guidance - 1) * (y - self.windowed(shown, cond, t=t, **free)) if guidance != 1 else 0
            x = step["x"] * x + step["output"] * y + step["noise"] * draw.standard_normal(x.shape, np.float32)
        return x

    def of_file(self, values: np.ndarray, noise: Any = None) -> np.ndarray:
        """What is restored or predicted of a file (C, *spatial); what is missing in it (NaN) stays so."""
        about, there = self.about, np.isfinite(values) & (values != float(self.about["missing"] or "nan"))
        known = values[there].astype(float)
        low, high = np.percentile(known, about["percentiles"]) if about["percentiles"] else about["range"]
        if about["level"]:
            low, high = np.array([-1, 1]) * max(np.square(known).mean() ** 0.5, 1e-5) / about["level"]
        x = np.where(there, (2 * values.astype(float) - low - high) / (high - low), 0)[None]
        if about["does"] == "restore":
            return np.where(there, (self.sample(noise, x)[0] * (high - low) + low + high) / 2, values)
        y = self.windowed(x)[0]
        if about["task"] == "regression":
            return y * np.array(about["gain"]) + np.array(about["offset"])
        return y > 0 if about["multilabel"] else np.array(about["values"])[y.argmax(0)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="OUT, or to restore or predict IN OUT, all .npy")
    parser.add_argument("--shape", nargs="+", type=int, default=[1], help="how many samples, and their size")
    parser.add_argument("--label", type=int, help="number of the class of samples")
    parser.add_argument("--guidance", type=float, default=1.0, help="above 1: more typical of the class")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    model, (*source, out) = Exported(Path(__file__).parent), args.files
    values = np.load(*source) if source else np.empty(args.shape)
    shape = args.shape[0], model.about["outputs"], *values.shape[-model.about["spatial_dims"] :]
    noise = np.random.default_rng(args.seed).standard_normal(shape, np.float32)
    if source:
        made = model.of_file(values.reshape(-1, *shape[2:]), noise)
    else:
        made = model.sample(noise, guidance=args.guidance, class_labels=args.label)
        made = (made + 1) / 2 * np.ptp(model.about["range"]) + model.about["range"][0]
    np.save(out, made.reshape(values.shape) if source and made.size == values.size else made)
