"""Datasets and exports on a real S3 server, by the client library that a user would install.

Server and client are installed into a folder of their own, which only the processes here see.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INSTALLED = ("s3fs==2026.9.0", "moto[s3]==5.2.5", "flask==3.1.3", "flask-cors==6.0.5")
PATIENCE = 60.0  # seconds until the server answers

# In one process, so that the libraries are loaded once.
STAGES = """
import sys
from clue_jax.cli import main
from clue_jax.errors import StorageError

bucket, logs, run = sys.argv[1:]
data, users = f"--data={bucket}/data", f"{bucket}/users"
prepare = ["prepare", "--config=configs/data/synthetic.py:smoke", f"--config.source={logs}"]
train = ["train", "--config=configs/pretrain.py:smoke", data, "--config.train.steps=5"]
workdir, refused = f"--workdir={run}", StorageError.exit_code
for stage in (
    [*prepare, f"--out={bucket}/data"],
    [*train, workdir],
    ["export", workdir, data, f"--out={users}"],
    ["embeddings", "verify", users],
):
    assert main(stage) == 0, stage
# What is there is not written over, and a bucket that is not there is not made.
assert main([*prepare, f"--out={bucket}/data"]) == refused
assert main([*prepare, "--out=s3://no-such-bucket/data"]) == refused
"""
LISTING = """
import s3fs
store = s3fs.S3FileSystem()
assert not store.exists("no-such-bucket")
print("\\n".join(store.find("bucket")))
"""


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    """A folder with the server and the client."""
    folder = tmp_path_factory.mktemp("s3") / "libraries"
    command = [sys.executable, "-m", "pip", "install", "--quiet", f"--target={folder}"]
    done = subprocess.run([*command, *INSTALLED], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"the package registry gave no {', '.join(INSTALLED)}: {done.stderr[-300:]}")
    return folder


@pytest.fixture(scope="module")
def surroundings(libraries):
    """Environment of processes that see an S3 server with one empty bucket."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = dict(
        os.environ,
        PYTHONPATH=f"{libraries}{os.pathsep}{ROOT}",
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}",
        AWS_ACCESS_KEY_ID="nobody",
        AWS_SECRET_ACCESS_KEY="nothing",
        AWS_DEFAULT_REGION="us-east-1",
    )
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env=found,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + PATIENCE
        while not answers(port):
            assert time.monotonic() < until and server.poll() is None, "the server did not start"
            time.sleep(0.2)
        ran("import s3fs; s3fs.S3FileSystem().mkdir('bucket')", found)
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


def test_a_dataset_and_an_export_live_in_a_bucket(surroundings, smoke_data, tmp_path):
    logs = smoke_data.parent / "logs"
    ran(STAGES, surroundings, "s3://bucket", logs, tmp_path / "run")
    names = ran(LISTING, surroundings).splitlines()
    there = {name.removeprefix("bucket/data/") for name in names if name.startswith("bucket/data/")}
    here = {str(path.relative_to(smoke_data)) for path in smoke_data.rglob("*") if path.is_file()}
    assert there == here
    assert "bucket/users/manifest.json" in names
    assert not [name for name in names if ".partial" in name or name.endswith(".lock")]
