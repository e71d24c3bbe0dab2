"""Datasets, runs and exports on servers of S3 and Cloud Storage, by a user's own clients.

Servers and clients are installed into folders of their own, which only the processes here see.
"""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clue_jax.data.source import open_dataset
from clue_jax.training.parameters import model_versions
from tests.stages import finish_job, rows, start_job, train_arguments

ROOT = Path(__file__).parents[1]
PATIENCE = 60.0  # seconds until the server answers
S3_SERVER = """
import sys
from moto.server import main

main(["-H", "127.0.0.1", "-p", sys.argv[1]])
"""
# The emulator lacks one call that the client makes.
GCS_SERVER = r"""
import sys
from gcp_storage_emulator import server
from gcp_storage_emulator.handlers import objects

def move(request, response, storage, *rest, **more):
    request.params["dest_bucket_name"] = request.params["bucket_name"]
    objects.copy(request, response, storage)
    objects.delete(request, response, storage)

FROM = r"^/storage/v1/b/(?P<bucket_name>[-.\w]+)/o/(?P<object_id>.+)"
PATH = FROM + r"/moveTo/o/(?P<dest_object_id>.+)$"
server.HANDLERS = ((PATH, {"POST": move}), *server.HANDLERS)
server.create_server("127.0.0.1", int(sys.argv[1]), in_memory=True).run()
"""


@dataclasses.dataclass(frozen=True)
class Store:
    """A server from the package registry, and how its client is told of it."""

    scheme: str
    client: str  # fsspec class
    installed: tuple[str, ...]
    server: str
    environment: dict[str, str]  # with {port}


STORES = (
    Store(
        "s3",
        "s3fs.S3FileSystem",
        ("s3fs==2026.9.0", "moto[s3]==5.2.5", "flask==3.1.3", "flask-cors==6.0.5"),
        S3_SERVER,
        {
            "AWS_ENDPOINT_URL": "http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_DEFAULT_REGION": "us-east-1",
        },
    ),
    Store(
        "gs",
        "gcsfs.GCSFileSystem",
        ("gcsfs==2026.10.1", "gcp-storage-emulator==2026.7.19"),
        GCS_SERVER,
        {
            "STORAGE_EMULATOR_HOST": "http://127.0.0.1:{port}",
            "GOOGLE_CLOUD_PROJECT": "nothing",
            "NO_GCE_CHECK": "true",
            "TENSORSTORE_GCS_HTTP_URL": "http://127.0.0.1:{port}",
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "nothing",
        },
    ),
)

# Dies at the last moment: all of a checkpoint is there but for what says so.
DYING = """
import os, signal, sys
import {module}
from clue_jax.cli import main

opened = {client}.open

def dies(store, path, *rest, **more):
    if str(path).endswith("run/checkpoints/10/commit_success.txt"):
        os.kill(os.getpid(), signal.SIGKILL)
    return opened(store, path, *rest, **more)

{client}.open = dies
main(sys.argv[1:])
"""
# In one process, so that the libraries are loaded once.
STAGES = """
import sys
from clue_jax.cli import main
from clue_jax.errors import StorageError

bucket, logs, ids = sys.argv[1:]
data, users = f"--data={bucket}/data", f"{bucket}/users"
prepare = ["prepare", "--config=configs/data/synthetic.py:smoke", f"--config.source={logs}"]
workdir, refused = f"--workdir={bucket}/run", StorageError.exit_code
erase = ["erase", f"--ids={ids}"]
for stage in (
    [*prepare, f"--out={bucket}/data"],
    ["train", "--config=configs/pretrain.py:smoke", data, workdir],
    ["report", f"{bucket}/run"],
    ["export", workdir, data, f"--out={users}"],
    ["embeddings", "verify", users],
    [*erase, data, f"--embeddings={users}", workdir, f"--record={bucket}/record.json"],
    ["embeddings", "verify", users],
):
    assert main(stage) == 0, stage
# What is there is not written over, and a bucket that is not there is not made.
assert main([*prepare, f"--out={bucket}/data"]) == refused
assert main([*prepare, f"--out={bucket[:5]}no-such-bucket/data"]) == refused
"""
LISTING = """
import {module}
store = {client}()
assert not store.exists("no-such-bucket")
print("\\n".join(store.find("bucket")))
"""


@pytest.fixture(scope="module", params=STORES, ids=lambda store: store.scheme)
def store(request):
    return request.param


