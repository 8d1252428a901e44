"""The description of an algorithm, and the table of all of them."""

from typing import ClassVar

from torch import Tensor

from .problem import Problem


class Algorithm:
    """A way to compute one, two or all three of the bilinear maps.

    Attributes:
        name: as :func:`convnd.algorithm` takes it and :func:`convnd.plan` reports it.
        old_name: another name that is accepted, or None.
        margin: its estimated time is multiplied by this before algorithms are compared.
        spreads: whether NaN and infinity spread to more outputs than the definition says. If the algorithm
            was chosen automatically, another one replaces it where they occur; if forced, it stays.
        copies_result: whether it assembles a strided transposed convolution from parts.
    """

    name: ClassVar[str]
    old_name: ClassVar[str | None] = None
    margin: ClassVar[float] = 1.0
    spreads: ClassVar[bool] = False
    copies_result: ClassVar[bool] = True

    def applies(self, p: Problem) -> bool:
        """True if the algorithm can compute this map; only then are the methods below called."""
        raise NotImplementedError(f"{self.name}: applies")

    def considered(self, p: Problem) -> bool:
        """True if its estimate is compared with the others', torch's kernel among them."""
        return False

    def beats_native(self, p: Problem) -> bool:
        """True where it was measured to be faster than torch's kernel; it then replaces that kernel."""
        return False

    def spreads_inputs(self, p: Problem) -> bool:
        """True if NaN and infinity of the input (not of the weight) spread to more outputs than they should.

        Another algorithm then replaces this one, even if it was forced.
        """
        return False

    def workspace(self, p: Problem) -> int:
        """Bytes of scratch memory beside one copy of the input, before the work is cut."""
        return 0

    def seconds(self, p: Problem) -> float:
        """Estimated time, from the rates in :mod:`.cost`."""
        raise NotImplementedError(f"{self.name}: seconds")

    def conv(self, p: Problem, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        """Compute ``y`` from operands that fit into the workspace."""
        raise NotImplementedError(f"{self.name}: conv")

    def transpose(self, p: Problem, y: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        """Compute ``x``; operands are not cut beforehand, so this method must keep to the workspace limit."""
        raise NotImplementedError(f"{self.name}: transpose")

    def weight(self, p: Problem, x: Tensor, y: Tensor) -> Tensor:
        """Compute ``w`` from operands that fit into the workspace."""
        raise NotImplementedError(f"{self.name}: weight")


# By name; of equal estimates the earlier algorithm wins. Filled by .algorithms.registry.
ALGORITHMS: dict[str, Algorithm] = {}
# Other accepted names.
ALIASES: dict[str, str] = {}


def named(name: str) -> Algorithm:
    """The algorithm with this name or old name."""
    return ALGORITHMS[ALIASES.get(name, name)]
