"""The chunks of a training or an evaluation: where they are, and loaders of their batches for a model."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import replace
from typing import Any, NamedTuple

from humanpose3d.chunks.layout import has_chunks
from humanpose3d.config import TrainConfig
from humanpose3d.dataset.augmentation import FitView, PoseAugmentor
from humanpose3d.dataset.chunked_dataset import Source, StreamingChunkedDataset, StreamingLoader
from humanpose3d.dataset.collator import Human36MCollator
from humanpose3d.dataset.keypoint_batches import KeypointDecoder
from humanpose3d.dataset.mix import DatasetMix, parse_mix
from humanpose3d.model_config import BodyConfig, ModelConfig
from humanpose3d.remotes import Store, open_store
from humanpose3d.tasks.devices import is_first_process

LABEL_BATCH = 256  # samples at a time where only labels are read


def find_sets(config: TrainConfig, *, evaluating: bool = False) -> tuple[Store | None, Store]:
    """(training chunks, validation chunks) under ROOT and --val-dir. Training chunks may be absent when evaluating.

    With --mix: its first set's (`find_mix` has them all), and those of --val-dir, of ROOT or of a set of the mix.
    """
    if config.mix:
        return _find_sets_of_mix(config)
    if config.chunks_dir is None:
        raise ValueError("say where the chunks are: --chunks-dir ROOT, or several sets as --mix NAME=ROOT:WEIGHT ...")
    root = open_store(config.chunks_dir)
    folders = root.folders()
    train, held_out = _training_chunks(root, folders), _held_out(root, folders, config)
    val = open_store(config.val_dir) if config.val_dir is not None else held_out
    if train is None and not (evaluating and val is not None):
        raise FileNotFoundError(
            f"{root.location} holds no chunks: --chunks-dir takes a folder or remote:path with train/ and test/ (or "
            "val/), or one folder of chunks beside --val-dir; dataset_split.py and dataset_rechunker.py make them"
        )
    if val is None:
        raise FileNotFoundError(f"{root.location} has no validation chunks: neither val/ nor test/; give --val-dir")
    return train, val


class MixedStore(NamedTuple):
    """One set of --mix: its training chunks."""

    name: str
    store: Store
    weight: float


def find_mix(config: TrainConfig) -> list[MixedStore]:
    """The training chunks of each set of --mix; none without it. FileNotFoundError, ValueError name the set."""
    if config.mix and config.train_chunks:
        raise ValueError(
            "--train-chunks chooses from --chunks-dir; with --mix each set has its own numbers, leave it out"
        )
    found = []
    for name, location, weight in parse_mix(config.mix):
        root = open_store(location)
        store = _training_chunks(root, root.folders())
        if store is None:
            raise FileNotFoundError(
                f"--mix {name}: {root.location} holds no chunks: ROOT is a folder or remote:path with train/, or one "
                "folder of chunks; its weight stands after the last colon"
            )
        found.append(MixedStore(name, store, weight))
    return found


def _find_sets_of_mix(config: TrainConfig) -> tuple[Store, Store]:
    first = find_mix(config)[0].store
    if config.val_dir is not None:
        return first, open_store(config.val_dir)
    roots = [item.root for item in parse_mix(config.mix)] if config.chunks_dir is None else [config.chunks_dir]
    for root in map(open_store, roots):
        if (val := _held_out(root, root.folders(), config)) is not None:
            return first, val
    raise FileNotFoundError(f"{', '.join(roots)}: no validation chunks, neither val/ nor test/; give --val-dir")


def _training_chunks(root: Store, folders: Collection[str]) -> Store | None:
    return root.child("train") if "train" in folders else root if has_chunks(root) else None


def _held_out(root: Store, folders: Collection[str], config: TrainConfig) -> Store | None:
    """Training is judged by val/ where there is one, and test/ is for the published protocols."""
    order = ("val", "test") if config.protocol is None else ("test", "val")
    return next((root.child(name) for name in order if name in folders), None)


def training_set(config: TrainConfig, store: Store, model: ModelConfig) -> Source:
    transform = PoseAugmentor(config.augmentation, model.input_size)
    options: dict[str, Any] = {"fields": model.needs, "transform": transform}
    if not config.mix:
        return open_chunks(config, store, config.train_chunks, model, **options)
    mix = find_mix(config)
    sets = [open_chunks(config, part.store, (), model, name=part.name, **options) for part in mix]
    return DatasetMix(sets, [part.weight for part in mix])


def validation_set(config: TrainConfig, store: Store, model: ModelConfig) -> StreamingChunkedDataset:
    transform = FitView(model.input_size)
    return open_chunks(config, store, config.val_chunks, model, fields=model.needs, transform=transform, shuffle=False)


def label_loader(config: TrainConfig, store: Store, chunks: tuple[int, ...], model: ModelConfig) -> StreamingLoader:
    """Batches without pixels: nothing but metadata is read."""
    transform = FitView(model.input_size)
    dataset = open_chunks(config, store, chunks, model, fields=(), transform=transform, shuffle=False)
    bodies = isinstance(model, BodyConfig)
    collate = Human36MCollator(
        model.skeleton, model.keypoint_skeleton, depth=False, keypoints=model.reads_keypoints, bodies=bodies
    )
    return StreamingLoader(dataset, global_batch=LABEL_BATCH, collate=collate, training=False)


def open_chunks(
    config: TrainConfig, store: Store, chunks: tuple[int, ...], model: ModelConfig, **options: Any
) -> StreamingChunkedDataset:
    """ValueError where the chunks speak other skeletons than the model, or have no pictures for it."""
    dataset = StreamingChunkedDataset(
        store,
        chunks=chunks,
        seed=config.random_seed,
        cache_dir=config.cache_dir,
        cache_bytes=config.cache_gb * 1e9,
        **options,
    )
    for what, found, wanted in (
        ("labels", dataset.skeleton, model.skeleton),
        ("2D keypoints", dataset.keypoint_skeleton if model.reads_keypoints else "", model.keypoint_skeleton),
    ):
        if isinstance(model, BodyConfig) and found is not None:
            continue  # joints that mark the same points are taken from any labels
        if found != wanted and found != "":
            where = f"{dataset.name}: {store.location}" if dataset.name else store.location
            raise ValueError(f"{where} has {what} in skeleton {found}, the model is made for {wanted}")
    if "image" in dataset.fields:
        _look_for_pictures(dataset, store, model)
    return dataset


def _look_for_pictures(dataset: StreamingChunkedDataset, store: Store, model: ModelConfig) -> None:
    """ValueError where the first sample has none; a word where a model that sees depth finds no map."""
    first = dataset[0, 0]
    if first.image is None:
        raise ValueError(
            f"{store.location} has no pictures, and the {model.model_type} looks at them; make the chunks from images, "
            "or train a lifter on keypoints alone (--model-type lifter)"
        )
    if model.use_depth and first.depth_m is None and is_first_process():
        print(f"{store.location} has no depth maps: the model sees none (as with --no-use-depth)", file=sys.stderr)


def training_loader(
    config: TrainConfig, dataset: Source, model: ModelConfig, rank: int = 0, world_size: int = 1
) -> StreamingLoader:
    return _loader(config, dataset, model, rank, world_size, training=True, stream_groups=config.stream_groups)


def validation_loader(
    config: TrainConfig, dataset: StreamingChunkedDataset, model: ModelConfig, rank: int = 0, world_size: int = 1
) -> StreamingLoader:
    return _loader(
        replace(config, batch_size=config.val_batch_size or config.batch_size),
        dataset,
        model,
        rank,
        world_size,
        training=False,
    )


def _loader(
    config: TrainConfig,
    dataset: Source,
    model: ModelConfig,
    rank: int,
    world_size: int,
    **options: Any,
) -> StreamingLoader:
    if "image" in model.needs:
        options["collate"] = Human36MCollator(
            model.skeleton,
            model.keypoint_skeleton,
            depth=model.use_depth,
            keypoints=model.reads_keypoints,
            bodies=isinstance(model, BodyConfig),
        )
    else:
        options["decoder"] = KeypointDecoder(
            model.skeleton,
            model.keypoint_skeleton,
            depth=model.use_depth,
            window=model.window,
            augmentation=config.augmentation if options["training"] else None,
            noise=0.0 if options["training"] else config.val_keypoint_noise,
        )
    return StreamingLoader(
        dataset,
        global_batch=config.batch_size,
        rank=rank,
        world_size=world_size,
        num_workers=config.num_workers,
        prefetch=config.prefetch,
        **options,
    )
