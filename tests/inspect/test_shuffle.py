"""How well a set is shuffled, and what its splits share."""

import json
import math
import re
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from humanpose3d.chunks.codec import encode_sample
from humanpose3d.chunks.rechunk import rechunk
from humanpose3d.cli import main
from humanpose3d.inspect.roster import plan_reading
from humanpose3d.inspect.shuffle import (
    FILM_ORDER,
    PARTLY,
    SHUFFLED,
    Rate,
    ShuffleFigures,
    chance_of_none,
    expected_distinct,
    lag_one_correlation,
    neighbours_in_batches,
    neighbours_in_store,
    neighbours_of,
    variety,
)
from humanpose3d.inspect.shuffle_report import inspect_shuffle
from humanpose3d.sample import make_key
from tests.chunks.sets import write_set
from tests.records import random_sample

SUBJECTS, ACTIONS, CAMERAS, FRAMES = ("S1", "S5", "S6", "S7", "S8"), ("Walking 1", "Eating"), ("a", "b"), 300
STEP = 5  # of the frames at 50 fps: ten samples a second


@lru_cache(maxsize=1)
def film():
    """1,200 samples without pictures, in film order: people who swing slowly, before two cameras."""
    rng = np.random.default_rng(0)
    samples = []
    for subject in SUBJECTS:
        for action in ACTIONS:
            swing = rng.normal(scale=0.3, size=(2, 17, 3))
            for camera in CAMERAS:
                turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
                for frame in range(0, FRAMES, STEP):
                    angle = 2 * np.pi * frame / 150
                    joints = (swing[0] * np.sin(angle) + swing[1] * np.cos(angle)) @ turn + [0.0, 0.0, 4.0]
                    samples.append(
                        random_sample(
                            rng,
                            make_key("h36m", subject, action, camera, f"{frame:06d}", "p0"),
                            image=False,
                            depth=False,
                            joints_cam_m=joints.astype(np.float32),
                            corpus="human36m",
                            subject=subject,
                            action=action,
                            camera_id=camera,
                            frame_index=frame,
                        )  # fmt: skip
                    )
    return samples


def shuffled(samples, seed=0):
    return [samples[number] for number in np.random.default_rng(seed).permutation(len(samples))]


def look(location, tmp_path, *, batch_size=32, report=None):
    return inspect_shuffle(str(location), report=report, batch_size=batch_size, seed=42, temp_dir=tmp_path / "temp")


def rechunked(source, target, tmp_path, **settings):
    rechunk(
        input_dir=str(source), output_dir=str(target), seed=1, shuffle=True, keep_extracted_originals=False,
        compress="none", temp_dir=tmp_path / "rechunk", workers=2, max_bad=0.0, **({"chunk_size": 50} | settings),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ the figures


def test_the_ideal_is_that_of_a_case_counted_by_hand():
    # Of a a b, the three draws of two are aa, ab, ab: 1, 2 and 2 classes.
    mean, spread = expected_distinct(np.array([2, 1]), 2)
    assert mean == pytest.approx(5 / 3)
    assert spread == pytest.approx(math.sqrt((1 + 4 + 4) / 3 - 25 / 9))
    assert expected_distinct(np.array([1, 1, 1, 1]), 3) == pytest.approx((3.0, 0.0), abs=1e-6)
    assert expected_distinct(np.array([5]), 3) == pytest.approx((1.0, 0.0), abs=1e-6)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.data())
def test_the_chance_of_missing_a_class_is_the_hypergeometric_one(counts, data):
    total = sum(counts)
    draw = data.draw(st.integers(1, total))
    exact = [math.comb(total - count, draw) / math.comb(total, draw) for count in counts]
    assert chance_of_none(total, np.array(counts), draw) == pytest.approx(exact, rel=1e-9, abs=1e-12)
    assert expected_distinct(np.array(counts), draw)[0] == pytest.approx(sum(1 - chance for chance in exact))


def test_a_million_samples_drawn_from_at_random_have_the_ideal():
    rng = np.random.default_rng(0)
    classes = np.sort(rng.integers(0, 700, 1_000_000) * rng.integers(0, 2, 1_000_000))
    batches = [rng.choice(len(classes), 64, replace=False) for _ in range(2000)]
    found = variety(classes, batches)
    assert found.mean == pytest.approx(found.ideal, abs=4 * found.ideal_spread / math.sqrt(len(batches)))
    assert found.spread == pytest.approx(found.ideal_spread, rel=0.1)
    assert found.share == pytest.approx(1.0, abs=0.01)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), min_size=1, max_size=40), st.integers(1, 12))
