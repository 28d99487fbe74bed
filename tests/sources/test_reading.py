"""Annotation files: whole ones give their values, cut ones a message, and none runs a program."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from humanpose3d.sources.reading import BrokenFile, field, read_hdf5, read_json, read_mat, read_npz, read_pickle, shaped

VALUES = {
    "floats": np.arange(6.0).reshape(2, 3),
    "column order": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "big-endian": np.array([1, 2], dtype=">i4"),
    "names": np.array(["S1", "S11"]),
    "records": np.array([(1, [2.0, 3.0])], dtype=[("frame", "i4"), ("xy", "f8", 2)]),
    "nobody": np.empty((0, 3), dtype=np.float32),
    "number": np.float64(0.5),
    "truth": np.bool_(True),
    "takes": np.array([{"joints": np.ones(4)}, None, [np.zeros(2)]], dtype=object),
    "plain": {"a": [1, 2.5, "text", b"bytes", b"", None], "b": (1, {2}), "c": 1 + 2j},
}


def same(first, second):
    """Equal in values and in kind, all the way down."""
    assert type(first) is type(second), (first, second)
    if isinstance(first, np.ndarray):
        assert first.dtype == second.dtype.newbyteorder("=") or first.dtype == second.dtype
        assert first.shape == second.shape
        if first.dtype == object:
            for one, other in zip(first.flat, second.flat, strict=True):
                same(one, other)
        else:
            np.testing.assert_array_equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            same(first[key], second[key])
    elif isinstance(first, list | tuple):
        for one, other in zip(first, second, strict=True):
            same(one, other)
    else:
        assert first == second


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# --------------------------------------------------------------------------------------------------- what is plain


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_plain_values_come_back_from_a_pickle(tmp_path, protocol):
    same(read_pickle(written(tmp_path / "a.pkl", pickle.dumps(VALUES, protocol))), VALUES)


@pytest.mark.parametrize("protocol", range(4))
def test_pickles_of_numpy_1_are_read_too(tmp_path, protocol):
    data = pickle.dumps(VALUES, protocol)
    assert b"numpy._core" in data
    same(read_pickle(written(tmp_path / "a.pkl", data.replace(b"numpy._core", b"numpy.core"))), VALUES)


class Python2Pickler(pickle._Pickler):
    """Writes text and bytes alike as Python 2's str, in protocol 2."""

    def _save_str2(self, value):
        data = value if isinstance(value, bytes) else value.encode("latin1")
        self.write(pickle.BINSTRING + len(data).to_bytes(4, "little") + data)

    dispatch = {**pickle._Pickler.dispatch, str: _save_str2, bytes: _save_str2}


def test_pickles_of_python_2_are_read_as_latin_1(tmp_path):
    stream = io.BytesIO()
    values = {"poses": [np.array([[-1.5, 1e300]])], "sequence": "caf\xe9", "gender": np.array([b"m", b"\xff"])}
    Python2Pickler(stream, 2).dump(values)
    data = stream.getvalue().replace(b"numpy._core", b"numpy.core").replace(b"builtins", b"__builtin__")
    assert b"_codecs" not in data
    same(read_pickle(written(tmp_path / "a.pkl", data)), values)


def test_a_list_that_holds_itself_comes_back(tmp_path):
    endless: list = [np.ones(2)]
    endless.append(endless)
    found = read_pickle(written(tmp_path / "a.pkl", pickle.dumps(endless)))
    assert found[1] is found and type(found[0]) is np.ndarray


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_gives_its_arrays_objects_included(tmp_path, save):
    arrays = {name: VALUES[name] for name in ("floats", "column order", "names", "records", "nobody", "takes")}
    save(tmp_path / "a.npz", **arrays, data=np.array(VALUES["plain"], dtype=object))
    found = read_npz(tmp_path / "a.npz")
    same(found.pop("data").item(), VALUES["plain"])
    same(found, arrays)


def test_json_may_hold_nan_as_python_writes_it(tmp_path):
    found = read_json(written(tmp_path / "a.json", json.dumps({"joints": [[1.0, float("nan")]]}).encode()))
    np.testing.assert_array_equal(found["joints"], [[1.0, np.nan]])


