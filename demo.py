#!/usr/bin/env python3
"""The whole road once, on the embedded studio data set: `make demo`. Works in demo/, finished stages are skipped.

Runs the six commands as a user would, each printed before it runs, the split through a real rclone remote served on
127.0.0.1; ends with the error on the unseen subjects beside that of always answering with the mean training pose.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from humanpose3d.remotes import rclone_binary

ROOT = Path(__file__).resolve().parent
DEMO = Path("demo")
DRIVE = "demodrive"  # the rclone remote; its buckets are the folders of demo/
TRAIN, TEST = ("S1", "S5", "S6", "S7", "S8"), ("S9", "S11")
FRAMES_PER_TAKE = 3
SHOWN = DEMO / "shown"  # what infer.py is given
SHOWN_TAKES = "s_09_act_*_subact_01_ca_0[13]"  # takes of an unseen subject
SHOWN_AT_MOST = 8


def main() -> int:
    os.chdir(ROOT)
    DEMO.mkdir(exist_ok=True)
    seconds: dict[str, float] = {}

    def stage(name: str, report: str, command: str) -> None:
        seconds[name] = run_stage(name, DEMO / report, command)

    stage(
        "frames",
        "frames/fake_report.json",
        f"humanpose3d fake human36m demo/frames --frames-per-take {FRAMES_PER_TAKE} --workers 2",
    )
    stage(
        "preprocess",
        "processed/preprocess_report.json",
        "preprocess.py demo/frames/images demo/processed --yolo-model studio --depth-model studio --batch-size 16",
    )
    stage(
        "chunk",
        "chunks/chunker_report.json",
        f"dataset_chunker.py --subjects {' '.join(TRAIN + TEST)} --images-path demo/frames/images"
        " --processed-path demo/processed --annotations-path demo/frames/annotations --output demo/chunks"
        " --chunk-size 500 --image-size 192 --workers 2",
    )
    with cloud_drive(DEMO):
        stage(
            "split",
            "split/split_report.json",
            f"dataset_split.py --rclone-input-prefix {DRIVE}:chunks --rclone-destination-prefix {DRIVE}:split"
            f" --train-subjects {','.join(TRAIN)} --test-subjects {','.join(TEST)} --new-chunk-size 400"
            " --temp-extraction-dir demo/cache/extract --staging-dir demo/cache/staging",
        )
    stage(
        "rechunk",
        "shuffled/rechunk_report.json",
        "dataset_rechunker.py --input-dir demo/split --output-dir demo/shuffled --chunk-size 400"
        " --temp-dir demo/cache/rechunk",
    )
    main_py = "main.py --config configs/studio_demo.yaml --chunks-dir demo/shuffled --cache-dir demo/cache/train"
    checkpoints = DEMO / "logs/demo/checkpoints"
    resumable = (checkpoints / "last.pth").exists()
    if not resumable:  # a run killed before its first checkpoint has nothing to go on from
        shutil.rmtree(DEMO / "logs/demo", ignore_errors=True)
    name = "--resume demo" if resumable else "--exp demo"
    stage("train", "logs/demo/train_report.json", f"{main_py} --log-dir demo/logs {name}")
    best = checkpoints / "best_model.pth"
    stage(
        "evaluate",
        "logs/demo/evaluate_report.json",
        f"{main_py} --log-dir demo/logs --evaluate --checkpoint {best}",
    )
    copy_shown_frames()
    stage(
        "infer",
        "results/infer_report.json",
        f"infer.py --checkpoint_path {best} --input_folder {SHOWN} --output_folder demo/results"
        " --yolo_model_path studio --depth_model_path studio --visualize",
    )
    return finish(seconds)


def run_stage(name: str, report: Path, command: str) -> float:
    """Seconds the stage took: now, or when it ran, where its report is there already."""
    if report.exists():
        print(f"\n== {name}: done already ({report})", flush=True)
        return float(json.loads(report.read_text())["seconds"])
    program, *arguments = shlex.split(command)
    if program == "humanpose3d":
        program, arguments = "-m", ["humanpose3d", *arguments]
    shown = command if program == "-m" else f"python {command}"
    print(f"\n== {name}\n$ {shown}", flush=True)
    started = time.monotonic()
    code = subprocess.run([sys.executable, program, *arguments]).returncode
    if code:
        sys.exit(
            f"\n{name} ended with exit code {code}; mend what it names and run make demo again: it goes on from here"
        )
    return time.monotonic() - started


@contextmanager
def cloud_drive(folder: Path) -> Iterator[None]:
    """A real rclone remote: an S3 server on 127.0.0.1 over `folder`, configured apart from the user's own remotes."""
    rclone, key, secret = rclone_binary(), secrets.token_hex(8), secrets.token_hex(16)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "cache/rclone.conf"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(
        f"[{DRIVE}]\ntype = s3\nprovider = Rclone\nendpoint = http://127.0.0.1:{port}\n"
        f"access_key_id = {key}\nsecret_access_key = {secret}\n"
    )
    os.environ["RCLONE_CONFIG"] = str(config.resolve())
    (folder / "split").mkdir(exist_ok=True)
    log = (folder / "cache/rclone_serve.log").open("w")
    serve = [rclone, "serve", "s3", str(folder), "--addr", f"127.0.0.1:{port}", "--auth-key", f"{key},{secret}"]
    server = subprocess.Popen(serve, stdout=log, stderr=log)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield
    finally:
        server.terminate()
        server.wait(timeout=10)
        log.close()


def copy_shown_frames() -> None:
    """One frame each of some takes of an unseen subject, from the studio's into a small folder for infer.py."""
    SHOWN.mkdir(exist_ok=True)
    takes = sorted((DEMO / "frames/images").glob(SHOWN_TAKES))
    for take in takes[:: max(len(takes) // SHOWN_AT_MOST, 1)][:SHOWN_AT_MOST]:
        frame = sorted(take.glob("*.jpg"))[FRAMES_PER_TAKE // 2]
        shutil.copy(frame, SHOWN / frame.name)


def finish(seconds: dict[str, float]) -> int:
    """Write demo/report.json and print what it tells. 1 where the model is not twice as good as the mean pose."""
    figures = json.loads((DEMO / "logs/demo/evaluate_report.json").read_text())
    panels = sorted(str(path) for path in (DEMO / "results").rglob("*_combined_viz.png"))
    names = ("samples", "mpjpe_mm", "pa_mpjpe_mm", "mean_pose_mpjpe_mm", "root_error_mm")
    report = {"seconds": {name: round(value, 1) for name, value in seconds.items()}}
    report |= {name: figures[name] for name in names} | {"panels": panels}
    (DEMO / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"\n== done in {sum(seconds.values()):.0f} s; error on the unseen subjects {' and '.join(TEST)}:")
    print(f"  this model               {report['mpjpe_mm']:7.1f} mm MPJPE, {report['pa_mpjpe_mm']:.1f} mm PA-MPJPE,")
    print(f"                           {report['root_error_mm']:7.1f} mm root position, {report['samples']} samples")
    print(f"  the mean training pose   {report['mean_pose_mpjpe_mm']:7.1f} mm MPJPE")
    print("panels:", *panels, sep="\n  ")
    print(f"curves and previews:\n  {Path(sys.executable).parent / 'tensorboard'} --logdir {DEMO / 'logs'}")
    twice_as_good = 2 * report["mpjpe_mm"] <= report["mean_pose_mpjpe_mm"]
    if not twice_as_good:
        print("the model is not twice as good as the mean pose: something is wrong", file=sys.stderr)
    return 0 if twice_as_good else 1


if __name__ == "__main__":
    sys.exit(main())
