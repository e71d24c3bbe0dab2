"""Byte-level BPE: lossless, deterministic, and safe from texts that spell special tokens."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from clue_jax.data import tokenizer as bpe
from clue_jax.errors import ConfigError, DataError

TEXTS = ["red pen 5 in", "blue pen", "red pencil", "blue pencil case", "größe 漢字"] * 3
SERVICES = ("search", "shop")


@pytest.fixture(scope="module")
def tokenizer():
    return bpe.train(TEXTS, SERVICES, vocab_size=400)


def test_guides_follow_the_reserved_ones_in_the_order_of_services(tokenizer):
    first = 2 + bpe.RESERVED_GUIDES
    assert [tokenizer.guide(service) for service in SERVICES] == [first, first + 1]
    assert tokenizer.guide("never seen") == bpe.GENERIC_GUIDE


def test_the_vocabulary_is_as_large_as_asked_where_texts_suffice():
    tokenizer = bpe.train(TEXTS, SERVICES, vocab_size=340)
    assert tokenizer.vocab_size == 340
    ids = np.concatenate(tokenizer.encode(TEXTS))
    assert ids.dtype == np.int32
    assert ids.min() >= bpe.FIRST_SERVICE_GUIDE + len(SERVICES) and ids.max() < 340


@hypothesis.given(st.text(max_size=30))
@hypothesis.settings(max_examples=50, deadline=None)
def test_any_text_comes_back(text):
    tokenizer = bpe.train(TEXTS, SERVICES, vocab_size=400)
    assert tokenizer.decode(tokenizer.encode([text])[0]) == text.strip()


@pytest.mark.parametrize("hostile", ["<pad>", "a <guide> b", "<service:shop>", "<guide:3>"])
def test_a_text_that_spells_a_special_token_is_only_text(tokenizer, hostile):
    ids = tokenizer.encode([hostile])[0]
    assert ids.min() >= bpe.FIRST_SERVICE_GUIDE + len(SERVICES)
    assert tokenizer.decode(ids) == hostile


def test_a_word_is_the_same_token_anywhere(tokenizer):
    alone, inside = tokenizer.encode(["pencil", "red pencil"])
    assert list(inside[-len(alone) :]) == list(alone)


def test_training_again_gives_the_same_bytes(tokenizer):
    again = bpe.train(list(TEXTS), SERVICES, vocab_size=400)
    assert again.serialized == tokenizer.serialized
    other = bpe.train([*TEXTS, "green ruler ruler"], SERVICES, vocab_size=400)
    assert other.identity != tokenizer.identity


def test_saving_and_loading_keep_identity_and_safety(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = bpe.load(tmp_path / "tokenizer.json")
    assert loaded.identity == tokenizer.identity
    for one, other in zip(
        loaded.encode(["<pad> red"]), tokenizer.encode(["<pad> red"]), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_vocabulary_too_small_for_the_bytes_is_refused():
    with pytest.raises(ConfigError, match=r"vocab_size: 300 is too small.*324"):
        bpe.train(TEXTS, SERVICES, vocab_size=300)


def test_files_that_are_no_tokenizer_of_ours_are_refused(tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(DataError, match="cannot be read"):
        bpe.load(path)
    path.write_text("{")
    with pytest.raises(DataError, match="not a tokenizer.json"):
        bpe.load(path)
    foreign = bpe.tokenizers.Tokenizer(bpe.models.BPE())
    path.write_text(foreign.to_str())
    with pytest.raises(DataError, match="token 0 is None"):
        bpe.load(path)
