"""A Gaussian model of each recording, and a network that learns what that lacks.

Of a recording with power spectrum S, seen in white noise of level sigma, the best linear estimate is
Wiener's: each frequency times S / (S + sigma^2). It knows resonances and pitch, but takes a recording for a
Gaussian one that is alike all along; a network learns how far that is from the truth. So the diffusion model
is one of speech *of a given spectrum*, that of an autoregressive model. It is trained with the spectra of
clean recordings; that of a damaged one has to be estimated.
"""

import numpy as np
import torch
from einops import rearrange
from scipy.linalg import solve_toeplitz
from torch import Tensor, nn

import convnd.functional as F
from dynunet.config import Configured
from dynunet.diffusion.schedules import EDM

ORDER = 64  # of the autoregressive models: 8 ms, a period of all but the lowest voices
BANDS = 32  # in which the network is told the spectrum
FOLD = 4  # entries in a row that are channels of the network: it has a quarter of them, and is faster
SCHEDULE = EDM()  # its noise has to hide the sharpest peak of any spectrum at first


def model_of(x: np.ndarray, order: int) -> tuple[np.ndarray, float]:
    """The autoregressive model of a recording ``(T,)``: ``a`` with ``a[0] = 1``, and the power of its errors.

    The errors are ``convolve(a, x)``; Yule and Walker's equations make their power the least.
    """
    lags = np.correlate(x, x, "full")[len(x) - 1 :][: order + 1] / len(x)
    lags[0] = (1 + 1e-6) * lags[0] + 1e-12
    a = np.concatenate([[1.0], -solve_toeplitz(lags[:order], lags[1:])])
    return a, float(a @ lags)


def spectrum(x: Tensor, order: int = ORDER) -> Tensor:
    """Power spectra ``(N, T + 1)`` of recordings ``(N, 1, T)``, from frequency 0 to half the sample rate.

    They are those of autoregressive models; the mean of one is about the mean square of its recording.
    """
    rows = []
    for row in x[:, 0].double().numpy():
        a, power = model_of(row, order)
        rows.append(power / np.abs(np.fft.rfft(a, 2 * len(row))) ** 2)
    return torch.from_numpy(np.stack(rows)).to(x.dtype)


def wiener(x: Tensor, spectra: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Wiener's estimate of recordings with these spectra in white noise, and the error to expect.

    Args:
        x: noisy recordings ``(N, 1, T)``; beyond their ends nothing is known.
        spectra: ``(N, T + 1)``.
        sigma: standard deviations of the noise, ``(N, 1, 1)``.

    Returns:
        ``(N, 1, T)``, and the root mean square of its error, ``(N, 1, 1)``.
    """
    power, length = spectra.unsqueeze(1), x.shape[-1]
    gain = power / (power + sigma**2)
    estimate = torch.fft.irfft(gain * torch.fft.rfft(x, 2 * length), 2 * length)[..., :length]
    return estimate, (sigma**2 * gain).mean(-1, keepdim=True).sqrt()


class Refined(Configured, nn.Module):
    """Wiener's estimate, corrected by a network: ``model(x, t, spectrum=...)`` with :data:`SCHEDULE`'s t.

    While it is trained all is as differentiable as it looks. Otherwise the derivative is that of Wiener's
    estimate: methods of posterior sampling then take the covariance of the Gaussian model, whose equations
    they can solve, and the network is evaluated once a step.

    Args:
        network: from ``2 * FOLD`` channels, the noisy recording and Wiener's estimate, to ``FOLD``, at the
            time sigma / (sigma + level), with ``BANDS`` features.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, *, spectrum: Tensor) -> Tensor:
        sigma = SCHEDULE(t.double())[1].to(x.dtype).view(-1, 1, 1)
        estimate, error = wiener(x, spectrum, sigma)
        level = spectrum.mean(1).sqrt().view(-1, 1, 1)
        seen = torch.cat([x / (level**2 + sigma**2).sqrt(), estimate / level], 1)
        shape = (spectrum.unsqueeze(1) / level**2).log()
        features = F.adaptive_avg_pool(shape, BANDS, spatial_dims=1)[:, 0] / 2
        time = (sigma / (sigma + level)).flatten()
        folded = rearrange(seen if self.training else seen.detach(), "n c (t p) -> n (c p) t", p=FOLD)
        correction = self.network(folded, time, features=features)
        return estimate + error * rearrange(correction, "n (c p) t -> n c (t p)", p=FOLD)


def opposite(shape: torch.Size) -> Tensor:
    """Noise whose second half is the first's opposite, for two samples that err to opposite sides.

    What is linear in the noise is not in their mean, which is then as good as that of many samples.
    """
    half = torch.randn(shape[0] // 2, *shape[1:])
    return torch.cat([half, -half])
