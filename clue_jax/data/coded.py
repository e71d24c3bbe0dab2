"""Columns with their distinct values apart, as Arrow's dictionary arrays.

Logs repeat themselves: what can be told of a value is told once, and the rows look it up. A missing
value is a value like others, so that no code is null.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

_DENSE = 4  # numbers of which so many a row are possible are marked rather than hashed


def coded(column: pa.Array) -> pa.DictionaryArray:
    """A column [B] of any flat type by its distinct values."""
    if pa.types.is_integer(column.type) and len(column) and not column.null_count:
        return _coded_integers(column.to_numpy())
    if not pa.types.is_dictionary(column.type):
        return column.dictionary_encode("encode")
    values = column.dictionary
    if column.indices.null_count:
        values = pa.concat_arrays([values, pa.nulls(1, values.type)])
        column = numbered(values, column.indices.fill_null(len(values) - 1).to_numpy())
    # A reader may hand on the values of many more rows.
    return column if len(values) <= len(column) else compact(column)


def _coded_integers(numbers: np.ndarray) -> pa.DictionaryArray:
    least, most = numbers.min(), numbers.max()
    start = least.astype(np.uint64)  # negative ones wrap around, and so do differences
    above = (numbers.astype(np.uint64) - start).astype(np.int64)
    kept, places = _distinct(above, int(most) - int(least) + 1)
    return numbered(pa.array((kept.astype(np.uint64) + start).astype(numbers.dtype)), places)


def codes(column: pa.DictionaryArray) -> np.ndarray:
    """The number of each row's value, [B] int."""
    return column.indices.to_numpy()


def per_row(column: pa.DictionaryArray, of_values: np.ndarray) -> np.ndarray:
    """What is known of the values [n] for the rows [B]."""
    return of_values[codes(column)]


def changed(
    column: pa.DictionaryArray, change: Callable[[pa.Array], pa.Array]
) -> pa.DictionaryArray:
    """The column after `change` of its values [n]; those that it made equal become one."""
    values = change(column.dictionary)
    if values.equals(column.dictionary):
        return column
    again = values.dictionary_encode("encode")
    return numbered(again.dictionary, codes(again)[codes(column)])


def compact(column: pa.DictionaryArray) -> pa.DictionaryArray:
    """The column without values that no row has."""
    kept, places = _distinct(codes(column), len(column.dictionary))
    if len(kept) == len(column.dictionary):
        return column
    return numbered(column.dictionary.take(pa.array(kept)), places)


def combined(columns: Sequence[pa.DictionaryArray]) -> tuple[list[pa.Array], np.ndarray]:
    """Distinct rows [n] of several columns, and the one of each row [B]."""
    kept, places = _distinct(codes(columns[0]), len(columns[0].dictionary))
    numbers = [kept]
    for column in columns[1:]:
        width, mine = max(len(column.dictionary), 1), codes(column)
        of_each = np.zeros(len(kept), np.int64)
        of_each[places] = mine
        if (of_each[places] == mine).all():  # it follows from the columns before
            numbers.append(of_each)
            continue
        kept, places = _distinct(places * np.int64(width) + mine, len(kept) * width)
        numbers = [*(number[kept // width] for number in numbers), kept % width]
    values = [c.dictionary.take(pa.array(n)) for c, n in zip(columns, numbers, strict=True)]
    return values, places


def constant(value: str, rows: int) -> pa.DictionaryArray:
    """A column with one value throughout."""
    return numbered(pa.array([value], pa.large_string()), np.zeros(rows, np.int32))


def numbered(values: pa.Array, numbers: np.ndarray) -> pa.DictionaryArray:
    """The column [B] whose rows have these of the values [n]."""
    return pa.DictionaryArray.from_arrays(pa.array(numbers), values)


def _distinct(numbers: np.ndarray, bound: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct of numbers [B] below `bound`, and the one of each."""
    if bound > _DENSE * len(numbers):
        found = pa.array(numbers).dictionary_encode()
        return found.dictionary.to_numpy(), found.indices.to_numpy()
    there = np.zeros(bound, bool)
    there[numbers] = True
    return np.flatnonzero(there), (np.cumsum(there, dtype=np.int32) - 1)[numbers]
