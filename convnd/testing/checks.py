"""Whole checks: draw many cases, compare with the reference and the laws, report the smallest failure.

``fn`` is any callable. It gets NumPy arrays, or tensors with ``array="torch"``, and torch's arguments by
position in torch's order, one entry per axis; ``padding_mode``, if enabled, is passed by name. Keywords
switch off arguments that ``fn`` does not support. Such an argument is neutral in every case, and is not
passed at all if every argument after it is off as well: with ``dilation=False, groups=False`` a convolution
is called as ``fn(input, weight, bias, stride, padding)``.

Common keywords:
    array: ``"numpy"`` or ``"torch"``, what ``fn`` takes and returns.
    dims, min_dims, max_dims: numbers of spatial axes to test, from 1 to 6.
    max_examples: number of cases.
    reference: whether to compare with plain loops.
    laws: True for all laws of the operator, False for none, or some of their names.
    atol: largest difference to accept. Values are small integers, so 0 (equality) is the default; 1e-12
        for averages, which are not integers. Give more to an implementation that rounds (FFT, float32).
    derandomize: draw the same cases in every run; False for new ones each time.
    others: switches of the operator's strategy.

A wrong result, or an error in ``fn``, raises :class:`~convnd.testing.Counterexample` (an AssertionError),
which shows the smallest case found as code, with the expected and the actual output.
"""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from .cases import Array, Case, Counterexample, Implementation, array_code, call, torch_on_arrays
from .laws import LAWS, Law, differs
from .reference import evaluate
from .strategies import conv_cases, conv_transpose_cases, pool_cases


def check_conv(
    fn: Implementation, *, padding: str = "symmetric", padding_modes: bool = False, **keywords: Any
) -> None:
    """Check ``fn(input, weight, bias, stride, padding, dilation, groups)``, a convolution.

    Args:
        padding: ``"symmetric"``, one int per axis; ``"asymmetric"``, one pair per axis; or ``"none"``.
        padding_modes: also call ``fn`` with ``padding_mode=(...)``, one name per axis.
        keywords: the common ones, and ``stride``, ``dilation``, ``groups``, ``bias`` (all True).

    >>> import torch
    >>> check_conv(torch.conv2d, array="torch", dims=(2,), max_examples=20)
    """
    options, switches = _split(keywords)
    cases = conv_cases(padding=padding, padding_modes=padding_modes, **switches)
    off = {name for name in ("stride", "dilation", "groups") if switches.get(name) is False}
    off |= {"padding"} if padding == "none" else set()
    _check(fn, cases, off | (set() if padding_modes else {"padding_mode"}), operator="conv", **options)


def check_conv_transpose(fn: Implementation, *, padding: str = "symmetric", **keywords: Any) -> None:
    """Check ``fn(input, weight, bias, stride, padding, output_padding, groups, dilation)``.

    Args:
        padding: as in :func:`check_conv`.
        keywords: the common ones, and ``stride``, ``output_padding``, ``dilation``, ``groups``, ``bias``
            (all True).
    """
    options, switches = _split(keywords)
    cases = conv_transpose_cases(padding=padding, **switches)
    names = ("stride", "output_padding", "groups", "dilation")
    off = {name for name in names if switches.get(name) is False}
    _check(
        fn, cases, off | ({"padding"} if padding == "none" else set()), operator="conv_transpose", **options
    )


def check_pool(fn: Implementation, kind: str = "max", *, padding: str = "symmetric", **keywords: Any) -> None:
    """Check a pooling function; ``kind`` is ``"max"`` or ``"avg"``.

    Maximum pooling is called as ``fn(input, kernel_size, stride, padding, dilation, ceil_mode)``, average
    pooling as ``fn(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)``.

    Args:
        padding: ``"symmetric"``, one int per axis, or ``"none"``.
        keywords: the common ones, and ``stride``, ``dilation``, ``ceil_mode``, ``count_include_pad``,
            ``divisor_override`` (all True), ``nonfinite`` (False: no NaN or infinity in the input).

    >>> import torch
    >>> check_pool(torch.max_pool1d, array="torch", max_dims=1, max_examples=20)
    """
    if kind not in ("max", "avg"):
        raise ValueError(f"kind must be 'max' or 'avg', got {kind!r}")
    options, switches = _split({"atol": 1e-12 if kind == "avg" else 0.0, **keywords})
    cases = pool_cases(average=kind == "avg", padding=padding, **switches)
    off = {name for name, value in switches.items() if value is False}
    _check(fn, cases, off | ({"padding"} if padding == "none" else set()), operator=f"{kind}_pool", **options)


# Implementations may be slow; no drawn case is filtered out.
_ALL_HEALTH_CHECKS: tuple[Any, ...] = tuple(HealthCheck)
_OPTIONS = ("array", "max_examples", "reference", "laws", "atol", "derandomize")


