"""Stages run as a person would: in this process for speed, or as real processes to be killed."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from clue_jax import cli

ROOT = Path(__file__).parents[1]


def run_stage(stage, *arguments, code=0):
    """Runs a stage in this process and checks its exit code."""
    before = Path.cwd()
    os.chdir(ROOT)
    try:
        assert cli.main([stage, *arguments]) == code
    finally:
        os.chdir(before)


def train_arguments(data, workdir, *overrides, variant="smoke"):
    return [
        f"--config=configs/pretrain.py:{variant}",
        f"--data={data}",
        f"--workdir={workdir}",
        *overrides,
    ]


def start(stage, *arguments, devices=1):
    """Starts a stage as a process of its own; its output is one text stream."""
    return start_module("clue_jax", stage, *arguments, devices=devices)


def start_module(module, *arguments, devices=1, **environment):
    """Starts a module of Python as a process of its own."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-u", "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_job(count, module, *arguments, devices=1, **environment):
    """Starts processes of one job, that find each other through a port that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    return [
        start_module(
            module,
            *arguments,
            devices=devices,
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES=str(count),
            JAX_PROCESS_ID=str(number),
            **environment,
        )
        for number in range(count)
    ]


def finish_job(processes, code=0, seconds=300):
    """The outputs of the processes of a job, once all have ended with this code."""
    try:
        return [finish(process, code, seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()


def finish(process, code=0, seconds=300):
    """The output of a process once it has ended with this code."""
    output, _ = process.communicate(timeout=seconds)
    assert process.returncode == code, output
    return output


def wait_until(happened, process, seconds=240):
    """Waits for progress that a process makes; fails when it ends first."""
    limit = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < limit, "no progress"
        time.sleep(0.02)


def children(pid):
    """The processes that a process has started."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return {int(child) for child in found.split()}


def rows(workdir):
    """metrics.jsonl of a run, without what only says how fast it was."""
    timing = {"time", "data_wait", "step_seconds", "goodput", "restarts"}
    timing |= {"users_per_second", "tokens_per_second", "flops_per_second"}
    lines = (Path(workdir) / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in timing} for line in lines]
