import gzip
import json
import time
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from etils import epath

from clue_jax.config import Comparison, PrepareConfig, PseudonymConfig, RowFilter, SourceConfig
from clue_jax.data import tables
from clue_jax.errors import ConfigError, DataError
from tests.collected import read_events

DAY = 86_400
GOOD = {"user_id": "u1", "timestamp": "1970-01-02", "text": "a cup", "item": 7, "split": "train"}


def write(path, rows):
    """Writes rows in the format that the name says; values of CSV and JSON Lines as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return
    if ".csv" in path.suffixes:
        cells = [list(rows[0]), *(["" if v is None else v for v in r.values()] for r in rows)]
        text = "".join(",".join(f'"{cell}"' for cell in line) + "\n" for line in cells)
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows)
    payload = text.encode()
    path.write_bytes(gzip.compress(payload) if path.suffix == ".gz" else payload)


def config_of(tmp_path, *sources, **settings):
    sources = sources or (SourceConfig(path="x.jsonl", service="shop"),)
    return PrepareConfig(source=str(tmp_path), sources=sources, **settings)


def read_rows(tmp_path, *rows, **settings):
    """Events of rows that differ from GOOD as said."""
    write(tmp_path / "x.jsonl", [GOOD | row for row in rows])
    return read_events(config_of(tmp_path, **settings))


def decoded(events):
    return list(zip(events.users, events.services, events.texts, events.times, strict=True))


@pytest.mark.parametrize(
    "name", ["x.parquet", "x.csv", "x.csv.gz", "x.jsonl", "x.jsonl.gz", "*.parquet"]
)
def test_every_format_gives_the_same_events(tmp_path, name):
    rows = [
        GOOD,
        GOOD | {"user_id": "u2", "timestamp": "1970-01-03T00:00:00Z", "split": "test", "item": 8},
        GOOD | {"text": "  a  pen ", "timestamp": "1970-01-02 00:00:07.5"},
    ]
    write(tmp_path / name.replace("*", "x"), rows)
    source = SourceConfig(path=name, service="shop", item_id="item", split="split")
    events = read_events(config_of(tmp_path, source))
    assert decoded(events) == [
        ("u1", "shop", "a cup", DAY),
        ("u2", "shop", "a cup", 2 * DAY),
        ("u1", "shop", "a pen", DAY + 7),
    ]
    assert events.source_ids == ["7", "8", "7"]
    assert events.splits == {"u1": "train", "u2": "test"}
    assert events.reading.has_times
    assert (events.reading.rejects, events.reading.filtered) == ({}, {})


def test_batches_do_not_change_events(tmp_path, monkeypatch):
    rows = [GOOD | {"user_id": n % 7, "text": f"t {n % 5}", "timestamp": n} for n in range(50)]
    write(tmp_path / "x.parquet", rows)
    config = config_of(tmp_path, SourceConfig(path="x.parquet", service="shop"))
    expected = decoded(read_events(config))
    monkeypatch.setattr(tables, "BATCH_ROWS", 8)
    assert decoded(read_events(config)) == expected


def test_order_of_files_services_and_appearance(tmp_path):
    base = {"text": "t", "timestamp": 1}
    write(tmp_path / "b/2.csv", [base | {"user_id": "c", "where": "zoo"}])
    write(tmp_path / "b/1.csv", [base | {"user_id": u, "where": w} for u, w in ("ay", "bb")])
    write(tmp_path / "a.jsonl", [base | {"user_id": "a"}])
    events = read_events(
        config_of(
            tmp_path,
            SourceConfig(path="b/*.csv", service_column="where"),
            SourceConfig(path="a.jsonl", service="shop"),
        )
    )
    assert events.reading.services == ("shop", "b", "y", "zoo")
    assert events.reading.places.tolist() == [[2, 1, 3, 0]] * 3
    assert [row[:2] for row in decoded(events)] == [
        ("a", "y"),
        ("b", "b"),
        ("c", "zoo"),
        ("a", "shop"),
    ]


def test_one_person_in_several_spellings(tmp_path):
    write(tmp_path / "a.parquet", [GOOD | {"user_id": 12345.0}])
    write(tmp_path / "b.csv", [GOOD | {"user_id": "12345.0"}])
    write(tmp_path / "c.jsonl", [GOOD | {"user_id": 12345}])
    sources = [SourceConfig(path=f"{n}", service="s") for n in ("a.parquet", "b.csv", "c.jsonl")]
    assert read_events(config_of(tmp_path, *sources)).user_ids == ["12345"]


def test_logs_without_dates(tmp_path):
    write(tmp_path / "a.csv", [GOOD | {"n": n} for n in (5, 3)])
    ordered = SourceConfig(path="a.csv", service="s", timestamp="", order="n")
    events = read_events(config_of(tmp_path, ordered))
    assert events.times == [5, 3]
    assert not events.reading.has_times
    unordered = replace(ordered, order="")
    assert read_events(config_of(tmp_path, unordered)).times == [0, 1]
    dated = replace(ordered, timestamp="timestamp", order="")
    with pytest.raises(ConfigError, match="some have a timestamp and some have none"):
        read_events(config_of(tmp_path, ordered, dated))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"timestamp": "abc"}, "column 'timestamp': 'abc' is not an ISO date or an epoch"),
        ({"timestamp": None}, "column 'timestamp': is missing"),
        ({"timestamp": -5}, "column 'timestamp': '-5' is before 1970"),
        ({"timestamp": time.time() + 3 * DAY}, "is later than tomorrow"),
        ({"user_id": None}, "column 'user_id': is empty"),
        ({"user_id": "  "}, "column 'user_id': is empty"),
        ({"user_id": "a\0b"}, "column 'user_id': contains a NUL byte"),
        ({"user_id": "\ud800"}, "column 'user_id': is not UTF-8"),
        ({"user_id": "x" * 1_001}, "column 'user_id': is longer than"),
        ({"text": ""}, "column 'text': is empty"),
        ({"text": "\0"}, "column 'text': contains a NUL byte"),
        ({"text": "x" * 10_001}, "column 'text': is longer than max_text_bytes=10,000"),
    ],
)
def test_bad_rows_stop_or_are_counted(tmp_path, bad, message):
    with pytest.raises(DataError) as caught:
        read_rows(tmp_path, {}, bad)
    assert "x.jsonl:2: column" in str(caught.value)
    assert message in str(caught.value)
    assert "--config.max_bad_rows=N" in str(caught.value)
    events = read_rows(tmp_path, {}, bad, max_bad_rows=1)
    assert len(events) == 1
    assert sum(events.reading.rejects.values()) == 1
    with pytest.raises(DataError, match="with 1 tolerated"):
        read_rows(tmp_path, {}, bad, bad, max_bad_rows=1)


def test_rejects_name_neither_people_nor_texts(tmp_path):
    rows = [GOOD, GOOD | {"user_id": "Secret\0"}, GOOD | {"text": "\0Secret"}]
    write(tmp_path / "x.jsonl", [*rows, GOOD | {"timestamp": "Secret"}])
    with (tmp_path / "x.jsonl").open("a") as stream:
        stream.write("{Secret\n")
    path = epath.Path(tmp_path) / "rejects.jsonl"
    events = read_events(config_of(tmp_path, max_bad_rows=9), path)
    written = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["row"] for record in written] == [2, 3, 4, 5]
    assert written[-1] == {"file": "x.jsonl", "row": 5, "column": "", "reason": "is not JSON"}
    assert "Secret" not in path.read_text() + json.dumps(events.reading.rejects)


def test_bytes_that_are_not_utf8_in_parquet_and_csv(tmp_path):
    columns = {"user_id": [b"a", b"b"], "text": [b"ok", b"\xff"], "timestamp": [1, 1]}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    (tmp_path / "x.csv").write_bytes(b"user_id,text,timestamp\na,ok,1\nb,\xff,1\n")
    for name in ("x.parquet", "x.csv"):
        config = config_of(tmp_path, SourceConfig(path=name, service="s"), max_bad_rows=1)
        events = read_events(config)
        assert events.reading.rejects == {"text: is not UTF-8": 1}
        assert events.user_ids == ["a"]


def test_filters_come_before_checks(tmp_path):
    rows = [
        GOOD | {"quantity": 1},
        GOOD | {"quantity": -1, "user_id": None, "timestamp": "abc"},
        GOOD | {"quantity": None, "text": ""},
        GOOD | {"quantity": 2, "timestamp": 5, "user_id": None},
        GOOD | {"quantity": 2, "timestamp": 2 * DAY},
    ]
    write(tmp_path / "x.jsonl", rows)
    rule = RowFilter("quantity", Comparison.GREATER, "0")
    source = SourceConfig(
        path="x.jsonl", service="shop", keep=(rule,), start="1970-01-02", end="1970-01-03"
    )
    events = read_events(config_of(tmp_path, source))
    assert len(events) == 1
    assert events.reading.filtered == {
        "shop: quantity > 0": 2,
        "shop: before 1970-01-02": 1,
        "shop: from 1970-01-03 on": 1,
    }
    assert events.reading.rejects == {}


def test_a_rule_on_the_column_of_times(tmp_path):
    write(tmp_path / "x.jsonl", [GOOD, GOOD | {"timestamp": None}])
    rule = RowFilter("timestamp", Comparison.PRESENT)
    source = SourceConfig(path="x.jsonl", service="shop", keep=(rule,))
    filtered = read_events(config_of(tmp_path, source)).reading.filtered
    assert filtered == {"shop: timestamp is present": 1}


@pytest.mark.parametrize("name", ["x.jsonl", "x.parquet"])
def test_a_user_in_two_splits(tmp_path, name):
    source = SourceConfig(path=name, service="shop", split="split")
    other = GOOD | {"user_id": "u2", "split": "test"}
    write(tmp_path / name, [GOOD, other, GOOD])
    assert read_events(config_of(tmp_path, source)).splits == {"u1": "train", "u2": "test"}
    write(tmp_path / name, [GOOD, other, GOOD | {"split": "test"}])
    with pytest.raises(DataError, match=rf"{name}:\d: column 'split': its user is in two splits"):
        read_events(config_of(tmp_path, source))
    write(tmp_path / name, [GOOD, GOOD | {"split": "dev"}])
    with pytest.raises(DataError, match="'split': 'dev' is not one of train, validation, test"):
        read_events(config_of(tmp_path, source))


def test_a_user_in_two_splits_is_found_though_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "BATCH_ROWS", 2)
    rows = [GOOD | {"user_id": f"u{n}"} for n in range(8)]
    write(tmp_path / "x.parquet", [*rows, rows[3], rows[5] | {"split": "test"}, rows[6]])
    source = SourceConfig(path="x.parquet", service="shop", split="split")
    with pytest.raises(DataError, match=r"x\.parquet:10: column 'split': its user is in two"):
        read_events(config_of(tmp_path, source), memory_bytes=0)
    write(tmp_path / "x.parquet", [*rows, *rows])
    events = read_events(config_of(tmp_path, source), memory_bytes=0)
    assert events.user_ids == read_events(config_of(tmp_path, source)).user_ids
    assert set(events.splits.values()) == {"train"} and len(events.splits) == 8


def test_split_conflict_between_sources(tmp_path):
    write(tmp_path / "a.csv", [GOOD, GOOD | {"user_id": "new"}])
    write(tmp_path / "b.csv", [GOOD | {"split": "test"}])
    sources = [SourceConfig(path=f"{n}.csv", service=n, split="split") for n in "ab"]
    with pytest.raises(DataError, match=r"b.csv:1: .*two splits"):
        read_events(config_of(tmp_path, *sources))
    events = read_events(config_of(tmp_path, replace(sources[0], split=""), sources[1]))
    assert events.splits == {"u1": "test", "new": ""}


def test_a_service_without_a_row(tmp_path):
    write(tmp_path / "a.csv", [GOOD])
    write(tmp_path / "b.csv", [GOOD])
    none = RowFilter("text", Comparison.EQUAL, "nothing")
    sources = (
        SourceConfig(path="a.csv", service="shop"),
        SourceConfig(path="b.csv", service="news", keep=(none,)),
    )
    with pytest.raises(DataError, match=r"service 'news': .*b.csv: no row is left; 1 rows fail"):
        read_events(config_of(tmp_path, *sources))


def test_a_bad_service_name(tmp_path):
    write(tmp_path / "a.csv", [GOOD | {"where": "a/b"}, GOOD | {"where": "shop"}])
    source = SourceConfig(path="a.csv", service_column="where")
    with pytest.raises(DataError, match=r"a.csv:1: column 'where': 'a/b' cannot name a service"):
        read_events(config_of(tmp_path, source))


@pytest.mark.parametrize("name", ["x.parquet", "x.csv"])
def test_an_empty_table(tmp_path, name):
    write(tmp_path / "full.csv", [GOOD])
    columns = {key: pa.array([], pa.string()) for key in GOOD}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    (tmp_path / "x.csv").write_text(",".join(GOOD) + "\n")
    with pytest.raises(DataError, match=f"{name}: the table is empty"):
        read_events(config_of(tmp_path, SourceConfig(path=name, service="s")))


def test_all_columns_are_checked_before_any_file_is_read(tmp_path):
    write(tmp_path / "a.csv", [GOOD | {"timestamp": "abc"}])
    write(tmp_path / "b.csv", [{"user_id": "u", "text": "t"}])
    sources = [SourceConfig(path=f"{n}.csv", service=n) for n in "ab"]
    with pytest.raises(DataError, match=r"b.csv: no column 'timestamp'; it has 'text', 'user_id'"):
        read_events(config_of(tmp_path, *sources))


def test_pseudonyms(tmp_path, monkeypatch):
    monkeypatch.setenv("CLUE_TEST_KEY", "k" * 32)
    settings = {"pseudonym": PseudonymConfig(key_env="CLUE_TEST_KEY")}
    plain = read_rows(tmp_path, {}, {"user_id": "u2"}, {})
    keyed = read_rows(tmp_path, {}, {"user_id": "u2"}, {}, **settings)
    for events in (plain, keyed):
        one, two, again = events.hashes.tolist()
        assert one == again != two
    assert set(plain.hashes.tolist()).isdisjoint(keyed.hashes.tolist())
    assert all(len(user) == 64 for user in keyed.user_ids)
    assert len(set(keyed.user_ids)) == 2


def test_template_with_missing_values(tmp_path):
    rows = [{"brand": "Acme", "category": None}, {"brand": None, "category": "Mugs"}]
    write(tmp_path / "x.jsonl", [GOOD | row for row in rows])
    source = SourceConfig(path="x.jsonl", service="s", text="{brand} {text} | {category}")
    texts = read_events(config_of(tmp_path, source)).texts
    assert texts == ["Acme a cup", "a cup | Mugs"]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"path": ""}, r"sources\[0\].path"),
        ({"path": "../x.csv"}, r"sources\[0\].path"),
        ({"path": "/x.csv"}, r"sources\[0\].path"),
        ({"format": "xls"}, "xls"),
        ({"service": ""}, "service_column"),
        ({"service_column": "c"}, "service_column"),
        ({"service": "a b"}, "a b"),
        ({"order": "n"}, "order"),
        ({"timestamp": "", "start": "2024-01-01"}, "start"),
        ({"start": "soon"}, "start: 'soon' is not an ISO date"),
        ({"text": "no column"}, "template"),
        ({"keep": (RowFilter("a", Comparison.LESS, "x"),)}, "not a number"),
    ],
)
def test_config_refused_before_logs_are_looked_for(tmp_path, changes, key):
    source = replace(SourceConfig(path="x.csv", service="s"), **changes)
    with pytest.raises(ConfigError, match=key):
        read_events(config_of(tmp_path / "none", source))