def _split(keywords: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split the keywords into those of the check itself and those of the strategy."""
    options = {k: v for k, v in keywords.items() if k in _OPTIONS}
    switches = {k: v for k, v in keywords.items() if k not in _OPTIONS}
    dims = switches.get("dims") or range(switches.get("min_dims", 1), switches.get("max_dims", 5) + 1)
    return options | {"dims": frozenset(dims)}, switches


def _check(
    fn: Implementation,
    cases: st.SearchStrategy[Case],
    off: Collection[str],
    *,
    operator: str,
    dims: Collection[int],
    array: str = "numpy",
    max_examples: int = 100,
    reference: bool = True,
    laws: bool | Collection[str] = True,
    atol: float = 0.0,
    derandomize: bool = True,
) -> None:
    if array not in ("numpy", "torch"):
        raise ValueError(f"array must be 'numpy' or 'torch', got {array!r}")
    chosen = _chosen(operator, laws)
    name = getattr(fn, "__name__", "fn").replace("<lambda>", "fn")
    on_arrays = torch_on_arrays(fn) if array == "torch" else fn

    passed = cases.map(lambda case: _passed(case, off))

    def broken(case: Case) -> dict[str, str]:
        return _broken(on_arrays, case, chosen, dims, atol)

    # Wrong values are easier to read than a broken law, so look for them first.
    searches: list[Callable[[Case], str]] = []
    searches += [lambda case: _wrong_values(on_arrays, case, atol)] if reference else []
    searches += [lambda case: "".join(broken(case).values())] if chosen else []
    for problem in searches:
        case = _smallest_failure(passed, problem, max_examples, derandomize)
        if case is not None:
            text = problem(case) or "it fails now and then: called again, it gives another answer"
            raise _counterexample(name, case, text, list(broken(case)))


def _counterexample(name: str, case: Case, text: str, broken: list[str]) -> Counterexample:
    return Counterexample(
        f"{name} is not a correct {case.operator}. The smallest case found:\n\n"
        f"{_indent(case.snippet(name))}\n\n{text.rstrip()}\n"
        f"laws broken by this case: {', '.join(broken) or 'none'}",
        case,
        broken,
    )


def _indent(text: str) -> str:
    return "\n".join("    " + line for line in text.splitlines())


def _passed(case: Case, off: Collection[str]) -> Case:
    """The case without the trailing arguments that are switched off."""
    kwargs = dict(case.kwargs)
    for name in reversed(case.kwargs):
        if name not in off:
            break
        del kwargs[name]
    return Case(case.input, case.weight, case.bias, kwargs, case.operator)


def _smallest_failure(
    cases: st.SearchStrategy[Case], problem: Callable[[Case], str], max_examples: int, derandomize: bool
) -> Case | None:
    """The simplest case with a problem that Hypothesis finds."""
    failing: list[Case] = []

    @settings(
        max_examples=max_examples,
        derandomize=derandomize,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=_ALL_HEALTH_CHECKS,
        phases=[Phase.generate, Phase.shrink],
    )
    @given(cases)
    def search(case: Case) -> None:
        if problem(case):
            failing.append(case)
            raise AssertionError("wrong")

    try:
        search()
    except Exception:
        if not failing:
            raise
        return failing[-1]
    return None


def _wrong_values(fn: Implementation, case: Case, atol: float) -> str:
    """What is wrong with the result for a case, or an empty string."""
    expected = evaluate(case)
    try:
        actual = call(fn, case)
    except Exception as error:
        return f"expected {array_code(expected)}\nraised   {type(error).__name__}: {error}"
    if actual.dtype == object or differs(actual, expected, atol):
        return f"expected {_show(expected)}\nactual   {_show(actual)}"
    return ""


def _show(array: Array) -> str:
    return f"{array_code(array)}, shape {array.shape}"


def _broken(
    fn: Implementation, case: Case, laws: Collection[Law], dims: Collection[int], atol: float
) -> dict[str, str]:
    """The laws that a case breaks, with messages; none for a case with NaN or infinities."""
    if not np.isfinite(case.input).all():
        return {}
    problems = {}
    for law in laws:
        if law.__name__ == "size_one_axis" and case.spatial_dims + 1 not in dims:
            continue
        try:
            law(fn, case, atol=atol)
        except Counterexample as error:
            first, *_, left, right = str(error).splitlines()
            problems[law.__name__] = f"{first}\n{left}\n{right}\n"
        except Exception as error:
            problems[law.__name__] = f"in the law {law.__name__}, {type(error).__name__}: {error}\n"
    return problems


def _chosen(operator: str, laws: bool | Collection[str]) -> list[Law]:
    known = {law.__name__: law for law in LAWS[operator]}
    names = [] if laws is False else list(known) if laws is True else list(laws)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"laws of {operator} are {', '.join(known)}; got {unknown}")
    return [known[name] for name in names]
