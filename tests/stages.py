"""Stages run as a person would: in this process for speed, or as real processes to be killed."""

import json
import os
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
    flags = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "clue_jax", stage, *arguments],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


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


def rows(workdir):
    """metrics.jsonl of a run, without what only says how fast it was."""
    timing = {"time", "data_wait", "users_per_second", "tokens_per_second", "flops_per_second"}
    lines = (Path(workdir) / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in timing} for line in lines]
