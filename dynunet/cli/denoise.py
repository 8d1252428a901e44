"""``dynunet denoise``: files restored by a model that has learned it, each on its own grid."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..arguments import positive
from .flags import check_counts
from .on_files import Sampling

_PIPE = Path("-")  # stdin and stdout
_OF_RAW = ("rate", "channels", "format", "part")


@dataclass(frozen=True)
class Denoise(Sampling):
    """Restore files with a model trained by --noise, --coloured, --pairs or --self-supervised.

    A model trained without them removes white noise of known level, by --sigma. A file that cannot be
    restored is named, and the others are. Results that are there are kept, so that the same command goes on
    where it was interrupted.

    With - as source and --out -, raw samples are read from stdin and written to stdout as they come, by a
    model of sound that was trained with --causal True:
    arecord -f S16_LE -r 16000 | dynunet denoise RUN - --out - --rate 16000 | aplay -f S16_LE -r 16000
    """

    steps: int | None = None
    """1 gives the mean of what the clean data may be, more one sharp guess; by default 1, with --sigma 20"""
    sigma: float | None = None
    """standard deviation of white noise, where 2 is the range of the data"""
    rate: int | None = None
    """of raw samples, in Hz"""
    channels: int = 1
    """of raw samples, interleaved"""
    format: Literal["s16le", "s24le", "s32le", "f32le"] = "s16le"
    """of raw samples"""
    part: float = 20.0
    """milliseconds of raw samples that are worked on at once"""

    def check(self) -> None:
        check_counts(steps=self.steps, rate=self.rate, channels=self.channels)
        positive(self.part, "part")
        ends = [path == _PIPE for path in (self.source, self.out)]
        if any(ends) != all(ends):
            raise ValueError(f"source and --out must both be - or neither, got {self.source} and {self.out}")
        if all(ends) != (self.rate is not None):
            raise ValueError(
                "--rate must be given for raw samples, with - as source and --out -, and only then"
            )
        for name in ("steps", "sigma", "window", "overlap") if all(ends) else ():
            if getattr(self, name) is not None:
                raise ValueError(
                    f"--{name} must be left out for raw samples, which take one step as they come"
                )
        super().check()

    def run(self) -> None:
        if self.rate is not None:
            return self._run_live(self.rate)
        from ..restoration import restore

        return self.use(restore, _OF_RAW)

    def _run_live(self, rate: int) -> None:
        from ..live import restore_live
        from ..progress import say

        raw: Any = {"rate": rate, "channels": self.channels, "format": self.format, "part": self.part}
        more: Any = {"seed": self.seed, "device": self.device, "say": say}
        restore_live(self.run_folder, sys.stdin.buffer, sys.stdout.buffer, **raw, **more)
