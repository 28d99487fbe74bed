"""Annotation files as corpora come: JSON, npz, pickles, MATLAB 5 and 7.3, HDF5. Nothing in them is ever executed.

Every reader names the file, what is wrong with it and what was expected, in a BrokenFile.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import orjson

from humanpose3d.sources.plain_pickle import NotPlain, load_plain


class BrokenFile(ValueError):
    """A file that is not what it should be. The message names it, what is wrong and the remedy."""

    def __init__(self, path: Path, problem: str, remedy: str = "copy it anew") -> None:
        super().__init__(f"{path}: {problem}; {remedy}")
        self.path, self.problem = path, problem


class Told(Protocol):
    """Who hears of what a reader leaves out. `reports.StageReport` is one."""

    def skip(self, name: str, reason: str) -> None:
        """A labelled frame that cannot be used, by name, with a reason that equal cases share."""

    def fault(self, message: str) -> None:
        """Something wrong beyond one frame (a broken file, counts that differ), in a line; the rest goes on."""

    def note(self, message: str) -> None:
        """Something worth knowing that is no fault, in a line."""


class Remembering:
    """Passes on what a reader tells, and keeps the faults: the first is the error where nothing could be read."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self.faults: list[str] = []

    def skip(self, name: str, reason: str) -> None:
        self._told.skip(name, reason)

    def fault(self, message: str) -> None:
        self.faults.append(message)
        self._told.fault(message)

    def note(self, message: str) -> None:
        self._told.note(message)


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    data = _bytes(path)
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        try:
            return json.loads(data)  # Python writes NaN, which is no JSON
        except (ValueError, RecursionError):
            raise BrokenFile(path, f"not whole JSON ({error})") from None


def read_npz(path: Path) -> dict[str, Any]:
    """The arrays of an .npz file by name. Object arrays in it are pickles, read by the allow-list of `read_pickle`."""
    data = _bytes(path)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            return {name.removesuffix(".npy"): _npy(path, archive.read(name)) for name in names}
    except BrokenFile:
        raise
    except Exception as error:  # zipfile passes on what its decompressors raise
        raise BrokenFile(path, f"not a whole .npz file ({error})") from None


def _npy(path: Path, data: bytes) -> Any:
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        else:
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
        if dtype.hasobject:
            loaded = _unpickle(path, stream)
            return np.asarray(loaded, dtype=object).reshape(shape, order="F" if fortran else "C")
        stream.seek(0)
        return np.lib.format.read_array(stream, allow_pickle=False)
    except BrokenFile:
        raise
    except Exception as error:  # a damaged header can raise anything
        raise BrokenFile(path, f"an array in it cannot be read ({error})") from None


def read_pickle(path: Path) -> Any:
    """What a pickle holds, if that is numpy arrays and plain types; BrokenFile names anything else it asks for.

    Never `pickle.load`: a pickle can run any program. Text of Python 2 is read as latin-1.
    """
    return _unpickle(path, io.BytesIO(_bytes(path)))


def _unpickle(path: Path, stream: io.BytesIO) -> Any:
    try:
        return load_plain(stream)
    except NotPlain as error:
        raise BrokenFile(path, f"not read: {error}", "take it from the corpus's own site") from None
    except Exception as error:  # a cut or foreign pickle can raise anything
        raise BrokenFile(path, f"not a whole pickle ({type(error).__name__}: {error})") from None


def read_mat(path: Path) -> Mapping[str, Any]:
    """The variables of a MATLAB 5 file (scipy's structures, squeezed); of a 7.3 one, its datasets as arrays by path.

    MATLAB 7.3 is HDF5, stored column by column: its arrays have their axes in reverse.
    """
    data = _bytes(path)
    if data[:128].startswith(b"MATLAB 7.3") or data[:8] == b"\x89HDF\r\n\x1a\n":
        return read_hdf5(path)
    import scipy.io

    try:
        found = scipy.io.loadmat(io.BytesIO(data), squeeze_me=True, struct_as_record=False)
    except Exception as error:  # scipy raises what it stumbles over
        raise BrokenFile(path, f"not a whole MATLAB file ({type(error).__name__}: {error})") from None
    return {name: value for name, value in found.items() if not name.startswith("__")}


def read_hdf5(path: Path) -> dict[str, np.ndarray]:
    """All datasets of an HDF5 file by path, as they are stored. References stay references."""
    import h5py

    found: dict[str, np.ndarray] = {}

    def take(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            found[name] = node[()]

    data = _bytes(path)
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            file.visititems(take)
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, MemoryError) as error:
        raise BrokenFile(path, f"not a whole HDF5 file ({error})") from None
    return found


def field(path: Path, values: Mapping[str, Any], name: str, expected: str) -> Any:
    """values[name]; BrokenFile says what the file is expected to hold where it is not there."""
    if name not in values:
        found = ", ".join(sorted(map(str, values))[:8]) or "nothing"
        raise BrokenFile(path, f"has no '{name}' (it holds {found}); {expected}", "is it another version?")
    return values[name]


def shaped(path: Path, name: str, value: Any, *shape: int | None) -> np.ndarray:
    """A float64 array of that shape (None: any length); BrokenFile otherwise."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise BrokenFile(path, f"'{name}' is not an array of numbers") from None
    if array.ndim != len(shape) or any(want not in (None, have) for want, have in zip(shape, array.shape, strict=True)):
        wanted = " x ".join("N" if side is None else str(side) for side in shape)
        have = " x ".join(map(str, array.shape)) or "one number"
        raise BrokenFile(path, f"'{name}' is {have}, expected {wanted}", "is it another version?")
    return array


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing") from None
    except IsADirectoryError:
        raise BrokenFile(path, "a folder, not a file", "give the annotation file") from None
