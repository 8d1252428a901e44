"""The description of an algorithm, and the table of all of them."""

from typing import ClassVar

from torch import Tensor

from .problem import Problem


class Algorithm:
    """A way to compute one, two or all three of the bilinear maps.

    Attributes:
        name: as :func:`convnd.algorithm` takes it and :func:`convnd.plan` reports it.
        old_name: another name that is accepted, or None.
        margin: how many times faster than others it has to be estimated to be chosen.
        spreads: whether NaN and infinity reach further in its results than they should. Chosen
            automatically, it is replaced where they occur; forced, it is not.
        copies_result: whether it puts together a transposed convolution with stride from parts.
    """

    name: ClassVar[str]
    old_name: ClassVar[str | None] = None
    margin: ClassVar[float] = 1.0
    spreads: ClassVar[bool] = False
    copies_result: ClassVar[bool] = True

    def applies(self, p: Problem) -> bool:
        """True where it can compute this map; only then are the methods below called."""
        raise NotImplementedError(f"{self.name}: applies")

    def considered(self, p: Problem) -> bool:
        """True where its estimate takes part in the choice, beside that of a kernel of torch's."""
        return False

    def beats_native(self, p: Problem) -> bool:
        """True where it was measured to be faster than torch's kernel, whose place it then takes."""
        return False

    def spreads_inputs(self, p: Problem) -> bool:
        """True where NaN and infinity of the input, and no others, reach further than they should.

        Also where the algorithm was asked for, it is then replaced.
        """
        return False

    def workspace(self, p: Problem) -> int:
        """Bytes of scratch memory beside one copy of the input, before the work is cut."""
        return 0

    def seconds(self, p: Problem) -> float:
        """Estimated, by the rates of :mod:`.cost`."""
        raise NotImplementedError(f"{self.name}: seconds")

    def conv(self, p: Problem, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        """``y``, of operands that fit into the workspace."""
        raise NotImplementedError(f"{self.name}: conv")

    def transpose(self, p: Problem, y: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        """``x``; not cut before, it keeps to the workspace limit itself."""
        raise NotImplementedError(f"{self.name}: transpose")

    def weight(self, p: Problem, x: Tensor, y: Tensor) -> Tensor:
        """``w``, of operands that fit into the workspace."""
        raise NotImplementedError(f"{self.name}: weight")


# By name, in the order in which equal estimates are decided; filled by .algorithms.registry.
ALGORITHMS: dict[str, Algorithm] = {}
# The other names that are accepted.
ALIASES: dict[str, str] = {}


def named(name: str) -> Algorithm:
    """The algorithm of a name or an old one."""
    return ALGORITHMS[ALIASES.get(name, name)]
