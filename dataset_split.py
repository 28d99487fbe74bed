#!/usr/bin/env python3
"""chunks -> train/ + test/ by subject. `dataset_split.py --help` explains every flag."""

import sys

from humanpose3d.cli import split

if __name__ == "__main__":
    sys.exit(split())
