"""Exact references to test samplers against: data whose denoiser E[x_0 | x_t] is known in closed form.

With x_t = alpha x_0 + sigma noise and Gaussian data of mean m and variance v, entry by entry,

    E[x_0 | x] = m + alpha v / (alpha^2 v + sigma^2) (x - alpha m),

and for a mixture of Gaussians it is the mean of the components' estimates, weighted by their posterior
probabilities given x. Along the probability-flow ODE of a single Gaussian, (x - alpha m) / sqrt(alpha^2 v +
sigma^2) is constant, which gives the exact solution; :func:`probability_flow` integrates any other ODE in
small steps. :func:`gaussian_law` gives the exact mean and variance of a sampler's result without Monte Carlo,
also for stochastic samplers. :func:`posterior_law` does so for the methods of posterior sampling, with data
whose entries are correlated and a linear measurement of it, whose posterior is known as well.

>>> import torch
>>> from dynunet.diffusion.samplers import dpmpp_2m
>>> from dynunet.diffusion.schedules import Cosine
>>> data = Gaussian(mean=0.5, std=0.2)
>>> mean, variance = gaussian_law(dpmpp_2m, Cosine(), torch.linspace(1, 0, 101), data)
>>> round(mean, 2), round(variance ** 0.5, 2)
(0.5, 0.2)
"""

from .gaussians import Gaussian, GaussianMixture, gaussian_law, probability_flow
from .posteriors import CorrelatedGaussian, posterior_law

__all__ = [
    "CorrelatedGaussian",
    "Gaussian",
    "GaussianMixture",
    "gaussian_law",
    "posterior_law",
    "probability_flow",
]
