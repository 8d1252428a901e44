"""``python -m dynunet``: the command line, see :mod:`dynunet.cli`."""

import sys

try:
    from .cli import main
except ImportError as error:
    sys.exit(f"the command line needs more packages: pip install 'dynunet[train,cli,files]' ({error})")

if __name__ == "__main__":
    main()
