"""``torch.fx.symbolic_trace`` records each convnd layer and each call of a convnd function as one node.

It does the same with torch's own functions, and with torch's layers by the name of their module. Tracing into
convnd's argument checks would fail, because the shape of a proxy is itself a proxy.
"""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from torch import nn
from torch.fx import Proxy
from torch.fx import _symbolic_trace as tracing

P = ParamSpec("P")
R = TypeVar("R")
Layer = TypeVar("Layer", bound=type[nn.Module])


def _proxy(values: Iterable[Any]) -> Proxy | None:
    for value in values:
        if isinstance(value, (tuple, list)):
            value = _proxy(value)
        if isinstance(value, Proxy):
            return value
    return None


def leaf_function(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function one node of a traced graph."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not tracing._is_fx_tracing_flag:  # first: this runs on every call
            return function(*args, **kwargs)
        proxy = _proxy((*args, *kwargs.values()))
        if proxy is None:
            return function(*args, **kwargs)
        return proxy.tracer.create_proxy("call_function", call, args, kwargs)  # type: ignore[return-value]

    return call


def leaf_module(layer: Layer) -> Layer:
    """Make a layer one node of a traced graph, unless the layer itself is being traced."""
    forward = layer.forward

    @wraps(forward)
    def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not tracing._is_fx_tracing_flag:
            return forward(self, *args, **kwargs)
        proxy = _proxy((*args, *kwargs.values()))
        if proxy is None or self is getattr(proxy.tracer, "root", None):
            return forward(self, *args, **kwargs)
        tracer: Any = proxy.tracer
        return tracer.create_proxy("call_module", tracer.path_of_module(self), args, kwargs)

    layer.forward = call
    return layer
