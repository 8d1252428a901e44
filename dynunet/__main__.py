"""``python -m dynunet`` and ``dynunet``: the command line, see :mod:`dynunet.cli`."""

import signal
import sys


def main() -> None:
    """Run the command of the process."""
    # While all is imported, which takes seconds, Ctrl-C ends it at once and without a traceback.
    handled = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if handled:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from .cli import main as run
    except ImportError as error:
        sys.exit(f"the command line needs more packages: pip install 'dynunet[train,cli,files]' ({error})")
    if handled:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
