"""`python -m humanpose3d <command>` is `humanpose3d <command>`."""

import sys

from humanpose3d.cli import main

if __name__ == "__main__":
    sys.exit(main())
