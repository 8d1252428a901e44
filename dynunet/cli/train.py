"""``dynunet train``: from a folder of files to a trained model."""

import os
from argparse import ArgumentError, ArgumentParser
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

import torch
import tyro
from tyro.conf import DisallowNone, OmitArgPrefixes, Positional, PositionalMetavarFromFieldName

from ..data import SUFFIXES, FolderDataset, find
from ..diffusion import Diffusion
from ..training import Interrupted, Trainer
from ..training.run import say
from . import config
from .common import restoration_steps, unboxed
from .options import DataFlags, DiffusionOptions, NetworkOptions, TrainFlags, build

# What may be left out is left out: no flag takes the word None.
MARKERS = (DisallowNone, PositionalMetavarFromFieldName)
_AUDIO_SIZE = 16384  # of crops of recordings, whose lengths are seldom alike: two seconds at 8 kHz
_AUDIO_LEVEL = 0.25  # root mean square: what is learnt from quiet recordings holds for loud ones


@dataclass(frozen=True)
class Train:
    """Train a model on a folder of files: audio, images, volumes or arrays.

    With --noise, --coloured or --pairs it learns to restore (dynunet denoise), else to make new data (dynunet
    sample) and to fill gaps (dynunet inpaint). Ctrl-C saves; --resume goes on.
    """

    source: Positional[Path | None] = None
    """folder of files, searched with all below it, or one file"""
    out: Path | None = None
    """folder of the run: the model, checkpoints, log and pictures"""
    resume: Path | None = None
    """go on with the run in this folder; flags given besides replace its own, such as a larger --steps"""
    config: Path | None = None
    """JSON file with values of flags, such as the run.json of a run; flags given besides win"""
    overwrite: bool = False
    """replace a run that is in the folder already: what it wrote is removed, if nothing else is there"""
    data: OmitArgPrefixes[DataFlags] = field(default_factory=DataFlags)
    network: OmitArgPrefixes[NetworkOptions] = field(default_factory=NetworkOptions)
    diffusion: OmitArgPrefixes[DiffusionOptions] = field(default_factory=DiffusionOptions)
    training: OmitArgPrefixes[TrainFlags] = field(default_factory=TrainFlags)

    def run(self) -> None:
        source, out = self._source(), self._out()
        if self.resume is not None:
            self._check_data(self.resume)
        main = int(os.environ.get("RANK", 0)) == 0  # of several processes one talks
        dataset = FolderDataset(source, options=_for_audio(self.data, source))
        if main:
            print(dataset.report(), flush=True)
        diffusion = self._model(dataset)
        trainer = Trainer(
            diffusion,
            dataset,
            out,
            options=self.training,
            about={"flags": self._flags(source, out)},
            overwrite=self.overwrite,
            sample_args={"steps": restoration_steps(diffusion, None)} if self.data.restores else {},
        )
        try:
            trainer.fit(resume=self.resume is not None)
        except Interrupted:
            raise Stopped(f"stopped and saved; to go on: dynunet train --resume {out}") from None
        if main:
            use = f"denoise {out} FILES" if self.data.restores else f"sample {out} --num 16"
            print(f"trained: {out}. To use it: dynunet {use} --out OUT")

    def _source(self) -> Path:
        if self.source is None:
            raise ValueError("the folder of files to train on is missing: dynunet train FOLDER --out RUN")
        return self.source

    def _out(self) -> Path:
        if self.resume is not None:
            if self.overwrite:
                raise ValueError(
                    "--overwrite replaces a run, --resume goes on with it: leave one of them out"
                )
            return self.resume
        if self.out is None:
            raise ValueError("--out is missing: the folder for the model, such as --out runs/first")
        for name, path in self._read():
            if path.resolve().is_relative_to(self.out.resolve()):
                raise ValueError(f"--out must not hold the {name}, {path}, got {self.out}")
        if (self.out / config.RUN).is_file() and not self.overwrite:
            raise ValueError(
                f"--out: {self.out} holds a run already: --resume {self.out} goes on with it, "
                "--overwrite replaces it"
            )
        return self.out

    def _read(self) -> list[tuple[str, Path]]:
        """The folders that are read from, by what they are."""
        given = {"source": self.source, "noise": self.data.noise, "pairs": self.data.pairs}
        return [(name, path) for name, path in given.items() if path is not None]

    def _check_data(self, run: Path) -> None:
        """Refuse to go on with examples that are made in another way; that files were moved is said."""
        before = read_flags(run / config.RUN)
        old, new = dict(before._read()), dict(self._read())
        for name in old.keys() & new.keys():
            if old[name].absolute() != new[name].absolute():
                say(f"{name}: {new[name]}, which was {old[name]}: the files must be the same")
        same = {name: getattr(self.data, name) for name in ("cache", *(new.keys() & {"noise", "pairs"}))}
        data = replace(before.data, **same), self.data
        was, now = (config.flags(Train(data=d)) for d in data)
        changed = [f"--{k.replace('_', '-')} {now[k]} instead of {was[k]}" for k in was if was[k] != now[k]]
        if changed:
            raise ValueError(
                f"a run must be resumed with the data it was begun with, got {'; '.join(changed)}. Leave "
                "these flags out, or begin a new run in another folder"
            )

    def _model(self, dataset: FolderDataset) -> Diffusion:
        torch.manual_seed(self.training.seed)
        return build(
            self.network,
            self.diffusion,
            spatial_dims=len(dataset.shape) - 1,
            channels=dataset.channels,
            cond_channels=dataset.cond_channels,
            num_classes=dataset.num_classes,
            restores=self.data.restores,
        )

    def _flags(self, source: Path, out: Path) -> dict[str, Any]:
        """What the run can be resumed with, from any folder."""
        paths = {name: getattr(self.data, name) for name in ("noise", "pairs")}
        data = replace(self.data, **{k: None if v is None else v.absolute() for k, v in paths.items()})
        values = config.flags(replace(self, source=source.absolute(), out=out.absolute(), data=data))
        return {k: v for k, v in values.items() if k not in ("resume", "config", "overwrite")}


