"""Parsing, and errors in the words of the command line.

Exit codes: 0, done; 1, training or some file failed; 2, a flag or a file is wrong; 130, interrupted. With the
environment variable ``DYNUNET_TRACEBACK`` set, errors keep their traceback.

Flags are parsed and checked before torch is imported, so that help and errors of flags come at once.
"""

import os
import re
import sys
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, suppress
from importlib import import_module
from importlib.metadata import version
from io import StringIO, TextIOWrapper
from typing import Any

import tyro
from tyro.extras import subcommand_cli_from_dict

from ..data.errors import printable
from ..progress import Interrupted, say
from ..training.failures import TrainingError
from ..training.interrupts import killed_by_interrupts
from .denoise import Denoise
from .distill import Distill
from .evaluate import Evaluate
from .export import Export
from .inpaint import Inpaint
from .plan import PlanCommand
from .predict import Predict
from .reconstruct import Reconstruct
from .sample import Sample
from .studio import Studio
from .summary import SummaryCommand
from .train import MARKERS, Train, saved_flags
from .words import as_flags, flags_of_command

# Each command, and the module that does its work, which imports torch.
_COMMANDS: dict[str, tuple[Any, str]] = {
    "train": (Train, "dynunet.training.trainer"),
    "distill": (Distill, "dynunet.training.trainer"),
    "sample": (Sample, "dynunet.generation"),
    "denoise": (Denoise, "dynunet.restoration"),
    "inpaint": (Inpaint, "dynunet.restoration"),
    "reconstruct": (Reconstruct, "dynunet.reconstruction"),
    "predict": (Predict, "dynunet.prediction"),
    "evaluate": (Evaluate, "dynunet.evaluation"),
    "export": (Export, "dynunet.exporting"),
    "summary": (SummaryCommand, "dynunet.summary"),
    "plan": (PlanCommand, "dynunet.planning.planner"),
    "studio": (Studio, "dynunet.studio.server"),
}
_ABOUT = """U-Nets and diffusion models for folders of audio, images, volumes and arrays of any rank.

  dynunet train CLEAN --spatial-dims 1 --noise NOISES --out runs/voice     learns to restore; or --pairs NOISY
  dynunet denoise runs/voice recordings/ --out cleaned/
  dynunet train PICTURES --out runs/cats                                   learns to make more of them
  dynunet sample runs/cats --num 16 --out samples/
  dynunet distill runs/cats --steps 2 --out runs/fast                      the same in two steps, not twenty
  dynunet reconstruct runs/scans thick.nii.gz --downsample 1 1 4 --out fine/   what it may have been
  dynunet train SCANS --targets MASKS --out runs/seg                       learns to segment (or classify ...)
  dynunet predict runs/seg SCANS --out labels/
  dynunet export runs/voice --out voice/                                   as ONNX; runs without torch
  dynunet plan SCANS --targets MASKS --memory 8GB > plan.json              network, patch and batch, for
  dynunet train --config plan.json
  dynunet studio --root FOLDER                                             all of it in the browser
  dynunet --version
"""


def main(args: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
        args: of the command line, those of the process by default.

    Raises:
        SystemExit: with a code other than 0 if something went wrong.
    """
    _print_any_name()
    args = list(sys.argv[1:] if args is None else args)
    name = args[0] if args else ""
    if args[:1] == ["--version"]:
        return print(f"dynunet {version('dynunet')}")
    with warnings.catch_warnings():
        warnings.showwarning = _say_warning
        return _run(name, args)


def _run(name: str, args: list[str]) -> None:
    """Parse, check and run a command, and say what went wrong."""
    try:
        command = parsed(args)
        command.check()
        with killed_by_interrupts():
            import_module(_COMMANDS[name][1])
        command.run()
    except FlagError as error:
        see = f"dynunet {name} --help" if name in _COMMANDS else "dynunet --help"
        _end(name, f"{error} (see {see})", 2)
    except Interrupted as error:
        _end(name, error, 130)
    except KeyboardInterrupt:
        _end(name, "interrupted", 130)
    except TrainingError as error:
        _end(name, error, 1)
    except BrokenPipeError:  # what reads the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except (ValueError, TypeError, ImportError, OSError) as error:
        if os.environ.get("DYNUNET_TRACEBACK"):
            raise
        _end(name, error, 2)


class FlagError(ValueError):
    """Flags that are none, or lack a value; the message is in the words of the command line."""


def parsed(args: Sequence[str]) -> Any:
    """The command with its flags; ``train`` with those of ``--config`` or ``--resume`` as its defaults.

    Raises:
        FlagError: a flag is wrong. What the flags say is not checked yet.
        SystemExit: help was asked for, and is printed.
    """
    name = args[0] if args and args[0] in _COMMANDS else ""
    said = StringIO()
    try:
        with redirect_stderr(said):
            if not name:
                commands = {key: command for key, (command, _) in _COMMANDS.items()}
                return subcommand_cli_from_dict(commands, prog="dynunet", description=_ABOUT, args=args)
            given: dict[str, Any] = {}
            saved = saved_flags(args[1:]) if name == "train" else None
            if saved is not None:
                given["default"] = saved
            kind, prog = _COMMANDS[name][0], f"dynunet {name}"
            return tyro.cli(kind, prog=prog, args=args[1:], config=MARKERS, **given)
    except SystemExit as error:
        if error.code:
            raise FlagError(_words(said.getvalue())) from None
        raise


def in_words(name: str, error: object) -> list[str]:
    """What went wrong, with the flags of a command in place of the library's arguments, line by line."""
    known = flags_of_command(_COMMANDS[name][0]) if name in _COMMANDS else {}
    lines = [printable(" ".join(line.split())) for line in as_flags(str(error), known).splitlines()]
    return [line for line in lines if line]


def _words(text: str) -> str:
    """The words of an error of tyro, without frames, titles, colours, and where help is."""
    plain = re.sub(r"(?m)^[╭╰].*$|[\u2500-\u257f]|\x1b\[[0-9;]*m", " ", text)
    return " ".join(plain.split()).partition(" For full helptext")[0]


def _say_warning(message: Warning | str, *where: Any) -> None:
    """Print a warning as one line, without the line of code that it came from."""
    say(f"warning: {message}")


def _print_any_name() -> None:
    """Let names be printed that the terminal's encoding does not have, rather than fail at the first."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _end(name: str, error: object, code: int) -> None:
    """What went wrong, in one line if that is not several things, and out."""
    text = "\n  ".join(in_words(name, error))
    with suppress(OSError):  # of a terminal that is closed
        print(f"dynunet {name}: {text}" if name in _COMMANDS else f"dynunet: {text}", file=sys.stderr)
    raise SystemExit(code)
