"""Decoders: any WebDataset into tensors, and memory that goes round without ever being overwritten in use."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
import torch
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from humanpose3d.chunks.codec import decode_depth, decode_jpeg
from humanpose3d.chunks.layout import index_chunks
from humanpose3d.chunks.read import open_chunk
from humanpose3d.dataset.chunked_dataset import StreamingChunkedDataset, StreamingLoader
from humanpose3d.dataset.decoding import ArrayDecoder, BatchMemory
from humanpose3d.remotes import LocalStore

SAMPLES = 40


class Frames(ArrayDecoder):
    """Somebody else's members and metadata."""

    extensions = ("jpg", "depth.png", "json")
    rows = {
        "image": ((16, 16, 3), np.uint8),
        "depth_m": ((1, 12, 12), np.float32),
        "joints_cam_m": ((17, 3), np.float32),
        "draw": ((), np.float64),
    }

    def decode_row(self, sample, row):
        decode_jpeg(sample.key, sample.member("jpg"), row["image"])
        decode_depth(sample.key, sample.member("depth.png"), row["depth_m"][0])
        row["joints_cam_m"][...] = sample.json("json")["joints_3d"]
        row["draw"][...] = sample.rng().random()


@pytest.fixture(scope="module")
def foreign_set(tmp_path_factory) -> Path:
    """As stock webdataset writes it, PNGs as OpenCV does."""
    folder, rng = tmp_path_factory.mktemp("foreign"), np.random.default_rng(0)
    with webdataset.ShardWriter(str(folder / "shard-%05d.tar"), maxcount=10, verbose=0) as writer:
        for number in range(SAMPLES):
            image = np.full((32, 32, 3), 5 * number, np.uint8)
            depth = np.full((12, 12), 1000 + number, np.uint16) + np.arange(12, dtype=np.uint16)
            writer.write({
                "__key__": f"{number:08d}",
                "jpg": simplejpeg.encode_jpeg(image, quality=95),
                "depth.png": cv2.imencode(".png", depth)[1].tobytes(),
                "json": {"joints_3d": rng.normal(size=(17, 3)).tolist()},
            })  # fmt: skip
    index_chunks(LocalStore(folder))
    return folder


def loader(folder: Path, **changes) -> StreamingLoader:
    dataset = StreamingChunkedDataset(folder, seed=3)
    return StreamingLoader(dataset, **({"global_batch": 8, "decoder": Frames()} | changes))


def numbers_of(batch) -> list[int]:
    return [round(float(depth) * 1000) - 1000 for depth in batch["depth_m"][:, 0, 0, 0]]


def test_a_set_of_other_members_is_read_into_tensors(foreign_set):
    batches = list(loader(foreign_set))
    assert sorted(number for batch in batches for number in numbers_of(batch)) == list(range(SAMPLES))
    for batch in batches:
        assert batch["image"].shape == (8, 16, 16, 3) and batch["image"].dtype == torch.uint8
        assert all(tensor.is_contiguous() for tensor in batch.values())
        assert (batch["image"].float().mean((1, 2, 3)) - 5 * torch.tensor(numbers_of(batch))).abs().max() < 2


@pytest.mark.parametrize("workers", [("threads", 2), ("processes", 2)])
def test_the_batches_do_not_depend_on_who_makes_them(foreign_set, workers):
    kind, number = workers
    alone, helped = loader(foreign_set), loader(foreign_set, workers=kind, num_workers=number)
    for _ in range(2):
        for here, there in zip(alone, helped, strict=True):
            assert all(torch.equal(here[name], there[name]) for name in Frames.rows)
    helped.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_picture_is_left_out_and_named(foreign_set, tmp_path, workers):
    for path in foreign_set.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / "shard-00002.tar"
    table = open_chunk(path).table
    for extension, sample in (("jpg", 4), ("depth.png", 7)):
        with path.open("r+b") as file:
            file.seek(int(table.offsets[sample, table.extensions.index(extension)]) + 60)
            file.write(b"\0" * 40)
    source = loader(tmp_path, num_workers=workers)
    seen = {number for batch in source for number in numbers_of(batch)}
    assert set(range(SAMPLES)) - seen == {24, 27}
    assert source.quarantined == {
        "shard-00002.tar:00000024": "image.jpg cannot be decoded",
        "shard-00002.tar:00000027": "depth.png is not a 16-bit grey PNG",
    }
    source.close()


