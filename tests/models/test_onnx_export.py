"""Lifters as ONNX files: ONNX Runtime's answers are ours, for any number of people; what has no such file is said."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from humanpose3d.model_config import model_config
from humanpose3d.models import build_model
from humanpose3d.models.checkpoint import load_model
from humanpose3d.models.onnx_export import AGREES_TO, _example, _names, _Plain, export_onnx


@pytest.mark.parametrize("name", ["lifter", "lifter_window27"])
def test_the_packages_lifters_answer_alike_in_onnx_runtime(name, tmp_path):
    import onnxruntime

    model = load_model(name).model
    assert export_onnx(model, tmp_path / "a.onnx") < AGREES_TO
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    for size in (4, 9):
        inputs = _example(model, size)
        found = session.run(["joints_rel_m"], dict(zip(_names(model), [each.numpy() for each in inputs], strict=True)))
        np.testing.assert_allclose(found[0], _Plain(model)(*inputs)[0].detach(), atol=AGREES_TO)


def test_a_lifter_without_depth_has_no_such_input(tmp_path):
    model = build_model(model_config("lifter", "tiny", use_depth=False)).eval()
    assert _names(model) == ["keypoints_px", "score", "intrinsics"]
    export_onnx(model, tmp_path / "a.onnx")
    assert (tmp_path / "a.onnx").stat().st_size > 100_000


def test_what_cannot_be_exported_is_said(tmp_path, monkeypatch):
    for config in (
        model_config("cnn", "tiny"),
        model_config("lifter", "tiny", image_backbone="mobilenetv3_small_050", input_size=64),
    ):
        with pytest.raises(ValueError, match="no network that sees pictures"):
            export_onnx(build_model(config), tmp_path / "a.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"\(onnxruntime\): pip install 'humanpose3d\[onnx\]'"):
        export_onnx(load_model("lifter").model, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())
