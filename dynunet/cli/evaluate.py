"""``dynunet evaluate``: how good a trained model is, on data it has not seen."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from ..arguments import integer
from ..data.errors import count, shown
from ..hub import check_run
from ..progress import say
from ..training.record import RUN, read_flags
from .flags import check_counts, check_length, check_seed, check_windows

_LISTED = 10  # files that are named


@dataclass(frozen=True)
class Evaluate:
    """Print figures of quality of a trained model.

    Of one that restores: SNR, and SI-SDR (1-D) or PSNR, in dB, before and after. Of others: the loss, and the
    Fréchet distance of samples from data, on local means and deviations, beside that of data from data. Of
    one that predicts: Dice and IoU of each class, accuracy, or errors, of whole files on their own grid.
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
    targets: Path | None = None
    """targets of these files, as of training, for a model that predicts"""
    out: Path | None = None
    """table (CSV) to write, with the figures of each file that was predicted"""
    num: int | None = None
    """examples, chosen at random; by default 64, with targets all"""
    steps: int | None = None
    """of the sampler; by default 1 to restore and 20 to sample"""
    batch_size: int | None = None
    """examples at a time; by default by their size"""
    window: tuple[int, ...] | None = None
    """predict in windows of this size; by default that of training"""
    overlap: tuple[int, ...] | None = None
    """of the windows; by default a quarter"""
    mirror: bool = False
    """predict with the average over reflections along all axes"""
    distances: bool = False
    """of label maps: how far surfaces lie apart, too (Hausdorff, 95 %), in the unit of the spacing"""
    length: float | None = None
    """of the average of the weights, of a run with --ema-lengths: 0.05 is short, 0.2 long"""
    seed: int = 0
    """of crops, noise and samples"""
    device: str | None = None
    """cpu, cuda, cuda:1, mps, ...; by default the fastest"""

    def check(self) -> None:
        if self.num is not None:
            integer(self.num, "--num", 2)
        if self.source is None and self.targets is not None:
            raise ValueError("--targets are of other files than those of training: give their folder, too")
        check_windows(self.window, self.overlap)
        check_length(self.length)
        check_counts(batch_size=self.batch_size, steps=self.steps)
        check_seed(self.seed)
        check_run(self.run_folder)

    def run(self) -> None:
        from ..evaluation import data_of_run, evaluate
        from ..writing import write_table

        given = {name: getattr(self, name) for name in ("noise", "snr", "pairs", "targets")}
        dataset = data_of_run(self.run_folder, self.source, **given)
        source = self.source or read_flags(self.run_folder / RUN)["source"]
        of = "held out from training" if dataset.split == "validation" else "all there are"
        predicted = dataset.target is not None
        shape = "" if predicted else f" of {' x '.join(map(str, dataset.shape))}"
        print(f"examples{shape} from {shown(source)}: {len(dataset)}, {of}")
        names = ("num", "steps", "batch_size", "seed", "device", "length")
        names += ("window", "overlap", "mirror", "distances")
        found = evaluate(self.run_folder, dataset, **{name: getattr(self, name) for name in names})
        print(found)
        if self.out is not None:
            write_table(self.out, found.files)
        if predicted and self.source is not None and dataset.skipped:
            for path, why in [*dataset.skipped.items()][:_LISTED]:
                say(f"skipped: {shown(path)}: {why}")
            print(f"{count(len(dataset.skipped), 'file')} skipped")
            raise SystemExit(1)