def test_neighbours_are_those_that_comparing_all_pairs_finds(places, near):
    scenes, frames = (np.array(column) for column in zip(*places, strict=True))
    close = (scenes[:, None] == scenes) & (np.abs(frames[:, None] - frames) <= near)
    np.testing.assert_array_equal(neighbours_of(scenes, frames, near), close.sum(1) - 1)


def test_of_a_perfect_shuffle_neighbours_are_as_frequent_as_expected():
    rng = np.random.default_rng(0)
    scenes, frames = np.repeat(np.arange(20), 100), np.tile(np.arange(100), 20)
    neighbours = neighbours_of(scenes, frames, 10)
    stored, together = [], []
    for _ in range(60):
        order = rng.permutation(len(scenes))
        batches = list(order[: 64 * 31].reshape(31, 64))
        together.append(neighbours_in_batches(scenes, frames, batches, 10, neighbours))
        stored.append(neighbours_in_store(scenes[order], frames[order], np.arange(len(order)), 10, neighbours[order]))
    for rates in (together, stored):
        excesses = np.array([rate.excess for rate in rates])
        assert abs(excesses.mean()) < 4 * rates[0].chance / math.sqrt(len(rates))
        assert excesses.std() < 1.5 * rates[0].chance
    assert stored[0].expected < 0.01 < together[0].expected < 1.0


def test_where_nearly_all_have_a_neighbour_in_any_order_a_shuffled_set_is_not_blamed():
    assert abs(Rate(1.0, 0.999, 500).excess) < 0.02
    assert Rate(1.0, 0.675, 500).excess == pytest.approx(1.0)


