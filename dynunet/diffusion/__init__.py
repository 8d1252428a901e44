"""Diffusion models, made of three independent parts: a schedule, a prediction and a sampler.

Schedules and predictions do not depend on samplers, nor samplers on networks. Guidance, restoration and
windows are functions of a denoiser or a sampler. :class:`Diffusion` combines the chosen parts.
"""

from .bridges import Bridge, ExponentialBridge, SymmetricBridge
from .distillation import Consistency
from .guidance import guided, threshold
from .likelihood import log_likelihood
from .losses import SNR, LogNormal, MinSNR, Weighting, WithSpectra, huber, l1, l2, mean_loss
from .measurement import Measurement, Tangent
from .model import Diffusion
from .posterior import DPS, MMPS, Guidance, PiGDM, RePaint
from .predictions import EDMPrediction, Epsilon, FlowPrediction, Prediction, Sample, VPrediction
from .projection import APG
from .rescaling import shifted, zero_terminal_snr
from .restoration import inpainting
from .samplers import consistency, ddim, ddpm, dpmpp_2m, dpmpp_2m_sde, euler, heun, unipc
from .schedulers import from_scheduler
from .schedules import (
    EDM,
    Cosine,
    Discrete,
    Flow,
    Linear,
    ScaledLinear,
    Schedule,
    Sigmoid,
)
from .spacing import spaced
from .windows import coordinates, random_crops, windowed

__all__ = [
    "APG",
    "DPS",
    "EDM",
    "MMPS",
    "SNR",
    "Bridge",
    "Consistency",
    "Cosine",
    "Diffusion",
    "Discrete",
    "EDMPrediction",
    "Epsilon",
    "ExponentialBridge",
    "Flow",
    "FlowPrediction",
    "Guidance",
    "Linear",
    "LogNormal",
    "Measurement",
    "MinSNR",
    "PiGDM",
    "Prediction",
    "RePaint",
    "Sample",
    "ScaledLinear",
    "Schedule",
    "Sigmoid",
    "SymmetricBridge",
    "Tangent",
    "VPrediction",
    "Weighting",
    "WithSpectra",
    "consistency",
    "coordinates",
    "ddim",
    "ddpm",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "euler",
    "from_scheduler",
    "guided",
    "heun",
    "huber",
    "inpainting",
    "l1",
    "l2",
    "log_likelihood",
    "mean_loss",
    "random_crops",
    "shifted",
    "spaced",
    "threshold",
    "unipc",
    "windowed",
    "zero_terminal_snr",
]
