"""Encoding word by word gives the ids that the library gives for the whole text."""

import itertools
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clue_jax.data import tokenizer as bpe
from clue_jax.data.words import splits_at_blanks

TRAINED = ["the red pen, isn't it?", "Red PEN's 12 lamps!!", "größe 東京 タワー", "été d'or 3.14"]
TOKENIZER = bpe.train(TRAINED * 3, ("shop",), 500)
TRICKY = [
    "",
    " ",
    "a",
    " leading",
    "trailing ",
    "two  blanks",
    "tab\tinside",
    "line\nbreak\r\n",
    "no\xa0break",
    "thin\u2009space b",
    "ideographic\u3000space b",
    "next\x85line \x1c\x1f separators",
    "mongolian\u180evowel \u200bzero width",
    "<pad> <guide> <service:shop>",
    "it's we'll 'tis ' ' '' x",
    "a\u0301 combining e\u0301",
    "emoji 😀 👩‍👩‍👧 b",
    "1 2 3.4 ½ ² ٣",
    "x" * 3_000,
    *TRAINED,
]


def both(texts):
    flat, offsets = TOKENIZER.encode_flat(pa.array(texts, pa.large_string()))
    assert flat.dtype == np.int32 and len(offsets) == len(texts) + 1
    ours = [flat[a:b].tolist() for a, b in itertools.pairwise(offsets)]
    return ours, [ids.tolist() for ids in TOKENIZER.encode(texts)]


def test_tricky_texts():
    ours, library = both(TRICKY * 2)
    assert ours == library


def test_no_texts():
    assert both([]) == ([], [])


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.just(" "))), max_size=8)
)
def test_any_texts(texts):
    ours, library = both(texts)
    assert ours == library


def test_parts_do_not_change_ids(monkeypatch):
    expected = both(TRICKY)
    monkeypatch.setattr(bpe, "_BATCH", 3)
    monkeypatch.setattr(bpe, "_CALL", 2)
    monkeypatch.setattr(bpe, "_WORDS", 4)
    assert both(TRICKY) == expected


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("pre_tokenizer", "add_prefix_space"), False),
        (("pre_tokenizer", "use_regex"), False),
        (("pre_tokenizer", "type"), "Whitespace"),
        (("normalizer",), {"type": "Lowercase"}),
        (("model", "dropout"), 0.1),
    ],
)
def test_other_tokenizers_are_told_apart(where, value):
    assert splits_at_blanks(TOKENIZER.serialized)
    changed = json.loads(TOKENIZER.serialized)
    place = changed
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    assert not splits_at_blanks(json.dumps(changed).encode())


def test_a_tokenizer_that_does_not_split_at_blanks_is_left_to_the_library():
    changed = json.loads(TOKENIZER.serialized)
    changed["pre_tokenizer"]["use_regex"] = False
    other = bpe.Tokenizer(json.dumps(changed).encode())
    flat, _ = other.encode_flat(pa.array(["red pen red pen"], pa.large_string()))
    assert flat.tolist() == other.encode(["red pen red pen"])[0].tolist()
