"""Help, and errors of flags, are answered before torch is imported, which takes seconds."""

import re
import subprocess
import sys

import pytest

pytest.importorskip("tyro")

LINES = [
    "--help",
    *(
        f"{name} --help"
        for name in ("train", "distill", "sample", "denoise", "inpaint", "evaluate", "summary")
    ),
    "",
    "trian x",
    "train",
    "train x --out y --stepz 3",
    "train x --out y --steps many",
    "train x --out y --steps 0",
    "train x --out y --lr 0",
    "train x --out y --snr 5 1",
    "train x --out y --noise a --pairs b",
    "train x --out y --level 1",
    "train nowhere --out y",
    "train --resume nowhere",
    "train --config nowhere.json",
    "sample nowhere --out y",
    "distill nowhere",
    "distill . --train-steps 0",
    "sample . --out y --num 0",
    "sample . --out y --seed 99999999999999999999",
    "denoise . x --out y --window 0",
    "inpaint . x --out y",
    "inpaint . x --out y --missing none",
    "evaluate . --num 1",
    "train . --out y --spatial-dims 2 --block dense",
    "summary --spatial-dims 2 --size 8 8 8",
    "summary --spatial-dims 2 --size 8 --attention fast",
    "summary --spatial-dims 2 --size 8 --strides 1,2",
    "summary --spatial-dims 99 --size 8",
    "summary --spatial-dims 2 --size 8 --memory 0",
]
SCRIPT = """
import sys
from dynunet.__main__ import main

for line in {lines!r}:
    sys.argv = ["dynunet", *line.split()]
    try:
        main()
    except SystemExit:
        pass
    else:
        sys.exit(f"{{line!r}} does not end with its answer")
    heavy = {{"torch", "numpy", "accelerate"}} & sys.modules.keys()
    if heavy:
        sys.exit(f"{{line!r}} imports {{heavy}}")
"""


def test_answers_come_before_torch_is_imported() -> None:
    script = SCRIPT.format(lines=LINES)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr.splitlines()[-1]
    assert done.stderr.count("\n") == sum("--help" not in line for line in LINES)  # one line for each


@pytest.mark.parametrize(
    "module", ["data.options", "data.spec", "training.options", "training.record", "jsonable"]
)
def test_options_need_no_torch(module: str) -> None:
    script = f"import sys, dynunet.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    from dynunet.cli import main

    main(["--version"])
    assert re.fullmatch(r"dynunet \d+\.\d+\S*\n", capsys.readouterr().out)
