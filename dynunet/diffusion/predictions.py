"""Predictions: what the network outputs, and how the clean data is recovered from it.

With ``x_t = alpha x_0 + sigma noise`` each prediction is a training target and its inverse:

    name            target                      x_0
    epsilon         noise                       (x_t - sigma output) / alpha
    sample          x_0                         output
    v_prediction    alpha noise - sigma x_0     (alpha x_t - sigma output) / (alpha^2 + sigma^2)

``alpha`` and ``sigma`` broadcast against the data. Where alpha is 0 the noise tells nothing about the
data, and epsilon gives 0, the mean of centred data.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Prediction(ABC):
    @abstractmethod
    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """What the network should output."""

    @abstractmethod
    def denoised(self, output: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The estimate of x_0 that an output means."""


class Epsilon(Prediction):
    """The noise (Ho et al. 2020, eq. 14)."""

    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return noise

    def denoised(self, output: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        safe = torch.where(alpha > 0, alpha, 1)
        return torch.where(alpha > 0, (x - sigma * output) / safe, 0)


class Sample(Prediction):
    """The clean data itself."""

    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return x0

    def denoised(self, output: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return output


class VPrediction(Prediction):
    """The velocity along the circle of alpha and sigma (Salimans and Ho 2022, appendix D)."""

    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha * noise - sigma * x0

    def denoised(self, output: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (alpha * x - sigma * output) / (alpha**2 + sigma**2)


PREDICTIONS: dict[str, Prediction] = {
    "epsilon": Epsilon(),
    "sample": Sample(),
    "v_prediction": VPrediction(),
}
