"""``python -m dynunet`` and ``dynunet``: the command line, see :mod:`dynunet.cli`."""

import signal
import sys

from .training.interrupts import killed_by_interrupts


def main() -> None:
    """Run the command of the process."""
    if sys.platform == "win32":  # where the studio can send no SIGINT
        signal.signal(signal.SIGBREAK, signal.default_int_handler)
    try:
        with killed_by_interrupts():
            from .cli.main import main as run
    except ImportError as error:
        sys.exit(f"the command line needs more packages: pip install 'dynunet[train,cli,files]' ({error})")
    run()


if __name__ == "__main__":
    main()
