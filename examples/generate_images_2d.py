"""Generate images: train a class-conditional diffusion model on real images and judge its samples.

    python examples/generate_images_2d.py                    # digits, about two minutes on two CPU cores
    python examples/generate_images_2d.py --channels 32 48 64 --attention none none full
    python examples/generate_images_2d.py --data fashion-mnist
    python examples/generate_images_2d.py --data pictures/ --size 32

Every run has a folder of its own under runs/ and a line in runs/results.csv. --resume goes on after Ctrl-C.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from _images import Images, draw_samples, image_sets, judge
from _runs import NetworkOptions, begin, explained, fit, keep, report, suggest
from einops import rearrange

from dynunet import Diffusion, Trainer, UNet
from dynunet.nn.flags import with_flags
from dynunet.plotting import film_strip


@dataclass
class Options(with_flags(NetworkOptions, {"attention": ("none", "full")})):
    """Train a diffusion model on small images and judge its samples."""

    data: Path | None = None
    """fashion-mnist, a folder of images (sub-folders are classes) or an .npz file with `images` (N, H, W) and
    `labels` (N,); scikit-learn's digits if left out"""
    size: int | None = None
    """of images from a folder: they are resized to it"""
    schedule: str = "cosine"
    """signal and noise over time: linear, scaled_linear, cosine, sigmoid, flow or edm"""
    prediction: str = "v_prediction"
    """what the network outputs: epsilon, sample, v_prediction, flow or edm"""
    train_steps: int = 900
    """of training"""
    batch_size: int = 128
    """images per training step"""
    lr: float = 2e-3
    """peak learning rate"""
    sampler: str = "dpmpp_2m"
    """how to walk from noise to data: ddpm, dpmpp_2m, unipc or another of dynunet's"""
    sample_steps: int = 20
    """network evaluations per sample"""
    guidance_scale: float = 1.15
    """classifier-free guidance; 1 is none, more is clearer and less varied"""
    num_samples: int = 1000
    """samples that are judged"""


def main(options: Options) -> None:
    options, folder = begin(options, "images")
    torch.manual_seed(options.seed)
    with explained(folder):
        train, held_out = image_sets(options.data, options.size)
        real, unseen = Images.of(train), Images.of(held_out)
        classes, shape = real.classes, tuple(real.x.shape[1:])
        unet = UNet(2, shape[0], **options.network(), time_embedding=True, num_classes=classes)
        diffusion = Diffusion(unet, options.schedule, options.prediction)
    print(unet.summary((1, *shape)))

    how: dict[str, Any] = {"steps": options.sample_steps, "sampler": options.sampler}
    how |= {} if classes is None else {"guidance_scale": options.guidance_scale}
    training = {"steps": options.train_steps, "batch_size": options.batch_size, "lr": options.lr}
    pictures = {"validation": held_out, "sample_every": 150, "num_samples": 16, "sample_args": how}
    more = {"ema": 0.995, "seed": options.seed}
    trainer = Trainer(diffusion, train, folder / "model", **training, **pictures, **more)
    model, seconds = fit(trainer, folder)

    def sample(count: int, asked: torch.Tensor | None, **more: Any) -> torch.Tensor:
        labels = {} if asked is None else {"class_labels": asked}
        noise = torch.Generator().manual_seed(options.seed + count)
        return model.sample((count, *shape), generator=noise, **how, **labels, **more).clamp(-1, 1).cpu()

    rows = min(classes or 6, 10)
    asked = None if classes is None else torch.arange(rows).repeat_interleave(6)
    shown = rearrange(sample(6 * rows, asked, progress=False), "(rows n) ... -> rows n ...", n=6)
    draw_samples(folder / "samples.png", shown, real, unseen)
    keep(folder, made=shown)
    film: list[Any] = []
    sample(1, None if asked is None else asked[:1], progress=False, callback=lambda *step: film.append(step))
    film_strip(film, folder / "denoising.png")

    asked = None if classes is None else torch.arange(options.num_samples) % classes
    figures = judge(sample(options.num_samples, asked), asked, real, unseen)
    parameters = sum(p.numel() for p in unet.parameters())
    report(folder, options, {"parameters": str(parameters), "seconds": seconds, **figures})
    print(f"\nLook at {folder}/samples.png and {folder}/denoising.png. To try next:")
    suggest("--channels 32 48 64 --attention none none full", "--guidance-scale 3")


if __name__ == "__main__":
    main(tyro.cli(Options))
