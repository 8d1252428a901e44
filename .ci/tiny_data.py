"""Small files of the formats that the examples read, for their smoke runs: ``python tiny_data.py FOLDER``."""

import sys
from pathlib import Path

import nibabel
import numpy as np
import soundfile
from PIL import Image
from scipy.io import netcdf_file
from scipy.ndimage import gaussian_filter

rng = np.random.default_rng(0)
folder = Path(sys.argv[1])

time = np.arange(8000) / 8000
for kind in ("speech", "noise"):
    (folder / kind).mkdir(parents=True)
    for i in range(9):
        tone = 0.3 * np.sin(2 * np.pi * (200 + 50 * i) * time) * (np.sin(2 * np.pi * 3 * time) > 0)
        noise = 0.1 * rng.standard_normal(8000)
        soundfile.write(folder / kind / f"{i}.wav", tone if kind == "speech" else noise, 8000)

for i in range(40):
    path = folder / "pictures" / "ab"[i % 2] / f"{i}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(path)

ball = np.linalg.norm(np.stack(np.meshgrid(*[np.arange(48) - 24] * 3, indexing="ij")), axis=0) < 20
(folder / "scans").mkdir()
tissues = ball * (1 + (gaussian_filter(rng.standard_normal(ball.shape), 4) > 0))
scan = ball * (60 + 40 * tissues + 5 * rng.standard_normal(ball.shape))
for name in ("scan", "labels", "other", "other-labels"):
    image = nibabel.Nifti1Image((tissues if "labels" in name else scan).astype("f4"), np.diag([3.0, 3, 3, 1]))
    nibabel.save(image, folder / "scans" / f"{name}.nii.gz")

sizes = {"TIME": 12, "DEPTH": 6, "LAT": 40, "LON": 48}
ocean = 20 + 5 * gaussian_filter(rng.standard_normal(tuple(sizes.values())), 3)
ocean[..., :8] = -1e10  # land
with netcdf_file(folder / "ocean.nc", "w") as file:
    for name, size in sizes.items():
        file.createDimension(name, size)
    file.createVariable("TEMP", "f4", tuple(sizes))[:] = ocean.astype("f4")
    file.createVariable("LON", "f4", ("LON",))[:] = np.arange(sizes["LON"]) * 7.5
