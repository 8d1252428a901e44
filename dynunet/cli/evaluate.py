"""``dynunet evaluate``: how good a trained model is, on data it has not seen."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from ..arguments import integer
from ..data.errors import shown
from ..hub import check_run
from ..training.record import RUN, read_flags
from .flags import check_counts, check_seed


@dataclass(frozen=True)
class Evaluate:
    """Print figures of quality of a trained model.

    Of one that restores: SNR, and SI-SDR (1-D) or PSNR, in dB, before and after. Of others: the loss, and the
    Fréchet distance of samples from data, on local means and deviations, beside that of data from data.
    """

    run_folder: Positional[Path]
    """folder of the run, or owner/name of one on the Hub"""
    source: Positional[Path | None] = None
    """folder of files; by default what was held out from training"""
    noise: Path | None = None
    """folder of noise, for a model that restores; by default that of training"""
    snr: tuple[float, float] | None = None
    """of that noise in dB, from low to high; by default that of training"""
    pairs: Path | None = None
    """folder of degraded files, each at the relative path of its clean one"""
    num: int = 64
    """examples, chosen at random"""
    steps: int | None = None
    """of the sampler; by default 1 to restore and 20 to sample"""
    batch_size: int | None = None
    """examples at a time; by default by their size"""
    seed: int = 0
    """of crops, noise and samples"""
    device: str | None = None
    """cpu, cuda, cuda:1, mps, ...; by default the fastest"""

    def check(self) -> None:
        integer(self.num, "--num", 2)
        check_counts(batch_size=self.batch_size, steps=self.steps)
        check_seed(self.seed)
        check_run(self.run_folder)

    def run(self) -> None:
        from ..evaluation import data_of_run, evaluate

        degraded = {"noise": self.noise, "snr": self.snr, "pairs": self.pairs}
        dataset = data_of_run(self.run_folder, self.source, **degraded)
        source = self.source or read_flags(self.run_folder / RUN)["source"]
        of = "held out from training" if dataset.split == "validation" else "all there are"
        shape = " x ".join(map(str, dataset.shape))
        print(f"examples of {shape} from {shown(source)}: {len(dataset)}, {of}")
        sampling = {"num": self.num, "steps": self.steps, "batch_size": self.batch_size}
        print(evaluate(self.run_folder, dataset, seed=self.seed, device=self.device, **sampling))
