"""Imports of the packages: silent, quick, and of public names alone."""

import importlib
import subprocess
import sys

import pytest


def loaded(statement: str, *modules: str) -> set[str]:
    """Those of the modules that are imported once a statement has run in a process of its own, in silence."""
    code = f"import sys\n{statement}\nprint(*({set(modules)} & set(sys.modules)))"
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("module", "others"),
    [
        ("convnd", {"dynunet", "hypothesis", "huggingface_hub", "safetensors"}),
        ("convnd.testing", {"dynunet"}),
    ],
)
def test_convnd_does_not_import_dynunet_or_what_it_needs(module: str, others: set[str]) -> None:
    assert loaded(f"import {module}", *others) == set()


def test_what_takes_long_to_import_waits_until_it_is_used() -> None:
    heavy = "torch", "numpy", "huggingface_hub", "tyro"
    assert loaded("import dynunet, dynunet.nn.spec, dynunet.nn.flags", *heavy) == set()
    networks = "from dynunet import Diffusion, Encoder, UNet"
    assert loaded(networks, *heavy, "matplotlib", "accelerate") == {"torch", "numpy"}


def test_a_package_shows_its_public_names_and_no_others() -> None:
    import dynunet
    import dynunet.data
    import dynunet.nn
    import dynunet.training

    for package in (dynunet, dynunet.data, dynunet.nn, dynunet.training):
        assert dir(package) == sorted(package.__all__)
        for name in package.__all__:
            getattr(package, name)
        with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
            package.Nothing  # noqa: B018


DOCUMENTED = {
    "attention": "SelfAttention CrossAttention make_attention attention_names ATTENTIONS",
    "embeddings": "TimeEmbedding ClassEmbedding FeatureEmbedding sinusoidal TIME_EMBEDDINGS",
    "interop": "from_diffusers from_monai",
    "metrics": "psnr ssim snr si_sdr frechet_distance",
    "operators": "Mask Downsample Blur Fourier Project Clip Quantise Compose Function",
    "plotting": "pictures slices mosaic overlay waveform spectrogram image_grid loss_curve film_strip gif "
    "show Shown",
    "summary": "Summary Part summarize drawing",
    "testing": "Gaussian GaussianMixture CorrelatedGaussian gaussian_law posterior_law probability_flow",
}


def test_documented_modules_have_their_names() -> None:
    for module, names in DOCUMENTED.items():
        assert all(hasattr(importlib.import_module(f"dynunet.{module}"), name) for name in names.split())
    wanted = {f"dynunet.{module}" for module in DOCUMENTED}
    peers = "diffusers", "monai"  # which models are taken from
    assert loaded(f"import dynunet\n{'; '.join(wanted)}", *wanted, *peers) == wanted
