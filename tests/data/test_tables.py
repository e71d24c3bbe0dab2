import gzip
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from etils import epath

from clue_jax.config import PrepareConfig, SourceConfig
from clue_jax.data import json_lines, tables
from clue_jax.errors import ConfigError, DataError


def write(path, payload):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(payload) if path.suffix == ".gz" else payload)
    return log_file(path)


def log_file(path):
    kinds = [kind for name, kind in tables.FORMATS.items() if name in path.suffixes]
    return tables.LogFile(epath.Path(path), path.name, *kinds or ["csv"])


def parquet(rows=10):
    sink = io.BytesIO()
    table = pa.table({"a": pa.array(range(rows)), "b": [f"text {n}" for n in range(rows)]})
    pq.write_table(table, sink, write_page_checksum=True)
    return sink.getvalue()


def read(file, *wanted, delimiter=","):
    """All rows: their numbers, their values and the broken ones."""
    numbers: list[int] = []
    values: list[tuple] = []
    broken: list[tuple[int, str]] = []
    for batch in tables.read_batches(file, list(wanted), delimiter):
        numbers += batch.rows.tolist()
        broken += batch.broken
        cells = [batch.columns[name].to_pylist() for name in wanted]
        values += list(zip(*cells, strict=True))
    return numbers, values, broken


def test_parquet(tmp_path):
    file = write(tmp_path / "x.parquet", parquet())
    numbers, values, broken = read(file, "b", "a")
    assert numbers == list(range(1, 11))
    assert values[2] == ("text 2", 2)
    assert not broken


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz"])
def test_csv(tmp_path, name):
    payload = b'\xef\xbb\xbfa,b\n1,"x, ""y""\nz"\n\n2\n3,\xff\n4,5,6\n007,\n8'
    numbers, values, broken = read(write(tmp_path / name, payload), "b", "a")
    assert numbers == [1, 3, 5]
    assert values == [(b'x, "y"\nz', b"1"), (b"\xff", b"3"), (b"", b"007")]
    fields = "fields instead of 2"
    assert broken == [(2, f"has 1 {fields}"), (4, f"has 3 {fields}"), (6, f"has 1 {fields}")]


def test_csv_row_numbers_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "CSV_BLOCK_BYTES", 64)
    lines = [f"{n},{n}" if n % 7 else f"{n}" for n in range(1, 200)]
    file = write(tmp_path / "x.csv", "\n".join(["a,b", *lines]).encode())
    numbers, values, broken = read(file, "a")
    assert numbers == [int(value) for (value,) in values] == [n for n in range(200) if n % 7]
    assert [number for number, _ in broken] == [n for n in range(1, 200) if n % 7 == 0]


def test_csv_delimiter(tmp_path):
    file = write(tmp_path / "x.csv", b"a;b\n1;2\n")
    tables.check_columns(file, ["b"], ";")
    assert read(file, "b", delimiter=";")[1] == [(b"2",)]


def test_quote_that_never_closes_is_one_row(tmp_path):
    _, values, broken = read(write(tmp_path / "x.csv", b'a,b\n1,2\n"3,4\n' + b"5,6\n" * 99), "a")
    assert values == [(b"1",)]
    assert len(broken) == 1


def test_quote_that_never_closes_does_not_fill_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "CSV_BLOCK_BYTES", 256)
    file = write(tmp_path / "x.csv", b'a,b\n"3,4\n' + b"5,6\n" * 999)
    with pytest.raises(DataError, match=r"x.csv after row 0: cannot be read as csv"):
        read(file, "a")


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_json_lines(tmp_path, name):
    lines = [b'\xef\xbb\xbf{"a": 1, "b": "x"}', b"", b'{"a": NaN}', b"{", b"[1]", b'{"\xff": 1']
    lines += [b"[" * 100_000, b'{"b": "y", "a": 2.5}', b'{"a": "t", "c": 1}']
    numbers, values, broken = read(write(tmp_path / name, b"\n".join(lines)), "a", "b")
    assert numbers == [1, 3, 8, 9]
    assert values == [("1", "x"), (None, None), ("2.5", "y"), ("t", None)]
    assert broken == [
        (4, "is not JSON"),
        (5, "is not a JSON object"),
        (6, "is not JSON"),
        (7, "is not JSON"),
    ]


def test_bytes_that_are_not_utf8_stay_in_their_column(tmp_path):
    lines = [b'{"a": "\xff", "b": "x\xc3\xa9"}', b'{"a": "\\ud800", "b": "y"}', b'{"b": ["\xff"]}']
    numbers, values, broken = read(write(tmp_path / "x.jsonl", b"\n".join(lines)), "a", "b")
    assert (numbers, broken) == ([1, 2, 3], [])
    assert values == [(b"\xff", "xé"), (b"\xed\xa0\x80", "y"), (None, '["\\udcff"]')]


