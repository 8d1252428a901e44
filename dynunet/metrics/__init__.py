"""Figures of quality: of restorations beside clean data, of samples beside real ones, of label maps.

Signal-to-noise ratios, structural similarity and the Fréchet distance; Dice, IoU, sensitivity, specificity,
distances of surfaces and the confusion matrix. All are for any number of axes.
"""

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
    "dice",
    "frechet_distance",
    "hausdorff_distance",
    "iou",
    "psnr",
    "sensitivity",
    "si_sdr",
    "snr",
    "specificity",
    "ssim",
]
