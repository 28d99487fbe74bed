"""What a user edits: one frozen, validated dataclass per command, every field with its meaning and unit.

`cli.py` fills them (command line, then HUMANPOSE3D_<FIELD>, then --config YAML, then these defaults) and hands the
fields to the stage of the same name. Plain data, no logic: importing this costs nothing but pydantic.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field
from pydantic.dataclasses import dataclass
from tyro.conf import Positional, arg

Compress = Literal["none", "gz"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(gt=0)]
Range = tuple[float, float]
Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]  # --no-depth, without a --no-no-depth beside it


def _copy_workers() -> int:
    """Threads that move samples: the disk is the limit beyond a few."""
    return max(2, min(os.cpu_count() or 2, 4))


def _cpu_workers() -> int:
    """Decoding processes: every core but the one that trains, at most 8."""
    return max(1, min((os.cpu_count() or 2) - 1, 8))


@dataclass(frozen=True, kw_only=True)
class Command:
    """What every command takes."""

    config: Annotated[Path | None, arg(aliases=["--cfg"])] = None
    """YAML file with any of these fields; the command line overrides it. Of several a later one overrides."""


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig(Command):
    """Frames -> <sub>/<stem>_depth.png (16-bit, millimetres) and <sub>/<stem>.json (people, keypoints, focal length).

    Example: preprocess.py data/human36m/images data/human36m/processed --device cuda --devices -1
    From a cloud drive to a cloud drive: preprocess.py myonedrive:h36m/images myonedrive:h36m/processed
    On many machines: --engine ray --address HEAD:6379 --devices -1, or --shard 3/8 as the third of eight.
    """

    input_base_directory: Annotated[Positional[str], arg(metavar="INPUT_BASE_DIRECTORY")]
    """Folder or remote:path whose subfolders hold the images, or videos."""
    output_base_directory: Annotated[Positional[str], arg(metavar="OUTPUT_BASE_DIRECTORY")]
    """Folder or remote:path where the sidecars go, in the same subfolders. A frame is two small files: where requests
    are counted (OneDrive) write to a folder here, and send chunks up."""
    yolo_model: str = "yolo11x-pose"
    """Ultralytics pose model: a name (downloaded on first use), a path, or 'studio' for the packaged tiny one."""
    keypoints: str = "yolo"
    """Who finds the joints: yolo, or hourglass:CHECKPOINT, a checkpoint of main.py --model-type hourglass, in the boxes
    that --yolo-model finds."""
    depth_model: str = "apple/DepthPro-hf"
    """DepthPro: a hub id (downloaded on first use), a folder, or 'studio' for the packaged tiny one."""
    no_depth: Switch = False
    """Leave depth out: keypoints only."""
    depth_on: Literal["frame", "crop"] = "frame"
    """What DepthPro sees: the whole frame, or only the people in it with a margin, at more of its pixels; then the
    depth of all else is unknown (0), and the focal length is judged from less."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    devices: Annotated[int, Field(ge=-1)] = 1
    """Processes that each hold both networks: one for each GPU, on the CPU as many as you say; -1: all GPUs, or all
    cores. One that dies is started again, and its frames are done anew."""
    precision: Literal["32", "bf16", "16"] = "32"
    """Bits of the networks' numbers: 16 and bf16 are faster on a GPU made for them, and less exact."""
    compile: Switch = False
    """torch.compile the networks: minutes at first, for a long run."""
    batch_size: Count = 8
    """Images through the networks at once. Where memory is short, halved by itself."""
    num_workers: Annotated[Count, arg(aliases=["--workers"])] = 2
    """Threads of each process that read and prepare images ahead of the networks and write behind them."""
    engine: Literal["local", "ray"] = "local"
    """Who works: this machine, or the machines of a Ray cluster (pip install 'humanpose3d[ray]'), all of which must see
    both folders, or know the same remotes. --devices says how many at once."""
    address: str | None = None
    """Of a running Ray cluster, as 'ray start --head' prints it. None: what RAY_ADDRESS says, else this machine."""
    shard: str = "1/1"
    """i/n does the i-th of n equal parts, on as many machines that know nothing of each other. All n together write the
    same bytes as one run."""
    overwrite: bool = False
    """Do again what is complete."""
    frame_step: Count = 1
    """Take every n-th frame of a video (images are all taken); the chunker's --frame-step should be the same."""
    temp_dir: Path = Path("./dataset_cache/preprocess")
    """Where a remote's videos lie while they are read: those in hand, and the next; with --engine ray on
    each of its machines. Its images need no disk."""
    max_bad: Share = 0.01
    """Share of frames left out (unreadable, not written) above which the exit code is 1."""


