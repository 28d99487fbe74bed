"""What is read of a set, and that nothing broken stops it."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from humanpose3d.chunks.codec import decode_sample, encode_jpeg, encode_sample
from humanpose3d.chunks.write import ChunkSetWriter
from humanpose3d.inspect.reading import RUN_FRAMES, choose, depth_at, difference_hash, read_again, read_evidence
from humanpose3d.remotes import open_store
from humanpose3d.sample import make_key
from tests.chunks.sets import read_set, write_set
from tests.inspect.sets import studio_samples, write_studio_set


def read(location, tmp_path, *, samples=20_000, all=False):
    return read_evidence(str(location), samples=samples, all=all, temp_dir=tmp_path / "temp")


def keys_of(cameras=4, frames=4800, step=1, subjects=("S1", "S5")):
    return [
        make_key("h36m", subject, "Walking 1", f"cam{camera}", f"{frame:06d}", "p0")
        for subject in subjects
        for camera in range(cameras)
        for frame in range(0, frames * step, step)
    ]


def test_a_small_set_is_read_whole_with_depth_at_its_joints_and_hashes_of_its_pictures(tmp_path):
    write_studio_set(tmp_path / "set")
    heard = read(tmp_path / "set", tmp_path)
    assert (heard.read, heard.depths, heard.images) == (72, 72, 72)
    assert not heard.broken
    witness, sample = heard.evidence.witnesses[0], studio_samples()[0]
    assert (witness.key, witness.split, witness.has_depth, witness.matched) == (sample.key, None, True, True)
    off_m = np.abs(witness.depth_at_joints_m - sample.joints_cam_m[:, 2])
    assert np.nanmedian(off_m) < 0.25  # a joint lies under the skin
    assert not (tmp_path / "temp").exists()


def test_about_as_many_samples_are_chosen_as_asked_for():
    keys = keys_of()
    for share in (0.02, 0.1, 0.5):
        assert np.mean(choose(keys, share)) == pytest.approx(share, rel=0.2)
    assert all(choose(keys, 1.0))


def test_the_same_frames_are_chosen_through_all_cameras_in_runs_of_neighbours():
    keys = keys_of(subjects=("S1",))
    chosen = np.array(choose(keys, 0.05)).reshape(4, -1)
    assert (chosen == chosen[0]).all()
    starts = np.flatnonzero(np.diff(np.concatenate([[0], chosen[0].astype(int)])) == 1)
    assert all(chosen[0, start : start + RUN_FRAMES].all() for start in starts)
    assert len(starts) > 5


def test_every_take_has_its_share_whatever_the_step_of_its_frames():
    for step in (1, 5, 64):
        keys = keys_of(step=step)
        chosen = np.array(choose(keys, 0.05)).reshape(2, 4, -1).mean(-1)
        assert np.allclose(chosen, 0.05, rtol=0.2)


def test_how_a_set_is_cut_into_chunks_does_not_change_what_is_chosen():
    keys = keys_of()
    whole = dict(zip(keys, choose(keys, 0.1), strict=True))
    shuffled = [keys[number] for number in np.random.default_rng(0).permutation(len(keys))]
    for start in range(0, len(keys), 3000):
        part = shuffled[start : start + 3000]
        assert choose(part, 0.1) == [whole[key] for key in part]


def test_foreign_keys_are_chosen_by_chance():
    keys = [f"sample{number}" for number in range(20_000)]
    assert np.mean(choose(keys, 0.1)) == pytest.approx(0.1, rel=0.1)


def test_depth_is_looked_up_where_the_joints_are():
    depth_m = np.arange(12, dtype=np.float32).reshape(3, 4)  # of an 8 x 6 image
    joints_px = np.array([[0, 0], [7, 5], [2.4, 0.4], [-0.6, 0], [8, 2], [np.nan, 1], [1e12, 0]], np.float32)
    expected = [np.nan, 11, 1, np.nan, np.nan, np.nan, np.nan]  # 0 m is unknown
    np.testing.assert_array_equal(depth_at(depth_m, joints_px, (8, 6)), np.array(expected, np.float32))


def test_a_picture_compressed_anew_keeps_its_hash_and_another_has_another():
    first, second = studio_samples()[0].image, studio_samples()[12].image

    def bits(image, quality):
        return difference_hash("key", encode_jpeg(image, quality))

    assert (bits(first, 95) ^ bits(first, 80)).bit_count() <= 3
    assert (bits(first, 95) ^ bits(second, 95)).bit_count() > 10


def test_broken_samples_are_named_with_their_reason_and_the_others_are_read(tmp_path):
    samples = studio_samples()[:20]
    damage = {
        3: lambda members: members | {"meta.json": b"{"},
        7: lambda members: {name: data for name, data in members.items() if name != "depth.png"},
        9: lambda members: members | {"image.jpg": members["image.jpg"][:200] + b"\xff\xd9"},
    }
    write_damaged(tmp_path / "set", samples, damage)
    heard = read(tmp_path / "set", tmp_path)
    assert {reason: list(keys) for reason, keys in heard.broken.items()} == {
        "meta.json is not JSON": [samples[3].key],
        "depth.png is missing": [samples[7].key],
        "image.jpg cannot be decoded": [samples[9].key],
    }
    assert (heard.read, len(heard.evidence)) == (20, 17)
    findings = heard.broken_findings()
    assert {finding.corpus for finding in findings} == {"human36m"}
    assert samples[3].key in " ".join(finding.message for finding in findings)


def write_damaged(folder: Path, samples, damage) -> None:
    """A set whose samples were damaged after they had been written."""
    write_set(folder, samples, chunk_size=10)
    kept = read_set(folder, folder)
    shutil.rmtree(folder)
    with ChunkSetWriter(
        open_store(folder), prefix="chunk", chunk_size=10, compress="none", plan={}, staging=folder, state=dict
    ) as writer:
        for position, (key, members) in enumerate(kept):
            meta = {"skeleton": "h36m_17", "subject": "S1"}
            writer.write(position, key, damage.get(position, dict)(members), meta)
        writer.finish()


def test_a_chunk_that_was_cut_short_is_told_and_the_others_are_read(tmp_path):
    write_studio_set(tmp_path / "set")
    chunk = tmp_path / "set" / "chunk_000001.tar"
    chunk.write_bytes(chunk.read_bytes()[:5000])
    heard = read(tmp_path / "set", tmp_path)
    assert len(heard.evidence) == 72 - 25
    [(reason, files)] = heard.broken.items()
    assert files == ["chunk_000001.tar"]
    assert "bytes where index.json says" in reason


def test_both_sides_of_a_split_are_read_each_under_its_name(tmp_path):
    train = [sample for sample in studio_samples() if sample.subject == "S1"]
    test = [sample for sample in studio_samples() if sample.subject == "S9"]
    write_studio_set(tmp_path / "set" / "train", train, prefix="train")
    write_studio_set(tmp_path / "set" / "test", test, prefix="test")
    heard = read(tmp_path / "set", tmp_path)
    assert {(witness.subject, witness.split) for witness in heard.evidence} == {("S1", "train"), ("S9", "test")}


def test_a_set_on_a_remote_or_compressed_gives_the_same_evidence_and_leaves_nothing_behind(tmp_path, s3_remote):
    samples = studio_samples()[:30]
    write_studio_set(tmp_path / "set", samples)
    write_studio_set(s3_remote.location, samples, staging=tmp_path / "staging")
    write_studio_set(f"{s3_remote.location}/packed", samples, compress="gz", staging=tmp_path / "staging")
    known = [witness.image_hash for witness in read(tmp_path / "set", tmp_path).evidence]
    for location in (s3_remote.location, f"{s3_remote.location}/packed"):
        heard = read(location, tmp_path)
        assert [witness.image_hash for witness in heard.evidence] == known
        assert not list((tmp_path / "temp").iterdir())
        key = samples[27].key
        again = read_again(heard.places[key], key, tmp_path / "temp")
        np.testing.assert_array_equal(
            again.image, decode_sample(key, encode_sample(samples[27]), fields=("image",)).image
        )


def test_of_a_large_remote_chunk_only_the_chosen_samples_are_fetched(tmp_path, s3_remote, monkeypatch):
    samples = studio_samples()
    write_studio_set(tmp_path / "set", samples)
    write_studio_set(s3_remote.location, samples, staging=tmp_path / "staging")
    monkeypatch.setattr("humanpose3d.inspect.sparse.CALL_BYTES", 1000)
    monkeypatch.setattr("humanpose3d.inspect.reading.RUN_FRAMES", 2)
    fetched = []
    monkeypatch.setattr(
        "humanpose3d.inspect.reading.borrowed_chunk", lambda store, entry, folder: fetched.append(entry.file)
    )
    remote, local = (read(where, tmp_path, samples=24) for where in (s3_remote.location, tmp_path / "set"))
    assert [witness.key for witness in remote.evidence] == [witness.key for witness in local.evidence]
    assert [witness.image_hash for witness in remote.evidence] == [witness.image_hash for witness in local.evidence]
    assert 5 < len(remote.evidence) < 50
    assert not fetched and not remote.broken
    assert not list((tmp_path / "temp").iterdir())


def test_a_share_so_small_that_nothing_was_read_finds_nothing_in_order(tmp_path):
    write_studio_set(tmp_path / "set")
    with pytest.raises(ValueError, match="--max-samples 1 of 72 samples are too few to choose from; say --all"):
        read(tmp_path / "set", tmp_path, samples=1)


def test_where_there_are_no_chunks_the_message_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no chunks"):
        read(tmp_path, tmp_path)
