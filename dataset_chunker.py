#!/usr/bin/env python3
"""corpus + sidecars -> chunks. `dataset_chunker.py --help` explains every flag."""

import sys

from humanpose3d.cli import chunk

if __name__ == "__main__":
    sys.exit(chunk())