@dataclass(frozen=True, kw_only=True)
class ChunkConfig(Command):
    """A corpus and its sidecars -> chunk_000000.tar, ... with index.json, in a folder or on an rclone remote.

    Example: dataset_chunker.py --subjects 1 5 6 7 8 9 11 --output myonedrive:h36m/chunks
    """

    subjects: tuple[str, ...]
    """In the corpus's own units. human36m: 1 5 6 7 8 9 11, or S1 S5 ... mpi_inf_3dhp: S1 ... S8, TS1 ... TS6. mpii:
    train, valid. freihand: training, evaluation, or ranges of samples such as 0-27999. threedpw: train, validation,
    test, or sequences such as downtown_walking_00. mocap: train, validation, or S1 S35 ..."""
    output: str
    """Folder or remote:path for the chunks."""
    dataset: str = "human36m"
    """Corpus: human36m, mpi_inf_3dhp, mpii, freihand, threedpw, mocap. The layout on disk is found by looking."""
    images_path: Annotated[Path | None, arg(aliases=["--image-path", "--data-root", "--mpi-dataset-root"])] = None
    """The corpus's images or videos. Default: data/<dataset>/images; for the corpora that come as one tree
    (mpi_inf_3dhp, freihand, threedpw) data/<dataset>."""
    processed_path: Path | None = None
    """preprocess.py's output. Default: data/<dataset>/processed."""
    annotations_path: Path | None = None
    """The corpus's annotation files. Default: data/<dataset>/annotations, or the images' tree."""
    missing_images: Literal["error", "skip", "synthetic"] = "error"
    """Images that annotations name and the disk lacks: end with an error, leave them out, or draw stand-ins (a plain
    picture with the labelled skeleton, marked as such and never evaluated)."""
    cues: Literal["auto", "require", "optional"] = "auto"
    """Frames without a detection that matches the label: left out (require), or kept without 2D keypoints (optional).
    auto: optional for mpii, freihand and threedpw, which are trained on from pixels."""
    chunk_size: Count = 5000
    """Samples per chunk."""
    crop: Literal["person", "none"] = "person"
    """person: the square around the person; none: the whole image, its JPEG bytes untouched."""
    image_size: Annotated[int, Field(ge=16)] = 320
    """Side of a crop, px."""
    margin: Annotated[float, Field(ge=0.0)] = 0.25
    """Room left around the person's box on each side, as a share of its longer side."""
    depth_scale: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Side of the stored depth map against the image's."""
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 90
    """Quality of the crops' JPEGs."""
    image_pattern: str | None = None
    """Where the images lie, if neither as in 3DMPPE nor under the official videos' names:
    '{subject}_{action}_{camera}/frame_{number:04d}.jpg'; also {take}."""
    frame_step: Count = 1
    """Take every n-th frame of a take."""
    window: Annotated[int, Field(ge=0)] = 0
    """Frames of 2D keypoints around each sample, an odd number; 0 for none."""
    match_threshold: Annotated[float, Field(gt=0.0)] = 0.15
    """Largest mean distance of detected from labelled joints, as a share of the person's size."""
    cameras: Count | None = None
    """mocap: virtual cameras of each motion; 4 unless given."""
    camera_seed: Annotated[int, Field(ge=0)] | None = None
    """mocap: of cameras and bodies; 0 unless given."""
    bodies: Literal["auto", "varied", "recorded"] | None = None
    """mocap: bone lengths and joint angles changed (varied), or as they were recorded; auto, unless given: varied for
    training subjects."""
    compress: Compress = "none"
    """gz writes .tar.gz."""
    workers: Annotated[Count, arg(aliases=["--num-workers"])] = _cpu_workers()
    """Processes that crop and encode; with --engine ray as many workers of the cluster."""
    engine: Literal["local", "ray"] = "local"
    """Who crops and encodes: this machine, or the machines of a Ray cluster (pip install 'humanpose3d[ray]'), all of
    which must see the images and the processed folder. This one writes the chunks."""
    address: str | None = None
    """Of a running Ray cluster, as 'ray start --head' prints it. None: what RAY_ADDRESS says, else this machine."""
    shard: str = "1/1"
    """i/n writes the i-th of n equal parts, on as many machines that know nothing of each other; whichever ends last
    writes index.json. All n together write the same bytes as one run."""
    max_bad: Share = 0.01
    """Share of frames left out above which the exit code is 1."""


