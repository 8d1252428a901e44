"""How soon the studio answers while a run trains at full speed: ``python -m tests.benchmarks.studio``.

A run is begun as the studio begins it, with a thread for each core, and a real browser opens the page, over
and over, and uses it. Times are taken in the browser, by its own clock: of a page from the request to the U
that is drawn, of a request alone to its last byte, of an interaction from the event to what it changes. The
steps of the run in windows of equal length, without a studio and with a page that is open on its Train tab,
one after the other in turn, say how much slower it is; where they vary by more than that, the share of the
processors that studio and browser take meanwhile says it.
"""

import argparse
import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
from PIL import Image
from selenium.common.exceptions import TimeoutException

from dynunet.studio.launch import begin
from dynunet.studio.roots import Roots
from dynunet.training.background import process_of, stop
from dynunet.training.run import read_log

from ..dynunet.studio_page import Browser, served, until

_TRAINING = "--size 32 --channels 32 64 --batch-size 8 --steps 1000000".split()
_TRAINING += "--log-every 1 --sample-every 0 --validate-every 0 --no-tensorboard".split()
_LONGEST = 60  # seconds
# When all of it is there: called by the page at each change, from its very beginning.
_WATCH = """
new MutationObserver(() => {
    const seen = document.querySelector('[data-text=figures]');
    if (seen && seen.textContent && !window.drawnAt) window.drawnAt = performance.now();
}).observe(document, {childList: true, subtree: true, characterData: true});
"""
# From an event to a change of what the page shows; the last argument is Selenium's.
_INTERACT = """
const [act, done, end] = arguments, began = performance.now();
const reached = new Function('return ' + done), observer = new MutationObserver(look);
function look() {
    if (!reached()) return;
    observer.disconnect();
    end(performance.now() - began);
}
observer.observe(document, {childList: true, subtree: true, characterData: true, attributes: true});
new Function(act)();
look();
"""
_TEXT = "document.querySelector('[data-text={}]').textContent.includes({!r})"
_INPUT = (
    "const field = [...document.querySelectorAll('[data-flag={}]')].map(e => e.matches('input') ? e : "
    "e.querySelector('input')).find(e => e && e.offsetParent); field.value = {!r}; "
    "field.dispatchEvent(new Event('input', {{bubbles: true}}));"
)
_PRESS = "[...document.querySelectorAll({!r})].find(e => e.textContent.trim() == {!r}).click();"
_SHOWN = "[...document.querySelectorAll('[data-{}]')].some(e => e.offsetParent)"


def interactions(number: int) -> list[tuple[str, str, str]]:
    """What is done once the page is there: a name, what is done, and what is seen then, as JavaScript."""
    dims, channels = number % 2 + 1, f"8 {16 + number}"
    return [
        (
            "axes",
            _PRESS.format("[data-flag=spatial_dims] .q-btn", f"{dims}-D"),
            _TEXT.format("python", f"UNet({dims}, "),
        ),
        (
            "channels",
            _INPUT.format("channels", channels),
            _TEXT.format("python", f"channels=(8, {16 + number})"),
        ),
        ("wrong", _INPUT.format("num_blocks", "0"), _TEXT.format("problem", "num_blocks")),
        ("Data", _PRESS.format(".q-tab", "Data"), _SHOWN.format("button=look")),
        ("Train", _PRESS.format(".q-tab", "Train"), _SHOWN.format("button=start")),
        ("Use", _PRESS.format(".q-tab", "Use"), _SHOWN.format("button=use")),
        ("Inpaint", _PRESS.format("[data-flag=action] .q-btn", "Inpaint"), _SHOWN.format("paint")),
    ]


def pages(browser: Browser, count: int) -> dict[str, list[float]]:
    """Milliseconds of fresh pages, and of what is done on each."""
    driver, found = browser.driver, {}
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _WATCH})
    driver.set_script_timeout(_LONGEST)
    for number in range(count):
        driver.execute_script("sessionStorage.clear()")  # as a page of a new tab: nothing is restored
        driver.get(browser.address)
        drawn = until(lambda: driver.execute_script("return window.drawnAt"), "the U is drawn")
        times = driver.execute_script("return performance.getEntriesByType('navigation')[0].toJSON()")
        found.setdefault("request", []).append(times["responseEnd"])
        found.setdefault("page", []).append(drawn)
        for name, act, done in interactions(number):
            time.sleep(0.3)  # a reader looks at it
            try:
                found.setdefault(name, []).append(driver.execute_async_script(_INTERACT, act, done))
            except TimeoutException as error:
                raise AssertionError(f"{name}: {done} did not become true in {_LONGEST} s") from error
    return found


