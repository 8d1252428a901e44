"""``dynunet train``: from a folder of files to a trained model."""

import os
from argparse import ArgumentError, ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import DisallowNone, OmitArgPrefixes, Positional, PositionalMetavarFromFieldName, arg

from ..data.augmentation import Augment
from ..data.errors import check_exists, shown
from ..defaults import Examples, batch_that_fits, channels_for, examples_for, looked_at
from ..hub import CONFIG, check_run, is_hub_name
from ..jsonable import flat, unflat
from ..progress import Interrupted, say
from ..training.record import RUN, read_flags
from .options import (
    AugmentOptions,
    DataFlags,
    DiffusionOptions,
    NetworkOptions,
    SupervisedOptions,
    TrainFlags,
    build,
    build_supervised,
)
from .words import as_flags, flags_of_command

if TYPE_CHECKING:
    from ..data import FolderDataset
    from ..data.formats import Format

# What may be left out is left out: no flag takes the word None.
MARKERS = (DisallowNone, PositionalMetavarFromFieldName)


@dataclass(frozen=True)
class Train:
    """Train a model on a folder of files: audio, images, volumes or arrays.

    With --targets it learns to predict them: to segment, classify or regress (dynunet predict); with --noise,
    --coloured or --pairs to restore (dynunet denoise), with --self-supervised from noisy files alone; else to
    make new data (dynunet sample) and to fill gaps (dynunet inpaint). Ctrl-C saves; --resume goes on. Size,
    channels and batch are chosen for the files and the machine, and said, where none are given.
    """

    flag_names: ClassVar[Mapping[str, str]] = {"start": "from"}

    source: Positional[Path | None] = None
    """folder of files, searched with all below it, or one file"""
    out: Path | None = None
    """folder of the run: model, checkpoints, log and pictures; by default runs/ and the name of the source"""
    resume: Path | None = None
    """go on with the run in this folder; flags given besides replace its own, such as a larger --steps"""
    config: Path | None = None
    """JSON file with values of flags, such as the run.json of a run; flags given besides win"""
    start: Annotated[Path | None, arg(name="from")] = None
    """begin with the weights of the run in this folder (or owner/name on the Hub), and its network and
    diffusion model; data, learning rate and all else may be others"""
    overwrite: bool = False
    """replace a run that is in the folder already: what it wrote is removed, if nothing else is there"""
    data: OmitArgPrefixes[DataFlags] = field(default_factory=DataFlags)
    augmentation: OmitArgPrefixes[AugmentOptions] = field(default_factory=AugmentOptions)
    network: OmitArgPrefixes[NetworkOptions] = field(default_factory=NetworkOptions)
    diffusion: OmitArgPrefixes[DiffusionOptions] = field(default_factory=DiffusionOptions)
    supervised: OmitArgPrefixes[SupervisedOptions] = field(default_factory=SupervisedOptions)
    training: OmitArgPrefixes[TrainFlags] = field(default_factory=TrainFlags)

    def check(self) -> None:
        self._source()
        self._out()
        for name, path in self.reads():
            check_exists(path, name)
        if self.resume is not None:
            self._check_data(self.resume)
        else:
            self._check_task()
            if self.start is not None:
                self._check_start(self.start)
        self.diffusion.check()
        if self.data.spatial_dims is not None:
            self.network.check(self.data.spatial_dims, an_axis_more=self.diffusion.patch() is not None)
        self.augmentation.made(self.data.spatial_dims)
        self.training.of_trainer(self.data.supervised)

    def run(self) -> None:
        from ..runs import chosen_device

        # Before files are looked at, which may take long.
        device = chosen_device("cpu" if self.training.cpu else self.training.device)
        if self.resume is not None:
            return self._train("")
        filled, chosen = self._filled(self._source(), device.type != "cpu")
        return filled._train(chosen)

    def dataset(self) -> "FolderDataset":
        """The examples to train on, with what is chosen for them and this machine."""
        from ..data import FolderDataset
        from ..runs import chosen_device

        source = self._source()
        filled, _ = self._filled(source, chosen_device(self.training.device).type != "cpu")
        return FolderDataset(source, options=_with_defaults(filled.data, source))

    def reads(self) -> list[tuple[str, Path]]:
        """The files and folders that are read from, by what they are."""
        given = {"source": self.source, **{name: getattr(self.data, name) for name in DataFlags.paths}}
        return [(name, path) for name, path in given.items() if path is not None]

    def _filled(self, source: Path, gpu: bool) -> tuple["Train", str]:
        """With a size, channels and a batch for the files, where none were given; and what was chosen."""
        from ..runs import spec_of_run

        data, network, training, said = self.data, self.network, self.training, []
        masks = self.diffusion.spectral_mask is not None  # whose network is small on long recordings, too
        looked = looked_at(source, data)
        if looked is None:
            return self, ""
        grids, own = looked
        dims = len(grids[0])
        if self.start is not None and data.channels is None:
            data = replace(data, channels=spec_of_run(self.start).channels)
        if data.size is None:
            examples = self._examples(grids, own, gpu or masks)
            data = replace(data, size=examples.size, resize=examples.resize)
            flags = "" if data.size is None else f"--size {' '.join(map(str, data.size))} "
            said.append(f"{flags}{'--resize ' * data.resize}({examples.why})")
        if self.start is None and network.channels is None:
            channels = self.diffusion.channels_of_masks() if masks else channels_for(dims, gpu)
            network = replace(network, channels=channels)
            said.append(f"--channels {' '.join(map(str, network.channels))}")
        if not (gpu or data.supervised or self.start):
            network, flags = network.for_processors()
            said += [flags] if flags else []
        if training.batch_size is None:
            size = data.size or grids[0]
            size = size * dims if len(size) == 1 else size
            wide = channels_for(dims, gpu) if masks or network.channels is None else network.channels
            batch = batch_that_fits(size, wide, gpu)
            training = replace(training, batch_size=batch)
            said.append(f"--batch-size {batch}")
        machine = "a machine with a GPU" if gpu else "a machine without a GPU"
        text = f"chosen for these files and {machine}: {', '.join(said)}" if said else ""
        return replace(self, data=data, network=network, training=training), text

    def _examples(self, grids: list[tuple[int, ...]], own: "Format", gpu: bool) -> Examples:
        from ..runs import spec_of_run

        if self.start is not None:
            spec = spec_of_run(self.start)
            return Examples(spec.size, spec.resize, f"as in {self.start}")
        maps = self.data.targets is not None and not self.data.table
        return examples_for(grids, own, gpu, self.data.restores or self.data.coordinates or maps)

    def _train(self, chosen: str) -> None:
        from ..data import FolderDataset
        from ..evaluation import scaled_as_trained
        from ..runs import restoration_steps, spec_of_run
        from ..training import Trainer

        source, out = self._source(), self._out()
        main = int(os.environ.get("RANK", 0)) == 0  # of several processes one talks
        data = _with_defaults(self.data, source)
        if self.resume is not None and (self.resume / CONFIG).is_file():
            data = replace(data, **scaled_as_trained(spec_of_run(self.resume)))
        dataset = FolderDataset(source, options=data)
        if main:
            print(as_flags(dataset.report(), flags_of_command(Train)), flush=True)
            if chosen:
                print(chosen, flush=True)
        augment = self._augment(dataset)
        model = self._model(dataset, augment)
        trainer = Trainer(
            model,
            dataset,
            out,
            options=self.training.of_trainer(data.supervised),
            about={"flags": self._flags(source, out)},
            augment=augment,
            overwrite=self.overwrite,
            sample_args={"steps": restoration_steps(model, None)} if self.data.restores else {},
        )
        try:
            trainer.fit(resume=self.resume is not None)
        except Interrupted:
            raise Interrupted(f"stopped and saved; to go on: dynunet train --resume {out}") from None
        if main:
            use = f"denoise {out} FILES" if self.data.restores else f"sample {out} --num 16"
            use = f"predict {out} FILES" if self.data.supervised else use
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
        out = Path("runs", self._source().resolve().name or "first") if self.out is None else self.out
        for name, path in self.reads():
            if path.resolve().is_relative_to(out.resolve()):
                raise ValueError(f"--out must not hold the {name}, {path}, got {out}")
        if (out / RUN).is_file() and not self.overwrite:
            raise ValueError(
                f"--out: {out} holds a run already: --resume {out} goes on with it, --overwrite replaces it"
            )
        return out

    def _check_data(self, run: Path) -> None:
        """Refuse to go on with examples that are made in another way; that files were moved is said."""
        before = flags_of(run / RUN)
        old, new = dict(before.reads()), dict(self.reads())
        for name in old.keys() & new.keys():
            if old[name].absolute() != new[name].absolute():
                say(f"{name}: {new[name]}, which was {old[name]}: the files must be the same")
        same = {name: getattr(self.data, name) for name in ("cache", *(new.keys() & {*DataFlags.paths}))}
        data = replace(before.data, **same), self.data
        pairs = zip(data, (before.augmentation, self.augmentation), strict=True)
        was, now = (flat(Train(data=d, augmentation=a)) for d, a in pairs)
        changed = [f"--{k.replace('_', '-')} {now[k]} instead of {was[k]}" for k in was if was[k] != now[k]]
        if changed:
            raise ValueError(
                f"a run must be resumed with the data it was begun with, got {'; '.join(changed)}. Leave "
                "these flags out, or begin a new run in another folder"
            )

    def _check_start(self, run: Path) -> None:
        """Refuse a folder without a model, and flags of another one than it holds."""
        check_run(run, "--from")
        changed = self._given(Train(), "network", "diffusion", "supervised")
        if changed:
            raise ValueError(
                f"--from takes the model as it is in {shown(run)}: leave out {', '.join(changed)}"
            )

    def _check_task(self) -> None:
        """Refuse flags of the other kind of model, which would change nothing.

        Not those of a file: a run writes all down, in an older version other defaults, too.
        """
        targets = self.data.supervised
        usual = Train() if self.config is None else flags_of(self.config)
        given = self._given(usual, "diffusion" if targets else "supervised")
        if given:
            why = (
                "is of a diffusion model, and here targets are learned"
                if targets
                else "is of targets, and here none are learned (--targets, --task)"
            )
            raise ValueError(f"{', '.join(given)} {why}: leave that out")

    def _given(self, usual: "Train", *parts: str) -> list[str]:
        """The flags of these parts of the command that are not the usual ones."""
        before = flat(usual)
        given = flat(replace(usual, **{part: getattr(self, part) for part in parts}))
        return [f"--{name.replace('_', '-')}" for name, value in before.items() if given[name] != value]

    def _augment(self, dataset: "FolderDataset") -> Augment | None:
        """The random changes of training examples, for the task."""
        augment = self.augmentation.made(len(dataset.shape) - 1)
        if augment is None:
            return None
        if dataset.target is not None:
            return replace(augment, task=dataset.target.task)
        return replace(augment, task="restoration" if self.data.restores else "generation")

    def _model(self, dataset: "FolderDataset", augment: Augment | None) -> Any:
        import torch

        from ..runs import begun_with

        torch.manual_seed(self.training.seed)
        if self.start is not None:
            there = self.resume is not None and (self.resume / CONFIG).is_file()
            return begun_with(self.resume if there and self.resume else self.start, dataset)
        if dataset.target is not None:
            return build_supervised(self.network, self.supervised, self.training.loss, dataset)
        return build(
            self.network,
            self.diffusion,
            spatial_dims=len(dataset.shape) - 1,
            channels=dataset.channels,
            cond_channels=dataset.cond_channels,
            num_classes=dataset.num_classes,
            cond_features=0 if augment is None else augment.num_features(len(dataset.shape) - 1),
            restores=self.data.restores,
            self_supervised=self.data.self_supervised is not None,
        )

    def _flags(self, source: Path, out: Path) -> dict[str, Any]:
        """The flags that the run can be resumed with, from any folder."""
        start = self.start if self.start is None or is_hub_name(self.start) else self.start.absolute()
        paths = {name: getattr(self.data, name) for name in DataFlags.paths}
        data = replace(self.data, **{k: None if v is None else v.absolute() for k, v in paths.items()})
        values = flat(replace(self, source=source.absolute(), out=out.absolute(), start=start, data=data))
        return {k: v for k, v in values.items() if k not in ("resume", "config", "overwrite")}


def saved_flags(args: Sequence[str]) -> Train | None:
    """Read the flags in the file of ``--resume`` or ``--config``; None without these.

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
        return flags_of(given.resume / RUN)
    return None if given.config is None else flags_of(given.config)


def flags_of(file: Path) -> Train:
    """Read the flags in a JSON file, see :func:`dynunet.training.record.read_flags`.

    Raises:
        ValueError: naming the file, the flag, the rule and the value.
    """
    values = read_flags(file)
    if file.name == RUN and values.get("spectral_mask") is not None:
        values.setdefault("patch_size", [0, 0])  # a run of before there were patches
    for name in ("resume", "config"):
        if values.get(name) is not None:
            raise ValueError(f"{file}: {name!r} is no flag that a file can give")
    return unflat(Train, values, file)


def _with_defaults(data: DataFlags, source: Path) -> DataFlags:
    """With what the formats of the files need, such as a size for recordings."""
    from ..data import find
    from ..data.formats import FORMATS, of_path

    found = {of_path(path) for path in find(source)}
    for own in FORMATS:
        if own in found and (data.spatial_dims is None or data.spatial_dims in own.dims):
            data = replace(data, **own.defaults(data))
    return data