@dataclass(frozen=True, kw_only=True)
class SplitConfig(Command):
    """Chunks -> train/train_000000.tar, ... and test/test_000000.tar, ... by subject; samples move untouched.

    Example: dataset_split.py --rclone-input-prefix myonedrive:h36m/chunks --rclone-destination-prefix
    myonedrive:h36m/split --train-subjects S1,S5,S6,S7,S8 --test-subjects S9,S11
    """

    rclone_input_prefix: str
    """Folder or remote:path with the chunks."""
    rclone_destination_prefix: str
    """Folder or remote:path that gets train/ and test/."""
    train_subjects: str = ""
    """Comma-separated: S1,S5 or 1,5. Empty: no train/."""
    test_subjects: str = ""
    """Comma-separated. Empty: no test/."""
    new_chunk_size: Count = 2000
    """Samples per chunk written."""
    temp_extraction_dir: Path = Path("./dataset_cache/extract")
    """Where remote and .tar.gz chunks are unpacked while needed."""
    staging_dir: Path = Path("./dataset_cache/staging")
    """Where new chunks wait for their upload."""
    compress: Compress = "none"
    """gz writes .tar.gz."""
    workers: Annotated[Count, arg(aliases=["--num-workers"])] = _copy_workers()
    """Threads that read, check and write samples; with --engine ray as many workers of the cluster."""
    engine: Literal["local", "ray"] = "local"
    """Who writes the chunks: this machine, or the machines of a Ray cluster (pip install 'humanpose3d[ray]'), all of
    which must see the same folders, or know the same remotes."""
    address: str | None = None
    """Of a running Ray cluster, as 'ray start --head' prints it. None: what RAY_ADDRESS says, else this machine."""
    shard: str = "1/1"
    """i/n writes the i-th of n equal parts, on as many machines that know nothing of each other; whichever ends last
    writes index.json. All n together write the same bytes as one run."""
    max_bad: Share = 0.01
    """Share of invalid samples above which the exit code is 1."""


@dataclass(frozen=True, kw_only=True)
class RechunkConfig(Command):
    """Chunks -> chunks of the same samples in one global random order. A parent of train/ and test/ is mirrored.

    Example: dataset_rechunker.py --input-dir split --output-dir shuffled --seed 42
    """

    input_dir: str
    """Folder or remote:path of chunks, or of train/ and test/."""
    output_dir: str
    """Folder or remote:path for the shuffled set."""
    chunk_size: Count = 8000
    """Samples per chunk written."""
    seed: int = 42
    """Of the shuffle."""
    shuffle: bool = True
    """False (--no-shuffle): only another chunk size, the samples stay in their order."""
    keep_extracted_originals: bool = False
    """Also leave the samples as loose files, in extracted/ beside the chunks (a local output only)."""
    compress: Compress = "none"
    """gz writes .tar.gz."""
    temp_dir: Path = Path("./dataset_cache/rechunk")
    """Where remote and .tar.gz chunks are copied to while needed, and new ones wait for their upload. With less room
    than they take, the chunks are fetched in several passes."""
    workers: Annotated[Count, arg(aliases=["--num-workers"])] = _copy_workers()
    """Threads that read, check and write samples; with --engine ray as many workers of the cluster."""
    engine: Literal["local", "ray"] = "local"
    """Who writes the chunks: this machine, or the machines of a Ray cluster (pip install 'humanpose3d[ray]'), all of
    which must see the same folders, or know the same remotes."""
    address: str | None = None
    """Of a running Ray cluster, as 'ray start --head' prints it. None: what RAY_ADDRESS says, else this machine."""
    shard: str = "1/1"
    """i/n writes the i-th of n equal parts, on as many machines that know nothing of each other; whichever ends last
    writes index.json. All n together write the same bytes as one run."""
    max_bad: Share = 0.01
    """Share of invalid samples above which the exit code is 1."""


@dataclass(frozen=True)
class LossWeights:
    """Weight of each term of ComprehensivePoseLoss. Distances in metres."""

    mse: Annotated[float, Field(ge=0)] = 1.0
    """Mean squared error of the joints."""
    l1: Annotated[float, Field(ge=0)] = 1.0
    """Mean absolute error of the joints."""
    inter_joint: Annotated[float, Field(ge=0)] = 100.0
    """Mean squared error of the distances between all pairs of joints."""
    absolute_root: Annotated[float, Field(ge=0)] = 1.0
    """Mean absolute error of the root's position in the camera frame."""
    uncertainty: Annotated[float, Field(ge=0)] = 0.1
    """lifter: negative log-likelihood of the joints under Laplace distributions as wide as it says it errs."""


@dataclass(frozen=True)
class BodyLossWeights:
    """hps: weight of each term of a body's loss; each is over the samples that have its label."""

    joints_3d: Annotated[float, Field(ge=0)] = 10.0
    """Mean absolute error of the joints, relative to the pelvis, metres."""
    joints_2d: Annotated[float, Field(ge=0)] = 2.0
    """Mean absolute error of the joints in the picture, in halves of the view's side."""
    pose: Annotated[float, Field(ge=0)] = 5.0
    """Mean squared error of the rotations' matrices."""
    shape: Annotated[float, Field(ge=0)] = 0.1
    """Mean squared error of the betas."""
    parts: Annotated[float, Field(ge=0)] = 10.0
    """pare: cross entropy of the part maps. High: what finds the parts learns the pose by the way (docs/LOG.md)."""


