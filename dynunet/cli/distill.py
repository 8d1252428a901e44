"""``dynunet distill``: a trained model tuned to make data in one to four steps."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from ..hub import check_run
from ..jsonable import plain
from ..progress import Interrupted
from ..training.options import TrainOptions
from ..training.record import RUN, read_flags
from .flags import check_counts, check_seed


@dataclass(frozen=True)
class Distill:
    """Tune a trained model to make data in one to four steps (consistency tuning).

    The new run is used as any other: dynunet sample takes its few steps. Ctrl-C saves; --resume goes on.
    """

    run_folder: Positional[Path]
    """folder of the run, or owner/name of one on the Hub"""
    source: Positional[Path | None] = None
    """folder of files; by default those of training"""
    out: Path = Path("runs/fewer")
    """folder of the new run"""
    steps: int = 2
    """that samples of the new model take"""
    guidance_scale: float = 1.0
    """of the trained model, which becomes part of the new one"""
    train_steps: int = 5000
    """steps of training; the time of each is about twice that of a step of the first training"""
    batch_size: int | None = None
    """samples at a time; by default as in training"""
    lr: float | None = None
    """highest learning rate; by default half of what training has by default"""
    ema: float = TrainOptions.ema
    """decay of the average of the weights"""
    precision: str = "no"
    """no, bf16 or fp16"""
    seed: int = 0
    """of the order of the data and of the noise"""
    device: str | None = None
    """cpu, cuda, cuda:1, mps, ...; by default the fastest"""
    resume: bool = False
    """go on with the run in the folder"""
    overwrite: bool = False
    """replace a run that is in the folder already"""

    def check(self) -> None:
        check_counts(steps=self.steps, train_steps=self.train_steps, batch_size=self.batch_size)
        check_seed(self.seed)
        check_run(self.run_folder)
        self._options(1)

    def run(self) -> None:
        from ..evaluation import data_of_run
        from ..runs import trained

        diffusion, _ = trained(self.run_folder, self.device)
        dataset = data_of_run(self.run_folder, self.source, split="train")
        record = self.run_folder / RUN
        flags = read_flags(record) if record.is_file() else {}
        source = {} if self.source is None else {"source": plain(self.source.absolute())}
        batch = self.batch_size or flags.get("batch_size")
        guidance: dict[str, Any] = {} if self.guidance_scale == 1 else {"guidance_scale": self.guidance_scale}
        print(dataset.report(), flush=True)
        try:
            diffusion.distill(
                dataset,
                self.out,
                self.steps,
                options=self._options(batch),
                resume=self.resume,
                overwrite=self.overwrite,
                about={"flags": {**flags, **source}} if flags else {},
                **guidance,
            )
        except Interrupted:
            raise Interrupted("stopped and saved; to go on, give the same command with --resume") from None
        restores = dataset.units["restoration"] is not None
        use = f"denoise {self.out} FILES" if restores else f"sample {self.out} --num 16"
        print(f"tuned: {self.out}. To use it: dynunet {use} --out OUT")

    def _options(self, batch_size: int | None) -> TrainOptions:
        names = ("lr", "ema", "precision", "seed", "device")
        return TrainOptions(
            steps=self.train_steps, batch_size=batch_size, **{name: getattr(self, name) for name in names}
        )
