"""What Orbax is told of the place where checkpoints lie: a folder, gs://, or s3://.

TensorStore, by which Orbax writes arrays, has a driver for S3. Orbax 0.12 never asks for it: where
a path is none of gs:// it makes `file` of it, and refuses s3:/bucket as not absolute
(google/orbax#2739). All else that it does for gs:// it can do for S3 as well, when told to.
"""

from __future__ import annotations

import functools
import os
import re
from typing import Any

import fsspec
import jax
from etils import epath
from orbax.checkpoint import v1 as ocp

# Codes of storage services in messages of TensorStore: not allowed, or not now.
_STORAGE_SAYS = ("PERMISSION_DENIED", "UNAUTHENTICATED", "UNAVAILABLE", "DEADLINE_EXCEEDED")
_OF_ITS_FILES = FileNotFoundError | NotADirectoryError | IsADirectoryError
_S3, _GS = "s3://", "gs://"
_AMAZON = re.compile(r"https://s3(\.dualstack)?([.-][\w-]+)?\.amazonaws\.com(\.cn)?/?")


def context_for(directory: epath.PathLike) -> ocp.Context:
    """How Orbax is to write checkpoints in a directory, and to know which of them are whole.

    In S3 nothing can be renamed: a checkpoint is whole when `commit_success.txt`, which is written
    last, lies in it. In folders and in gs:// Orbax sees to that by itself.
    """
    context = ocp.Context()
    if str(directory).startswith(_S3):
        _show_orbax_the_way_to_s3()
        context.atomicity.mode = ocp.options.AtomicityMode.COMMIT_FILE
    return context


def context_by_itself(directory: epath.PathLike) -> ocp.Context:
    """In which this process reads what its devices need, and waits for no other.

    In Orbax's own way all wait for each other at the end of a read; where one had failed, the
    others would wait for minutes.
    """
    context, own = context_for(directory), jax.process_index()
    context.multiprocessing.primary_host = own
    context.multiprocessing.active_processes = {own}
    context.multiprocessing.barrier_sync_key_prefix = f"process{own}"
    return context


def may_be_whole(cause: BaseException | None) -> bool:
    """Whether a checkpoint could not be read for a reason that does not lie in its files."""
    while cause is not None:  # Orbax says "incompatible handler" of a file that it may not read
        if isinstance(cause, OSError) and not isinstance(cause, _OF_ITS_FILES):
            return True
        if any(word in str(cause) for word in _STORAGE_SAYS):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


@functools.cache
def _show_orbax_the_way_to_s3() -> None:
    """Lets Orbax's one function that says where arrays lie say it of s3:// as it does of gs://.

    There is no public setting for it. Paths that are none of s3:// go to it as before.
    """
    from orbax.checkpoint._src.serialization import tensorstore_utils

    build, driver = tensorstore_utils.build_kvstore_tspec, _s3_driver()

    def build_with_s3(directory: str, *names: Any, **options: Any) -> Any:
        if not directory.startswith(_S3):
            return build(directory, *names, **options)
        return _on_s3(build(directory.replace(_S3, _GS, 1), *names, **options), driver)

    tensorstore_utils.build_kvstore_tspec = build_with_s3


def _on_s3(spec: Any, driver: dict[str, Any]) -> Any:
    """A TensorStore spec in which every place in Cloud Storage is one in S3."""
    if isinstance(spec, list):
        return [_on_s3(one, driver) for one in spec]
    if not isinstance(spec, dict):
        return spec
    if spec.get("driver") in ("gcs", "gcs_grpc"):
        return {**driver, "bucket": spec["bucket"], "path": spec["path"]}
    return {key: _on_s3(value, driver) for key, value in spec.items()}


def _s3_driver() -> dict[str, Any]:
    """TensorStore's driver for the service that files go to.

    TensorStore looks for no endpoint, neither in the environment nor in ~/.aws/config; the client
    that files go through does. Of Amazon's own it finds the region of a bucket by itself.
    """
    driver: dict[str, Any] = {"driver": "s3"}
    client = fsspec.filesystem("s3").s3.meta
    if not _AMAZON.fullmatch(client.endpoint_url):
        driver |= {"endpoint": client.endpoint_url, "aws_region": client.region_name}
    # Else it complains on stderr of every place where it finds none before it looks there.
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        driver["aws_credentials"] = {"type": "environment"}
    return driver