# Distances between joints are blind to mirror images, and for the lifter they add nothing (docs/LOG.md).
LIFTER_WEIGHTS = LossWeights(l1=10.0, inter_joint=0.0)


@dataclass(frozen=True)
class AugmentationConfig:
    """Random changes of training samples. Geometric ones move image, depth, keypoints, joints and camera together."""

    enabled: bool = True
    """False: none at all."""
    rotation_deg: Annotated[float, Field(ge=0, le=180)] = 30.0
    """In-plane turn, uniform in +- this."""
    flip: Share = 0.5
    """Chance of a left-right mirror."""
    scale: Range = (0.8, 1.2)
    """Zoom, uniform."""
    translation: Annotated[float, Field(ge=0)] = 0.1
    """Shift along x and y, uniform in +- this share of the image's side."""
    brightness: Range = (0.8, 1.2)
    """Factor, uniform."""
    contrast: Range = (0.8, 1.2)
    """Factor, uniform."""
    saturation: Range = (0.8, 1.2)
    """Factor, uniform."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """Turn of the hue, uniform in +- this share of the circle."""
    drop_depth: Share = 0.1
    """Chance that a sample's depth map is taken away, so that the model learns to do without."""
    drop_keypoint: Share = 0.05
    """Chance, joint by joint, that a 2D keypoint is taken away."""
    occlusion: Share = 0.0
    """Chance that a rectangle of one colour, its middle within the person's box, hides what is behind it."""
    occlusion_size: Range = (0.1, 0.4)
    """Its height and width as shares of the picture's, uniform."""
    camera_turn_deg: Annotated[float, Field(ge=0, lt=60)] = 10.0
    """lifter: turns of the camera about its centre, up or down and left or right, uniform in +- this."""
    camera_distance: Range = (0.8, 1.25)
    """lifter, one frame of exact keypoints: factor of the camera's distance, uniform."""
    imagined_depth: Share = 0.3
    """lifter, exact keypoints without a depth map: chance that depths around the joints are made up from the labels."""
    keypoint_noise: Range = (0.0, 1.5)
    """lifter, exact keypoints: strength of a detector's errors in them, uniform; 1 is a real YOLO's."""
    hidden_scores: Share = 0.6
    """lifter, exact keypoints: chance that the confidences tell which joints the body itself hides, as YOLO's do."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Command):
    """Chunks -> checkpoints and TensorBoard; or, with --evaluate, the error of a checkpoint.

    Example: main.py --chunks-dir myonedrive:h36m/shuffled --model-type cnn --cache-dir /scratch/cache --device cuda
    """

    chunks_dir: str | None = None
    """ROOT: a folder or remote:path with train/ and test/ (or val/), or one folder of chunks beside --val-dir. Needed
    unless --mix says what to train on; beside --mix only its val/ or test/ is read."""
    mix: tuple[str, ...] = ()
    """Train on several sets of the same skeletons, each drawn from by its weight: NAME=ROOT:WEIGHT ..., such as
    h36m=drive:h36m:0.8 studio=data/studio:0.2. ROOT has train/, or is a folder of chunks. Validation: --val-dir, else
    val/ or test/ of --chunks-dir, else of the first set that has one. An epoch is as many batches as all sets fill."""
    train_chunks: tuple[int, ...] = ()
    """Chunk numbers to train on; none means all. Not with --mix, whose sets each count their own."""
    val_chunks: tuple[int, ...] = ()
    """Chunk numbers to validate on; none means all."""
    val_dir: str | None = None
    """Folder or remote:path of validation chunks, where ROOT has none."""
    model_type: Literal["cnn", "transformer", "lifter", "hourglass", "hps"] = "lifter"
    """Which network. cnn, transformer and lifter give 3D poses; the lifter reads keypoints (and depth), and no pictures
    unless --image-backbone says so. hourglass finds 2D joints in pictures; --case 1 to --case 8 are its study's
    presets (configs/hourglass/). hps gives SMPL's pose and shape (configs/pare-hrnet.yaml)."""
    model_size: Literal["tiny", "small", "base"] = "base"
    """Preset of architecture numbers (model_config.py); tiny trains on a CPU."""
    pretrained: bool = False
    """transformer, hps, and lifter with --image-backbone: start from timm's ImageNet weights (downloaded by timm)."""
    target: Literal["root_relative", "absolute"] = "root_relative"
    """What the joint losses compare: root at the origin, or positions in the camera frame."""
    use_depth: bool = True
    """False: the model never sees depth maps."""
    window: Literal[1, 27, 81] = 1
    """lifter: frames of 2D keypoints it sees, from chunks made with at least so many (the chunker's --window). With
    --checkpoint of a lifter that sees one frame, it begins with what that has learned."""
    image_backbone: str = ""
    """lifter: timm's name of a small network whose features are read at the keypoints, mobilenetv3_small_050 say."""
    arch: Literal["hg1", "hg2", "hg8"] | None = None
    """hourglass: 1, 2 or 8 stacks of the published size (256 channels), whatever --model-size says."""
    stacks: Count | None = None
    """hourglass: how many, one after the other. None: the preset's, as all the following."""
    depths: str = ""
    """hourglass: how often each stack halves the side: DxN,DxN for N stacks of depth D, 2x3,3x3,4x2 say."""
    channels: Count | None = None
    """hourglass: of every feature map; 256 as published."""
    residual_blocks: Annotated[int, Field(gt=0, le=4)] | None = None
    """hourglass: bottlenecks wherever the network has one, 1 to 4."""
    norm: Literal["batch", "instance"] | None = None
    """hourglass: normalisation."""
    block: Literal["residual", "conv_relu_norm"] | None = None
    """hourglass: which bottleneck."""
    input_size: Count | None = None
    """hourglass: side of the square view, px; 256 as published. Heat maps have a quarter of it. hps: likewise, 224."""
    heatmap_sigma: Annotated[float, Field(gt=0)] | None = None
    """hourglass: width of a joint's Gaussian, cells of the heat map."""
    head: Literal["pare", "baseline"] | None = None
    """hps: part attention (PARE), or the iterative regressor from one vector (HMR); None: the preset's, pare."""
    backbone: str = ""
    """hps: timm's name of the backbone; empty: the preset's, hrnet_w32 of base."""
    backbone_weights: Path | None = None
    """hps: a file of the backbone's weights to start from, HRNet's public MPII pose network say."""
    body_model: Path = Path("data/body_models")
    """hps: SMPL's files, a folder with those of the three genders or the neutral one; `humanpose3d fake smpl FOLDER`
    writes free ones that can stand in."""
    epochs: Count = 50
    """Passes over the training chunks."""
    max_steps: Annotated[int, arg(aliases=["-m", "--max-iters"])] = -1
    """Optimizer steps after which training ends whatever --epochs says; -1 for no limit."""
    batch_size: Annotated[Count, arg(aliases=["--train-batch"])] = 10
    """Samples per step over all processes."""
    val_batch_size: Annotated[Annotated[int, Field(ge=0)], arg(aliases=["--test-batch"])] = 0
    """Samples at once in validation, over all processes; 0: as in training."""
    gradient_accumulation_steps: Annotated[Count, arg(aliases=["--accumulate"])] = 10
    """Batches per optimizer step."""
    optimizer: Annotated[Literal["adamw", "adam", "rmsprop"], arg(aliases=["--optim"])] = "adamw"
    """Which."""
    learning_rate: Annotated[Annotated[float, Field(gt=0)], arg(aliases=["--lr"])] = 1e-3
    """At the top of the schedule."""
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """adamw, adam: what the running mean of squared gradients keeps of itself each step. Networks of attention bear
    higher learning rates with 0.95."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """The optimizer's; not of biases and norms."""
    schedule: tuple[int, ...] = ()
    """Epochs at which the learning rate falls by --gamma, 150 175 200 say; none: a cosine after a warm-up."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Factor of the learning rate at each of --schedule."""
    schedule_unit: Literal["epochs", "steps"] = "epochs"
    """What --schedule counts."""
    warmup_steps: Annotated[int, Field(ge=0)] = 500
    """Optimizer steps of linear warm-up before the cosine; at most a tenth of all steps."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """What the running mean of the weights keeps of itself each step; where above 0, validation, evaluation and
    inference use that mean (0.999, say). Both are in the checkpoint."""
    clip_norm: Annotated[float, Field(ge=0)] = 1.0
    """Gradient norm above which gradients are scaled down; 0 for never."""
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    """auto: bf16 where the GPU has it, and for the lifter where the CPU has it (AMX); else 32 bit."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    devices: Annotated[int, Field(ge=-1)] = 1
    """Processes on this machine, one for each GPU (or as many on the CPU); -1: all GPUs. --batch-size is shared among
    them. Not with torchrun, which says so itself."""
    num_nodes: Count = 1
    """Machines, where SLURM starts one task for each device of each; examples/slurm/ has scripts."""
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """With several processes: ddp (auto) keeps the whole network in each, fsdp (FSDP2) shards it among them."""
    compile: bool = False
    """Compile the network with torch.compile: a minute or so at the start, faster steps on a GPU."""
    weights: LossWeights = LossWeights()
    """Loss weights. Unless one is given, the lifter has its own: l1 10, inter-joint 0."""
    body_weights: BodyLossWeights = BodyLossWeights()
    """hps: loss weights."""
    augmentation: AugmentationConfig = AugmentationConfig()
    """Augmentation of training samples."""
    num_workers: Annotated[Annotated[int, Field(ge=0)], arg(aliases=["--workers"])] = _cpu_workers()
    """Threads, or on many cores processes, that decode and augment; 0: the training process itself."""
    prefetch: Count = 4
    """Batches prepared ahead: by each process, or by all threads together."""
    cache_dir: Path = Path("./dataset_cache")
    """Where chunks of a remote and unpacked .tar.gz chunks are kept."""
    cache_gb: Annotated[float, Field(gt=0)] = 50.0
    """Size the cache is held under, GB (10^9 bytes); the eight largest chunks of training and validation must fit."""
    stream_groups: Count = 1
    """Chunks are dealt to this many groups, so that a node reads only its share (part of the order)."""
    log_dir: Path = Path("./logs")
    """Runs live here, one folder each."""
    exp: Annotated[str | None, arg(aliases=["-e"])] = None
    """Name of the run's folder; the date and time without it."""
    resume: Annotated[str | None, arg(aliases=["-c", "--continue", "--continue-exp"])] = None
    """Go on: a checkpoint, a run's folder or a run's name in --log-dir. Bare --resume: the newest run."""
    checkpoint: Annotated[Path | None, arg(aliases=["--model-file"])] = None
    """Checkpoint to evaluate, or to start the weights from: a file, or one that comes with the package (lifter,
    lifter_window27)."""
    evaluate: bool = False
    """Only measure --checkpoint on the validation chunks."""
    protocol: str | None = None
    """With --evaluate: measure as published: h36m_p1, h36m_p2, 3dhp, 3dpw, freihand; mpii_pckh, 3dhp_2d,
    freihand_2d of an hourglass."""
    fast_dev_run: Annotated[bool, arg(aliases=["--fdr"])] = False
    """One training and one validation batch through everything, nothing kept."""
    eval_interval: Count = 5000
    """Training batches between validations; an epoch's end validates too."""
    checkpoint_interval: Count = 5000
    """Optimizer steps between checkpoints step_N.pth."""
    early_stopping: Annotated[int, Field(ge=0)] = 0
    """Validations in a row without a better score (MPJPE; PCK of the hourglass; PA-MPJPE of hps) after which training
    ends; 0: never."""
    profile: bool = False
    """Trace ten training batches with torch.profiler: LOG_DIR/RUN/profile/ gets the table and a trace for Perfetto."""
    flip_test: bool = False
    """hourglass, with --evaluate: mean with the heat maps of the mirrored picture; twice the time."""
    decoder: Literal["subpixel", "quarter", "peak"] = "subpixel"
    """hourglass, with --evaluate: where in its cell a joint is: at the top of a parabola through the neighbours, a
    quarter cell towards the higher one (as published), or in the middle."""
    val_keypoint_noise: Annotated[float, Field(ge=0)] = 0.0
    """lifter: strength of a detector's errors in exact validation keypoints; 1 is a real YOLO's."""
    random_seed: int = 42
    """Of weights, order, augmentation and dropout."""


