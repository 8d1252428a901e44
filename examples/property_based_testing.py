"""Find a bug in a convolution of your own: the smallest call that goes wrong, printed as code.

    python examples/property_based_testing.py --max-examples 200

A convolution in NumPy for any number of axes is checked against plain loops and against the laws that
every convolution obeys. The first version forgets the dilation on the last axis, the second does not.
"""

import argparse
from typing import Any

import numpy as np

from convnd.testing import Counterexample, check_conv


def windows(x: Any, kernel: tuple[int, ...], stride: Any, padding: Any, dilation: Any) -> Any:
    """All windows of the padded input: (N, C, *out, *kernel)."""
    x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
    axes = tuple(range(2, x.ndim))
    spans = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    view = np.lib.stride_tricks.sliding_window_view(x, spans, axis=axes)
    every = [slice(None, None, step) for step in (*stride, *dilation)]
    return view[(slice(None), slice(None), *every)]


def my_conv(x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any) -> Any:
    """A convolution without groups: one contraction of all windows with the kernel."""
    n = x.ndim - 2
    view = windows(x, weight.shape[2:], stride, padding, dilation)
    summed = [1, *range(2 + n, 2 + 2 * n)]  # the channels and the kernel's axes
    out = np.moveaxis(np.tensordot(view, weight, (summed, range(1, 2 + n))), -1, 1)
    return out if bias is None else out + bias.reshape(-1, *[1] * n)


def my_conv_with_a_bug(x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any) -> Any:
    """The same, but somebody forgot the dilation of the last axis."""
    return my_conv(x, weight, bias, stride, padding, (*dilation[:-1], 1))


def looks_right() -> bool:
    """The kind of test most people write: one shape, default arguments."""
    x, weight = np.arange(25.0).reshape(1, 1, 5, 5), np.ones((1, 1, 3, 3))
    out = my_conv_with_a_bug(x, weight, None, (1, 1), (0, 0), (1, 1))
    return out.shape == (1, 1, 3, 3) and out[0, 0, 0, 0] == x[0, 0, :3, :3].sum()


def main() -> None:
    parser = argparse.ArgumentParser(description="Check a convolution in NumPy by its properties.")
    parser.add_argument("--max-examples", type=int, default=100, help="cases to draw (default 100)")
    max_examples = parser.parse_args().max_examples

    print(f"One 3x3 kernel on a 5x5 image, compared by hand: {'passes' if looks_right() else 'fails'}.\n")
    print("Now check_conv, on images with one to three axes, strides, paddings and dilations:\n")
    # An option that the function does not have is switched off.
    options: dict[str, Any] = {"max_dims": 3, "groups": False, "max_examples": max_examples}
    try:
        check_conv(my_conv_with_a_bug, **options)
        print("Nothing found; try more examples.")
    except Counterexample as error:
        print(error)

    print("\nOutput too long with dilation=(2,): the last axis ignores it. With that repaired:\n")
    check_conv(my_conv, **options)
    print(f"{max_examples} cases, each equal to plain loops and obeying all laws of a convolution.")


if __name__ == "__main__":
    main()
