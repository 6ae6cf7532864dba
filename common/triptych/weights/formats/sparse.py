"""Sparse arrays of MXNet's files, kept small: a row or a value and where it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.utils.errors import TriptychError

ROWS, COMPRESSED_ROWS = "row_sparse", "csr"
# The index arrays of each storage type in the order of the file. The last has as many entries as there are values.
INDEX_ARRAYS = {ROWS: ("row indices",), COMPRESSED_ROWS: ("row starts", "column indices")}


@dataclass(frozen=True, eq=False)
class SparseArray:
    """`values[i]` stands in row `rows[i]`, a whole row of it or, where there are `columns`, at column `columns[i]`.

    All else is zero. `numpy.asarray` makes it dense, which can be far larger than the file it comes from; it raises
    TriptychError where that is more than there is memory for.
    """

    shape: tuple[int, ...]
    values: NDArray[Any]
    rows: NDArray[np.integer[Any]]
    columns: NDArray[np.integer[Any]] | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the values."""
        return self.values.dtype

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("a sparse array cannot become dense without a copy")
        try:
            dense = np.zeros(self.shape, dtype or self.dtype)
        except (MemoryError, ValueError):
            raise TriptychError(f"a sparse array of shape {self.shape} is too large to be made dense") from None
        dense[self.rows if self.columns is None else (self.rows, self.columns)] = self.values
        return dense


def sparse_array(storage: str, shape: tuple[int, ...], values: NDArray[Any], *indices: NDArray[Any]) -> SparseArray:
    """Of what a file holds, `indices` in the order of INDEX_ARRAYS. Raises ValueError where these do not fit."""
    for what, index in zip(INDEX_ARRAYS[storage], indices, strict=True):
        if index.dtype.name not in ("int32", "int64") or index.ndim != 1:
            raise ValueError(
                f"has {what} of type {index.dtype} and {index.ndim} dimensions, expected int32 or int64 and 1"
            )
    return (_from_rows if storage == ROWS else _from_compressed_rows)(shape, values, *indices)


def _from_rows(shape: tuple[int, ...], values: NDArray[Any], rows: NDArray[Any]) -> SparseArray:
    _check_within(rows, shape[0], "row")
    if (rows[1:] <= rows[:-1]).any():
        raise ValueError("has row indices that do not ascend")
    if values.shape != (len(rows), *shape[1:]):
        raise ValueError(f"has values of shape {values.shape}, expected {(len(rows), *shape[1:])}")
    return SparseArray(shape, values, rows)


def _from_compressed_rows(
    shape: tuple[int, ...], values: NDArray[Any], starts: NDArray[Any], columns: NDArray[Any]
) -> SparseArray:
    if len(shape) != 2:
        raise ValueError(f"has shape {shape}, expected two dimensions")
    _check_within(columns, shape[1], "column")
    if values.shape != columns.shape:
        raise ValueError(f"has values of shape {values.shape} for {len(columns)} columns")
    counts = np.diff(starts)
    if len(starts) != shape[0] + 1 or starts[0] != 0 or starts[-1] != len(columns) or (starts[1:] < starts[:-1]).any():
        raise ValueError(f"has row starts that are not {shape[0] + 1} that ascend from 0 to {len(columns)}")
    return SparseArray(shape, values, np.repeat(np.arange(shape[0]), counts), columns)


def _check_within(indices: NDArray[Any], size: int, what: str) -> None:
    if len(indices) and not 0 <= indices.min() <= indices.max() < size:
        raise ValueError(f"has a {what} index outside 0 to {size - 1}")