@dataclass(frozen=True, kw_only=True)
class InferConfig(Command):
    """A folder of images -> 3D poses (.npy, .json) and, with --visualize, pictures.

    Example: infer.py --input_folder photos --visualize
    """

    checkpoint_path: Path = Path("lifter")
    """A checkpoint of main.py (LOG_DIR/RUN/checkpoints/best_model.pth), or the name of one that comes with the package:
    lifter, lifter_window27."""
    input_folder: Path | None = None
    """Images, also in subfolders."""
    input: tuple[str, ...] = ()
    """Instead, or beside it: folders, images, videos, patterns such as 'photos/*.jpg', and webcams: webcam:0, or 0."""
    output_folder: Path = Path("./inference_results")
    """Where the results go."""
    model_type: str | None = None
    """Only checked: the checkpoint knows its model."""
    yolo_model_path: str = "yolo11x-pose"
    """As preprocess.py's --yolo-model."""
    keypoints: str = "yolo"
    """As preprocess.py's --keypoints; the checkpoint must have been trained on such joints."""
    hands: Path | None = None
    """An hourglass trained on hands (FreiHAND): finds the 21 joints of each hand beyond a wrist and an elbow that were
    found, or of the one hand that a picture without people shows."""
    depth_model_path: str = "apple/DepthPro-hf"
    """As preprocess.py's --depth-model."""
    no_depth: Switch = False
    """Do without the depth network."""
    joint_definitions: Literal["auto", "trained", "human36m"] = "auto"
    """Where hips, trunk, shoulders, neck and head lie: as in the checkpoint's training data, or moved from motion
    capture's places to those of Human3.6M's labels; auto does that for the package's own checkpoints."""
    viewer: bool = False
    """Write viewer.html: the people of this run in 3D, to turn and zoom in a browser, with camera, picture and depth;
    one file, no network. The first 300 images."""
    rerun: bool = False
    """Write people.rrd, the same for the rerun viewer (needs humanpose3d[rerun])."""
    smooth: bool = False
    """Steady the people of videos from frame to frame (One-Euro filter)."""
    export: tuple[Literal["bvh", "onnx", "obj", "glb"], ...] = ()
    """bvh: the motion of each person of a video, for Blender and its like (clip.mp4/person_1.bvh). onnx: the lifter as
    <checkpoint>.onnx, checked against ONNX Runtime (needs humanpose3d[onnx]). obj, glb: each person's mesh, by the
    checkpoint of a body regressor (photo_person_0.glb; needs humanpose3d[body])."""
    body_model: Path = Path("data/body_models")
    """As main.py's --body-model, for the checkpoint of a body regressor (main.py --model-type hps)."""
    overwrite: bool = False
    """Do again what an earlier run with the same settings has finished."""
    frame_step: Count = 1
    """Take every n-th frame of a video."""
    webcam_seconds: Annotated[float, Field(gt=0)] = 10.0
    """How long a webcam films."""
    visualize: bool = False
    """Write original, 2D overlay, depth map, 3D pose and the 2x2 panel of each image."""
    legacy_npy: bool = False
    """.npy holds [17, 3] of the first person, root-relative millimetres, instead of [people, 17, 3] metres."""
    focal_px: Annotated[Annotated[float, Field(gt=0)] | None, arg(aliases=["--focal"])] = None
    """Focal length of all pictures, pixels. Else --fov-deg, a picture's EXIF, the depth network's estimate, or 55
    degrees, in that order; the output says which."""
    fov_deg: Annotated[Annotated[float, Field(gt=0, lt=180)] | None, arg(aliases=["--fov"])] = None
    """Field of view of all pictures along the longer side, degrees."""
    person: Literal["all", "largest", "first"] = "all"
    """Who is lifted: all people, the one with the largest box, or the one that the detector is surest of."""
    max_people: Annotated[int, Field(ge=0)] = 0
    """At most so many of a picture, the surest; 0: no limit."""
    min_score: Share = 0.25
    """Confidence of a person's box from which it counts."""
    flip_test: bool = False
    """Find the keypoints in each picture and in its mirror image, and take the mean: steadier sides, in twice the
    keypoint network's time."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    batch_size: Count = 8
    """Images through the networks at once."""
    max_bad: Share = 0.01
    """Share of unreadable images above which the exit code is 1."""


@dataclass(frozen=True, kw_only=True)
class StripConfig(Command):
    """A training's checkpoint -> the network alone, for others to use: an eighth of the size.

    Example: humanpose3d strip logs/RUN/checkpoints/best_model.pth lifter.pt
    """

    checkpoint: Positional[Path]
    """A checkpoint of main.py; of a training with a running mean of the weights, that mean is kept."""
    out: Positional[Path]
    """The file to write."""
    half: bool = True
    """False (--no-half): weights in 32 bits, to the last digit; else in 16."""


@dataclass(frozen=True, kw_only=True)
class FitBodyConfig(Command):
    """Chunks -> the same chunks with SMPL's pose, shape and translation, fitted to each sample's joints (SMPLify).

    Example: humanpose3d fit-body h36m/shuffled h36m/bodies --body-model data/body_models
    """

    input_dir: Annotated[Positional[str], arg(metavar="CHUNKS")]
    """Folder or remote:path of chunks, or of train/ and test/."""
    output_dir: Annotated[Positional[str], arg(metavar="OUT")]
    """Folder or remote:path for the chunks with bodies; images and all else stay as they are, to the byte."""
    body_model: Path = Path("data/body_models")
    """Folder with SMPL's neutral body, or its file; `humanpose3d fake smpl data/body_models` makes a free one."""
    fit_to: Literal["auto", "joints", "keypoints", "both"] = "auto"
    """joints: the labelled joints, in 3D where they are, else in 2D; keypoints: the detector's, in 2D; both: labels in
    3D and keypoints; auto: joints where the chunks have any. In 2D with the sample's camera."""
    one_shape: Switch = False
    """One shape for each person, the mean of those of some samples (64 of a subject), instead of one a sample."""
    max_residual_mm: Annotated[float, Field(gt=0)] = 50.0
    """Mean distance of a sample's 3D joints from its body's, above which it gets no SMPL labels."""
    max_residual_px: Annotated[float, Field(gt=0)] = 15.0
    """The same for samples without 3D joints: of their 2D points, pixels of the stored image."""
    replace: Switch = False
    """Fit also the samples that have SMPL labels of their own (3DPW), and put the fitted ones in their place."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1."""
    batch_size: Count = 256
    """Bodies fitted at once."""
    temp_dir: Path = Path("./dataset_cache/fit_body")
    """Where remote and .tar.gz chunks are copied to while needed, and new ones wait for their upload."""
    max_bad: Share = 0.01
    """Share of samples without SMPL labels in the end above which the exit code is 1."""


