"""Generate images: train a class-conditional diffusion model on real digits and judge its samples.

    python examples/generate_images_2d.py                    # about two minutes on two CPU cores
    python examples/generate_images_2d.py --channels 32 48 64 --attention none none full

Every run writes into its own folder under runs/ and adds one line to runs/results.csv. Ctrl-C stops
the training early and goes on with what has been learned.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from _runs import load_images, new_folder, report, suggest
from sklearn.neural_network import MLPClassifier
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import trange

from dynunet import Diffusion, UNet
from dynunet.metrics import frechet_distance
from dynunet.plotting import image_grid


@dataclass
class Options:
    """Train a class-conditional diffusion model on small grey images and judge its samples."""

    channels: tuple[int, ...] = (32, 64)
    """channels of each level of the U-Net: the list is the network"""
    num_blocks: int = 1
    """blocks per level"""
    block: str = "residual"
    """residual, plain or convnext"""
    norm: str = "group"
    """group, batch, instance, layer, rms or none"""
    num_groups: int = 8
    """groups of group norm"""
    activation: str = "silu"
    """silu, relu, gelu, ..."""
    attention: tuple[str, ...] = ("none", "full")
    """attention of each level, or one value for all: none, full, linear, axial, window, cbam, ..."""
    dropout: float = 0.0
    """probability of dropout in the blocks"""
    schedule: str = "cosine"
    """linear, scaled_linear, cosine, sigmoid, flow or edm"""
    prediction: str = "v_prediction"
    """epsilon, sample, v_prediction, flow or edm"""
    train_steps: int = 900
    """training steps"""
    batch_size: int = 128
    """images per training step"""
    lr: float = 2e-3
    """peak learning rate"""
    sampler: str = "dpmpp_2m"
    """ddpm, ddim, euler, heun, dpmpp_2m or dpmpp_2m_sde"""
    sample_steps: int = 20
    """network evaluations per sample"""
    guidance_scale: float = 1.25
    """classifier-free guidance; 1 is none, more is clearer and less varied"""
    num_samples: int = 1000
    """samples that are judged"""
    seed: int = 0
    """of everything random"""
    data: Path | None = None
    """an .npz file with `images` (N, H, W) and integer `labels` (N,); scikit-learn's digits if left out"""
    out: Path = Path("runs")
    """where the folders of the runs are"""
    name: str = ""
    """name of this run; images-1, images-2, ... if left out"""


def main(options: Options) -> None:
    torch.manual_seed(options.seed)
    images, labels = load_images(options.data)
    half = len(images) // 2  # the second half is held out from the network and from the classifier
    classes = int(labels.max()) + 1
    diffusion = build(options, classes)
    parameters = sum(p.numel() for p in diffusion.parameters())
    folder = new_folder(options.out, options.name, "images", options)
    print(f"{half} training images {tuple(images.shape[2:])}, {classes} classes, {parameters:,} parameters")

    def sample(model: Diffusion, classes: Tensor, seed: int, **more: Any) -> Tensor:
        return model.sample(
            (len(classes), *images.shape[1:]),
            steps=options.sample_steps,
            sampler=options.sampler,
            guidance_scale=options.guidance_scale,
            class_labels=classes,
            generator=torch.Generator().manual_seed(seed),
            **more,
        ).clamp(-1, 1)

    def draw(model: Diffusion) -> None:
        shown = sample(model, torch.arange(classes).repeat_interleave(6), options.seed + 1, progress=False)
        draw_samples(folder / "samples.png", shown.unflatten(0, (classes, 6)), images, labels, half)

    start = time.time()
    model, steps = train(diffusion, images[:half], labels[:half], options, draw)
    seconds = time.time() - start
    draw(model)
    draw_denoising(folder / "denoising.png", lambda keep: sample(model, labels[:1], 3, callback=keep))
    model.save_pretrained(folder)  # Diffusion.from_pretrained reads it

    asked = torch.arange(options.num_samples) % classes
    accuracy, agreement, distance, floor = judge(
        sample(model, asked, options.seed + 2), asked, images, labels, half
    )
    print(f"""
A classifier trained on real images ({accuracy:.1%} right on held-out ones) finds {agreement:.1%} of
{len(asked)} samples to be of the class that was asked for. In its feature space their Fréchet distance
to held-out images is {distance:.3f}, {distance / floor:.1f} times that between the two halves of the real
images ({floor:.3f}).
""")
    figures = {"agreement": agreement, "frechet": distance, "floor": floor}
    counts = {"parameters": str(parameters), "steps": str(steps), "seconds": f"{seconds:.0f}"}
    report(folder, options, counts | {name: f"{value:.3f}" for name, value in figures.items()})
    print(f"\nLook at {folder}/samples.png and {folder}/denoising.png. To try next:")
    suggest(
        "--channels 32 48 64 --attention none none full",
        "--guidance-scale 3",
        "--sampler ddpm --sample-steps 100",
    )


