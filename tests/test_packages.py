"""Imports of the packages: silent, quick, and of public names alone."""

import importlib
import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["convnd", "convnd.testing", "dynunet"])
def test_import_is_silent(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import {module}"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_convnd_does_not_import_dynunet_or_what_it_needs() -> None:
    others = {"dynunet", "hypothesis", "huggingface_hub", "safetensors"}
    code = f"import sys, convnd; print({others} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def loaded(statement: str, *modules: str) -> set[str]:
    """Those of the modules that are imported once a statement has run in a process of its own."""
    code = f"import sys\n{statement}\nprint(*({set(modules)} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


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
    assert loaded(f"import dynunet\n{'; '.join(wanted)}", *wanted) == wanted
