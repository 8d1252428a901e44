"""Planning: which network, patch and batch to train on a data set, within a budget of memory.

``plan(source, "8GB")`` looks at the files and gives a :class:`Plan`: values for ``dynunet train --config``,
and the reasons for each. ``training_memory(model, batch)`` is its estimate, for any model with a loss.
"""

from typing import TYPE_CHECKING, Any

from .._lazy import attribute

if TYPE_CHECKING:
    from .fingerprint import Fingerprint
    from .memory import TrainingMemory, training_memory
    from .patches import Candidate
    from .planner import Plan, plan, plan_for
    from .topology import Topology

__all__ = [
    "Candidate",
    "Fingerprint",
    "Plan",
    "Topology",
    "TrainingMemory",
    "plan",
    "plan_for",
    "training_memory",
]

_FROM = {
    "Candidate": ".patches",
    "Fingerprint": ".fingerprint",
    "Plan": ".planner",
    "Topology": ".topology",
    "TrainingMemory": ".memory",
    "plan": ".planner",
    "plan_for": ".planner",
    "training_memory": ".memory",
}


def __getattr__(name: str) -> Any:
    return attribute(__name__, name, _FROM)


def __dir__() -> list[str]:
    return __all__
