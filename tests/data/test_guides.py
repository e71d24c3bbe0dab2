"""Guides of services that came after the tokenizer: kept by all datasets, never given twice."""

import dataclasses
import json
import pickle

import numpy as np
import pytest
from etils import epath

from clue_jax.config import NewServices, TokenizerConfig
from clue_jax.data import tokenizer as bpe
from clue_jax.data.guides import clash, given_tokenizer, guide_services, guides_of
from clue_jax.data.prepare import prepare
from clue_jax.data.source import open_dataset
from clue_jax.errors import ConfigError, DataError
from tests.data.test_prepare import config_for, write_logs

RESERVED = range(bpe.GENERIC_GUIDE + 1, bpe.FIRST_SERVICE_GUIDE)


@pytest.fixture(scope="module")
def tokenizer():
    return bpe.train(["red pen", "blue pen"], ("shop", "news"), vocab_size=340)


@pytest.fixture(scope="module")
def company(tmp_path_factory):
    """Logs, and the dataset of a company with services `shop` and `news`."""
    folder = epath.Path(tmp_path_factory.mktemp("company"))
    write_logs(folder / "logs")
    prepare(config_for(folder / "logs"), str(folder / "data"))
    return folder


def prepared(company, out, names, path, new=NewServices.RESERVED):
    """The same logs as if of a company that calls its services by these names."""
    config = config_for(company / "logs", tokenizer=TokenizerConfig(str(path), new))
    sources = zip(config.sources, names, strict=True)
    config.sources = tuple(dataclasses.replace(s, service=name) for s, name in sources)
    prepare(config, str(out))
    return open_dataset(out)


def first_tokens(dataset):
    """Service -> first token of each of its items in the records."""
    users, items = dataset.users("train"), dataset.items()
    services = items.services[items.lookup(users.item_ids)]
    firsts = users.tokens[users.token_offsets[:-1]]
    return {s: set(firsts[services == s].tolist()) for s in dataset.services}


def test_guides_are_all_tokens_before_the_bytes(tokenizer):
    assert tokenizer.guides == range(1, bpe.FIRST_SERVICE_GUIDE + 2)
    assert tokenizer.guide("shop") in tokenizer.guides
    assert min(np.concatenate(tokenizer.encode(["!", "red", "<service:x>"]))) == 68


def test_a_new_service_gets_the_lowest_free_guide_in_order_of_names(tokenizer):
    services = ("web", "shop", "app")
    assert guide_services(tokenizer, services, NewServices.GENERIC).guide("web") == 1
    guided = guide_services(tokenizer, services, NewServices.RESERVED)
    assert guides_of(guided, services) == {"app": 2, "web": 3, "shop": tokenizer.guide("shop")}
    assert guided.identity == tokenizer.identity
    later = guide_services(guided, ("bar", "web"), NewServices.RESERVED)
    assert later.reserved == {"app": 2, "web": 3, "bar": 4}


def test_other_processes_get_the_same_guides(tokenizer):
    guided = tokenizer.with_reserved({"web": 2})
    for sent in (guided, tokenizer, tokenizer.with_reserved({"web": 3})):
        got = pickle.loads(pickle.dumps(sent))
        assert (got.identity, got.reserved) == (sent.identity, sent.reserved)
    assert guided.guide("web") == 2 and tokenizer.guide("web") == bpe.GENERIC_GUIDE


def test_more_services_than_guides_are_refused_by_name(tokenizer):
    full = guide_services(tokenizer, [f"s{n:02}" for n in range(63)], NewServices.RESERVED)
    assert sorted(full.reserved.values()) == list(RESERVED)[:-1]
    assert guide_services(full, ("last",), NewServices.RESERVED).guide("last") == RESERVED[-1]
    with pytest.raises(
        ConfigError, match=r"new_services: 1 reserved guides .* left for very, zoo;"
    ):
        guide_services(full, ("zoo", "last", "shop", "very"), NewServices.RESERVED)


def test_clashes_are_told():
    assert clash({"a": 2, "b": 3}, {"b": 3, "c": 4}) == ""
    assert clash({"a": 2}, {"a": 3}) == "service 'a' has guide 2 and 3"
    assert clash({"a": 2}, {"b": 2}) == "guide 2 is of service 'a' and of 'b'"


def test_services_keep_their_guides_from_dataset_to_dataset(company, tmp_path, capsys):
    second = prepared(company, tmp_path / "second", ("shop", "web"), company / "data")
    assert "service 'web': not known to this tokenizer; it has reserved" in capsys.readouterr().out
    own = second.tokenizer.guide("shop")
    assert first_tokens(second) == {"shop": {own}, "web": {2}} and own > max(RESERVED)
    assert second.manifest["guides"] == {"web": 2}
    source = (company / "data" / "tokenizer.json").read_bytes()
    assert (tmp_path / "second" / "tokenizer.json").read_bytes() == source
    # Without asking for more, `web` still has its guide, whichever file of the dataset is named.
    file = tmp_path / "second" / "tokenizer.json"
    third = prepared(company, tmp_path / "third", ("app", "web"), file, NewServices.GENERIC)
    assert first_tokens(third) == {"app": {bpe.GENERIC_GUIDE}, "web": {2}}
    fourth = prepared(company, tmp_path / "fourth", ("app", "bar"), tmp_path / "third")
    assert fourth.manifest["guides"] == {"web": 2, "app": 3, "bar": 4}
    assert first_tokens(fourth) == {"app": {3}, "bar": {4}}


def test_guides_are_part_of_what_a_dataset_is(company, tmp_path):
    path = company / "data"
    generic = prepared(company, tmp_path / "one", ("app", "web"), path, NewServices.GENERIC)
    assert generic.manifest["guides"] == {}
    reserved = prepared(company, tmp_path / "two", ("app", "web"), path)
    assert reserved.fingerprint != generic.fingerprint
    file = tmp_path / "two" / "manifest.json"
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps(manifest | {"guides": {"app": 3, "web": 2}}))
    with pytest.raises(DataError, match="do not match its fingerprint"):
        open_dataset(tmp_path / "two")
    # Datasets that were made before there were any have none.
    del (old := dict(generic.manifest))["guides"]
    (tmp_path / "one" / "manifest.json").write_text(json.dumps(old))
    assert open_dataset(tmp_path / "one").fingerprint == generic.fingerprint


def test_what_has_no_tokenizer_is_refused_by_file(company, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"config\.tokenizer\.path: .*empty/tokenizer\.json: no"):
        prepared(company, tmp_path / "out", ("app", "web"), tmp_path / "empty")
    with pytest.raises(DataError, match=r"none: cannot be read"):
        given_tokenizer(tmp_path / "none")
    config = config_for(company / "logs", tokenizer=TokenizerConfig("", NewServices.RESERVED))
    with pytest.raises(ConfigError, match=r"config\.tokenizer\.new_services: a tokenizer trained"):
        prepare(config, str(tmp_path / "out"))


def test_items_that_a_tokenizer_cuts_are_told(company, tmp_path, capsys):
    config = config_for(company / "logs", tokenizer=TokenizerConfig(str(company / "data")))
    prepare(config, str(tmp_path / "whole"))
    assert "truncated" not in capsys.readouterr().out
    prepare(dataclasses.replace(config, max_item_tokens=2), str(tmp_path / "cut"))
    cut = open_dataset(tmp_path / "cut").manifest["truncated_items"]
    assert cut > 0 and f"truncated: {cut:,} of" in capsys.readouterr().out