def test_a_mat_gives_structures_and_an_hdf5_one_its_datasets_by_path(tmp_path):
    scipy.io.savemat(tmp_path / "five.mat", {"release": {"version": "12", "image": {"name": "a.jpg"}}})
    release = read_mat(tmp_path / "five.mat")["release"]
    assert (release.version, release.image.name) == ("12", "a.jpg")
    with h5py.File(tmp_path / "seven.mat", "w", userblock_size=512) as file:
        file["group/annot2"] = np.arange(6).reshape(2, 3)
    content = (tmp_path / "seven.mat").read_bytes()
    written(tmp_path / "seven.mat", b"MATLAB 7.3 MAT-file".ljust(512) + content[512:])
    np.testing.assert_array_equal(read_mat(tmp_path / "seven.mat")["group/annot2"], [[0, 1, 2], [3, 4, 5]])


# ------------------------------------------------------------------------------------------------- what is refused


def call(module: str, name: str, argument: str) -> bytes:
    """A pickle that calls module.name(argument) when it is loaded."""
    return f"c{module}\n{name}\n(V{argument}\ntR.".encode()


PROGRAMS = [
    ("os", "system"),
    ("posix", "system"),
    ("nt", "system"),
    ("subprocess", "Popen"),
    ("builtins", "eval"),
    ("__builtin__", "eval"),
    ("builtins", "exec"),
    ("builtins", "getattr"),
    ("builtins", "__import__"),
    ("builtins", "open"),
    ("numpy", "load"),
    ("numpy", "fromfile"),
    ("numpy", "memmap"),
    ("numpy.lib.npyio", "loads"),
    ("numpy.testing._private.utils", "runstring"),
    ("numpy.core.multiarray", "fromfile"),
    ("numpy._core.multiarray", "set_typeDict"),
    ("pickle", "loads"),
    ("copy_reg", "add_extension"),
    ("functools", "partial"),
    ("operator", "attrgetter"),
    ("collections", "defaultdict"),
    ("humanpose3d.sources.reading", "read_pickle"),
]