@dataclass(frozen=True, kw_only=True)
class DoctorInstallConfig(Command):
    """What is installed here, what is not, and what to do about it. Exit code 1 where something is missing.

    Example: humanpose3d doctor-install
    """

    cache_dir: Path = Path("./dataset_cache")
    """Where main.py would keep chunks of a remote."""


@dataclass(frozen=True, kw_only=True)
class PlanConfig(Command):
    """So many frames -> the time, the bytes and the cloud requests of each stage, before anything is started.

    Measures this machine for half a minute, at the stages' own work on a few frames of the studio. Run it on the
    machine that will do the work. Example: humanpose3d plan --frames 1e6 --gpus 4
    """

    frames: Annotated[float, Field(ge=1)]
    """How many the corpus has; 1e6 is a million."""
    gpus: Count = 1
    """Devices like this machine's that preprocess at once (its --devices)."""
    workers: Annotated[Count, arg(aliases=["--num-workers"])] = _cpu_workers()
    """Processes of the chunker."""
    frame_size: Annotated[int, Field(ge=64)] = 1000
    """Side of a frame, px."""
    yolo_model: str = "yolo11x-pose"
    """As in preprocess."""
    depth_model: str = "apple/DepthPro-hf"
    """As in preprocess."""
    no_depth: Switch = False
    """As in preprocess."""
    device: str = "auto"
    """As in preprocess."""
    precision: Literal["32", "bf16", "16"] = "32"
    """As in preprocess."""
    batch_size: Count = 8
    """As in preprocess."""
    seconds: Annotated[float, Field(gt=0)] = 30.0
    """How long to measure, about; a device that needs longer for its first batches takes longer."""