def test_json_line_too_long_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(json_lines, "LINE_BYTES", 32)
    payload = b'{"a": 1}\n{"a": "' + b"x" * 500 + b'"}\n{"a": 3}\n'
    numbers, values, broken = read(write(tmp_path / "x.jsonl", payload), "a")
    assert (numbers, values) == ([1, 3], [(1,), (3,)])
    assert broken == [(2, "the line is longer than 32 bytes")]


def test_json_columns_keep_one_type_or_become_text():
    assert json_lines.column_of([1, None]).type == pa.int64()
    assert json_lines.column_of([1, 2.5, True, ["x"]]).to_pylist() == ["1", "2.5", "true", '["x"]']
    assert json_lines.column_of([2**70]).to_pylist() == [str(2**70)]
    assert json_lines.column_of(["a", "\ud800"]).to_pylist() == [b"a", b"\xed\xa0\x80"]


@pytest.mark.parametrize("name", ["x.parquet", "x.csv", "x.jsonl"])
def test_columns_are_checked_before_reading(tmp_path, name):
    payload = {"x.parquet": parquet(), "x.csv": b"a,b\n1,2\n", "x.jsonl": b'{"a": 1}\n{"b": 2}\n'}
    file = write(tmp_path / name, payload[name])
    tables.check_columns(file, ["a", "b"])
    with pytest.raises(DataError, match=rf"{name}: no column 'when'; it has 'a', 'b'"):
        tables.check_columns(file, ["a", "when"])


def test_ambiguous_and_nested_columns(tmp_path):
    with pytest.raises(DataError, match="column 'a' is there 2 times"):
        tables.check_columns(write(tmp_path / "x.csv", b"a,a\n1,2\n"), ["a"])
    pq.write_table(pa.table({"tags": [["x"]]}), tmp_path / "y.parquet")
    with pytest.raises(DataError, match=r"y.parquet: column 'tags' holds list"):
        tables.check_columns(log_file(tmp_path / "y.parquet"), ["tags"])


@pytest.mark.parametrize("name", ["x.parquet", "x.csv", "x.jsonl", "x.csv.gz", "x.jsonl.gz"])
def test_an_empty_file(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=f"{name}: the file is empty"):
        tables.check_columns(log_file(tmp_path / name), ["a"])


@pytest.mark.parametrize("name", ["x.csv.gz", "x.jsonl.gz"])
def test_a_truncated_archive(tmp_path, name):
    row = "{},{}\n" if "csv" in name else '{{"a": {}, "b": {}}}\n'
    noise = np.random.default_rng(0).integers(1 << 40, size=(4_000, 2)).tolist()
    payload = ("a,b\n" if "csv" in name else "") + "".join(row.format(*pair) for pair in noise)
    file = write(tmp_path / name, payload.encode())
    assert len(read(file, "a")[0]) == 4_000
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=f"{name} after row .*: cannot be read"):
        read(file, "a")


@pytest.mark.parametrize("damage", ["truncated", "flipped", "text"])
def test_a_damaged_parquet(tmp_path, damage):
    whole = parquet(1_000)
    file = write(tmp_path / "x.parquet", whole)
    assert len(read(file, "a", "b")[0]) == 1_000
    flipped = bytearray(whole)
    flipped[200] ^= 4
    broken = {"truncated": whole[:-100], "flipped": bytes(flipped), "text": b"a,b\n1,2\n"}
    write(tmp_path / "x.parquet", broken[damage])
    with pytest.raises(DataError, match=r"x.parquet.*cannot be read as parquet"):
        tables.check_columns(file, ["a"])
        read(file, "a", "b")


def test_find_files(tmp_path):
    for name in ("b/2.csv", "b/1.csv", "b/1.txt", "c.csv.gz"):
        write(tmp_path / name, b"a\n1\n")
    config = PrepareConfig(source=str(tmp_path))
    found = tables.find_files(config, SourceConfig(path="b/*.csv"))
    assert [(file.name, file.format) for file in found] == [("b/1.csv", "csv"), ("b/2.csv", "csv")]
    assert tables.find_files(config, SourceConfig(path="c.csv.gz"))[0].format == "csv"
    assert tables.find_files(config, SourceConfig(path="b/1.txt", format="jsonl"))[0].name
    with pytest.raises(ConfigError, match="does not tell the format"):
        tables.find_files(config, SourceConfig(path="b/1.txt"))
    with pytest.raises(DataError, match=r"d/.*: no file matches; the folder holds b, c.csv.gz"):
        tables.find_files(config, SourceConfig(path="d/*.csv"))
    config = PrepareConfig(source=str(tmp_path / "none"), help="get it there")
    with pytest.raises(DataError, match="none: no such folder; get it there"):
        tables.find_files(config, SourceConfig(path="a"))
