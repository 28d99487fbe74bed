"""DepthPro: metres and pixels come out right, sizes follow the image, and missing models say what to put where."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from humanpose3d.estimators.depth import DepthProDepth
from humanpose3d.estimators.weights import sha256_of
from tests.networks import save_tiny_depth_model


def test_canonical_inverse_depth_becomes_metres_with_the_focal_length(tiny_depth_model: str) -> None:
    """DepthPro's paper: depth = focal length / (width * canonical inverse depth)."""
    estimator = DepthProDepth(tiny_depth_model, "cpu")

    def answers(pixel_values: torch.Tensor) -> SimpleNamespace:
        number = len(pixel_values)
        canonical = torch.full((number, 64, 64), 0.25)
        return SimpleNamespace(predicted_depth=canonical, field_of_view=torch.full((number,), 60.0))

    estimator.network = answers
    small, large = np.zeros((30, 40, 3), np.uint8), np.zeros((200, 400, 3), np.uint8)
    first, second = estimator.predict([small, large])
    tangent = np.tan(np.radians(30.0))
    assert first.focal_px == pytest.approx(20.0 / tangent, rel=1e-5)
    assert second.focal_px == pytest.approx(200.0 / tangent, rel=1e-5)
    for estimate in (first, second):  # the same view: the number of pixels changes nothing
        np.testing.assert_allclose(estimate.depth_m, 0.5 / tangent / 0.25, rtol=1e-5)
    assert first.depth_m.shape == (30, 40), "as large as the image where the network's map is"
    assert second.depth_m.shape == (32, 64), "no larger than the network's map, the aspect kept"
    assert first.depth_m.dtype == np.float32


def test_images_of_different_sizes_go_together(tiny_depth_model: str) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, size, dtype=np.uint8) for size in ((64, 64, 3), (90, 40, 3), (64, 64, 3))]
    estimator = DepthProDepth(tiny_depth_model, "cpu")
    together = estimator.predict(images)
    for image, estimate in zip(images, together, strict=True):
        alone = estimator.predict([image])[0]
        assert estimate.depth_m.shape == image.shape[:2]
        assert (estimate.depth_m > 0).all() and estimate.focal_px > 0
        # Compared as the network has it: inverse depth, where rounding is of one size near and far.
        np.testing.assert_allclose(1 / estimate.depth_m, 1 / alone.depth_m, rtol=1e-3, atol=1e-2)
        assert estimate.focal_px == pytest.approx(alone.focal_px, rel=1e-3)


def test_the_hash_is_of_the_weights(tiny_depth_model: str) -> None:
    provenance = DepthProDepth(tiny_depth_model, "cpu").provenance
    assert provenance["sha256"] == sha256_of(Path(tiny_depth_model) / "model.safetensors")
    assert provenance["version"].startswith("transformers ")


def test_a_folder_without_its_files_says_which_are_missing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="preprocessor_config.json, model.safetensors missing"):
        DepthProDepth(str(tmp_path), "cpu")
    with pytest.raises(FileNotFoundError, match="no DepthPro model: config.json"):
        DepthProDepth(str(tmp_path / "not" / "there"), "cpu")


def test_a_hub_id_that_cannot_be_downloaded_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError) as caught:
        DepthProDepth("humanpose3d-tests/nothing", "cpu")
    message = str(caught.value)
    assert "humanpose3d-tests/nothing is not here and cannot be downloaded" in message
    assert "model.safetensors" in message and "--no-depth" in message and "\n" not in message


def test_a_model_without_a_field_of_view_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_depth_model(tmp_path / "flat", use_fov_model=False)
    with pytest.raises(ValueError, match="flat has no field-of-view network"):
        DepthProDepth(str(folder), "cpu")


def test_weights_of_another_network_are_not_replaced_by_random_ones(tmp_path: Path, tiny_depth_model: str) -> None:
    from safetensors.torch import save_file

    folder = tmp_path / "other"
    shutil.copytree(tiny_depth_model, folder)
    save_file({"conv.weight": torch.zeros(3)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="other: its model.safetensors is not DepthPro's"):
        DepthProDepth(str(folder), "cpu")


def test_a_damaged_model_is_refused_by_name(tmp_path: Path, tiny_depth_model: str) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_depth_model, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged cannot be loaded as a DepthPro model"):
        DepthProDepth(str(folder), "cpu")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"fusion_hidden_size": "wide"}))
    with pytest.raises(ValueError, match="damaged cannot be loaded as a DepthPro model"):
        DepthProDepth(str(folder), "cpu")