@dataclass(frozen=True, kw_only=True)
class IndexConfig(Command):
    """Chunks that somebody else wrote (stock WebDataset, say) -> the same folder with index.json and offset tables.
    Chunks that shards wrote -> the index.json of them all, where the last one did not come to write it.

    Example: humanpose3d index myonedrive:chunks
    """

    location: Positional[str]
    """Folder or remote:path of chunks."""


@dataclass(frozen=True, kw_only=True)
class InspectConfig(Command):
    """Chunks -> what is wrong with them, by corpus, subject and camera. Exit code 1 where something is.

    Example: humanpose3d inspect myonedrive:h36m/split --report report
    """

    location: Positional[str]
    """Folder or remote:path of chunks, or of train/ and test/ (then also what stands on both sides of the split)."""
    report: Path | None = None
    """Folder for index.html (with pictures of the worst samples) and inspect_report.json (for machines)."""
    max_samples: Count = 20_000
    """How many samples are read, about; spread over all takes."""
    all: Switch = False
    """Read all of them."""
    shuffle: bool = False
    """Instead tell how well the set is mixed as training reads it, and what train, val and test share; looks at keys
    and metadata only."""
    batch_size: Count = 64
    """With --shuffle: samples in a batch, as main.py's --batch-size."""
    temp_dir: Path = Path("./dataset_cache/inspect")
    """Where remote and .tar.gz chunks are copied to while they are read, one at a time."""


