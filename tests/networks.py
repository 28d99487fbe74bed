"""Tiny networks with random weights in the real formats, for tests of the code around them."""

from __future__ import annotations

from pathlib import Path


def save_tiny_pose_model(path: Path, *, keypoints: int = 17, sees: bool = True) -> Path:
    """An Ultralytics pose model from the package's own YAML, saved as its trainer saves one; its images are 64 px.

    sees: give every place a box score around 0.5, so that people are found all over; else none above 0.25.
    """
    from humanpose3d.estimators.keypoints import prepare_ultralytics

    prepare_ultralytics(offline=True)
    import torch
    from ultralytics.nn.tasks import PoseModel, yaml_model_load

    torch.manual_seed(0)
    config = yaml_model_load("yolo11n-pose.yaml") | {"scales": {"n": [0.33, 0.125, 1024]}, "nc": 1}
    model = PoseModel(config | {"kpt_shape": [keypoints, 3]}, verbose=False)
    model.names = {0: "person"}
    if sees:
        for branch in model.model[-1].cv3:
            torch.nn.init.zeros_(branch[-1].bias)
            torch.nn.init.normal_(branch[-1].weight, std=2.0)
    torch.save({"model": model, "train_args": {"imgsz": 64, "task": "pose"}}, path)
    return path


def save_tiny_depth_model(folder: Path, *, use_fov_model: bool = True) -> Path:
    """A DepthPro of 0.4 M parameters, 128 px in, saved as `save_pretrained` does."""
    import torch
    from transformers import DepthProConfig, DepthProForDepthEstimation, DepthProImageProcessor, Dinov2Config

    torch.manual_seed(0)
    encoder = Dinov2Config(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, image_size=64, patch_size=8, mlp_ratio=2
    ).to_dict()
    config = DepthProConfig(
        patch_size=64,
        fusion_hidden_size=32,
        intermediate_hook_ids=[3, 1],
        intermediate_feature_dims=[32, 32],
        scaled_images_ratios=[0.5, 1],
        scaled_images_overlap_ratios=[0.0, 0.25],
        scaled_images_feature_dims=[32, 32],
        use_fov_model=use_fov_model,
        image_model_config=encoder,
        patch_model_config=encoder,
        fov_model_config=encoder,
    )
    DepthProForDepthEstimation(config).save_pretrained(folder)
    DepthProImageProcessor(size={"height": 128, "width": 128}).save_pretrained(folder)
    return folder