def steps_a_second(log: Path, seconds: float) -> float:
    """Of a run, in the seconds that come, between two rows of its log."""
    begun = len(read_log(log))
    until(lambda: len(read_log(log)) > begun, "the run trains")
    time.sleep(seconds)
    rows = read_log(log)
    first, last = rows[begun], rows[-1]
    return (int(last["step"]) - int(first["step"])) / (float(last["seconds"]) - float(first["seconds"]))


def processor_time(of: psutil.Process) -> float:
    """Seconds, of a process and all that it has begun."""
    times = [process.cpu_times() for process in (of, *of.children(recursive=True))]
    return sum(t.user + t.system for t in times)


def slowed(
    root: Path, run: Path, downloads: Path, seconds: float, rounds: int
) -> tuple[list[float], list[float], list[float]]:
    """Steps a second without a studio, and with a page that shows the run, and the share of all cores that
    the studio, the browser and its driver take."""
    without, beside, shares = [], [], []
    trains = process_of(run)
    assert trains is not None, "the run has ended"
    here, training = psutil.Process(), psutil.Process(trains.pid)

    def of_page() -> float:
        return processor_time(here) - processor_time(training)

    for _ in range(rounds):
        without.append(steps_a_second(run / "log.csv", seconds))
        with served(root) as address, ExitStack() as ends:
            browser = Browser(address, downloads)
            ends.callback(browser.close)
            browser.tab("train")
            browser.reads("status", "training")
            began, before = time.monotonic(), of_page()
            beside.append(steps_a_second(run / "log.csv", seconds))
            shares.append((of_page() - before) / (time.monotonic() - began) / (os.cpu_count() or 1))
    return without, beside, shares


def table(title: str, found: dict[str, list[float]]) -> str:
    """Of each kind the median, 95th percentile and largest, and how many took longer than half a second."""
    lines = [f"{title}: {'':12} {'median':>8} {'95 %':>8} {'largest':>8} ms {'over 500':>9}"]
    for kind, times in found.items():
        middle, most, largest = np.quantile(times, [0.5, 0.95, 1])
        late = sum(t > 500 for t in times)
        lines.append(
            f"{'':{len(title)}}  {kind:12} {middle:8.0f} {most:8.0f} {largest:8.0f} {late:6} of {len(times)}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pages", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=30, help="of a window in which steps are counted")
    parser.add_argument("--rounds", type=int, default=4, help="of such windows; 0 for none")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *given: sys.exit(143))  # else the run would train on
    with TemporaryDirectory() as folder, ExitStack() as ends:
        root = Path(folder) / "root"
        measured(root, options, ends)


def measured(root: Path, options: argparse.Namespace, ends: ExitStack) -> None:
    (root / "data").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(64):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(root / "data" / f"{i}.png")

    def measure(title: str) -> None:
        with served(root) as address, ExitStack() as closes:
            browser = Browser(address, root)
            closes.callback(browser.close)
            print(table(title, pages(browser, options.pages)), flush=True)

    print(f"load before: {os.getloadavg()}, {os.cpu_count()} cores")
    measure("nothing else")
    os.environ.pop("OMP_NUM_THREADS", None)  # the run takes all cores
    os.environ.pop("MKL_NUM_THREADS", None)
    run = begin(Roots([root]), [str(root / "data"), "--out", str(root / "run"), *_TRAINING])
    ends.callback(lambda: (stop(run), until(lambda: process_of(run) is None, "the run ends")))
    until(lambda: len(read_log(run / "log.csv")) > 2, "the run trains")
    measure("beside training")
    if options.rounds:
        without, beside, shares = slowed(root, run, root, options.seconds, options.rounds)
        slower = 1 - sum(beside) / sum(without)
        print(f"steps a second without a page {without}, with one {beside}: {slower:.1%} slower")
        print(f"the page takes {np.median(shares):.1%} of the cores' time, at most {max(shares):.1%}")
    print(f"load after: {os.getloadavg()}")


if __name__ == "__main__":
    main()
