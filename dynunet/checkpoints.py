"""Checkpoints: weights, and beside them a configuration to be read and edited by hand.

A checkpoint is a folder with two files, on this machine or as a repository of the Hugging Face Hub:

``model.safetensors``  the weights. It is not a pickle: nothing in it is ever run.
``config.json``        class and arguments of the constructor, see :mod:`dynunet.config`.

Beside them is ``README.md``, the card of the model, see :mod:`dynunet.cards`.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_model
from torch import Tensor, nn

from .config import Configured, build, constructor_config, one_line, read, saved_class, to_text, wrapped_as
from .hub import CONFIG, WEIGHTS, fetched
from .writing import replacing, write_text

__all__ = ["Checkpoint", "constructor_config", "load"]

_HUB = ("force_download", "token", "cache_dir", "local_files_only", "revision")
_SHOWN = 4  # weights that are listed when they do not fit


class Checkpoint(Configured):
    """Mix-in that lets a module be saved, loaded and shared: ``class Net(Checkpoint, nn.Module)``.

    The class has nothing to do for it but to name the arguments of its constructor, which are kept in
    ``config``.

    The exponential average that ``torch.optim.swa_utils.AveragedModel`` keeps is a network like any other:
    ``averaged.module.save_pretrained(folder)`` saves it, :meth:`load_averaged` copies it into this one.
    """

    _home: Path | None = None  # the last folder that it was saved in or loaded from

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        license: str | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Write ``model.safetensors``, ``config.json`` and a card, ``README.md``, into a folder.

        The folder is made if need be. An older checkpoint there is replaced once the new one is whole on
        disk, so that an interrupted save leaves the old one. A ``README.md`` that somebody wrote or changed
        stays as it is, and no other file is touched. Tensors that share memory are written once.

        Args:
            save_directory: the folder.
            push_to_hub: upload it as well.
            repo_id: ``"owner/name"`` on the Hub, also for the card; the name of the folder by default.
            license: for the card, by the Hub's name of it, such as ``"mit"``; by default that of the card
                that is replaced, and else none.
            push_to_hub_kwargs: arguments of ``push_to_hub``.

        Returns:
            The address of the commit if uploaded.

        Raises:
            ValueError: if the module could not be built from its ``config`` again, or a licence is given for
                a card that was written by hand.
        """
        from . import cards  # which import this module

        unused = [name for name, value in push_to_hub_kwargs.items() if value is not None]
        if unused and not push_to_hub:
            raise TypeError(f"save_pretrained takes no argument {unused[0]!r} without push_to_hub=True")
        folder = Path(save_directory)
        named = cards.license_of(cards.read(folder), license, folder / cards.CARD)
        folder.mkdir(parents=True, exist_ok=True)
        self._save_pretrained(folder)
        self._write_card(folder, repo_id, named, folder)
        self._home = folder.resolve()
        if not push_to_hub:
            return None
        return self.push_to_hub(repo_id or self._home.name, license=license, **push_to_hub_kwargs)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        license: str | None = None,
        commit_message: str = "Upload a model of dynunet",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        **options: Any,
    ) -> str:
        """Upload the checkpoint and its card to the Hugging Face Hub.

        The card tells of the run that trained the model if that was loaded from or saved in the folder of the
        run and has its weights still. A card that somebody wrote or changed on the Hub stays as it is.

        Args:
            repo_id: ``"owner/name"``; the repository is made if need be.
            license: as of :meth:`save_pretrained`; by default also that of the card in the folder that the
                model was loaded from or saved in.
            commit_message, private, token, branch: as of ``huggingface_hub.ModelHubMixin.push_to_hub``.
            options: ``create_pr``, ``allow_patterns``, ``ignore_patterns`` and ``delete_patterns`` as well.

        Returns:
            The address of the commit.
        """
        from huggingface_hub import HfApi  # takes longer to import than this package

        from . import cards

        cards.check_license(license)
        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        there = cards.on_hub(api, repo_id, branch)
        license = cards.license_of(there, license, f"{cards.CARD} of {repo_id}")
        if license is None and self._home is not None:
            license = cards.license_of(cards.read(self._home), None, self._home)
        with TemporaryDirectory() as temporary:
            folder = Path(temporary)
            self._save_pretrained(folder)
            if there is None or cards.is_own(there):
                self._write_card(folder, repo_id, license, self._home)
            return api.upload_folder(
                repo_id=repo_id, folder_path=folder, commit_message=commit_message, revision=branch, **options
            )

    def _write_card(self, folder: Path, name: str | None, license: str | None, run: Path | None) -> None:
        """Write a card, unless there is one that is not ours.

        Args:
            run: a folder that may be that of the run whose weights these are.
        """
        from . import cards

        there = cards.read(folder)
        if there is not None and not cards.is_own(there):
            return
        if run != folder and (run is None or not _same_weights(run / WEIGHTS, folder / WEIGHTS)):
            run = None
        text = cards.card(self, name=name, license=license, run=run)
        if there is None or text != there.rstrip("\n"):
            write_text(folder / cards.CARD, text)

    def _save_pretrained(self, save_directory: Path) -> None:
        text, weights = to_text(self), named_weights(cast(nn.Module, self))
        for name, tensor in weights.items():
            if tensor.is_meta:
                raise ValueError(f"weights to save must have values, got {name!r} on the meta device")
        metadata = {"format": "pt", "config": text}  # says what went wrong where the two files do not fit
        # Where the disk is full, the larger file is the one to be named.
        needs = sum(tensor.nbytes for tensor in weights.values())
        places = save_directory / WEIGHTS, save_directory / CONFIG
        with replacing(*places, needs=needs) as (weights_file, config_file):
            save_model(_Holder(weights), str(weights_file), metadata)
            config_file.write_text(text, encoding="utf-8")

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **model_kwargs: Any,
    ) -> Self:
        """Build the module that was saved, in evaluation mode, with its weights in their dtypes.

        Args:
            pretrained_model_name_or_path: a folder, or a repository of the Hub as ``"owner/name"``.
            device: the CPU by default.
            dtype: of the floating-point weights, that of the file by default.
            force_download, token, cache_dir, local_files_only, revision: for the Hub, as in
                ``huggingface_hub.snapshot_download``.
            model_kwargs: arguments of the constructor. Modules and functions are not saved and have to be
                given again; the others take precedence over the file. For a module inside (the ``model`` of
                a diffusion model) a dict gives some of its arguments, and a module takes its place.

        Raises:
            ValueError, TypeError: naming the file, the field, the rule and the value.
        """
        hub = {"force_download": force_download, "token": token, "cache_dir": cache_dir}
        hub |= {"local_files_only": local_files_only, "revision": revision}
        folder = _folder(pretrained_model_name_or_path, hub)
        self = cls._from_pretrained(model_id=str(folder), device=device, dtype=dtype, **hub, **model_kwargs)
        self._home = folder.resolve()
        return self

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **model_kwargs: Any,
    ) -> Self:
        config, file = _check_there(Path(model_id))
        while True:
            stamp = _stamp(config)
            fields = read(config, cls)
            weights, saved_with = _read_weights(file)
            if stamp == _stamp(config):
                break  # else the two files were replaced in between, and may be of two models
        sketch = _sketched(lambda: build(cls, fields, model_kwargs, config), config)
        if sketch is not None:  # where a number in the configuration is wrong, memory might not suffice
            _check_fit(named_weights(sketch), weights, file, _difference(saved_with, sketch.config))
        self = build(cls, fields, model_kwargs, config)
        _check_fit(named_weights(self), weights, file, _difference(saved_with, self.config))
        floating = {t.dtype for t in weights.values() if t.is_floating_point()}
        if len(floating) == 1:
            self.to(*floating)  # also what is not in the file
        for name, tensor in named_weights(self, keep_vars=True).items():
            tensor.data = tensor.data.to(weights[name].dtype)
        _load(self, weights)
        return self.to(device=device, dtype=dtype).eval()

    def load_averaged(self, averaged: nn.Module | Mapping[str, Tensor]) -> Self:
        """Copy averaged weights into this module, and return it.

        Args:
            averaged: ``torch.optim.swa_utils.AveragedModel`` of a module like this one, or its state dict.

        Raises:
            ValueError: if it is not one, or if its weights do not fit.
        """
        state = averaged.state_dict() if isinstance(averaged, nn.Module) else averaged
        if "n_averaged" not in state:
            raise ValueError(
                "averaged must be an AveragedModel or its state dict, which has an entry 'n_averaged', got "
                f"{type(averaged).__name__} with {', '.join(list(state)[:_SHOWN])}"
            )
        weights = {_plain_name(k.removeprefix("module.")): v for k, v in state.items() if k != "n_averaged"}
        module = cast(nn.Module, self)
        _check_fit(named_weights(module), weights, "averaged")
        _load(module, weights)
        return self


