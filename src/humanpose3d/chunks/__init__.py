"""Chunks on disk: plain WebDataset tars with an index beside them, and the stages that make and move them."""
