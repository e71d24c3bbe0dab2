import datetime

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clue_jax.data import timestamps
from clue_jax.errors import ConfigError

NOW = 1_800_000_000.0
MOMENT = 1_706_695_200  # 2024-01-31 10:00 UTC


def strings(*values):
    return pa.array(values, pa.large_string())


def times(column):
    """Seconds, and what is wrong with each."""
    seconds, problem = timestamps.times(column, "when", NOW)
    return seconds.tolist(), [timestamps.PROBLEMS[number] for number in problem]


@pytest.mark.parametrize(
    "column",
    [
        strings("2024-01-31T10:00:00Z"),
        strings(" 2024-01-31 10:00 "),
        strings("2024-01-31T10"),
        strings("2024-01-31T10:00:00.987654321"),
        strings("2024-01-31T12:30:00+02:30"),
        strings("2024-01-31 09:00:00.5-0100"),
        strings(str(MOMENT)),
        strings(f"{MOMENT}.75"),
        strings(f"{MOMENT}123"),
        pa.array([MOMENT]),
        pa.array([MOMENT * 1000 + 999]),
        pa.array([MOMENT + 0.5]),
        pa.array([MOMENT * 1000 + 0.5]),
        pa.array([MOMENT], pa.timestamp("s")),
        pa.array([MOMENT * 10**9 + 1], pa.timestamp("ns", "Europe/Berlin")),
        pa.array([MOMENT * 1000], pa.timestamp("ms")).dictionary_encode(),
    ],
)
def test_times_of_one_moment(column):
    assert times(column) == ([MOMENT], [""])


def test_times_of_dates():
    for kind in (pa.date32(), pa.date64()):
        column = pa.array([datetime.date(1970, 1, 2)], kind)
        assert times(column)[0] == [86_400]
    assert times(strings("1970-01-02"))[0] == [86_400]


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (strings("abc"), timestamps.NOT_A_TIME),
        (strings("2024-02-30"), timestamps.NOT_A_TIME),
        (strings("2024-13-01"), timestamps.NOT_A_TIME),
        (strings("31/01/2024"), timestamps.NOT_A_TIME),
        (pa.array([b"\xff"]), timestamps.NOT_A_TIME),
        (strings("  "), timestamps.MISSING),
        (pa.array([None], pa.timestamp("s")), timestamps.MISSING),
        (pa.array([float("nan")]), timestamps.MISSING),
        (strings("1969-12-31T23:59:59.9Z"), timestamps.NEGATIVE),
        (pa.array([-1], pa.timestamp("ms")), timestamps.NEGATIVE),
        (pa.array([-1]), timestamps.NEGATIVE),
        (pa.array([int(NOW) + 2 * 86_400]), timestamps.FUTURE),
        (pa.array([MOMENT * 10**6]), timestamps.FUTURE),  # microseconds
        (strings("9999-12-31"), timestamps.FUTURE),
        (pa.array([20240131]), timestamps.AMBIGUOUS),
        (strings("20240131"), timestamps.AMBIGUOUS),
    ],
)
def test_times_refused(column, reason):
    assert times(column) == ([0], [reason])
    texts = pa.array(["2024-01-31"] * 2).dictionary_encode()
    assert times(texts.take(pa.array([0, None, 1])))[1] == ["", timestamps.MISSING, ""]


def test_one_bad_date_leaves_the_others():
    dates = strings("2024-02-29", "2023-02-29", None, "2024-01-31T11:00:00+01:00")
    seconds, problem = times(dates)
    assert [reason == "" for reason in problem] == [True, False, False, True]
    assert seconds[3] == MOMENT


@settings(max_examples=50, deadline=None)
@given(st.lists(st.datetimes(datetime.datetime(1970, 1, 1), datetime.datetime(2026, 1, 1))))
def test_times_agree_with_datetime(moments):
    expected = [int(m.replace(microsecond=0, tzinfo=datetime.UTC).timestamp()) for m in moments]
    for column in (
        strings(*(m.isoformat() for m in moments)),
        pa.array(moments, pa.timestamp("us")),
    ):
        assert times(column)[0] == expected


def test_orders():
    values, problem = timestamps.orders(pa.array(["3", "4.0", "-1", "x", "", None, "1.5"]), "n")
    assert values.tolist() == [3, 4, -1, 0, 0, 0, 0]
    bad = timestamps.NOT_AN_ORDER
    found = [timestamps.PROBLEMS[number] for number in problem]
    assert found == ["", "", "", bad, timestamps.MISSING, timestamps.MISSING, bad]


def test_iso_seconds_names_its_key():
    assert timestamps.iso_seconds("1970-01-02", "start") == 86_400
    with pytest.raises(ConfigError, match="start: 'soon' is not an ISO date"):
        timestamps.iso_seconds("soon", "start")


@pytest.mark.parametrize("kind", [pa.int32(), pa.int64(), pa.large_string()])
def test_whole_numbers_are_the_times_they_are_as_text(kind):
    values = [0, 5, -1, 19_991_231, 19_000_100, 1_700_000_000, None]
    if kind != pa.int32():
        values += [10**11 - 1, 10**11, -(10**11) - 1, 1_700_000_000_123, 10**18, 2**63 - 1]
    as_texts = pa.array([None if v is None else str(v) for v in values], pa.large_string())
    expected = timestamps.times(as_texts, "t", 2e9)
    found = timestamps.times(as_texts.cast(kind), "t", 2e9)
    for one, other in zip(found, expected, strict=True):
        assert one.tolist() == other.tolist()
