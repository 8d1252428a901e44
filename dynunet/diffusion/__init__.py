"""Diffusion models: a schedule, a prediction and a sampler, three separate things.

Schedules and predictions know nothing of samplers, samplers nothing of networks.
"""

from .model import Diffusion
from .predictions import Epsilon, Prediction, Sample, VPrediction
from .samplers import ddim, ddpm, dpmpp_2m
from .schedules import Cosine, Linear, Schedule

__all__ = [
    "Cosine",
    "Diffusion",
    "Epsilon",
    "Linear",
    "Prediction",
    "Sample",
    "Schedule",
    "VPrediction",
    "ddim",
    "ddpm",
    "dpmpp_2m",
]
