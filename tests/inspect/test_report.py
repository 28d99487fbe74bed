"""The command: what it prints, writes and answers."""

import json
import re

import pytest

from humanpose3d.cli import main
from humanpose3d.inspect.report import PICTURES_AT_MOST, inspect_chunks
from tests.inspect.sets import studio_samples, swapped, write_studio_set


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A sound set, and one whose S9 has left and right swapped."""
    folder = tmp_path_factory.mktemp("sets")
    write_studio_set(folder / "sound")
    wrong = [swapped(sample) if sample.subject == "S9" else sample for sample in studio_samples()]
    write_studio_set(folder / "wrong", wrong)
    return folder


def run(monkeypatch, capsys, *arguments):
    """(exit code, standard output, standard error) of the command."""
    monkeypatch.setattr("sys.argv", ["humanpose3d", "inspect", *map(str, arguments)])
    code = main()
    told = capsys.readouterr()
    return code, told.out, told.err


def test_a_sound_set_ends_with_0_and_says_that_nothing_is_wrong(sets, monkeypatch, capsys):
    code, out, err = run(monkeypatch, capsys, sets / "sound")
    assert (code, err) == (0, "")
    assert "inspected 72 of 72 samples of human36m" in out
    assert out.rstrip().endswith("nothing wrong")
    rows = [line.split() for line in out.splitlines() if line.startswith("  S")]
    assert [(row[0], row[1], row[2]) for row in rows] == [
        (subject, camera, "12") for subject in ("S1", "S9") for camera in ("cam1", "cam2", "cam3")
    ]


def test_a_wrong_set_ends_with_1_and_names_the_fault_and_the_subject(sets, monkeypatch, capsys):
    code, out, err = run(monkeypatch, capsys, sets / "wrong")
    assert code == 1
    [line] = err.splitlines()
    assert line.startswith("wrong: human36m S9, camera (all): sides_swapped: ")
    marked = [line.split()[1:3] for line in out.splitlines() if line.startswith("!")]
    assert marked == [["S9", "cam1"], ["S9", "cam2"], ["S9", "cam3"]]


def test_without_report_nothing_is_written(sets, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = sorted(sets.rglob("*"))
    run(monkeypatch, capsys, sets / "wrong")
    assert sorted(sets.rglob("*")) == before
    assert not list(tmp_path.iterdir())


def test_the_json_holds_findings_figures_and_thresholds(sets, tmp_path, capsys):
    stage = inspect_chunks(
        str(sets / "wrong"), report=tmp_path, max_samples=1000, all=False, temp_dir=tmp_path / "temp"
    )
    told = json.loads((tmp_path / "inspect_report.json").read_text())
    assert told["stage"] == "inspect"
    assert told["faults"] == stage.faults
    assert told["counts"]["read"] == 72
    [finding] = told["findings"]
    assert (finding["fault"], finding["subject"], finding["camera_id"]) == ("sides_swapped", "S9", None)
    assert finding["worst"] and set(finding["worst"]) <= {sample.key for sample in studio_samples()}
    assert len(told["groups"]) == 6
    assert told["groups"][0]["reprojection_px"] == pytest.approx(0, abs=0.01)
    assert told["thresholds"]


def test_the_page_holds_the_finding_and_its_pictures_and_asks_nothing_of_the_network(sets, tmp_path, capsys):
    inspect_chunks(str(sets / "wrong"), report=tmp_path, max_samples=1000, all=False, temp_dir=tmp_path / "temp")
    page = (tmp_path / "index.html").read_text()
    assert "sides_swapped" in page and "S9" in page
    sources = re.findall(r"""(?:src|href|action|data)\s*=\s*["']([^"']*)""", page)
    assert 1 <= len(sources) <= PICTURES_AT_MOST
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not re.search(r"<script|@import|url\(|https?:", page)
    assert page.count("<div") == page.count("</div>")


def test_the_page_of_a_sound_set_shows_its_least_fitting_samples(sets, tmp_path, capsys):
    inspect_chunks(str(sets / "sound"), report=tmp_path, max_samples=1000, all=False, temp_dir=tmp_path / "temp")
    page = (tmp_path / "index.html").read_text()
    assert "No fault found" in page
    assert page.count("<figure>") == 6  # one of each subject and camera


def test_a_subject_on_both_sides_of_a_split_is_wrong(tmp_path, monkeypatch, capsys):
    samples = studio_samples()
    both = [sample for sample in samples if sample.subject == "S9" and sample.action.startswith("Walking")]
    write_studio_set(tmp_path / "train", [sample for sample in samples if sample not in both], prefix="train")
    write_studio_set(tmp_path / "test", both, prefix="test")
    code, _, err = run(monkeypatch, capsys, tmp_path)
    assert code == 1
    assert re.search(r"wrong: human36m S9, .*split_leak", err)


def test_broken_samples_are_wrong_and_the_rest_is_judged(sets, tmp_path, monkeypatch, capsys):
    write_studio_set(tmp_path / "set")
    chunk = tmp_path / "set" / "chunk_000000.tar"
    data = bytearray(chunk.read_bytes())
    where = data.index(b'"schema_version"')
    data[where - 1 : where + 1] = b"??"
    chunk.write_bytes(data)
    code, out, err = run(monkeypatch, capsys, tmp_path / "set")
    assert code == 1
    assert "1 sample cannot be read: meta.json is not JSON" in err
    assert studio_samples()[0].key in err
    assert "inspected 72 of 72" in out


def test_what_the_chunker_found_in_frames_it_left_out_is_told_again(tmp_path, monkeypatch, capsys):
    write_studio_set(tmp_path / "set")
    finding = {
        "fault": "camera_rotation", "corpus": "human36m", "subject": "S5", "camera_id": None, "action": None,
        "message": "no frame fits", "samples": 40, "severity": "error", "worst": ["left-out"], "later": "a new field",
    }  # fmt: skip
    report = {"inspection": {"samples": 100, "findings": [finding, finding | {"fault": "unknown to this version"}]}}
    (tmp_path / "set" / "chunker_report.json").write_text(json.dumps(report))
    code, _, err = run(monkeypatch, capsys, tmp_path / "set", "--report", tmp_path / "report")
    assert code == 1
    assert err == "wrong: human36m S5, camera (all): camera_rotation: no frame fits\n"
    assert "no frame fits" in (tmp_path / "report" / "index.html").read_text()


def test_a_set_on_a_remote_is_inspected_as_a_local_one(sets, s3_remote, tmp_path, monkeypatch, capsys):
    wrong = [swapped(sample) if sample.subject == "S9" else sample for sample in studio_samples()]
    write_studio_set(s3_remote.location, wrong, staging=tmp_path / "staging")
    arguments = (s3_remote.location, "--report", tmp_path / "report", "--temp-dir", tmp_path / "temp")
    code, out, err = run(monkeypatch, capsys, *arguments)
    local_code, local_out, local_err = run(monkeypatch, capsys, sets / "wrong")
    assert (code, err) == (local_code, local_err)
    assert out == local_out.replace(str(sets / "wrong"), s3_remote.location)
    assert (tmp_path / "report" / "index.html").read_text().count("<figure>") > 1
    assert not list((tmp_path / "temp").iterdir())


def test_a_request_that_cannot_be_carried_out_is_one_line_and_ends_with_2(tmp_path, monkeypatch, capsys):
    code, _, err = run(monkeypatch, capsys, tmp_path / "nowhere")
    assert code == 2
    assert err.startswith("error: there are no chunks in ")
    assert len(err.splitlines()) == 1
    (tmp_path / "file").write_text("")
    write_studio_set(tmp_path / "set", studio_samples()[:5])
    code, _, err = run(monkeypatch, capsys, tmp_path / "set", "--report", tmp_path / "file")
    assert (code, len(err.splitlines())) == (2, 1)
