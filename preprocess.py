#!/usr/bin/env python3
"""frames -> keypoints + depth sidecars. `preprocess.py --help` explains every flag."""

import sys

from humanpose3d.cli import preprocess

if __name__ == "__main__":
    sys.exit(preprocess())
