"""Failures of training that a user can do something about, with advice."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..data.errors import VanishedError
from ..writing import DiskFull

_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "failed to allocate")


class TrainingError(RuntimeError):
    """Training cannot go on; the message says what to try, and the last good checkpoint is untouched."""


@contextmanager
def advice() -> Iterator[None]:
    """Say what to do where memory, of a GPU or of the machine, or the disk does not suffice."""
    try:
        yield
    except VanishedError as error:
        told = str(error).strip().splitlines()[-1]  # of a process that reads ahead it has a traceback
        reason = told.rpartition("VanishedError: ")[2]
        raise TrainingError(f"{reason}. Once files are there again, the run can be resumed") from error
    except DiskFull as error:
        raise TrainingError(
            f"{error}. Checkpoints are as they were; once there is room, the run can be resumed"
        ) from error
    except (MemoryError, RuntimeError) as error:
        # On a GPU it is torch's OutOfMemoryError, on a CPU a plain RuntimeError.
        known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        if not known and not any(text in str(error).lower() for text in _MEMORY):
            raise
        raise TrainingError(
            "out of memory. What helps: a smaller batch_size with accumulate raised by the same factor, or "
            "UNet(gradient_checkpointing=True), with which this run can be resumed; for a new run also "
            "precision='bf16', a smaller size of the data or fewer channels. Checkpoints are as they were. "
            f"The error was: {error}"
        ) from error


def not_finite(step: int, last: str, what: str) -> TrainingError:
    """The error for losses or weights that are NaN or infinite."""
    return TrainingError(
        f"{what} became NaN or infinite by step {step}. What helps: a lower lr, a longer warmup or a smaller "
        "clip; precision 'bf16' or 'no' instead of 'fp16'; data in about [-1, 1] and without NaN (mask what "
        f"is missing). The last good checkpoint is {last}"
    )
