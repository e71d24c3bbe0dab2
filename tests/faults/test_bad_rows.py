"""Logs with rows that cannot be used: named by file, row and column, counted, and bounded."""

import gzip
import json
import re
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.faults.logs import arguments, contents, good_rows, manifest, prepare, write
from tests.stages import ROOT

FORMATS = ("csv", "jsonl", "parquet")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_bad_number_is_named_by_file_row_column_and_value(tmp_path, capfd, kind):
    rows = good_rows()
    rows[2] = ("u1", "abc", "a pen")
    write(tmp_path / "logs" / f"x.{kind}", rows)
    prepare(tmp_path / "logs", tmp_path / "out", code=3)
    place = rf"logs/x\.{kind}:3: column 'timestamp': 'abc' is not an ISO date or an epoch"
    error = capfd.readouterr().err
    assert re.search(place, error) and "--config.max_bad_rows=N" in error
    assert not (tmp_path / "out").exists()
    rows[2] = ("u1", "1600000000", "a pen")
    write(tmp_path / "logs" / f"x.{kind}", rows)
    prepare(tmp_path / "logs", tmp_path / "out")
    assert manifest(tmp_path / "out")["rejects"] == {}


@pytest.mark.parametrize(
    ("kind", "line", "problem"),
    [
        ("csv", "u1,1600000000", "has 2 fields instead of 3"),
        ("jsonl", '{"user_id": "u1", "timest', "is not JSON"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, capfd, kind, line, problem):
    path = tmp_path / "logs" / f"x.{kind}"
    write(path, good_rows())
    lines = path.read_text().splitlines()
    row = 4 if kind == "csv" else 5  # rows of CSV are numbered without their header
    path.write_text("\n".join([*lines[:4], line, *lines[4:]]))
    prepare(tmp_path / "logs", tmp_path / "out", code=3)
    assert f"logs/x.{kind}:{row}: {problem}" in capfd.readouterr().err
    prepare(tmp_path / "logs", tmp_path / "out", "--config.max_bad_rows=1")
    listed = (tmp_path / "out" / "rejects.jsonl").read_text()
    expected = {"file": f"x.{kind}", "row": row, "column": "", "reason": problem}
    assert [json.loads(entry) for entry in listed.splitlines()] == [expected]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_missing_column_is_named_with_those_that_are_there(tmp_path, capfd, kind):
    path = tmp_path / "logs" / f"x.{kind}"
    write(path, good_rows())
    if kind == "parquet":
        pq.write_table(pq.read_table(path).rename_columns(["user_id", "when", "text"]), path)
    else:
        path.write_text(path.read_text().replace("timestamp", "when"))
    prepare(tmp_path / "logs", tmp_path / "out", code=3)
    there = f"logs/x.{kind}: no column 'timestamp'; it has 'text', 'user_id', 'when'"
    assert there in capfd.readouterr().err


@pytest.mark.parametrize("kind", FORMATS)
def test_k_bad_rows_pass_into_a_file_and_one_more_stops(tmp_path, capfd, kind):
    rows = good_rows()
    bad = {4: ("", 1_600_000_000, "a"), 7: ("u1", -5, "a"), 9: ("u1", 1_600_000_000, "")}
    for place, row in bad.items():
        rows[place] = row
    write(tmp_path / "logs" / f"x.{kind}", rows)
    prepare(tmp_path / "logs", tmp_path / "out", "--config.max_bad_rows=2", code=3)
    assert "with 2 tolerated" in capfd.readouterr().err
    prepare(tmp_path / "logs", tmp_path / "out", "--config.max_bad_rows=3")
    listed = (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()
    assert [(r["row"], r["column"]) for r in map(json.loads, listed)] == [
        (5, "user_id"),
        (8, "timestamp"),
        (10, "text"),
    ]
    counted = manifest(tmp_path / "out")["rejects"]
    assert counted == {"text: is empty": 1, "timestamp: is before 1970": 1, "user_id: is empty": 1}


# ------------------------------------------------------------------------------- hostile contents

LONG = "y" * 10_000_000
SPOILT = {
    "not UTF-8": (b"caf\xe9 au lait", "text: is not UTF-8", "caf\ufffd au lait"),
    "NUL": (b"a\0b", "text: contains a NUL byte", "a\ufffdb"),
    "10 MB": (LONG.encode(), "text: is longer than max_text_bytes=10,000", "y" * 10_000),
}


def write_bytes(path, texts):
    """Rows whose texts are any bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [(b"u%d" % (n % 3), b"%d" % (1_600_000_000 + n), t) for n, t in enumerate(texts)]
    if path.suffix == ".parquet":
        names = ("user_id", "timestamp", "text")
        arrays = [pa.array(list(column), pa.binary()) for column in zip(*cells, strict=True)]
        pq.write_table(pa.table(dict(zip(names, arrays, strict=True))), path)
    elif path.suffix == ".csv":
        path.write_bytes(b"".join(b",".join(c) + b"\n" for c in [COLUMN_NAMES, *cells]))
    else:
        escaped = [(u, t, text.replace(b"\0", b"\\u0000")) for u, t, text in cells]
        line = b'{"user_id": "%b", "timestamp": %b, "text": "%b"}\n'
        path.write_bytes(b"".join(line % cell for cell in escaped))


COLUMN_NAMES = (b"user_id", b"timestamp", b"text")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("what", SPOILT)
def test_a_spoilt_text_is_rejected_or_replaced_if_told_so(tmp_path, capfd, kind, what):
    spoilt, reason, mended = SPOILT[what]
    texts = [b"a pen", b"a cup", spoilt, b"a lamp"]
    write_bytes(tmp_path / "logs" / f"x.{kind}", texts)
    prepare(tmp_path / "logs", tmp_path / "out", code=3)
    error = capfd.readouterr().err
    assert f"x.{kind}:3: column '{reason.replace(':', chr(39) + ':', 1)}" in error
    prepare(tmp_path / "logs", tmp_path / "out", "--config.max_bad_rows=1")
    assert manifest(tmp_path / "out")["rejects"] == {reason: 1}

    prepare(tmp_path / "logs", tmp_path / "mended", "--config.replace_bad_text=true")
    found = manifest(tmp_path / "mended")
    assert (found["rejects"], found["replaced"]) == ({}, {reason: 1})
    write_bytes(tmp_path / "plain" / "x.jsonl", [*texts[:2], mended.encode(), texts[3]])
    prepare(tmp_path / "plain", tmp_path / "expected")
    assert contents(tmp_path / "mended") == contents(tmp_path / "expected")


def test_ids_are_never_replaced(tmp_path, capfd):
    payload = b"user_id,timestamp,text\nu1,1600000000,a\nu\xe9,1600000000,b\n"
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "x.csv").write_bytes(payload)
    prepare(tmp_path / "logs", tmp_path / "out", "--config.replace_bad_text=true", code=3)
    assert "x.csv:2: column 'user_id': is not UTF-8" in capfd.readouterr().err


# Runs alone, so that its peak is that of the stage; says which rows it rejected.
MEASURED = """
import re, sys
from clue_jax.cli import main

code = main(sys.argv[1:])
print(code, int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024)
"""
FINE = '{"user_id": "u", "timestamp": 1600000000, "text": "fine"}\n'


def giant_strings(folder):
    """300 MB as 30 texts, one in many rows as a Parquet page holds them."""
    names = ("user_id", "timestamp", "text")
    kinds = pa.schema([(name, pa.string()) for name in names])
    with pq.ParquetWriter(folder / "x.parquet", kinds, compression="zstd") as writer:
        for n in range(30):
            texts = [f"{row} fine" for row in range(1_999)] + [f"{n}{LONG}"]
            columns = [["u"] * 2_000, ["1600000000"] * 2_000, texts]
            writer.write_table(pa.table(dict(zip(names, columns, strict=True)), kinds), 1 << 20)
    return 30


def one_text_repeated(folder):
    """A text of 10 MB in 2,000 rows: 20 GB in a kilobyte."""
    columns = {"user_id": ["u"] * 2_001, "timestamp": ["1600000000"] * 2_001}
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 2_000 + [1]), [LONG, "fine"])
    pq.write_table(pa.table({**columns, "text": texts}), folder / "x.parquet", compression="zstd")
    return 2_000


def giant_json_lines(folder):
    line = json.dumps({"user_id": "u", "timestamp": 1_600_000_000, "text": LONG}) + "\n"
    (folder / "x.jsonl").write_text(FINE + line * 20)
    return 20


def archive_bomb(folder):
    """One line of 256 MB, of which the archive has 256 kB."""
    with gzip.open(folder / "x.jsonl.gz", "wb", 6) as stream:
        stream.write(b'{"text": "')
        for _ in range(8):
            stream.write(b"x" * (1 << 25))
        stream.write(b'"}\n' + FINE.encode())
    return 1


def giant_csv_fields(folder):
    rows = [f"u,1600000000,{LONG}\n"] * 20
    (folder / "x.csv").write_text("user_id,timestamp,text\n" + "".join(rows) + "u,1600000000,a\n")
    return 20


def quote_bomb(folder):
    """A quote that never closes, before 100 MB: no row can be told from the next any more."""
    good = "u,1600000000,a\n"
    (folder / "x.csv").write_text("user_id,timestamp,text\n" + good + '"u' + good * 7_000_000)
    return None


@pytest.mark.parametrize(
    "make",
    [
        giant_strings,
        one_text_repeated,
        giant_json_lines,
        archive_bomb,
        giant_csv_fields,
        quote_bomb,
    ],
)
def test_memory_stays_bounded(tmp_path, make):
    folder = tmp_path / "logs"
    folder.mkdir()
    rejected = make(folder)
    flags = ("--config.memory_mb=512", "--config.max_bad_rows=5000")
    argv = [sys.executable, "-c", MEASURED, "prepare", *arguments(folder, tmp_path / "out", *flags)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120)
    code, peak = done.stdout.splitlines()[-1].split()
    print(f"{make.__name__}: {float(peak):.0f} MB")
    assert float(peak) < 512, done.stderr
    if rejected is None:
        assert code == "3" and "x.csv after row 1: cannot be read as csv" in done.stderr
    else:
        assert code == "0", done.stderr
        assert sum(manifest(tmp_path / "out")["rejects"].values()) == rejected
