"""What Orbax is told of S3, without any server; tests/test_object_store.py has one."""

import types

import fsspec
import pytest
from orbax.checkpoint._src.serialization import tensorstore_utils

from clue_jax.training import checkpoint_storage
from clue_jax.training.checkpoint_storage import context_for, may_be_whole

BUILD = tensorstore_utils.build_kvstore_tspec
OTHER = {"endpoint": "http://127.0.0.1:9000", "aws_region": "us-east-1"}


@pytest.fixture
def client(monkeypatch):
    """A client of S3 that is told of a service by its own means; Orbax as it was afterwards."""
    meta = types.SimpleNamespace(endpoint_url=OTHER["endpoint"], region_name="us-east-1")
    connected = types.SimpleNamespace(s3=types.SimpleNamespace(meta=meta))
    monkeypatch.setattr(fsspec, "filesystem", lambda name: {"s3": connected}[name])
    monkeypatch.setattr(tensorstore_utils, "build_kvstore_tspec", BUILD)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    checkpoint_storage._show_orbax_the_way_to_s3.cache_clear()
    yield meta
    checkpoint_storage._show_orbax_the_way_to_s3.cache_clear()


def base(folder, **options):
    return tensorstore_utils.build_kvstore_tspec(folder, **options)["base"]


def test_arrays_go_to_the_service_that_files_go_to(client, tmp_path):
    before = [BUILD(where, use_ocdbt=True) for where in ("gs://b/run", str(tmp_path))]
    context_for("s3://b/run")
    context_for("s3://b/other")  # once is enough
    assert base("s3://b/run/5/params") == {
        "driver": "s3",
        "bucket": "b",
        "path": "run/5/params",
        **OTHER,
    }
    array = tensorstore_utils.build_kvstore_tspec("s3://b/run", name="w", use_ocdbt=False)
    assert (array["driver"], array["path"]) == ("s3", "run/w")
    after = [
        tensorstore_utils.build_kvstore_tspec(where, use_ocdbt=True)
        for where in ("gs://b/run", str(tmp_path))
    ]
    assert after == before


def test_layers_of_a_place_are_moved_too(client, tmp_path):
    aside = tensorstore_utils.OcdbtTemporaryMetadataContext(path=tmp_path)
    context_for("s3://b/run")
    layers = base("s3://b/run", ocdbt_temporary_metadata_context=aside)["layers"]
    assert layers[0]["base"] == {"driver": "s3", "bucket": "b", "path": "run/", **OTHER}
    assert layers[1]["base"] == f"file://{tmp_path}/"


@pytest.mark.parametrize(
    ("endpoint", "amazon"),
    [
        ("https://s3.amazonaws.com", True),
        ("https://s3.eu-west-1.amazonaws.com", True),
        ("https://s3.dualstack.us-east-2.amazonaws.com", True),
        ("https://s3.cn-north-1.amazonaws.com.cn", True),
        ("https://bucket.vpce-1a-2b.s3.us-east-1.vpce.amazonaws.com", False),
        ("https://storage.example.org", False),
    ],
)
def test_the_regions_of_amazon_are_found_by_tensorstore(client, endpoint, amazon):
    client.endpoint_url = endpoint
    context_for("s3://b/run")
    assert ("endpoint" in base("s3://b/run")) != amazon


def test_credentials_of_the_environment_are_taken_from_there(client, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    context_for("s3://b/run")
    assert base("s3://b/run")["aws_credentials"] == {"type": "environment"}


def raised_from(error, origin):
    error.__cause__ = origin
    return error


@pytest.mark.parametrize(
    ("problem", "whole"),
    [
        (KeyError("incompatible handler"), False),
        (raised_from(KeyError("incompatible handler"), PermissionError(13, "denied")), True),
        (raised_from(KeyError("incompatible handler"), ValueError("UNAVAILABLE: 503")), True),
        (raised_from(KeyError("incompatible handler"), FileNotFoundError(2, "none")), False),
        (None, False),
    ],
)
def test_what_the_storage_refused_is_not_held_for_damaged(problem, whole):
    assert may_be_whole(problem) == whole
