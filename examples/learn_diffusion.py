"""A diffusion model is three things: a schedule, a prediction, a sampler. Here without a network.

    python examples/learn_diffusion.py --sampler ddpm --steps 50 --schedule flow

The data are points in the plane, of eight normal distributions: their best denoiser is a known formula.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from _learn import draw_points
from torch import Tensor

from dynunet import Diffusion
from dynunet.testing import GaussianMixture


@dataclass
class Options:
    """Draw points from a mixture of eight normal distributions by diffusion, and the way there."""

    schedule: str = "cosine"
    """how much signal and noise there is: linear, scaled_linear, cosine, sigmoid, flow, edm"""
    prediction: str = "v_prediction"
    """what is asked of the model: epsilon, sample, v_prediction, flow, edm; the points are the same"""
    sampler: str = "dpmpp_2m"
    """how to walk from noise to data: ddpm, dpmpp_2m, unipc or another of dynunet's"""
    steps: int = 20
    """of the sampler"""
    out: Path = Path("runs/learn_diffusion.png")


def main(options: Options) -> None:
    angles = torch.arange(8) * torch.pi / 4
    data = GaussianMixture(torch.stack([angles.cos(), angles.sin()], 1)[:, None], [0.1] * 8)  # (8, 1, 2)

    def model(x: Tensor, t: Tensor) -> Tensor:
        """The output of a perfect network."""
        alpha, sigma = (scale.float().view(-1, 1, 1) for scale in diffusion.schedule(t.double()))
        x = x / diffusion.prediction.scaled(
            torch.ones_like(x), alpha, sigma
        )  # edm shows it scaled to unit size
        x0 = data.denoiser(diffusion.schedule)(x, t)
        return diffusion.prediction.target(x0, (x - alpha * x0) / sigma, alpha, sigma)

    diffusion = Diffusion(model, options.schedule, options.prediction)
    film: list[tuple[float, Tensor, Tensor]] = []  # the time, the noisy points, the estimates of the data
    more = {"sampler": options.sampler, "generator": torch.Generator().manual_seed(0), "progress": False}
    x = diffusion.sample((2000, 1, 2), options.steps, callback=lambda _, *step: film.append(step), **more)
    distance, component = torch.cdist(x[:, 0], data.means[:, 0]).min(1)
    print("points of each component, of 250:", component.bincount(minlength=8).tolist())
    print(f"root mean square distance to its centre, of 0.141: {distance.square().mean().sqrt():.3f}")
    draw_points(options.out, diffusion.schedule, film)


if __name__ == "__main__":
    main(tyro.cli(Options))