def build(options: Options, classes: int) -> Diffusion:
    attention = [None if name == "none" else name for name in options.attention]
    try:
        unet = UNet(
            2,
            in_channels=1,
            channels=options.channels,
            num_blocks=options.num_blocks,
            block=options.block,
            norm=None if options.norm == "none" else options.norm,
            num_groups=options.num_groups,
            activation=options.activation,
            attention=attention[0] if len(attention) == 1 else attention,
            dropout=options.dropout,
            time_embedding=True,
            num_classes=classes,
        )
        return Diffusion(unet, schedule=options.schedule, prediction=options.prediction)
    except ValueError as error:
        raise SystemExit(f"these options do not make a network: {error}") from None


def train(
    diffusion: Diffusion,
    images: Tensor,
    labels: Tensor,
    options: Options,
    draw: Callable[[Diffusion], None],
) -> tuple[Diffusion, int]:
    """The moving average of the trained model, and the number of steps made."""
    average: Any = AveragedModel(diffusion, multi_avg_fn=get_ema_multi_avg_fn(0.995))
    optimizer = torch.optim.AdamW(diffusion.parameters(), lr=options.lr)
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.lr, max(options.train_steps, 10), pct_start=0.1
    )
    step = 0
    try:
        for step in (bar := trange(1, options.train_steps + 1, desc="training")):
            batch = torch.randint(len(images), (options.batch_size,))
            loss = diffusion.loss(images[batch], class_labels=labels[batch])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(diffusion.parameters(), 1.0)
            optimizer.step()
            rate.step()
            average.update_parameters(diffusion)
            bar.set_postfix(loss=f"{loss.item():.3f}")
            if step % 150 == 0:
                draw(average.module)
    except KeyboardInterrupt:
        print(f"\nstopped in step {step}; going on with what has been learned")
    return average.module, step


def judge(
    samples: Tensor, asked: Tensor, images: Tensor, labels: Tensor, half: int
) -> tuple[float, float, float, float]:
    """Held-out accuracy of a classifier, its agreement with the asked classes, Fréchet distance and floor."""
    flat, known = images.flatten(1).numpy(), labels.numpy()
    classifier = MLPClassifier((64,), alpha=1e-3, max_iter=400, random_state=0)
    classifier.fit(flat[:half], known[:half])

    def features(x: Tensor) -> Tensor:
        hidden = x.flatten(1).double().numpy() @ classifier.coefs_[0] + classifier.intercepts_[0]
        return torch.from_numpy(hidden).relu()

    held_out = features(images[half:])
    accuracy = float(np.mean(classifier.predict(flat[half:]) == known[half:]))
    agreement = float(np.mean(classifier.predict(samples.flatten(1).numpy()) == asked.numpy()))
    distance = frechet_distance(features(samples), held_out)
    return accuracy, agreement, distance, frechet_distance(features(images[:half]), held_out)


def draw_samples(path: Path, samples: Tensor, images: Tensor, labels: Tensor, half: int) -> None:
    """Held-out images of each class, then its samples, each beside the training image nearest to it."""
    rows = []
    for c, made in enumerate(samples):
        nearest = images[torch.cdist(made.flatten(1), images[:half].flatten(1)).argmin(1)]
        real = images[half:][labels[half:] == c][:5]
        blank = real.new_full((5 - len(real), *images.shape[1:]), -1.0)
        rows.append(torch.cat([real, blank, torch.stack([made, nearest], 1).flatten(0, 1)]))
    pairs = [(i, i + 1, "sample | nearest") for i in range(5, len(rows[0]), 2)]
    names = [str(c) for c in range(len(rows))]
    image_grid(
        torch.stack(rows)[:, :, 0], path, row_labels=names, column_titles=[(0, 4, "real, held out"), *pairs]
    )


def draw_denoising(path: Path, sample: Callable[[Any], Tensor]) -> None:
    """One sample from noise to image: the noisy image above, the network's estimate of it below."""
    steps: list[tuple[float, Tensor]] = []
    sample(lambda step, t, x, x0: steps.append((t, torch.stack([x[0, 0], x0[0, 0]]))))
    chosen = [steps[round(i)] for i in np.linspace(0, len(steps) - 1, min(10, len(steps)))]
    titles = [(i, i, f"t = {t:.2f}") for i, (t, _) in enumerate(chosen)]
    pictures = torch.stack([pair for _, pair in chosen], 1)
    image_grid(pictures, path, row_labels=["noisy", "estimate"], column_titles=titles)


if __name__ == "__main__":
    main(tyro.cli(Options))
