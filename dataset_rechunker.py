#!/usr/bin/env python3
"""chunks -> globally shuffled chunks. `dataset_rechunker.py --help` explains every flag."""

import sys

from humanpose3d.cli import rechunk

if __name__ == "__main__":
    sys.exit(rechunk())
