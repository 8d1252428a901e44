"""Training of diffusion models: exactly resumable, on any device and any number of them.

    trainer = Trainer(diffusion, dataset, "runs/brain", batch_size=4, lr=2e-4)
    diffusion = trainer.fit(steps=20_000)

Needs ``accelerate``, which ``pip install 'dynunet[train]'`` installs.
"""

from typing import TYPE_CHECKING, Any

from .._lazy import attribute

if TYPE_CHECKING:
    from ..progress import Interrupted
    from .failures import TrainingError
    from .options import TrainOptions
    from .trainer import Trainer

__all__ = ["Interrupted", "TrainOptions", "Trainer", "TrainingError"]

# Imported when they are asked for: options are read before torch is.
_FROM = {
    "Interrupted": "..progress",
    "TrainOptions": ".options",
    "Trainer": ".trainer",
    "TrainingError": ".failures",
}


def __getattr__(name: str) -> Any:
    return attribute(__name__, name, _FROM)


def __dir__() -> list[str]:
    return __all__
