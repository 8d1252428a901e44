"""What is changed if nothing else is said, by the task and the number of axes.

For segmentation they are near those of nnU-Net (Isensee et al. 2021, supplement 4), for generation near
those of EDM (Karras et al. 2022, table 6), as far as they mean something at any number of axes. Classes often
depend on which way up things are, and recordings on which way they run: neither is mirrored. What is to be
estimated entry by entry, or restored, depends on the values that are given, which then stay as they are or
change together.
"""

from typing import Any

TASKS = ("segmentation", "classification", "regression", "restoration", "generation")

# Of each change by itself; of mirroring, along each axis.
PROBABILITIES = {
    "flip": 0.5,
    "rotation": 0.2,
    "scale": 0.2,
    "stretch": 0.2,
    "shear": 0.2,
    "shift": 0.2,
    "elastic": 0.2,
    "gamma": 0.3,
    "contrast": 0.15,
    "brightness": 0.15,
    "noise": 0.1,
    "blur": 0.2,
    "resolution": 0.25,
    "gain": 0.5,
    "filter": 0.3,
    "erase": 0.3,
    "band_stop": 0.3,
}

_SPEED: dict[str, Any] = {"scale": (0.9, 1.1)}
_SOUND: dict[str, Any] = {"gain": (-6.0, 6.0), "noise": 0.02, "filter": 6.0, "erase": 0.1, "band_stop": 0.1}
_PICTURE: dict[str, Any] = {
    "gamma": (0.7, 1.5),
    "contrast": (0.75, 1.25),
    "brightness": 0.2,
    "noise": 0.15,
    "blur": 1.0,
    "resolution": 0.5,
}


def preset(task: str | None, n: int, axes: tuple[int, ...]) -> dict[str, Any]:
    """Strengths for a task with n spatial axes, some of which are mirrored and turned.

    Without a task they are those that suit any.
    """
    if n == 1:
        by_task = {
            "segmentation": _SPEED | _SOUND,
            "classification": _SPEED | _SOUND | {"shift": 0.1},
            "regression": _SPEED,
            "restoration": _SPEED | {"gain": (-6.0, 6.0)},
            "generation": _SPEED | {"gain": (-6.0, 6.0)},
        }
        return by_task.get(task or "", _SPEED)
    planes = len(axes) > 1
    turn: dict[str, Any] = {"rotation": (180.0 if len(axes) == 2 else 30.0,)} if planes else {}
    tilt: dict[str, Any] = {"rotation": (15.0,)} if planes else {}
    turned = {"flip": axes, "scale": (0.7, 1.4)} | turn
    upright = {"scale": (0.85, 1.15), "shift": 0.1} | tilt
    free = turned | {"scale": (0.8, 1.25), "stretch": (0.8, 1.25), "shift": 0.125}
    by_task = {
        "segmentation": turned | _PICTURE,
        "classification": upright | _PICTURE,
        "regression": turned,
        "restoration": {"flip": axes, "contrast": (0.75, 1.25), "brightness": 0.2},
        "generation": free,
    }
    return by_task.get(task or "", turned)
