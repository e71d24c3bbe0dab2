"""Tables of an export carry what went in, and null where a user lacks a service."""

import datetime

import numpy as np
import pyarrow as pa
import pytest

from clue_jax.embeddings import schema, vectors
from clue_jax.errors import ConfigError, DataError
from tests.embeddings.exports import random_users, unit


def test_user_table_round_trips():
    users = random_users(20)
    table = schema.user_table(**users)
    assert table.schema == schema.user_schema(users["services"], 8)
    for s, service in enumerate(users["services"]):
        z_NE, present_N = vectors.matrix(table, f"embedding_{service}")
        assert np.array_equal(present_N, users["counts_NS"][:, s] > 0)
        assert not present_N.all(), "some must lack a service for this test to mean anything"
        assert np.array_equal(z_NE, users["z_NSE"][:, s] * present_N[:, None])
        assert table.column(f"embedding_{service}").null_count == (~present_N).sum()
        for name, expected_NS in (("behaviours", "counts_NS"), ("tokens", "tokens_NS")):
            found = table.column(f"num_{name}_{service}").to_pylist()
            assert found == users[expected_NS][:, s].tolist()
    assert table.column("services").to_pylist() == [
        [service for service, count in zip(users["services"], counts, strict=True) if count]
        for counts in users["counts_NS"].tolist()
    ]
    assert table.column("truncated").to_pylist() == users["truncated_N"].tolist()
    assert 0 < sum(users["truncated_N"]) < 20


def test_a_pyarrow_that_cannot_read_nulls_is_refused(monkeypatch):
    monkeypatch.setattr(pa, "__version__", "25.0.1")
    with pytest.raises(ConfigError, match=r"pyarrow 25\.0\.1: embeddings need 26 or newer"):
        schema.user_schema(("shop",), 8)


def test_times_are_utc_and_absent_without_dates():
    users = random_users(3, first_N=np.array([0, 86_400, 2**31]))
    table = schema.user_table(**users)
    assert table.column("first_event_at")[1].as_py() == datetime.datetime(
        1970, 1, 2, tzinfo=datetime.UTC
    )
    assert table.column("event_timestamp").null_count == 3


def test_item_ids_keep_their_bits():
    identities = np.array([1, 2**63, 2**64 - 1], np.uint64)
    table = schema.item_table(
        item_ids=identities,
        source_ids=np.array(["a", "", "c"], object),
        services=np.array(["art"] * 3, object),
        embedding_JE=unit(np.ones((3, 4))),
        model_version="m",
    )
    assert np.array_equal(table.column("item_id").to_numpy().view(np.uint64), identities)
    assert table.schema == schema.item_schema(4)


def test_an_empty_table_has_the_same_schema():
    table = schema.user_table(**random_users(0))
    assert len(table) == 0 and table.schema == schema.user_schema(("art", "office"), 8)
    assert vectors.matrix(table, "embedding")[0].shape == (0, 8)


def test_a_column_that_is_no_vector_is_refused():
    with pytest.raises(DataError, match="'x' is int64"):
        vectors.matrix(pa.table({"x": [1, 2]}), "x")
