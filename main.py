#!/usr/bin/env python3
"""chunks -> checkpoints + TensorBoard. `main.py --help` explains every flag."""

import sys

from humanpose3d.cli import train

if __name__ == "__main__":
    sys.exit(train())
