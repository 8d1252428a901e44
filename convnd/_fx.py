"""``torch.fx.symbolic_trace`` of convnd gives one node for each layer and each call of a function.

So it treats torch's own functions, and its layers, by the name of the module they are defined in. To trace on
into the checks of arguments would fail: the shapes of a proxy are proxies.
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
    """A function that is one node of a traced graph."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not tracing._is_fx_tracing_flag:  # first: this is asked of every call
            return function(*args, **kwargs)
        proxy = _proxy((*args, *kwargs.values()))
        if proxy is None:
            return function(*args, **kwargs)
        return proxy.tracer.create_proxy("call_function", call, args, kwargs)  # type: ignore[return-value]

    return call


def leaf_module(layer: Layer) -> Layer:
    """A layer that is one node of a traced graph, unless it is itself what is traced."""
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
