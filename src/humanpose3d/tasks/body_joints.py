"""The submission: the joints of every picture of an evaluation, as one CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from humanpose3d.files import write_whole
from humanpose3d.metrics import SCORED_BODY
from humanpose3d.sample import PoseBatch
from humanpose3d.tasks.body import BodyTask

JOINTS_FILE = "test_pred_joints.csv"


def write_joints(path: Path, model: nn.Module, task: BodyTask, batches: Iterable[PoseBatch]) -> Path:
    """A header and a row a sample: its key, then x y z of each of SCORED_BODY's joints, metres, camera axes (x right,
    y down, z forward), from the middle of the hips. Samples that do not count are in none of them."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["name", *(f"{joint}_{axis}" for joint in SCORED_BODY.joints for axis in "xyz")])
    with torch.inference_mode():
        for batch in batches:
            batch = batch.to(next(model.parameters()).device)
            joints_m = task.predict(model, batch).scored_m.flatten(1).tolist()
            for key, counted, row in zip(batch.keys, batch.counted.tolist(), joints_m, strict=True):
                if counted:
                    rows.writerow([key, *(f"{value:.5f}" for value in row)])
    write_whole(path, text.getvalue().encode())
    return path