def load(pretrained_model_name_or_path: str | Path, **options: Any) -> Any:
    """The model in a folder or a repository of the Hub, of the class that was saved there.

    Args:
        pretrained_model_name_or_path, options: see :meth:`Checkpoint.from_pretrained`.

    Returns:
        A :class:`dynunet.Diffusion`, :class:`dynunet.Supervised` or network, in evaluation mode.

    Raises:
        ValueError, TypeError: naming the file, the field, the rule and the value; also for a checkpoint of a
            newer format.
    """
    hub = {name: options[name] for name in _HUB if name in options}
    folder = _folder(pretrained_model_name_or_path, hub)
    if not (folder / CONFIG).is_file():
        raise ValueError(
            f"{folder / CONFIG} is missing: a checkpoint is a folder with {CONFIG} and {WEIGHTS}"
        )
    kind: Any = saved_class(folder / CONFIG)
    if not issubclass(kind, Checkpoint):
        raise ValueError(f"{folder / CONFIG}: _class must be a model, got {kind.__name__!r}")
    return kind.from_pretrained(folder, **{k: v for k, v in options.items() if k not in _HUB})


class _Holder(nn.Module):
    """Weights that are saved as they are named, in the place of a module."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.weights = weights

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        return dict(self.weights)


def _names(module: nn.Module) -> dict[str, str]:
    """The name of each weight, and what it is without the modules that only say how parts are run."""
    modules = dict(module.named_modules(remove_duplicate=False))
    plain = {"": ""}  # the path of every module, parents first
    for path in list(modules)[1:]:
        outer, _, last = path.rpartition(".")
        inside = wrapped_as(modules[outer]) == last
        plain[path] = plain[outer] if inside else f"{plain[outer]}{last}."
    paths = {name: name.rpartition(".")[::2] for name in module.state_dict()}
    return {
        name: plain[path] + last
        for name, (path, last) in paths.items()
        if wrapped_as(modules[path]) is None  # a wrapper counts its averages
    }


def named_weights(module: nn.Module, keep_vars: bool = False) -> dict[str, Tensor]:
    """The weights of a module by these names."""
    state = module.state_dict(keep_vars=keep_vars)
    return {plain: state[name] for name, plain in _names(module).items()}


def _load(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    names = _names(module)
    missing = {name: value for name, value in module.state_dict().items() if name not in names}
    module.load_state_dict({**missing, **{name: weights[plain] for name, plain in names.items()}})


def _plain_name(name: str) -> str:
    """The name of a weight in a file that was written of a compiled module."""
    return name.replace("_orig_mod.", "")


def _folder(name: str | Path, hub: dict[str, Any]) -> Path:
    """A folder of this machine, or one that a repository of the Hub was fetched into."""
    if Path(name).is_dir():
        return Path(name)
    rule = f"{str(name)!r} must be a folder with {CONFIG} and {WEIGHTS}, or a repository of the Hub"
    if isinstance(name, Path):
        raise ValueError(f"{rule}; there is no such folder")
    return fetched(name, [CONFIG, WEIGHTS], f"{rule}; there is no such folder", **hub)


def _check_there(folder: Path) -> tuple[Path, Path]:
    """The two files of a checkpoint."""
    for path in (folder / CONFIG, folder / WEIGHTS):
        if not path.is_file():
            raise ValueError(f"{path} is missing: a checkpoint is a folder with {CONFIG} and {WEIGHTS}")
    return folder / CONFIG, folder / WEIGHTS


def _read_weights(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights, those that shared memory under each of their names, and what they were saved with."""
    try:
        with safe_open(file, framework="pt", device="cpu") as opened:
            weights = {_plain_name(name): opened.get_tensor(name) for name in opened.keys()}
            metadata = opened.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{file} must be a whole safetensors file: {error}") from error
    aliases = {_plain_name(name): _plain_name(kept) for name, kept in metadata.items()}
    shared = {name: weights[kept] for name, kept in aliases.items() if kept in weights}
    try:
        return {**shared, **weights}, json.loads(metadata.get("config", "{}"))
    except ValueError:
        return {**shared, **weights}, {}


