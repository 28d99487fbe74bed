#!/usr/bin/env python3
"""images -> 3D poses + pictures. `infer.py --help` explains every flag."""

import sys

from humanpose3d.cli import infer

if __name__ == "__main__":
    sys.exit(infer())
