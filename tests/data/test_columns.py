import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clue_jax.data import columns
from clue_jax.errors import ConfigError, DataError

NOW = 1_800_000_000.0
MOMENT = 1_706_695_200  # 2024-01-31 10:00 UTC


def strings(*values):
    return pa.array(values, pa.large_string())


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([12345.0, 2.5, float("nan"), None]), ["12345", "2.5", None, None]),
        (pa.array([7, None], pa.int32()), ["7", None]),
        (pa.array(["a", None]).dictionary_encode(), ["a", None]),
        (pa.array([None, None]), [None, None]),
        (pa.array([b"caf\xc3\xa9"]), ["café"]),
        (pa.array([datetime.date(2024, 1, 31)]), ["2024-01-31"]),
        (pa.array(["v"], pa.string_view()), ["v"]),
    ],
)
def test_texts_of_any_flat_type(column, expected):
    values, invalid = columns.texts(column, "c")
    assert values.to_pylist() == expected
    assert not invalid.any()


def test_texts_marks_what_is_not_utf8():
    values, invalid = columns.texts(pa.array([b"ok", b"\xff\xfe", None]), "c")
    assert values.to_pylist() == ["ok", None, None]
    assert invalid.tolist() == [False, True, False]


def test_texts_refuses_lists_by_name():
    with pytest.raises(DataError, match="'tags' holds list"):
        columns.texts(pa.array([["a"]]), "tags")


def test_identities_have_one_spelling():
    spelled = columns.identities(strings(" 12345.0 ", "12345", "1.50", "a.0", None))
    assert spelled.to_pylist() == ["12345", "12345", "1.50", "a.0", None]


def test_render_fills_a_template():
    cells = {
        "brand": strings("Acme", None, "Acme", None, "a|"),
        "title": strings("blue\u00a0\n cup", "cup", "", None, "b"),
        "category": strings("Kitchen", None, "", " ", "c|"),
    }
    rendered = columns.render("{brand} {title} | {category}", cells)
    assert rendered.to_pylist() == ["Acme blue cup | Kitchen", "cup", "Acme", "", "a| b | c|"]


def test_render_leaves_the_punctuation_of_values():
    assert columns.render("{t}", {"t": strings("- 50 % -", None)}).to_pylist() == ["- 50 % -", ""]


@pytest.mark.parametrize("template", ["", "no column", "{a", "a}", "{}", "{{a}}"])
def test_template_refused(template):
    with pytest.raises(ConfigError, match="template"):
        columns.template_columns(template)


def test_template_columns_once_in_order():
    assert columns.template_columns("{b} {Customer ID} {b}") == ("b", "Customer ID")


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
    seconds, problem, _ = columns.times(column, "when", NOW)
    assert problem.tolist() == [""]
    assert seconds.tolist() == [MOMENT]


def test_times_of_dates():
    for kind in (pa.date32(), pa.date64()):
        column = pa.array([datetime.date(1970, 1, 2)], kind)
        assert columns.times(column, "when", NOW)[0].tolist() == [86_400]
    assert columns.times(strings("1970-01-02"), "when", NOW)[0].tolist() == [86_400]


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (strings("abc"), columns.NOT_A_TIME),
        (strings("2024-02-30"), columns.NOT_A_TIME),
        (strings("2024-13-01"), columns.NOT_A_TIME),
        (strings("31/01/2024"), columns.NOT_A_TIME),
        (pa.array([b"\xff"]), columns.NOT_A_TIME),
        (strings("  "), columns.MISSING),
        (pa.array([None], pa.timestamp("s")), columns.MISSING),
        (pa.array([float("nan")]), columns.MISSING),
        (strings("1969-12-31T23:59:59.9Z"), columns.NEGATIVE),
        (pa.array([-1], pa.timestamp("ms")), columns.NEGATIVE),
        (pa.array([-1]), columns.NEGATIVE),
        (pa.array([int(NOW) + 2 * 86_400]), columns.FUTURE),
        (pa.array([MOMENT * 10**6]), columns.FUTURE),  # microseconds
        (strings("9999-12-31"), columns.FUTURE),
        (pa.array([20240131]), columns.AMBIGUOUS),
        (strings("20240131"), columns.AMBIGUOUS),
    ],
)
def test_times_refused(column, reason):
    seconds, problem, _ = columns.times(column, "when", NOW)
    assert problem.tolist() == [reason]
    assert seconds.tolist() == [0]


def test_one_bad_date_leaves_the_others():
    dates = strings("2024-02-29", "2023-02-29", None, "2024-01-31T11:00:00+01:00")
    seconds, problem, _ = columns.times(dates, "when", NOW)
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
        assert columns.times(column, "when", NOW)[0].tolist() == expected


def test_orders():
    values, problem, _ = columns.orders(pa.array(["3", "4.0", "-1", "x", "", None, "1.5"]), "n")
    assert values.tolist() == [3, 4, -1, 0, 0, 0, 0]
    bad = columns.NOT_AN_ORDER
    assert problem.tolist() == ["", "", "", bad, columns.MISSING, columns.MISSING, bad]


def test_iso_seconds_names_its_key():
    assert columns.iso_seconds("1970-01-02", "start") == 86_400
    with pytest.raises(ConfigError, match="start: 'soon' is not an ISO date"):
        columns.iso_seconds("soon", "start")


def test_masks():
    values = strings("a", " ", None, "x\0y")
    assert columns.empty(values).tolist() == [False, True, True, False]
    assert columns.contains_nul(values).tolist() == [False, False, False, True]
    assert columns.longer_than(strings("é", "e", None), 1).tolist() == [True, False, False]
    assert np.array_equal(columns.fully_matches(strings("ab", "abc"), "ab"), [True, False])