def _same_weights(file: Path, other: Path) -> bool:
    """True if two files hold the same weights; a file that is none, or damaged, holds others."""
    try:
        weights, others = _read_weights(file)[0], _read_weights(other)[0]
    except (OSError, ValueError):
        return False
    return weights.keys() == others.keys() and all(
        tensor.dtype == others[name].dtype and torch.equal(tensor, others[name])
        for name, tensor in weights.items()
    )


def _stamp(file: Path) -> tuple[int, int]:
    """Another one for every file that a file is replaced by."""
    status = file.stat()
    return status.st_ino, status.st_mtime_ns


def _sketched(make: Callable[[], Any], file: Path) -> Any:
    """A module without values, which takes no memory; None if its constructor looks at values."""
    try:
        with torch.device("meta"):
            return make()
    except RuntimeError as error:
        if "meta" in str(error):
            return None
        raise ValueError(f"{file}: {one_line(error)}") from error


def _difference(saved: Mapping[str, Any], built: Mapping[str, Any]) -> str:
    """Arguments other than those that weights were saved with, which explain that they do not fit."""
    names = [name for name in built if name in saved and saved[name] != built[name]]
    changed = ", ".join(f"{name}={saved[name]!r}, not {built[name]!r}" for name in names)
    return f"; they were saved with {changed}" if changed else ""


def _check_fit(
    wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], source: Path | str, hint: str = ""
) -> None:
    def shape(tensors: Mapping[str, Tensor], name: str) -> str:
        return str(tuple(tensors[name].shape)) if name in tensors else "none"

    wrong = [
        f"{name} {shape(found, name)} instead of {shape(wanted, name)}"
        for name in {**wanted, **found}
        if shape(found, name) != shape(wanted, name)
    ]
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise ValueError(
            f"{source}: the weights must fit the network, got {'; '.join(wrong[:_SHOWN])}{more}{hint}"
        )
