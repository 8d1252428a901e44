"""What notebooks show: values of cells, bars, and the notebook of the examples."""

import io
import json
import re
import subprocess
import sys
import wave
from base64 import b64decode
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch

from dynunet import UNet, plotting
from dynunet.plotting import Shown, show

FIRST_STEPS = Path(__file__).parents[2] / "examples/first_steps.ipynb"


def addresses(shown: Shown) -> list[tuple[str, bytes]]:
    """Kinds and contents of what is embedded in the page."""
    found = re.findall(r'src="data:([\w/]+);base64,([^"]+)"', shown._repr_html_())
    return [(kind, b64decode(content)) for kind, content in found]


@pytest.mark.parametrize("dims", [1, 2, 3, 4, 5])
def test_data_of_any_rank_are_shown_as_they_are_drawn(tmp_path: Path, dims: int) -> None:
    x = torch.linspace(-1, 1, 2 * 4**dims).reshape(2, 1, *[4] * dims)
    plotting.pictures(x, tmp_path / "drawn.png", labels=["a", "b"])
    assert addresses(show(x, labels=["a", "b"])) == [("image/png", (tmp_path / "drawn.png").read_bytes())]
    assert addresses(show(tmp_path / "drawn.png")) == addresses(show(x, labels=["a", "b"]))


@pytest.mark.parametrize(("channels", "played"), [(1, 1), (2, 2), (3, 1)])
def test_sound_is_played(channels: int, played: int) -> None:
    x = torch.sin(torch.arange(2 * channels * 400.0)).reshape(2, channels, 400) * torch.tensor(
        [[[0.5]], [[4.0]]]
    )
    x[0, 0, 3] = torch.nan
    shown = show(x, 8000, labels=["<a>", "b"])
    (_, *sounds), html = addresses(shown), shown._repr_html_()
    assert html.count("<audio controls") == 2
    assert "&lt;a&gt;<br><audio" in html
    for (kind, sound), given, loudest in zip(sounds, x, (1.0, 4.0), strict=True):
        assert kind == "audio/wav"
        with wave.open(io.BytesIO(sound)) as file:
            assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (played, 2, 8000)
            values = np.frombuffer(file.readframes(400), "<i2").reshape(400, played).T / 32767
        expected = given[:played].nan_to_num() / max(
            1.0, min(loudest, given[:played].nan_to_num().abs().max())
        )
        assert np.abs(values - expected.numpy()).max() < 1e-4


def test_what_cannot_be_shown_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sample_rate must be left out unless x is \(N, C, T\), got shape"):
        show(torch.zeros(1, 1, 4, 4), 8000)
    (tmp_path / "notes.txt").write_text("mine")
    for file in (tmp_path / "notes.txt", tmp_path / "none.png"):
        with pytest.raises(ValueError, match=r"x must be data .* or the file of a picture"):
            show(file)


def test_a_summary_is_shown_with_its_drawing() -> None:
    summary = UNet(2, 1, channels=(2, 4), num_groups=1).summary((1, 1, 4, 4))
    shown = summary._repr_html_()
    assert unescape(re.sub(r"</?pre[^>]*>", "", shown)) == str(summary)
    assert "-> |" not in shown


# Bars


NOTEBOOK = """
import sys
from types import ModuleType, SimpleNamespace

class Widget:
    def __init__(self, **given):
        self.__dict__ |= {"value": "", "bar_style": "", "layout": SimpleNamespace(), **given}
        self.style = SimpleNamespace(bar_color=None)
    def close(self):
        closed.append(self)

closed, shown = [], []
python = ModuleType("IPython")
python.get_ipython = lambda: SimpleNamespace()
display = ModuleType("IPython.display")
display.display = shown.append
widgets = ModuleType("ipywidgets")
widgets.HTML = widgets.FloatProgress = widgets.HBox = Widget
widgets.__version__ = "8.0.0"
sys.modules |= {"IPython": python, "IPython.display": display}
sys.modules |= {name: ModuleType(name) for name in ("ipykernel", "ipykernel.zmqshell")}
sys.modules["ipywidgets"] = widgets if sys.argv[1] == "widgets" else None

from dynunet.progress import Bar, say

for leave in (True, False):
    with Bar(total=3, desc="work", leave=leave) as bar:
        bar.update(2)
        bar.doing("more")
        say("a line")
        bar.update()
print(len(shown), len(closed), [box.children[1].bar_style for box in shown])
"""


@pytest.mark.parametrize(("has", "said"), [("widgets", "2 1 ['success', '']\n"), ("no widgets", "0 0 []\n")])
def test_bars_are_those_of_the_notebook_or_of_text_without_a_warning(has: str, said: str) -> None:
    command = [sys.executable, "-W", "always", "-c", NOTEBOOK, has]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout == said
    assert "Warning" not in found.stderr
    assert ("more: 100%" in found.stderr) == (has != "widgets")


def test_the_notebook_has_no_outputs() -> None:
    cells = json.loads(FIRST_STEPS.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 5
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
