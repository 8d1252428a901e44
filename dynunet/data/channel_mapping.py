"""The way from the channels of a file to those of a model, and from its result back.

A model of one channel takes the others one by one. A model of colours, or of stereo, takes a grey picture or
a mono recording as that many copies, and the mean of what it makes of them is the result. The opacity of a
picture (its last channel of 2 or 4) is left as it is by a model that knows none, and is full for one that
does. Whatever else differs would be lost, and is refused.
"""

from dataclasses import dataclass

import numpy as np

from .errors import UnreadableError
from .formats import Format, of_kind

__all__ = ["ChannelMapping", "channel_mapping"]


@dataclass(frozen=True)
class ChannelMapping:
    """The way from the channels of a file to those of a model, and from its answer to those of the result.

    Attributes:
        file, given, answer: each as ``(channels, opacity)``: how many, but for opacity, and 1 if that comes
        last.
    """

    file: tuple[int, int]
    given: tuple[int, int]
    answer: tuple[int, int]

    @property
    def views(self) -> int:
        """Inputs of the model that a file makes."""
        return self.file[0] if self.given[0] == 1 else 1

    @property
    def results(self) -> int:
        """Channels of the result."""
        if self.given == self.answer:
            return sum(self.file)
        return self.answer[0] + max(self.answer[1], self.file[1])

    @property
    def own(self) -> bool:
        """True if the result has something of the file itself: an opacity that the model does not know."""
        mean = self.given == self.answer and self.answer[0] > self.file[0]
        return self.results != (self.views if self.views > 1 else 1 if mean else self.answer[0])

    def split(self, values: np.ndarray, opaque: float | bool) -> np.ndarray:
        """``(channels, *shape)`` of the file as ``(views, channels, *shape)`` of the model."""
        count, opacity = self.file
        if self.views > 1:
            parts = values[:count, None]
        elif count == self.given[0]:
            parts = values[None, :count]
        else:
            parts = np.repeat(values[None, :1], self.given[0], 1)
        if not self.given[1]:
            return parts
        last = values[count:] if opacity else np.full_like(values[:1], opaque)
        return np.concatenate([parts, np.broadcast_to(last, (len(parts), *last.shape))], 1)

    def join(self, answers: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        """``(views, channels, *shape)`` from the model as the result for a file.

        Args:
            values: ``(channels, *shape)`` of the file, where something is its :attr:`own`.
        """
        colours = answers[:, : self.answer[0]]
        if self.views > 1:
            colours = colours[:, 0]
        else:
            colours = colours[0]
            if self.given == self.answer and len(colours) > self.file[0]:
                colours = colours.mean(0, keepdims=True)
        if values is None or not self.own:
            return colours
        known = self.answer[1] and self.views == 1
        result = np.concatenate([colours, answers[0, self.answer[0] :] if known else values[self.file[0] :]])
        if not self.file[1] or self.results != sum(self.file):
            return result
        unseen = (values[-1:] == 0) & (result[-1:] < 0.5)  # the model did not see its colours either
        return np.where(unseen, values, result)


def channel_mapping(kind: str, file: int, given: int, answer: int) -> ChannelMapping:
    """The way from a file of some channels to a model.

    Args:
        kind: of the files.
        file, given, answer: channels of the file, of what the model is given, and of its answer.

    Raises:
        UnreadableError: channels would be lost.
    """
    own = of_kind(kind)
    parts = ChannelMapping(_parts(own, file), _parts(own, given), _parts(own, answer))
    count, wanted = parts.file[0], parts.given[0]
    copied = count == 1 and own.copies
    if count == wanted or copied or (wanted == 1 and parts.given == parts.answer):
        return parts
    raise UnreadableError(
        f"it has {file} channels and the model {given}: some would be lost; one of 1 takes them one by one"
    )


def _parts(kind: Format, channels: int) -> tuple[int, int]:
    opacity = int(kind.opacity and channels in (2, 4))
    return channels - opacity, opacity