def test_whatever_its_shape_a_shuffled_set_is_called_so_and_a_film_a_film():
    rng = np.random.default_rng(0)
    for trial in range(60):
        people, scenes, per = (int(rng.integers(low, high)) for low, high in ((1, 12), (1, 10), (2, 100)))
        take = np.repeat(np.arange(people * scenes * 2), per)
        frame = np.tile(np.arange(per) * rng.choice([1, 5, 20]), people * scenes * 2)
        total = len(take)
        chunk = int(rng.integers(max(total // 40, 1), max(total // 2, 1) + 1))
        sizes = [chunk] * (total // chunk) + ([total % chunk] if total % chunk else [])
        plan = plan_reading(sizes, batch_size=int(rng.choice([8, 64, 256])), seed=trial, shuffle=True)
        for order, verdict in ((rng.permutation(total), SHUFFLED), (np.arange(total), FILM_ORDER)):
            scene, frames, near = take[order] // 2, frame[order], 50
            neighbours = neighbours_of(scene, frames, near)
            poses = np.sin(frames[:, None] / 40 + take[order][:, None] * np.arange(1, 9))[plan.poses]
            figures = ShuffleFigures(
                batches=len(plan.batches),
                batch_size=plan.batch_size,
                subjects=variety(take[order] % people, plan.batches),
                takes=variety(take[order], plan.batches),
                in_batch=neighbours_in_batches(scene, frames, plan.batches, near, neighbours),
                in_store=neighbours_in_store(scene, frames, np.arange(total), near, neighbours),
                near_frames=near,
                pose_correlation=lag_one_correlation(poses, plan.poses)[0],
                pose_pairs=lag_one_correlation(poses, plan.poses)[1],
            )
            # Of a set that is one moment long any order is as good as another.
            assert figures.verdict == verdict or figures.in_store.expected > 0.5, (trial, figures)


def test_samples_beyond_a_gap_in_what_was_read_are_not_neighbours_in_the_store():
    scenes, frames = np.zeros(4, int), np.arange(4)
    rate = neighbours_in_store(scenes, frames, np.array([0, 1, 7, 8]), 1, neighbours_of(scenes, frames, 1))
    assert (rate.measured, rate.number) == (1.0, 2)


def test_a_slow_film_correlates_with_itself_and_a_shuffle_does_not():
    rng = np.random.default_rng(0)
    angles = np.linspace(0, 40, 1000)
    poses = np.stack([np.sin(angles), 3 * np.cos(angles), np.full(1000, 7.0)], axis=-1)
    rows = np.arange(1000)
    correlation, pairs = lag_one_correlation(poses, rows)
    assert correlation > 0.99 and pairs == 999
    assert abs(lag_one_correlation(rng.permutation(poses), rows)[0]) < 0.15
    poses[::3, 1] = np.nan
    assert lag_one_correlation(poses, rows)[0] > 0.98
    assert lag_one_correlation(np.ones((5, 3)), rows[:5])[0] is None


# --------------------------------------------------------------------------------------------- what is looked at


def test_the_batches_are_those_of_the_loader():
    from humanpose3d.dataset.order import BatchOrder, SampleOrder

    sizes = [50, 30, 0, 70, 45, 80, 10]
    plan = plan_reading(sizes, batch_size=16, seed=42, shuffle=True)
    order = BatchOrder(SampleOrder(sizes, seed=42), global_batch=16, drop_last=True)
    before = np.concatenate([[0], np.cumsum(sizes)])
    assert len(plan.batches) == plan.batches_of_epoch == order.batches
    for number, rows in enumerate(plan.batches):
        places = [order.order.place(0, slot.group, slot.offset) for slot in order.slots(0, number)]
        assert rows.tolist() == [before[place.chunk] + place.sample for place in places]


def test_an_evaluation_is_looked_at_in_stored_order_without_its_repeats():
    plan = plan_reading([10, 10], batch_size=8, seed=42, shuffle=False)
    assert np.concatenate(plan.batches).tolist() == list(range(20))


def test_of_a_very_large_set_some_chunks_are_looked_at_and_rows_are_of_those():
    sizes = [5000] * 4000
    plan = plan_reading(sizes, batch_size=64, seed=42, shuffle=True, samples_at_most=1_000_000)
    assert 100 <= len(plan.chunks) <= 200
    assert plan.starts[-1] == 5000 * len(plan.chunks) <= 1_000_000
    assert 10 <= len(plan.batches) <= 1000
    assert all(len(set(rows.tolist())) == 64 and rows.max() < plan.starts[-1] for rows in plan.batches)
    assert len(plan.poses) < 1000 and plan.poses.max() < plan.starts[-1]


# ------------------------------------------------------------------------------------------------ whole sets


def test_a_set_in_film_order_is_called_so_and_shuffled_after_rechunking(tmp_path, capsys):
    write_set(tmp_path / "film", film(), chunk_size=50)
    rechunked(tmp_path / "film", tmp_path / "mixed", tmp_path)
    before, after = look(tmp_path / "film", tmp_path), look(tmp_path / "mixed", tmp_path)
    [fault] = before.faults
    assert before.exit_code == 1
    assert "in film order" in fault and "dataset_rechunker.py" in fault
    told = before.facts["shuffle"]["set"]
    assert told["verdict"] == FILM_ORDER
    assert told["in_store"]["measured"] > 0.95 and told["pose_correlation"] > 0.8
    assert told["takes"]["share"] < 0.6 and told["subjects"]["share"] < 0.8
    assert (after.exit_code, after.faults, after.notes) == (0, [], [])
    told = after.facts["shuffle"]["set"]
    assert told["verdict"] == SHUFFLED
    assert told["takes"]["share"] == pytest.approx(1.0, abs=0.03)
    assert told["subjects"]["share"] == pytest.approx(1.0, abs=0.03)
    assert told["in_store"]["measured"] == pytest.approx(told["in_store"]["expected"], abs=0.02)
    assert abs(told["pose_correlation"]) < 0.2
    assert after.summary.endswith(": shuffled")


def test_film_order_is_seen_where_cameras_take_turns_and_where_one_window_holds_the_whole_set(tmp_path, capsys):
    by_frame = sorted(film(), key=lambda sample: (sample.subject, sample.action, sample.frame_index))
    write_set(tmp_path / "turns", by_frame, chunk_size=50)
    write_set(tmp_path / "few", film(), chunk_size=400)
    turns, few = (look(tmp_path / name, tmp_path).facts["shuffle"]["set"] for name in ("turns", "few"))
    assert (turns["verdict"], few["verdict"]) == (FILM_ORDER, FILM_ORDER)
    assert few["takes"]["share"] > 0.95  # the loader mixes four chunks: here, all of them


def test_chunks_of_one_subject_that_are_mixed_inside_are_partly_shuffled(tmp_path, capsys):
    by_subject = sorted(shuffled(film()), key=lambda sample: sample.subject)
    write_set(tmp_path / "set", by_subject, chunk_size=30)
    stage = look(tmp_path / "set", tmp_path)
    assert stage.facts["shuffle"]["set"]["verdict"] == PARTLY
    assert stage.exit_code == 1
    assert re.search(r"a batch of 32 holds [\d.]+ subjects where 5.0 could be", stage.faults[0])


@pytest.mark.parametrize("number", [1, 2, 10, 40])
def test_a_small_shuffled_set_is_not_blamed_for_chance(number, tmp_path, capsys):
    for seed in range(5):
        write_set(tmp_path / str(seed), shuffled(film(), seed)[:number], chunk_size=7)
        stage = look(tmp_path / str(seed), tmp_path)
        assert (stage.exit_code, stage.faults) == (0, [])
    assert stage.notes == ([f"set has {number} samples, fewer than a batch of 32"] if number < 32 else [])


def test_a_test_set_may_stay_in_film_order(tmp_path, capsys):
    write_set(tmp_path / "train", shuffled([one for one in film() if one.subject != "S8"]), prefix="train")
    write_set(tmp_path / "test", [one for one in film() if one.subject == "S8"], prefix="test")
    for where in (tmp_path, tmp_path / "test"):
        assert look(where, tmp_path).exit_code == 0
    told = look(tmp_path, tmp_path)
    assert told.facts["shuffle"]["test"]["verdict"] == FILM_ORDER
    assert told.facts["shuffle"]["test"]["batches"] == 240 / 32 + 0.5
    assert told.summary.endswith("train shuffled, test in film order (only training needs more); no leak between them")


def test_what_stands_on_both_sides_of_a_split_is_found(tmp_path, capsys):
    samples = film()
    others = [one for one in samples if one.subject != "S8"]
    s8 = [one for one in samples if one.subject == "S8"]
    walking = [one for one in s8 if one.action.startswith("Walking")]
    camera_a, camera_b = ([one for one in walking if one.camera_id == camera] for camera in CAMERAS)
    write_set(tmp_path / "train", shuffled(others + camera_a), prefix="train")
    write_set(tmp_path / "test", shuffled([one for one in s8 if one not in camera_a] + camera_a[:7]), prefix="test")
    stage = look(tmp_path, tmp_path)
    assert stage.exit_code == 1
    [fault] = stage.faults
    assert fault == (
        "human36m S8, camera (all): split_leak: the subject is on both sides of the split (187 samples in test, 60"
        " samples in train), with frames of one take (Walking_1) on both sides, 7 samples under the same key, 60"
        " moments through another camera; split by subject"
    )
    [finding] = stage.facts["findings"]
    assert (finding["fault"], finding["subject"], finding["measured"]) == ("split_leak", "S8", 60)
    assert stage.summary.endswith("1 leak between them")
    assert len(camera_b) == 60


def test_people_of_two_corpora_who_have_one_name_are_no_leak(tmp_path, capsys):
    own = [one for one in film() if one.subject == "S1"]
    other = [one.with_(key=one.key.replace("h36m", "3dhp"), corpus="mpi_inf_3dhp") for one in own]
    write_set(tmp_path / "train", shuffled(own), prefix="train")
    write_set(tmp_path / "test", shuffled(other), prefix="test")
    assert look(tmp_path, tmp_path).faults == []


def test_sets_of_foreign_keys_are_read_by_their_metadata(tmp_path, capsys):
    samples = film()
    foreign = [one.with_(key=f"sample{number:05d}") for number, one in enumerate(samples)]
    write_set(tmp_path / "ours", samples, chunk_size=50)
    write_set(tmp_path / "foreign", foreign, chunk_size=50)
    ours, theirs = (look(tmp_path / name, tmp_path).facts["shuffle"] for name in ("ours", "foreign"))
    assert ours == theirs
    # One key, two people: nothing but the key tells.
    write_set(tmp_path / "split" / "train", shuffled(foreign[:600]), prefix="train")
    twice = [foreign[0].with_(subject="S9"), *foreign[720:]]
    write_set(tmp_path / "split" / "test", [one for one in twice if one.subject in ("S9", "S7", "S8")], prefix="test")
    stage = look(tmp_path / "split", tmp_path)
    assert any("S9" in fault and "1 samples have keys that are on the other side" in fault for fault in stage.faults)


def test_remote_and_compressed_sets_give_the_same_figures_and_leave_nothing_behind(tmp_path, s3_remote, capsys):
    samples = shuffled(film())[:400]
    write_set(tmp_path / "set", samples, chunk_size=50)
    write_set(tmp_path / "packed", samples, chunk_size=50, compress="gz", staging=tmp_path / "staging")
    write_set(s3_remote.location, samples, chunk_size=50, staging=tmp_path / "staging")
    write_set(f"{s3_remote.location}/packed", samples, chunk_size=50, compress="gz", staging=tmp_path / "staging")
    known = look(tmp_path / "set", tmp_path).facts["shuffle"]
    for where in (tmp_path / "packed", s3_remote.location, f"{s3_remote.location}/packed"):
        assert look(where, tmp_path).facts["shuffle"] == known
        assert not list((tmp_path / "temp").iterdir())


def test_of_a_large_remote_chunk_only_the_metadata_of_a_few_samples_is_fetched(
    tmp_path, s3_remote, monkeypatch, capsys
):
    samples = shuffled(film())
    write_set(tmp_path / "set", samples, chunk_size=400)
    write_set(s3_remote.location, samples, chunk_size=400, staging=tmp_path / "staging")
    monkeypatch.setattr("humanpose3d.inspect.sparse.CALL_BYTES", 1000)
    monkeypatch.setattr("humanpose3d.inspect.roster.RUNS", 4)
    fetched = []
    monkeypatch.setattr("humanpose3d.inspect.reading.borrowed_chunk", lambda *entry: fetched.append(entry))
    remote, local = (look(where, tmp_path).facts["shuffle"] for where in (s3_remote.location, tmp_path / "set"))
    assert remote == local
    assert remote["set"]["pose_pairs"] == 4 * 16 and not fetched


def test_no_picture_is_ever_read(tmp_path, monkeypatch, capsys):
    write_set(tmp_path / "set", [random_sample(np.random.default_rng(0), one.key) for one in film()[:50]])
    asked = set()
    from humanpose3d.chunks.read import Chunk

    read = Chunk.read

    def spied(self, index, extensions=None):
        asked.update(extensions)
        return read(self, index, extensions)

    monkeypatch.setattr(Chunk, "read", spied)
    look(tmp_path / "set", tmp_path)
    assert asked == {"meta.json"}


def test_broken_chunks_and_samples_are_named_and_the_rest_is_told(tmp_path, capsys):
    samples = shuffled([one.with_(key=f"sample{number:05d}") for number, one in enumerate(film())])
    write_set(tmp_path / "set", samples, chunk_size=100)
    chunk = tmp_path / "set" / "chunk_000000.tar"
    chunk.write_bytes(chunk.read_bytes()[:5000])
    chunk = tmp_path / "set" / "chunk_000001.tar"
    data = chunk.read_bytes()
    chunk.write_bytes(data.replace(b'{"schema_version"', b'??schema_version"', 1))
    stage = look(tmp_path / "set", tmp_path)
    assert stage.exit_code == 1 and len(stage.faults) == 2
    assert any("chunk_000000.tar" in fault for fault in stage.faults)
    assert any(samples[100].key in fault and "not JSON" in fault for fault in stage.faults)
    assert stage.facts["shuffle"]["set"]["verdict"] == SHUFFLED


def test_the_command_prints_a_table_and_writes_json_and_a_page(tmp_path, monkeypatch, capsys):
    train = [one for one in film() if one.subject != "S8"]
    write_set(tmp_path / "set" / "train", train, prefix="train", chunk_size=50)
    write_set(tmp_path / "set" / "test", [one for one in film() if one.subject == "S8"], prefix="test")
    arguments = ["inspect", str(tmp_path / "set"), "--shuffle", "--batch-size", "24", "--report", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["humanpose3d", *arguments])
    assert main() == 1
    told = capsys.readouterr()
    assert told.err.startswith("wrong: train: in film order (a batch of 24 holds ")
    lines = told.out.splitlines()
    assert lines[0].split() == ["train", "test"]
    assert re.match(r"takes in a batch +[\d.]+ ± [\d.]+ of [\d.]+ \(\d+ %\)  ", lines[5])
    assert lines[-1].startswith("inspected the shuffle of 1200 of 1200 samples in ")
    report = json.loads((tmp_path / "out" / "inspect_report.json").read_text())
    assert report["stage"] == "inspect" and report["batch_size"] == 24 and report["thresholds"]["least_share"]
    assert set(report["shuffle"]) == {"train", "test"}
    assert report["shuffle"]["train"]["takes"]["ideal"] > report["shuffle"]["train"]["takes"]["mean"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "in film order" in page and "takes in a batch" in page
    assert not re.search(r"<script|@import|url\(|https?:", page)
    assert page.count("<div") == page.count("</div>")


def test_a_set_without_labels_has_no_correlation_and_a_set_that_is_not_there_ends_with_2(tmp_path, monkeypatch, capsys):
    bare = [
        one.with_(joints_cam_m=None, joints_px=None, joint_score=None, joint_in_view=None, skeleton=None,
                  keypoints_px=None, keypoint_score=None, keypoint_skeleton=None)
        for one in shuffled(film())[:100]
    ]  # fmt: skip
    assert encode_sample(bare[0])
    write_set(tmp_path / "bare", bare)
    assert look(tmp_path / "bare", tmp_path).facts["shuffle"]["set"]["pose_correlation"] is None
    monkeypatch.setattr("sys.argv", ["humanpose3d", "inspect", str(tmp_path / "nowhere"), "--shuffle"])
    assert main() == 2
    assert "there are no chunks in" in capsys.readouterr().err
