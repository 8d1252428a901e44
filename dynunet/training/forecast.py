"""How long a run takes, said once its first steps have shown it."""

import time

from ..progress import duration

_STEPS, _SECONDS = 3, 5.0  # that show how long all take
_LONG = 1800.0  # seconds, after which a smaller setting is proposed


class Forecast:
    """The time that a run takes, from that of its first steps but one, which is slower.

    Args:
        steps: of the whole run.
        device: where, as torch names its type.
    """

    def __init__(self, steps: int, device: str) -> None:
        self.steps, self.device = steps, device
        self._timed: tuple[int, float] | None = None  # a step, and when it was done
        self._made = False

    def after(self, step: int) -> list[str]:
        """What there is to say after a step: sentences once, before and afterwards nothing."""
        now = time.monotonic()
        if self._timed is None:
            self._timed = step, now
        first, since = self._timed
        if self._made or step - first < _STEPS or now - since < _SECONDS:
            return []
        self._made = True
        each = (now - since) / (step - first)
        said = [f"{self.steps} steps take about {duration(each * self.steps)} here (on {self.device})"]
        if each * (self.steps - step) > _LONG and self.device == "cpu":
            said.append(
                f"without a GPU: a tenth of the steps would take {duration(each * self.steps / 10)}; "
                "half of the channels, or half of the size along every axis, make each step several times "
                "faster. Ctrl-C saves, and the model is used as it is then"
            )
        return said
