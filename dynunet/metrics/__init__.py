"""Figures of quality: of restorations beside clean data, of samples beside real ones, of label maps.

Signal-to-noise ratios, structural similarity and the Fréchet distance; the continuous ranked probability
score, coverage, spread-skill ratio and rank histogram of several samples beside one truth; Dice, IoU,
sensitivity, specificity, distances of surfaces and the confusion matrix. All are for any number of axes.
"""

from .ensembles import coverage, crps, rank_histogram, spread_skill
from .restoration import frechet_distance, psnr, si_sdr, snr, ssim
from .segmentation import (
    average_surface_distance,
    confusion_matrix,
    dice,
    hausdorff_distance,
    iou,
    sensitivity,
    specificity,
)

__all__ = [
    "average_surface_distance",
    "confusion_matrix",
    "coverage",
    "crps",
    "dice",
    "frechet_distance",
    "hausdorff_distance",
    "iou",
    "psnr",
    "rank_histogram",
    "sensitivity",
    "si_sdr",
    "snr",
    "specificity",
    "spread_skill",
    "ssim",
]
