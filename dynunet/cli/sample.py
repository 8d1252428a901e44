"""``dynunet sample``: new data, in files of the kind the model was trained on."""

from dataclasses import dataclass, fields
from pathlib import Path

from tyro.conf import Positional

from ..hub import check_run
from .flags import check_counts, check_length, check_seed


@dataclass(frozen=True)
class Sample:
    """Make new data with a trained model, and a picture of it.

    Samples that are there are kept, so that the same command goes on where it was interrupted, and one with
    a larger --num makes more.
    """

    run_folder: Positional[Path]
    """folder of the run, or owner/name of one on the Hub"""
    out: Path
    """folder for the files"""
    num: int = 16
    """how many"""
    size: tuple[int, ...] | None = None
    """one number for all axes or one for each, by default that of training; larger: in windows"""
    steps: int | None = None
    """of the sampler: more are better and slower; by default 20, of a model of dynunet distill its own"""
    sampler: str | None = None
    """ddpm, ddim, euler, heun, dpmpp_2m (the default), dpmpp_2m_sde, unipc, or consistency after distill"""
    classes: tuple[str, ...] | None = None
    """names or numbers of classes, in turn; by default all of them"""
    guidance_scale: float = 1.0
    """more than 1: clearer examples of their class, and less varied"""
    guide: Path | None = None
    """folder of a weaker model of the same data, smaller or trained for less time, to lead away from"""
    guide_scale: float | None = None
    """1 for no guide, by default 2"""
    length: float | None = None
    """of the average of the weights, of a run with --ema-lengths: 0.05 is short, 0.2 long"""
    batch_size: int | None = None
    """how many at a time; by default by their size"""
    seed: int = 0
    """the first sample has this one, the next ones those that follow"""
    film: bool = False
    """draw how the first 16 come out of noise, too: OUT-film.gif"""
    device: str | None = None
    """cpu, cuda, cuda:1, mps, ...; by default the fastest"""
    overwrite: bool = False
    """make samples again that exist"""

    def check(self) -> None:
        check_counts(num=self.num, batch_size=self.batch_size, steps=self.steps)
        check_length(self.length)
        check_seed(self.seed)
        check_run(self.run_folder)
        if self.guide is not None:
            check_run(self.guide, "--guide")

    def run(self) -> None:
        from ..generation import generate

        options = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "run_folder"}
        print(generate(self.run_folder, **options))
