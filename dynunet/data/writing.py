"""Files appear when they are complete, in the place of nothing but what may be replaced."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .memory import amount
from .sources import shown

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskFullError(OSError):
    """There is no space for a file; the message says for which, and how much it takes."""


@contextmanager
def replacing(path: Path, overwrite: bool = False, size: int | None = None) -> Iterator[Path]:
    """A path to write to, which becomes ``path`` at the end; nothing is left of what fails before.

    Args:
        path: of the file; its folder is there.
        overwrite: whether a file may be replaced.
        size: about how many bytes are to be written, if that is known.

    Raises:
        FileExistsError: there is a file and overwrite is False, or what is there is no file.
        DiskFullError: the disk is full, or what the user may write.
    """
    check_free(path, overwrite)
    # Beside it, to be moved in one step; short, for the name itself may be as long as names can be.
    suffix = ".nii.gz" if path.name.lower().endswith(".nii.gz") else path.suffix
    partial = path.with_name(f".dynunet-{secrets.token_hex(8)}{suffix}")
    try:
        yield partial
        check_free(path, overwrite)
        os.replace(partial, path)
    except OSError as error:
        if error.errno not in _FULL or isinstance(error, DiskFullError):
            raise
        needed = "" if size is None else f", which takes about {amount(size)}"
        free = amount(shutil.disk_usage(path.parent).free)
        raise DiskFullError(
            f"no space to write {shown(path)}{needed}: {free} are free ({os.strerror(error.errno)})"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse to replace what is not to be replaced."""
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_file():
        raise FileExistsError(f"path: {shown(path)} is there and is no regular file")
    if not overwrite:
        raise FileExistsError(f"path: {shown(path)} exists; overwrite=True would replace it")
