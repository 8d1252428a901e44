"""Parsing, and errors as one line.

Exit codes: 0, done; 1, training or some file failed; 2, a flag or a file is wrong; 130, interrupted. With the
environment variable ``DYNUNET_TRACEBACK`` set, errors keep their traceback.
"""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, suppress
from io import StringIO
from typing import Any

import tyro
from tyro.extras import subcommand_cli_from_dict

from ..data.errors import printable
from ..training import TrainingError
from .common import print_any_name, unboxed
from .denoise import Denoise
from .evaluate import Evaluate
from .inpaint import Inpaint
from .sample import Sample
from .summary import SummaryCommand
from .train import MARKERS, Stopped, Train, saved_flags

_COMMANDS: dict[str, Callable[..., Any]] = {
    "train": Train,
    "sample": Sample,
    "denoise": Denoise,
    "inpaint": Inpaint,
    "evaluate": Evaluate,
    "summary": SummaryCommand,
}
_ABOUT = """U-Nets and diffusion models for folders of audio, images, volumes and arrays of any rank.

  dynunet train CLEAN --spatial-dims 1 --noise NOISES --out runs/voice     learns to restore; or --pairs NOISY
  dynunet denoise runs/voice recordings/ --out cleaned/
  dynunet train PICTURES --spatial-dims 2 --size 32 --out runs/cats        learns to make more of them
  dynunet sample runs/cats --num 16 --out samples/
"""


def main(args: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
        args: of the command line, those of the process by default.

    Raises:
        SystemExit: with a code other than 0 if something went wrong.
    """
    print_any_name()
    args = list(sys.argv[1:] if args is None else args)
    name = args[0] if args else ""
    try:
        _parsed(args).run()
    except Stopped as error:
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


def _parsed(args: list[str]) -> Any:
    """The command with its flags; ``train`` with those of ``--config`` or ``--resume`` as its defaults."""
    name = args[0] if args and args[0] in _COMMANDS else ""
    said = StringIO()
    try:
        with redirect_stderr(said):
            if not name:
                return subcommand_cli_from_dict(_COMMANDS, prog="dynunet", description=_ABOUT, args=args)
            given: dict[str, Any] = {}
            saved = saved_flags(args[1:]) if name == "train" else None
            if saved is not None:
                given["default"] = saved
            return tyro.cli(_COMMANDS[name], prog=f"dynunet {name}", args=args[1:], config=MARKERS, **given)
    except SystemExit as error:
        if error.code:
            see = f"dynunet {name} --help" if name else "dynunet --help"
            _end(name, f"{unboxed(said.getvalue())} (see {see})", 2)
        raise


def _end(name: str, error: object, code: int) -> None:
    """One line, and out."""
    text = printable(" ".join(str(error).split()))
    with suppress(OSError):  # of a terminal that is closed
        print(f"dynunet {name}: {text}" if name in _COMMANDS else f"dynunet: {text}", file=sys.stderr)
    raise SystemExit(code)
