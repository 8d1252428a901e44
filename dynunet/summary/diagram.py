"""A network drawn as the U it is, in plain text."""

from collections.abc import Sequence
from textwrap import wrap
from typing import Any, NamedTuple

_COLUMNS = 100  # at most, for up to six levels
_STEP = 2  # columns by which each level is drawn further inside


def drawing(network: Any) -> str:
    """Draw levels as boxes and skips as arrows between them; for an encoder alone, only the left side.

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
    skips = [network.spec.skip_channels(i) for i in range(len(levels))]
    labels = [_skips(level, sum(map(bool, found))) for level, found in zip(levels, skips, strict=True)]
    gap = max(map(len, labels)) + len(" --  --> ") + 2
    sides = 2 * (_STEP * (len(levels) - 1) + len("|  |"))
    most = (_COLUMNS - gap - sides) // 2
    down = [_contents(level, level.num_blocks, most) for level in levels]
    up = [[] for _ in levels]
    if both:
        up = [_contents(level, len(found), most) for level, found in zip(levels, skips, strict=True)]
    inner = max(len(line) for box in down + up for line in box)
    page = _Page(gap + sides + 2 * inner, both)

    lines = [
        page.row(0, f"x: {_count(network.in_channels, 'channel')}", _end(network)),
        page.row(0, "  v stem", "head ^  "),
    ]
    for i, label in enumerate(labels):
        lines += _level(page, i, _box(down[i], inner, len(up[i])), _box(up[i], inner, len(down[i])), label)
        if i < len(levels) - 1:
            stride = f"stride {_sizes(network.strides[i])}"
            lines.append(page.row(i + 1, f"  v {stride}", f"{stride} ^  "))
    bottom = len(levels) - 1
    if both:
        text = _middle(network, 2 * inner)
        return "\n".join(lines + _bottom(page, bottom, _box(text, max(map(len, text)))))
    return "\n".join([*lines, page.row(bottom, "  v head", ""), page.row(bottom, _end(network), "")])


class _Page(NamedTuple):
    """``both`` says whether the right side is drawn as well."""

    columns: int
    both: bool

    def space(self, i: int, *beside: str) -> int:
        """Columns between the two sides of level ``i``."""
        return self.columns - 2 * _STEP * i - sum(map(len, beside))

    def row(self, i: int, left: str, right: str, between: str = "") -> str:
        """The two sides of level ``i``, and what is centred between them."""
        if not self.both:
            return (" " * _STEP * i + left).rstrip()
        space = self.space(i, left, right, between)
        before = space // 2
        return (" " * (_STEP * i) + left + " " * before + between + " " * (space - before) + right).rstrip()


def _level(page: _Page, i: int, left: list[str], right: list[str], label: str) -> list[str]:
    """Both boxes of a level, with its skips beside the first line of their text."""
    arrow = f" {f' {label} '.center(page.space(i, left[0], right[0]) - 3, '-')}> "
    between = ["", arrow, *[""] * (len(left) - 2)]
    return [page.row(i, *cells) for cells in zip(left, right, between, strict=True)]


def _bottom(page: _Page, i: int, box: list[str]) -> list[str]:
    """The bottleneck's box in the middle, below the last level, and the arrows through it."""
    (top, first, *others), space = box, page.space(i, "  +", "+  ", box[0])
    through = f"{'-' * (space // 2 - 2)}> {first} {'-' * (space - space // 2 - 1)}"
    rest = [page.row(i, "   ", "   ", line) for line in others]
    return [page.row(i, "  |", "^  ", top), page.row(i, "  +", "+  ", through), *rest]


def _box(lines: Sequence[str], inner: int, height: int = 0) -> list[str]:
    edge = f"+{'-' * (inner + 2)}+"
    lines = [*lines, *[""] * (height - len(lines))]
    return [edge, *(f"| {line.ljust(inner)} |" for line in lines), edge]


def _contents(level: Any, blocks: int, most: int) -> list[str]:
    lines = [_count(level.channels, "channel")]
    if blocks:
        made_of = f"{_count(blocks, 'block')}, kernel_{_sizes(level.kernel_size)}"  # keep on one line
        lines += [made_of, *_attention(level.attention)]
    return [line.replace("_", " ") for text in lines for line in wrap(text, most)]


def _middle(network: Any, most: int) -> list[str]:
    spec, channels = network.spec, _count(network.levels[-1].channels, "channel")
    fewer = [] if spec.mid_blocks == 2 else [_count(spec.mid_blocks, "block")]
    lines = [f"middle: {channels}", *fewer, *_attention(spec.mid_attention)]
    return [line for text in lines for line in wrap(text, most)]


def _attention(names: str | Sequence[str] | None) -> list[str]:
    names = names.split("+") if isinstance(names, str) else names
    return [f"attention: {' + '.join(names)}"] if names else []


def _skips(level: Any, number: int) -> str:
    """Label of the skips."""
    attention = getattr(level, "skip_attention", False) if number else False
    how = "" if not attention else ", gated" if attention is True else ", attended"
    return f"{_count(number, 'skip')}{how}"


def _end(network: Any) -> str:
    if hasattr(network, "out_channels"):
        return f"y: {_count(network.out_channels, 'channel')}"
    return f"y: {_count(network.out_features, 'feature')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _sizes(sizes: Sequence[int]) -> str:
    return str(sizes[0]) if len(set(sizes)) == 1 else "x".join(map(str, sizes))