def test_an_error_of_the_decoder_itself_is_not_hidden(foreign_set):
    class Wrong(Frames):
        def decode_row(self, sample, row):
            row["joints"] += 1

    with pytest.raises(KeyError, match="joints"):
        next(iter(loader(foreign_set, decoder=Wrong(), num_workers=2)))


def test_a_loader_takes_either_a_decoder_or_a_collate_function(foreign_set):
    for changes in ({"decoder": None}, {"collate": list}):
        with pytest.raises(ValueError, match="and not both"):
            loader(foreign_set, **changes)
    with pytest.raises(ValueError, match="unknown workers 'fibres'; known: auto, threads, processes"):
        loader(foreign_set, num_workers=1, workers="fibres")


def test_a_batch_that_is_kept_is_never_written_to_again(foreign_set):
    source = loader(foreign_set, num_workers=2, prefetch=3)
    kept, copies = [], []
    for epoch in range(6):
        for number, batch in enumerate(source):
            if (epoch + number) % 2:
                kept.append(batch["image"][3:5].permute(0, 3, 1, 2))  # a view, its batch is gone
                copies.append(kept[-1].clone())
    assert all(torch.equal(each, copy) for each, copy in zip(kept, copies, strict=True))
    source.close()


def test_memory_goes_round_once_nobody_holds_it():
    memory = BatchMemory()
    first = memory.tensor((4, 5), np.float32)
    place, row = first.data_ptr(), first[2]
    del first
    assert memory.tensor((4, 5), np.float32).data_ptr() != place, "a row is still held"
    array = row.numpy()
    del row
    assert memory.tensor((4, 5), np.float32).data_ptr() != place, "an array of it is still held"
    del array
    assert place in {memory.tensor((4, 5), np.float32).data_ptr() for _ in range(2)}


# --- the codec's part -------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    out=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    seed=st.integers(0, 9),
)
def test_a_jpeg_is_decoded_at_the_scale_wanted(height, width, out, seed):
    image = cv2.resize(np.random.default_rng(seed).integers(0, 255, (3, 3, 3), np.uint8), (width, height))
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=95)
    view = np.zeros((*out, 3), np.uint8)
    assert decode_jpeg("k", data, view) is view
    scaled = simplejpeg.decode_jpeg(data, min_height=out[0], min_width=out[1])
    expected = scaled if scaled.shape == view.shape else cv2.resize(scaled, out[::-1], interpolation=cv2.INTER_AREA)
    assert np.array_equal(view, expected)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 300),
    filters=st.sampled_from(["FILTER_SUB", "FILTER_UP", "FILTER_NONE", "FILTER_PAETH", "FILTER_AVG", "ALL_FILTERS"]),
    level=st.integers(0, 9),
    noise=st.booleans(),
)
def test_pngs_of_any_filter_are_read_as_opencv_reads_them(height, width, filters, level, noise):
    rng = np.random.default_rng(height * width)
    depth = rng.integers(0, 65536, (height, width)) if noise else np.add.outer(np.arange(height), 3 * np.arange(width))
    options = [cv2.IMWRITE_PNG_FILTER, getattr(cv2, f"IMWRITE_PNG_{filters}"), cv2.IMWRITE_PNG_COMPRESSION, level]
    data = cv2.imencode(".png", depth.astype(np.uint16), options)[1].tobytes()
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), -1).astype(np.float32) / np.float32(1000)
    assert np.array_equal(decode_depth("k", data), expected)
    out = np.empty((height, width), np.float32)
    assert decode_depth("k", data, out) is out and np.array_equal(out, expected)


def test_a_depth_map_of_another_size_than_asked_is_a_bad_sample():
    data = cv2.imencode(".png", np.zeros((4, 5), np.uint16))[1].tobytes()
    with pytest.raises(ValueError, match="not of the size"):
        decode_depth("k", data, np.empty((5, 4), np.float32))


def test_pngs_of_pillow_are_read():
    from PIL import Image

    depth = np.random.default_rng(0).integers(0, 65536, (40, 50)).astype(np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(depth).save(buffer, "png")
    assert np.array_equal(decode_depth("k", buffer.getvalue()), depth.astype(np.float32) / np.float32(1000))
