"""Pickles that hold numpy arrays and Python's plain values, read without ever running what else they ask for.

Two kinds of foreign arrays, which body models are made of, come as numpy's: scipy's sparse matrices in columns, and
chumpy's (a library that no current Python runs).

A pickle is a program: it names any function and calls it. Here a name is looked up in a list, and behind numpy's names
stand our own makers: numpy's would let a pickle claim that an array of Python objects holds no objects, and so turn
bytes of its choice into pointers.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np


class NotPlain(pickle.UnpicklingError):
    """A pickle that wants more than plain values. The message names what."""


def load_plain(stream: BytesIO) -> Any:
    """The value. NotPlain names what the pickle asks for that is not plain; a broken pickle may raise anything.

    Text of Python 2 is read as latin-1, as numpy's arrays in such pickles need it.
    """
    return _without_stand_ins(_PlainUnpickler(stream, encoding="latin1").load(), {})


class _PlainUnpickler(pickle.Unpickler):
    """Knows numpy's arrays and the builtin containers, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (found := _KNOWN.get((module, name))) is None:
            raise NotPlain(f"it asks for {module}.{name}, which is no array and no plain value")
        return found


class _Maker:
    """A function that a pickle may call, and of which it can change nothing (a function's attributes it could)."""

    __slots__ = ("_make",)
    _make: Callable

    def __init__(self, make: Callable) -> None:
        object.__setattr__(self, "_make", make)

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(name)


class _DType:
    """Stands in for numpy's dtype until its state is known; `real` is made anew, so that its flags are numpy's own."""

    __slots__ = ("real",)

    def __init__(self, code: Any, *_: Any) -> None:
        _expect(isinstance(code, str), "an array type that is not named")
        self.real = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        """state: (version, byte order, (type, shape) or None, names, fields, item size, alignment, flags)."""
        _expect(isinstance(state, tuple) and len(state) == 8, "an array type of another kind")
        _, order, part, names, fields, size = state[:6]
        if names is not None:
            parts = [fields[name] for name in names]
            formats, offsets = [_known(part[0]) for part in parts], [part[1] for part in parts]
            self.real = np.dtype({"names": list(names), "formats": formats, "offsets": offsets, "itemsize": size})
        elif part is not None:
            self.real = np.dtype((_known(part[0]), part[1]))
        elif order in ("<", ">"):
            self.real = self.real.newbyteorder(order)


class _Array(np.ndarray):
    """An array that a pickle fills, once: a second time would free what others may look at."""

    _filled = False

    def __setstate__(self, state: Any) -> None:
        """state: ([version,] shape, type, is it Fortran's order, bytes or a list of objects)."""
        _expect(isinstance(state, tuple) and len(state) in (4, 5), "an array of another kind")
        _expect(not self._filled, "an array that is filled twice")
        shape, dtype, fortran, data = state[-4:]
        real = _real(dtype)
        data = data.encode("latin1") if isinstance(data, str) else data
        _expect(isinstance(data, list if real.hasobject else bytes), "an array whose data do not fit its type")
        _expect(all(isinstance(side, int) and side >= 0 for side in shape), "an array of a strange shape")
        # numpy itself would read past the end of a list that is too short.
        size = math.prod(shape) * (1 if real.hasobject else real.itemsize)
        _expect(len(data) == size, "an array whose data do not fit its shape")
        self._filled = True
        super().__setstate__((1, shape, real, bool(fortran), data))  # type: ignore[arg-type]


class _SparseColumns:
    """Stands in for scipy's csc_matrix until its parts are known."""

    __slots__ = ("dense",)

    def __setstate__(self, state: Any) -> None:
        _expect(isinstance(state, dict), "a sparse matrix of another kind")
        parts = [_without_stand_ins(state.get(name), {}) for name in ("data", "indices", "indptr")]
        shape = state.get("_shape")
        _expect(all(isinstance(part, np.ndarray) and part.ndim == 1 for part in parts), "a sparse matrix without parts")
        _expect(
            isinstance(shape, tuple) and len(shape) == 2 and all(isinstance(side, int) and side >= 0 for side in shape),
            "a sparse matrix of a strange shape",
        )
        data, rows, starts = parts
        _expect(math.prod(shape) <= MOST_OF_A_DENSE_ARRAY, f"a sparse matrix as large as {shape}")
        counts = np.diff(starts)
        whole = len(starts) == shape[1] + 1 and (counts >= 0).all() and starts[0] == 0 and starts[-1] == len(rows)
        _expect(bool(whole) and len(data) == len(rows), "a sparse matrix whose parts do not fit")
        _expect(
            not len(rows) or (0 <= rows.min() and rows.max() < shape[0]), "a sparse matrix with rows beyond its end"
        )
        self.dense = np.zeros(shape, dtype=data.dtype)
        np.add.at(self.dense, (rows, np.repeat(np.arange(shape[1]), counts)), data)