class Stopped(KeyboardInterrupt):
    """Training was interrupted; the message says how to go on."""


def saved_flags(args: Sequence[str]) -> Train | None:
    """What ``--resume`` or ``--config`` among the arguments says; None without them.

    Raises:
        ValueError: naming the file and the rule.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--out", type=Path)
    try:
        given, _ = parser.parse_known_args(args)
    except ArgumentError:
        return None  # a flag without its value, of which the command's own parser says more
    if given.resume is not None and given.config is not None:
        raise ValueError("--resume takes the flags from the run: leave out --config")
    if given.resume is not None:
        if given.out is not None:
            raise ValueError("--resume goes on in the folder of the run: leave out --out")
        return read_flags(given.resume / config.RUN)
    return None if given.config is None else read_flags(given.config)


def read_flags(file: Path) -> Train:
    """The flags in a file, see :mod:`dynunet.cli.config`."""
    values = config.read(file)
    known = [name for name in config.flags(Train()) if name not in ("resume", "config", "source")]
    source = values.pop("source", None)
    line = config.arguments(values, known, file)
    said = StringIO()
    try:
        with redirect_stderr(said):
            read = tyro.cli(Train, args=line, console_outputs=False, config=MARKERS)
    except SystemExit:
        raise ValueError(f"{file} must have values as flags have them: {unboxed(said.getvalue())}") from None
    return replace(read, source=None if source is None else Path(source))


def _for_audio(data: DataFlags, source: Path) -> DataFlags:
    """With what recordings need: a size, and to restore them a level."""
    if data.spatial_dims not in (None, 1):
        return data
    if not any(path.name.lower().endswith(SUFFIXES["audio"]) for path in find(source)):
        return data
    level = _AUDIO_LEVEL if data.restores and data.level is None else data.level
    return replace(data, size=data.size or (_AUDIO_SIZE,), level=level)
