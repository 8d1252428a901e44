"""A studio in a process of its own, and a real browser that is cut off from every other host."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
_T = TypeVar("_T")
_WAIT = 120  # seconds, of a machine that does other things too


def until(what: Callable[[], _T], why: str, seconds: float = _WAIT) -> _T:
    """What a function gives, once it is true; errors of a page that is being drawn are waited for."""
    from selenium.common.exceptions import WebDriverException

    end, error = time.monotonic() + seconds, None
    while time.monotonic() < end:
        try:
            found = what()
            if found:
                return found
        except (WebDriverException, IndexError, StopIteration) as caught:
            error = caught
        time.sleep(0.1)
    raise AssertionError(f"waited {seconds} s in vain: {why} ({error})")


@contextmanager
def served(root: Path) -> Iterator[str]:
    """The address of a studio of a folder."""
    command = [sys.executable, "-m", "dynunet", "studio", "--root", str(root), "--port", "0", "--no-open"]
    # NiceGUI would wait for fixtures of its own.
    around = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    around["OMP_NUM_THREADS"] = "1"  # as of the tests: sums of several differ in the last digits
    with (root.parent / "studio.log").open("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, cwd=root, env=around)
        try:
            log = root.parent / "studio.log"
            found = until(
                lambda: re.findall(r"http://127\.0\.0\.1:\d+", log.read_text()), "the studio begins"
            )
            yield found[0]
        finally:
            process.terminate()
            process.wait(30)


def skip_without_a_browser() -> None:
    """Skip what needs one, and say what is missing."""
    for module in ("nicegui", "selenium"):
        pytest.importorskip(module, reason=f"no {module}: the studio is not tested in a browser")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no chromium and chromedriver: the studio is not tested in a browser")


class Browser:
    """A page of the studio."""

    def __init__(self, address: str, downloads: Path) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM or ""
        for flag in (
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--window-size=1500,1300",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        ):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
        self.driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        self.address = address
        self.open()

    def open(self) -> None:
        """Load the page, anew if it is there."""
        self.driver.get(self.address)
        until(lambda: self.all(".q-tab"), "the page is there")

    def close(self) -> None:
        self.driver.quit()

    def all(self, selector: str) -> list[Any]:
        """The elements that are seen."""
        return [e for e in self.driver.find_elements("css selector", selector) if e.is_displayed()]

    def tab(self, name: str) -> None:
        until(lambda: self._click(next(t for t in self.all(".q-tab") if t.text.lower() == name)), name)

    def press(self, button: str, number: int = 0) -> None:
        """Click a button once it is enabled."""

        def pressed() -> bool:
            found = self.all(f"[data-button='{button}']")[number]
            self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
            return found.is_enabled() and self._click(found)

        until(pressed, f"the button {button}")

    def unfold(self, title: str) -> None:
        def unfolded() -> bool:
            heads = self.all(".q-expansion-item .q-item")
            return self._click(next(h for h in heads if h.text.split("\n")[0] == title))

        until(unfolded, title)
        time.sleep(0.5)  # until it has unfolded

    def type(self, field: str, text: str, number: int = 0) -> None:
        """Replace what is in a field, and leave it."""

        def typed() -> bool:
            found = [e for e in self.all(f"[data-flag='{field}']") if e.tag_name in ("input", "textarea")]
            found = found or self.all(f"[data-flag='{field}'] input")
            found[number].send_keys("\ue009a\ue000", text, "\ue007")
            return True

        until(typed, f"the field {field}")

    def choose(self, field: str, text: str) -> None:
        """Press one of several buttons beside each other."""

        def chosen() -> bool:
            found = self.all(f"[data-flag='{field}'] .q-btn")
            return self._click(next(b for b in found if b.text.lower() == text.lower()))

        until(chosen, f"{text} of {field}")

    def drag(self, selector: str, begin: tuple[float, float], end: tuple[float, float]) -> None:
        """Press the mouse at a place of an element, as shares of its sides, and release it at another."""
        from selenium.webdriver import ActionChains

        element = self.all(selector)[0]
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        width, height = element.size["width"], element.size["height"]
        (x, y), (to_x, to_y) = (((a - 0.5) * width, (b - 0.5) * height) for a, b in (begin, end))
        actions = ActionChains(self.driver).move_to_element_with_offset(element, int(x), int(y))
        actions.click_and_hold().move_by_offset(int(to_x - x), int(to_y - y)).release().perform()

    def switch(self, field: str) -> None:
        until(lambda: self._click(self.all(f"[data-flag='{field}']")[0]), f"the switch {field}")

    def text(self, mark: str, number: int = 0) -> str:
        return self.all(f"[data-text='{mark}']")[number].text

    def reads(self, mark: str, pattern: str, number: int = 0) -> str:
        """A text, once it fits."""
        last = ""

        def fits() -> bool:
            nonlocal last
            last = self.text(mark, number)
            return re.search(pattern, last) is not None

        try:
            until(fits, "")
        except AssertionError:
            raise AssertionError(f"{mark} must fit {pattern!r}, got {last!r}") from None
        return last

    def check(self) -> None:
        """Refuse errors of the page, and anything that came from elsewhere."""
        severe = [entry for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        assert severe == []
        names = self.driver.execute_script("return performance.getEntriesByType('resource').map(r => r.name)")
        assert names
        assert [n for n in names if not n.startswith((self.address, "data:", "blob:"))] == []

    @staticmethod
    def _click(element: Any) -> bool:
        element.click()
        return True