@pytest.fixture(scope="module")
def libraries(store, tmp_path_factory):
    """A folder with the server and the client."""
    folder = tmp_path_factory.mktemp(store.scheme) / "libraries"
    command = [sys.executable, "-m", "pip", "install", "--quiet", f"--target={folder}"]
    done = subprocess.run([*command, *store.installed], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        wanted = ", ".join(store.installed)
        pytest.skip(f"the package registry gave no {wanted}: {done.stderr[-300:]}")
    return folder


@pytest.fixture(scope="module")
def surroundings(store, libraries):
    """Environment of processes that see a server with one empty bucket."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {name: value.format(port=port) for name, value in store.environment.items()}
    found = {**os.environ, "PYTHONPATH": f"{libraries}{os.pathsep}{ROOT}", **told}
    server = subprocess.Popen(
        [sys.executable, "-c", store.server, str(port)],
        env=found,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + PATIENCE
        while not answers(port):
            assert time.monotonic() < until and server.poll() is None, "the server did not start"
            time.sleep(0.2)
        module = store.client.partition(".")[0]
        ran(f"import {module}; {store.client}().mkdir('bucket')", found)
        yield found
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def ran(code, environment, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def names_in(store, environment):
    """Every object of the bucket, without its name."""
    code = LISTING.format(module=store.client.partition(".")[0], client=store.client)
    return {name.removeprefix("bucket/") for name in ran(code, environment).splitlines()}


def fetched(store, environment, name, folder):
    module = store.client.partition(".")[0]
    code = f"import sys, {module}; {store.client}().get_file(*sys.argv[1:])"
    ran(code, environment, f"bucket/{name}", folder / Path(name).name)
    return folder / Path(name).name


def test_a_killed_run_a_dataset_and_an_export_live_in_a_bucket(
    store, surroundings, smoke_data, smoke_run, tmp_path
):
    bucket, module = f"{store.scheme}://bucket", store.client.partition(".")[0]
    dying = DYING.format(module=module, client=store.client)
    train = ["train", *train_arguments(smoke_data, f"{bucket}/run")]
    killed = subprocess.run(
        [sys.executable, "-c", dying, *train],
        env=surroundings,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    saved = {name for name in names_in(store, surroundings) if name.startswith("run/checkpoints")}
    assert "run/checkpoints/5/commit_success.txt" in saved
    assert "run/checkpoints/10/params/commit_success.txt" in saved
    assert "run/checkpoints/10/commit_success.txt" not in saved

    user = open_dataset(smoke_data).users("train").user_ids[5]
    (tmp_path / "ids.txt").write_text(user)
    said = ran(STAGES, surroundings, bucket, smoke_data.parent / "logs", tmp_path / "ids.txt")
    assert "continuing from the checkpoint of step 5\n" in said
    names = names_in(store, surroundings)
    there = {name.removeprefix("data/") for name in names if name.startswith("data/")}
    here = {str(path.relative_to(smoke_data)) for path in smoke_data.rglob("*") if path.is_file()}
    assert there == here | {"erasures.jsonl"}
    assert {"users/manifest.json", "record.json", "run/report.html", "run/card.md"} <= names
    assert not [name for name in names if ".partial" in name or name.endswith("lock")]
    # What the run came to is what it would have been on this disk, undisturbed.
    for name in ("run/metrics.jsonl", "record.json"):
        fetched(store, surroundings, name, tmp_path)
    assert rows(tmp_path) == rows(smoke_run)
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["models"][0]["versions"] == model_versions(smoke_run / "checkpoints")


def test_two_processes_keep_their_checkpoints_in_a_bucket(store, surroundings):
    """Halves of each; the best and the last stay, what is damaged or unfinished is not used."""
    folder = f"{store.scheme}://bucket/two/checkpoints"
    told = {name: value for name, value in surroundings.items() if os.environ.get(name) != value}
    both = start_job(2, "tests.training.two_in_a_bucket", folder, **told)
    for output in finish_job(both):
        assert "seen: [[2, 4, 5], 2, 2, True, [2, 4], 4]" in output
    names = {name for name in names_in(store, surroundings) if name.startswith("two/")}
    aside = {name.split("/")[2].partition("-")[0] for name in names if "quarantine" in name}
    assert aside == {"5"} and any(name.endswith("/reason.txt") for name in names)
    assert {name.split("/")[2] for name in names if "checkpoints" in name} == {"2", "4"}
