"""CPU with 8 emulated devices for every test, set before anything imports jax."""

import atexit
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest

assert "jax" not in sys.modules, "jax was imported before tests/conftest.py could configure it"

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
_DEVICES = "--xla_force_host_platform_device_count=8"
if _DEVICES not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}".strip()
# Run in the background of a shell, processes inherit that SIGINT is ignored; theirs must not be.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # likewise under nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Many tests and the processes they start compile the same programs.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="clue_jax_compiled_")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

# Of jobs of several processes, which give each other up when they wait too long: never two at once.
_JOBS = {
    "exporting/test_share.py",
    "faults/test_interrupted_training.py",
    "launch/test_local.py",
    "losses/test_processes.py",
    "parallel/test_agreement.py",
    "parallel/test_processes.py",
    "test_object_store.py",
    "training/test_processes.py",
}


def pytest_collection_modifyitems(items):
    """With several workers (`-n 2 --dist loadgroup`) the tests of a file share theirs."""
    for item in items:
        file = item.path.relative_to(Path(__file__).parent).as_posix()
        item.add_marker(pytest.mark.xdist_group("jobs" if file in _JOBS else file))


@pytest.fixture(scope="session")
def smoke_data(tmp_path_factory):
    """A prepared dataset of 200 synthetic users."""
    from tests.stages import run_stage

    folder = tmp_path_factory.mktemp("smoke")
    logs, data = folder / "logs", folder / "data"
    run_stage("synthesize", "--config=configs/synthesize.py:smoke", f"--out={logs}")
    run_stage(
        "prepare",
        "--config=configs/data/synthetic.py:smoke",
        f"--config.source={logs}",
        f"--out={data}",
    )
    return data


@pytest.fixture(scope="session")
def second_data(smoke_data, tmp_path_factory):
    """Other users, on other services, prepared with the tokenizer of the first dataset."""
    from tests.stages import run_stage

    folder = tmp_path_factory.mktemp("second")
    logs, data = folder / "logs", folder / "data"
    run_stage(
        "synthesize",
        "--config=configs/synthesize.py:smoke",
        "--config.seed=5",
        "--config.services=shop,news,books",
        f"--out={logs}",
    )
    run_stage(
        "prepare",
        "--config=configs/data/synthetic.py:smoke",
        f"--config.source={logs}",
        "--config.sources[0].path=books/part-*.parquet",
        "--config.sources[0].service=books",
        f"--config.tokenizer.path={smoke_data}/tokenizer.json",
        f"--out={data}",
    )
    return data


@pytest.fixture(scope="session")
def smoke_run(smoke_data, tmp_path_factory):
    """A finished run of 20 steps on it, with checkpoints of steps 15 and 20 and the best one."""
    from tests.stages import run_stage, train_arguments

    workdir = tmp_path_factory.mktemp("smoke") / "run"
    run_stage("train", *train_arguments(smoke_data, workdir))
    return workdir


@pytest.fixture(scope="session")
def company_logs(tmp_path_factory):
    """Logs of 200 people on services of other names, items and words than `smoke_data`."""
    from tests.company import synthesize_company

    return synthesize_company(tmp_path_factory.mktemp("company") / "logs")
