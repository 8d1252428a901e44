"""Training of diffusion models: exactly resumable, on any device and any number of them.

    trainer = Trainer(diffusion, dataset, "runs/brain", batch_size=4, lr=2e-4)
    diffusion = trainer.fit(steps=20_000)

Needs ``accelerate``, which ``pip install 'dynunet[train]'`` installs.
"""

from .failures import TrainingError
from .interrupts import Interrupted
from .options import TrainOptions
from .trainer import Trainer

__all__ = ["Interrupted", "TrainOptions", "Trainer", "TrainingError"]
