"""JSON lines, one object each: broken lines are told apart, the others become typed columns."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa

LINE_BYTES = 1 << 25  # longest line
BATCH_BYTES = 1 << 24  # of text

Record = tuple[int, dict[str, Any] | None, str]  # line number, object, what is wrong instead


def bounded(records: Iterator[Record]) -> Iterator[Record]:
    """Ends early when much has been read, so that long lines make small batches."""
    spent = 0
    for record in records:
        yield record
        spent += sum(len(v) for v in (record[1] or {}).values() if isinstance(v, str))
        if spent > BATCH_BYTES:
            return


def json_records(stream: IO[bytes]) -> Iterator[Record]:
    """Yields every line that is not blank; one too long is skipped without being held."""
    for number in itertools.count(1):
        line = stream.readline(LINE_BYTES)
        if not line:
            return
        if len(line) == LINE_BYTES and not line.endswith(b"\n"):
            while (rest := stream.readline(LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield number, None, f"the line is longer than {LINE_BYTES:,} bytes"
            continue
        if line.isspace():
            continue
        try:
            # Bytes that are not UTF-8 pass, so that they spoil their column and not their line.
            text = line.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape")
            record = json.loads(text, parse_constant=lambda _: None)  # NaN is a missing value
        except (ValueError, RecursionError):
            yield number, None, "is not JSON"
        else:
            valid = isinstance(record, dict)
            yield number, record if valid else None, "" if valid else "is not a JSON object"


def column_of(values: list[Any]) -> pa.Array:
    """Values of one key as an array of one type; mixtures become text, as JSON writes them."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int} or kinds <= {float} or kinds <= {bool}:
        try:
            return pa.array(values)
        except OverflowError:
            pass
    texts = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
    try:
        return pa.array(texts, pa.large_string())
    except UnicodeEncodeError:
        return pa.array([None if v is None else _bytes(v) for v in texts], pa.large_binary())


def _bytes(text: str) -> bytes:
    """The bytes of a line; half of a surrogate pair ("\\ud800") is bytes that are no text."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
