"""A network drawn as the U it is, in plain text."""

from collections.abc import Sequence
from textwrap import wrap
from typing import Any

_COLUMNS = 100  # at most, for up to six levels
_STEP = 2  # columns by which each level is drawn further inside


def drawing(network: Any) -> str:
    """The levels as boxes and the skips as arrows between them; of an encoder alone, its side.

    Args:
        network: a :class:`dynunet.UNet` or :class:`dynunet.Encoder`; it is drawn from its ``levels``
            (``channels``, ``num_blocks``, ``kernel_size``, ``attention``) and ``strides``.

    Returns:
        Lines of at most 100 columns for up to six levels.

    >>> from dynunet import UNet
    >>> print(drawing(UNet(2, 1, channels=(8, 16), num_blocks=1, mid_attention="full")))
    x: 1 channel                                          y: 1 channel
      v stem                                                  head ^
    +--------------------+                      +--------------------+
    | 8 channels         | ----- 2 skips -----> | 8 channels         |
    | 1 block, kernel 3  |                      | 2 blocks, kernel 3 |
    +--------------------+                      +--------------------+
        v stride 2                                      stride 2 ^
      +--------------------+                  +--------------------+
      | 16 channels        | --- 2 skips ---> | 16 channels        |
      | 1 block, kernel 3  |                  | 2 blocks, kernel 3 |
      +--------------------+                  +--------------------+
        |                +---------------------+                 ^
        +--------------> | middle: 16 channels | ----------------+
                         | attention: full     |
                         +---------------------+
    """
    levels, both = list(network.levels), hasattr(network, "decoder")
    bottom = len(levels) - 1
    labels = [_skips(level) for level in levels]
    gap = max(map(len, labels)) + len(" --  --> ") + 2
    most = (_COLUMNS - gap) // 2 - _STEP * bottom - len("|  |")
    down = [_contents(level, level.num_blocks, most) for level in levels]
    up = [_contents(level, level.num_blocks + 1, most) for level in levels] if both else [[]] * len(levels)
    inner = max(len(line) for box in down + up for line in box)
    columns = gap + 2 * (inner + len("|  |") + _STEP * bottom)

    def row(i: int, left: str, right: str, middle: str = "") -> str:
        """Both sides of level ``i``, and what is centred between them."""
        space = columns - 2 * _STEP * i - len(left) - len(right)
        before = (space - len(middle)) // 2
        line = " " * before + middle + " " * (space - len(middle) - before) + right if both else ""
        return (" " * _STEP * i + left + line).rstrip()

    edge = _edge(inner)
    lines = [
        row(0, f"x: {_count(network.in_channels, 'channel')}", _end(network)),
        row(0, "  v stem", "head ^  "),
    ]
    for i, (a, b) in enumerate(zip(down, up, strict=True)):
        height = max(len(a), len(b))
        arrow = " " + f" {labels[i]} ".center(columns - 2 * (_STEP * i + len(edge)) - 3, "-") + "> "
        middles = [arrow, *[""] * (height - 1)]
        cells = zip(_cells(a, inner, height), _cells(b, inner, height), middles, strict=True)
        lines += [row(i, edge, edge), *(row(i, *cell) for cell in cells), row(i, edge, edge)]
        if i < bottom:
            stride = f"stride {_sizes(network.strides[i])}"
            lines.append(row(i + 1, f"  v {stride}", f"{stride} ^  "))
    if not both:
        return "\n".join([*lines, row(bottom, "  v head", ""), row(bottom, _end(network), "")])

    text = _middle(network, most)
    width = max(map(len, text))
    space = columns - 2 * _STEP * bottom - 2 * len("  |") - len(_edge(width))
    first, *others = _cells(text, width, len(text))
    arrow = "-" * (space // 2 - 2) + "> " + first + " " + "-" * (space - space // 2 - 1)
    lines += [row(bottom, "  |", "^  ", _edge(width)), row(bottom, "  +", "+  ", arrow)]
    lines += [row(bottom, "   ", "   ", middle) for middle in (*others, _edge(width))]
    return "\n".join(lines)


def _contents(level: Any, blocks: int, most: int) -> list[str]:
    lines = [
        _count(level.channels, "channel"),
        f"{_count(blocks, 'block')}, kernel {_sizes(level.kernel_size)}",
    ]
    return [line for text in (*lines, *_attention(level.attention)) for line in wrap(text, most)]


def _middle(network: Any, most: int) -> list[str]:
    names = getattr(network, "config", {}).get("mid_attention")
    lines = [f"middle: {_count(network.levels[-1].channels, 'channel')}", *_attention(names)]
    return [line for text in lines for line in wrap(text, most)]


def _attention(names: str | Sequence[str] | None) -> list[str]:
    names = names.split("+") if isinstance(names, str) else names
    return [f"attention: {' + '.join(names)}"] if names else []


def _skips(level: Any) -> str:
    """A level's decoder takes what its encoder began with, and what each of its blocks gave."""
    attention = getattr(level, "skip_attention", False)
    how = ", gated" if attention is True else f", {' + '.join(attention)}" if attention else ""
    return f"{level.num_blocks + 1} skips{how}"


def _end(network: Any) -> str:
    if hasattr(network, "out_channels"):
        return f"y: {_count(network.out_channels, 'channel')}"
    return f"y: {_count(network.out_features, 'feature')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _sizes(sizes: Sequence[int]) -> str:
    return str(sizes[0]) if len(set(sizes)) == 1 else "x".join(map(str, sizes))


def _edge(inner: int) -> str:
    return f"+{'-' * (inner + 2)}+"


def _cells(lines: Sequence[str], inner: int, height: int) -> list[str]:
    return [f"| {line.ljust(inner)} |" for line in (*lines, *[""] * (height - len(lines)))]