@dataclass(frozen=True, kw_only=True)
class FakeConfig(Command):
    """The studio's people -> a corpus exactly as it lies on a disk: pictures and annotations, made here, free to use.

    Example: humanpose3d fake mpi_inf_3dhp data/mpi_inf_3dhp --frames-per-take 20
    """

    corpus: Positional[Literal["human36m", "mpi_inf_3dhp", "mpii", "freihand", "threedpw", "mocap", "smpl"]]
    """Whose format; mocap: motion without pictures; smpl: a free body in SMPL's file format."""
    out: Positional[Path]
    """Folder that gets it."""
    layout: str = ""
    """Which of the corpus's forms. human36m: 3dmppe, official, npz. mpi_inf_3dhp: videos, frames, npz. mpii: json, h5,
    mat, spin, mpii_annotations. freihand: v2, coco. threedpw: official, spin. mocap: npz. Default: the first."""
    subjects: tuple[str, ...] = ()
    """Who, in the corpus's own units (see the chunker's --subjects); none means a few of each kind."""
    frames_per_take: Annotated[int, Field(ge=0)] = 0
    """Frames of each subject, action and camera (mpii, freihand: images of each part); 0: a number that suits."""
    size: Annotated[int, Field(ge=0)] = 0
    """Side of the square images, px; 0: 256, and FreiHAND's 224."""
    seed: int = 0
    """Of bodies, clothes, motion and room; 0 is the set the packaged networks were trained for."""
    workers: Count = _cpu_workers()
    """Processes that render."""