@pytest.mark.parametrize("module, name", PROGRAMS)
def test_a_pickle_that_calls_anything_else_is_refused_by_name(tmp_path, module, name):
    data = call(module, name, f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(BrokenFile, match=rf"a\.pkl: not read: it asks for {module}\.{name}"):
        read_pickle(written(tmp_path / "a.pkl", data))
    assert not (tmp_path / "ran").exists()


def test_the_maker_of_old_objects_makes_no_foreign_ones(tmp_path):
    data = b"ccopy_reg\n_reconstructor\n(cbuiltins\nset\nc__builtin__\nobject\nNtR."
    with pytest.raises(BrokenFile, match="an object of a foreign class"):
        read_pickle(written(tmp_path / "a.pkl", data))


class Program:
    """Whoever unpickles this has written a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("hidden_in", ["a list", "an array", "an array in an array", "a key", "a number's data"])
def test_a_program_is_found_wherever_it_hides(tmp_path, protocol, hidden_in):
    program = Program(tmp_path / "ran")
    array = np.array([program, None], dtype=object)
    value = {
        "a list": [1, [program]],
        "an array": array,
        "an array in an array": np.array([{"data": array}, 0], dtype=object),
        "a key": {(1, program): 2},
        "a number's data": Reduced(np._core.multiarray.scalar, Reduced(np.dtype, "O8"), program),
    }[hidden_in]
    data = pickle.dumps(value, protocol)
    with pytest.raises(BrokenFile, match="exec"):
        read_pickle(written(tmp_path / "a.pkl", data))
    assert not (tmp_path / "ran").exists()
    with suppress(TypeError):
        pickle.loads(data)
    assert (tmp_path / "ran").exists(), "it would have run"


def test_a_program_in_an_object_array_of_an_npz_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", good=np.ones(3), bad=np.array([{"x": Program(tmp_path / "ran")}], dtype=object))
    with pytest.raises(BrokenFile, match=r"a\.npz: not read: it asks for builtins\.exec"):
        read_npz(tmp_path / "a.npz")
    assert not (tmp_path / "ran").exists()


class Reduced:
    """Pickles as a call, with a state after it."""

    def __init__(self, make, *args, state=None) -> None:
        self.call = (make, args) if state is None else (make, args, state)

    def __reduce__(self):
        return self.call


def empty_array():
    return np._core.multiarray._reconstruct, np.ndarray, (0,), b"b"


# A type of pointers that says of itself that it holds no objects: the last number is the flags.
POINTERS = Reduced(np.dtype, "O", False, True, state=(3, "|", None, None, None, 8, 8, 0))
ADDRESSES = b"\x41" * 8


@pytest.mark.parametrize(
    "value",
    [
        Reduced(*empty_array(), state=(1, (1,), POINTERS, False, ADDRESSES)),
        Reduced(np._core.numeric._frombuffer, ADDRESSES, POINTERS, (1,), "C"),
        Reduced(np._core.multiarray.scalar, Reduced(np.dtype, "V8", state=(
            3, "|", None, ("a",), {"a": (POINTERS, 0)}, 8, 1, 0)), np.frombuffer(ADDRESSES, "u1")),
        Reduced(np.ndarray, (1,), POINTERS, ADDRESSES),
        Reduced(*empty_array(), state=(1, (3,), Reduced(np.dtype, "O8"), False, [1])),
        Reduced(*empty_array(), state=(1, (-1,), Reduced(np.dtype, "f8"), False, b"")),
        Reduced(*empty_array(), state=(1, (9,), Reduced(np.dtype, "f8"), False, ADDRESSES)),
        Reduced(np._core.multiarray.scalar, Reduced(np.dtype, "f8"), b"1"),
        Reduced(np._core.multiarray._reconstruct, np.dtype, (0,), b"b"),
    ],
    ids="pointers buffer record memory short negative long number class".split(),
)  # fmt: skip
def test_bytes_never_become_pointers_nor_arrays_longer_than_their_data(tmp_path, value):
    with pytest.raises(BrokenFile, match=r"a\.pkl: not (read|a whole pickle)"):
        read_pickle(written(tmp_path / "a.pkl", pickle.dumps(value)))


def test_an_array_is_filled_only_once(tmp_path):
    data = pickle.dumps(np.arange(3.0), 2)
    build = data[data.index(b"(K\x01") : -1]  # from the state to the end, without the stop
    with pytest.raises(BrokenFile, match="filled twice"):
        read_pickle(written(tmp_path / "a.pkl", data[:-1] + build + b"."))


def test_a_pickle_inside_a_pickle_stays_bytes_or_is_refused(tmp_path):
    inner = call("os", "system", f"touch {tmp_path / 'ran'}")
    assert read_pickle(written(tmp_path / "a.pkl", pickle.dumps([inner]))) == [inner]
    value = Reduced(np._core.multiarray.scalar, Reduced(np.dtype, "O8"), inner)
    with pytest.raises(BrokenFile, match="a number that is an object"):
        read_pickle(written(tmp_path / "a.pkl", pickle.dumps(value)))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("state", ["}V_make\nV1\ns", "(N}V_make\nV1\nst", "(N}V__call__\nV1\nst"])
@pytest.mark.parametrize("name", ["cnumpy\ndtype\n", "cnumpy.core.multiarray\nscalar\n", "c_codecs\nencode\n"])
def test_a_pickle_cannot_change_what_it_calls(tmp_path, name, state):
    with pytest.raises(BrokenFile):
        read_pickle(written(tmp_path / "a.pkl", f"{name}{state}b.".encode()))
    same(read_pickle(written(tmp_path / "b.pkl", pickle.dumps(VALUES, 2))), VALUES)


# --------------------------------------------------------------------------------------------------- what is broken


def whole_files(folder: Path) -> dict:
    """reader -> a whole file of its kind."""
    arrays = {"joints": np.arange(300.0), "takes": VALUES["takes"]}
    np.savez(folder / "plain.npz", **arrays)
    np.savez_compressed(folder / "packed.npz", **arrays)
    for protocol in (2, 5):
        written(folder / f"protocol{protocol}.pkl", pickle.dumps(arrays, protocol))
    for packed in (True, False):
        scipy.io.savemat(folder / f"packed{packed}.mat", {"joints": np.arange(300.0)}, do_compression=packed)
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("joints", data=np.arange(3000), compression="gzip", chunks=(100,))
    written(folder / "a.json", json.dumps({"joints": [[1, 2], [3, 4]]}).encode())
    readers = {".npz": read_npz, ".pkl": read_pickle, ".mat": read_mat, ".h5": read_hdf5, ".json": read_json}
    return {path: readers[path.suffix] for path in sorted(folder.iterdir())}


def test_a_cut_file_is_named_wherever_it_ends(tmp_path):
    (tmp_path / "whole").mkdir()
    for path, read in whole_files(tmp_path / "whole").items():
        read(path)
        data = path.read_bytes()
        cut = tmp_path / f"cut{path.suffix}"
        lengths = {*range(0, 40), *range(40, len(data), len(data) // 40 + 1), len(data) - 1}
        lengths.discard(128)  # a .mat that ends after its header is a whole one without variables
        for length in lengths:
            if length >= len(data):
                continue
            written(cut, data[:length])
            with pytest.raises(BrokenFile, match=f"cut{path.suffix}: ") as raised:
                read(cut)
            assert "\n" not in str(raised.value), "one line"


def test_a_file_with_wrong_bytes_gives_values_or_its_name(tmp_path):
    (tmp_path / "whole").mkdir()
    rng = np.random.default_rng(0)
    for path, read in whole_files(tmp_path / "whole").items():
        data = path.read_bytes()
        for _ in range(60):
            damaged = bytearray(data)
            for place in rng.integers(0, len(data), 2):
                damaged[place] = rng.integers(256)
            try:
                read(written(tmp_path / f"damaged{path.suffix}", bytes(damaged)))
            except BrokenFile as error:
                assert f"damaged{path.suffix}" in str(error)


@pytest.mark.parametrize("read", [read_json, read_npz, read_pickle, read_mat, read_hdf5])
def test_a_file_of_another_kind_is_named_and_a_missing_one_too(tmp_path, read):
    other = written(tmp_path / "notes.txt", b"this is a letter, and no annotation file at all")
    with pytest.raises(BrokenFile, match=r"notes\.txt: "):
        read(other)
    with pytest.raises(FileNotFoundError, match="nowhere is missing"):
        read(tmp_path / "nowhere")
    with pytest.raises(BrokenFile, match="a folder, not a file"):
        read(tmp_path)


def test_a_locked_npz_is_named(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.ones(3))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    for place in (6, data.rfind(b"PK\x01\x02") + 8):  # the flag that says so, in both headers
        data[place] |= 1
    with pytest.raises(BrokenFile, match="password required"):
        read_npz(written(tmp_path / "a.npz", bytes(data)))


def test_notes_beside_the_arrays_of_an_npz_are_left_alone(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.ones(3))
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("README.txt", "made by hand")
    assert list(read_npz(tmp_path / "a.npz")) == ["a"]


def test_a_missing_field_and_a_wrong_shape_say_what_there_is():
    path = Path("annot.mat")
    with pytest.raises(BrokenFile, match=r"annot\.mat: has no 'annot3' \(it holds annot2\); expected"):
        field(path, {"annot2": 1}, "annot3", "expected MPI-INF-3DHP's annot.mat")
    with pytest.raises(BrokenFile, match="'annot2' is 2 x 3, expected N x 84"):
        shaped(path, "annot2", np.ones((2, 3)), None, 84)
    with pytest.raises(BrokenFile, match="'annot2' is one number, expected N"):
        shaped(path, "annot2", 1.0, None)
    with pytest.raises(BrokenFile, match="not an array of numbers"):
        shaped(path, "annot2", [[1], [1, 2]], None, 2)
    assert shaped(path, "annot2", [[1, 2]], None, 2).dtype == np.float64
