"""Texts of too few people are in no file of a dataset, and are counted."""

import collections
import dataclasses

import pytest

from clue_jax.config import PrepareConfig, SourceConfig, SplitConfig, TokenizerConfig
from clue_jax.data.prepare import prepare
from clue_jax.data.source import open_dataset
from clue_jax.errors import ConfigError, DataError
from tests.data.test_erase import contents
from tests.faults.logs import write

USERS = 60
RULE = "behaviours on items below min_item_users"


def rows():
    """Of each user one text of their own, of each pair one of the two, and some of many."""
    for user in range(USERS):
        texts = [f"ownword{user:03d} x", f"pairword{user // 2:03d} y", f"common {user % 5}"]
        texts += [f"ownword{user:03d} x"] * 2  # often said, and still one person's
        for n, text in enumerate(texts):
            yield f"u{user}", 1_600_000_000 + user + 100 * n, text


@pytest.fixture
def config(tmp_path):
    for service in ("shop", "news"):
        write(tmp_path / "logs" / f"{service}.csv", list(rows()))
    return PrepareConfig(
        source=str(tmp_path / "logs"),
        sources=tuple(SourceConfig(path=f"{s}*", service=s) for s in ("shop", "news")),
        split=SplitConfig(validation=0.2, test=0.2),
        tokenizer=TokenizerConfig(vocab_size=600),
    )


def prepared(config, out, **settings):
    prepare(dataclasses.replace(config, **settings), str(out))
    return open_dataset(out)


def users_of_items(dataset):
    counts = collections.Counter()
    for split in dataset.manifest["splits"]:
        counts.update(dataset.users(split).item_ids.tolist())
    return counts


@pytest.mark.parametrize("processes", [1, 3])
def test_what_too_few_share_is_nowhere(config, tmp_path, processes):
    whole = prepared(config, tmp_path / "whole")
    assert min(users_of_items(whole).values()) == 1  # the control
    assert b"ownword007" in contents(tmp_path / "whole") and not whole.manifest["dropped"]
    for least, gone, stays in ((2, ["ownword"], ["pairword"]), (3, ["ownword", "pairword"], [])):
        folder = tmp_path / f"{least}"
        some = prepared(config, folder, min_item_users=least, processes=processes)
        found = users_of_items(some)
        expected = {i: n for i, n in users_of_items(whole).items() if n >= least}
        assert found == expected and set(some.items().item_ids.tolist()) == set(expected)
        written = contents(folder)
        assert not [word for word in gone if word.encode() in written]
        assert all(word.encode() in written for word in stays)
        assert some.manifest["dropped"] == {RULE: 2 * USERS * {2: 3, 3: 4}[least]}


def test_counts_in_many_ranges_are_those_of_one(config, tmp_path, monkeypatch):
    one = prepared(config, tmp_path / "one", min_item_users=2)
    monkeypatch.setattr("clue_jax.data.grouping._RANGE_ROWS", 40)
    several = prepared(config, tmp_path / "several", min_item_users=2)
    assert one.fingerprint == several.fingerprint


def test_other_rules_come_after(config, tmp_path):
    # Two behaviours on what many share are left of each user.
    kept = prepared(config, tmp_path / "kept", min_item_users=3, min_behaviours=2)
    assert sum(split["users"] for split in kept.manifest["splits"].values()) == USERS
    with pytest.raises(DataError, match="no user of 0 is in the training split"):
        prepared(config, tmp_path / "none", min_item_users=3, min_behaviours=3)


def test_it_is_refused_where_it_cannot_be_had(config, tmp_path):
    with pytest.raises(ConfigError, match="min_item_users: 0 must be at least 1"):
        prepared(config, tmp_path / "none", min_item_users=0)
    engine = pytest.importorskip("clue_jax.data.beam.engine")
    with pytest.raises(ConfigError, match="min_item_users: 5, but .* without --beam alone"):
        engine.prepare_on_beam(dataclasses.replace(config, min_item_users=5), "out", ["--x"])


def test_nothing_shared_at_all(config, tmp_path):
    with pytest.raises(DataError, match="no user of 0 is in the training split"):
        prepared(config, tmp_path / "none", min_item_users=10_000)