class _Chumpy:
    """Stands in for chumpy's Ch: a node of an expression, of which only an array of its own is of use here."""

    __slots__ = ("x",)

    def __setstate__(self, state: Any) -> None:
        _expect(isinstance(state, dict) and isinstance(state.get("x"), np.ndarray), "an expression of chumpy's")
        self.x = state["x"]


def _reconstructed(kind: Any, *_: Any) -> Any:
    """What the older protocols call to make an object without its constructor."""
    _expect(kind in (_SparseColumns, _Chumpy), "an object of a foreign class")
    return kind()


_NDARRAY = _Maker(lambda *_: _expect(False, "an array made without its maker"))  # the name itself: never called


def _empty_array(kind: Any, *_: Any) -> _Array:
    _expect(kind is _NDARRAY, "an array of a foreign class")
    return np.ndarray.__new__(_Array, (0,), "u1")


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    real = _real(dtype)
    _expect(isinstance(data, bytes | bytearray) and not real.hasobject, "an array that is not made of bytes")
    return np.frombuffer(data, dtype=real).reshape(shape, order=order)


def _scalar(dtype: Any, data: Any = b"") -> Any:
    real = _real(dtype)
    _expect(not real.hasobject, "a number that is an object")
    if isinstance(data, np.ndarray):  # how records are stored
        _expect(data.dtype == real and data.size == 1, "a record that does not fit its type")
        return data.reshape(())[()]
    data = data.encode("latin1") if isinstance(data, str) else data
    _expect(isinstance(data, bytes) and len(data) == real.itemsize, "a number that does not fit its type")
    return np.frombuffer(data, dtype=real)[0]


def _real(dtype: Any) -> np.dtype:
    """The type of an array's elements."""
    _expect(_known(dtype).subdtype is None, "an array whose elements are arrays")
    return dtype.real


def _known(dtype: Any) -> np.dtype:
    _expect(isinstance(dtype, _DType), "an array without a type")
    return dtype.real


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    """What pickles of bytes by Python 3 in protocol 2 call."""
    return text.encode("latin1")


def _expect(fits: bool, otherwise: str) -> None:
    if not fits:
        raise NotPlain(f"it holds {otherwise}")


MOST_OF_A_DENSE_ARRAY = 10**8  # elements; a body's regressor has 165,360

_KNOWN: dict[tuple[str, str], Any] = {
    ("chumpy.ch", "Ch"): _Chumpy,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Maker(_DType),
    ("collections", "OrderedDict"): dict,
    ("_codecs", "encode"): _Maker(_encoded),
}
for _builtins in ("builtins", "__builtin__"):
    for _type in (set, frozenset, complex, bytes, bytearray, slice):
        _KNOWN[_builtins, _type.__name__] = _type
    _KNOWN[_builtins, "object"] = _Maker(lambda *_: _expect(False, "a bare object"))  # only ever named
for _sparse in ("scipy.sparse.csc", "scipy.sparse._csc"):
    for _type_name in ("csc_matrix", "csc_array"):
        _KNOWN[_sparse, _type_name] = _SparseColumns
for _registry in ("copy_reg", "copyreg"):
    _KNOWN[_registry, "_reconstructor"] = _Maker(_reconstructed)
for _core in ("numpy.core", "numpy._core"):  # numpy 1 and 2
    _KNOWN[f"{_core}.multiarray", "_reconstruct"] = _Maker(_empty_array)
    _KNOWN[f"{_core}.multiarray", "scalar"] = _Maker(_scalar)
    _KNOWN[f"{_core}.numeric", "_frombuffer"] = _Maker(_from_buffer)


def _without_stand_ins(value: Any, done: dict[int, Any]) -> Any:
    """The value with plain arrays in all its containers. done: results by the identity of what was met before."""
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, _Array):
        done[id(value)] = array = value.view(np.ndarray)
        if array.dtype == object:
            for place, part in enumerate(array.flat):
                array.flat[place] = _without_stand_ins(part, done)
        return array
    if isinstance(value, _DType):
        return value.real
    if isinstance(value, _SparseColumns | _Chumpy):
        filled = getattr(value, "dense" if isinstance(value, _SparseColumns) else "x", None)
        _expect(filled is not None, "an array that was never filled")
        return _without_stand_ins(filled, done)
    if isinstance(value, tuple):
        return tuple(_without_stand_ins(part, done) for part in value)
    if isinstance(value, dict | list):
        done[id(value)] = value
        for key, part in list(value.items() if isinstance(value, dict) else enumerate(value)):
            value[key] = _without_stand_ins(part, done)
    return value
