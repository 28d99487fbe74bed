"""The embedded data set: a procedural person, moving in a textured room, filmed by four calibrated cameras.

Nothing here imports torch at import time; `networks` does so inside its functions.
"""
