import datetime
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from clue_jax.data import columns
from clue_jax.data.coded import coded, combined
from clue_jax.errors import ConfigError, DataError


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


def test_white_space_is_collapsed_as_by_replacing_all_of_it():
    space = [
        chr(c) for c in range(0x3001) if re.match(r"\s", chr(c)) or c in (0x85, 0x180E, 0x200B)
    ]
    texts = [f"a{s}b" for s in space] + [f"{s}a {s} b{s}" for s in space] + ["a b", "a  b", ""]
    values = pa.array(texts, pa.large_string())
    expected = pc.utf8_trim_whitespace(pc.replace_substring_regex(values, columns._SPACE, " "))
    assert columns.render("{t}", {"t": values}).to_pylist() == expected.to_pylist()


def test_masks():
    values = strings("a", " ", None, "x\0y")
    assert columns.empty(values).tolist() == [False, True, True, False]
    assert columns.contains_nul(values).tolist() == [False, False, False, True]
    assert columns.longer_than(strings("é", "e", None), 1).tolist() == [True, False, False]
    assert np.array_equal(columns.fully_matches(strings("ab", "abc"), "ab"), [True, False])


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.int64, np.uint64])
@pytest.mark.parametrize("dense", [True, False])
def test_integers_by_their_distinct_values(kind, dense):
    least, most = np.iinfo(kind).min, np.iinfo(kind).max
    numbers = [most, least, most, least + 1] + [most - n % 7 for n in range(60)] * dense
    column = pa.array(numbers, pa.from_numpy_dtype(kind))
    for part in (column, column.slice(len(numbers) // 2), column.slice(0, 1), column.slice(0, 0)):
        found = coded(part)
        assert found.to_pylist() == part.to_pylist()
        assert len(set(found.dictionary.to_pylist())) == len(found.dictionary)
        assert found.dictionary.type == column.type


def test_rows_of_several_columns_are_told_apart():
    rng = np.random.default_rng(0)
    for width in (1, 2, 40):  # the second follows from the first, or not
        first = rng.integers(0, 40, 300)
        columns = [first, first // width, rng.integers(0, 3, 300) * (width > 1)]
        values, places = combined([coded(pa.array(column)) for column in columns])
        rows = list(zip(*(value.to_pylist() for value in values), strict=True))
        assert len(set(rows)) == len(rows)
        assert [rows[place] for place in places] == list(zip(*map(list, columns), strict=True))
