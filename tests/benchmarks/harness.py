"""What every benchmark shares: interleaved processes, environments of peers, calibration, records.

A benchmark is a script here, `python tests/benchmarks/NAME.py` from the repository root. It runs
our side and its peer, or a limit, as fresh processes in turn, so that whatever else the machine is
doing meets both alike, and prints one JSON line with their ratio.
"""

import argparse
import datetime
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results" / "benchmarks"
REQUIRED = tuple("benchmark metric ours peer peer_name ratio reach device".split())


def options(description: str) -> argparse.ArgumentParser:
    """The arguments every benchmark takes; a benchmark adds its own."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=5, help="fresh processes of each side")
    parser.add_argument("--record", action="store_true", help=f"append to {RESULTS.name}/*.jsonl")
    return parser


def interleaved(sides: dict[str, list[str]], rounds: int = 5) -> dict[str, list[dict[str, Any]]]:
    """Runs every side in turn (A B A B ...), each time as a fresh process.

    Args:
        sides: name -> argv of a process whose last line of output is one JSON object.
        rounds: processes of each side.

    Returns:
        name -> what its processes printed, in order.

    Raises:
        RuntimeError: a process failed or printed no such line; has the end of its stderr.
    """
    printed: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, argv in sides.items():
            printed[name].append(_run(name, argv))
    return printed


def _run(name: str, argv: list[str]) -> dict[str, Any]:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name}: exit code {done.returncode}: {_tail(done.stderr)}")
    try:
        result = json.loads((done.stdout.strip().splitlines() or [""])[-1])
    except json.JSONDecodeError:
        result = None
    if not isinstance(result, dict):
        raise RuntimeError(
            f"{name}: the last line of its output is no JSON object: {_tail(done.stdout)!r};"
            f" stderr: {_tail(done.stderr)}"
        )
    return result


def _tail(text: str, characters: int = 2_000) -> str:
    return text.strip()[-characters:]


def peer_python(name: str = "torch") -> str:
    """The interpreter that has a peer's packages; its environment is made on first use.

    The environment variable CLUE_BENCH_PYTHON names another interpreter to use instead.
    """
    given = os.environ.get("CLUE_BENCH_PYTHON")
    if given:
        return given
    requirements = Path(__file__).parent / f"requirements-{name}.txt"
    folder = ROOT / f".venv-bench-{name}"
    python, installed = folder / "bin" / "python", folder / "installed.txt"
    # Written last, so an installation that was cut short or is out of date is made again.
    if not installed.is_file() or installed.read_text() != requirements.read_text():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "-q", "-r", str(requirements)]
        subprocess.run(install, check=True, stdout=sys.stderr)
        installed.write_text(requirements.read_text())
    return str(python)


def summary(values: Sequence[float]) -> tuple[float, float]:
    """Median, and spread: (largest - smallest) / median."""
    median = statistics.median(values)
    return median, (max(values) - min(values)) / median


def median_bounds(values: Sequence[float]) -> tuple[float, float]:
    """Values between which the median of all that could be measured lies, 95 times of 100.

    By the sign test, so whatever the distribution is; fewer than six values are all that is known.
    """
    count, ordered = len(values), sorted(values)
    below = [sum(math.comb(count, k) for k in range(n + 1)) / 2**count for n in range(count // 2)]
    left_out = sum(tail <= 0.025 for tail in below)
    return ordered[max(0, left_out - 1)], ordered[min(count - 1, count - left_out)]


def emit(record: bool, **fields: Any) -> None:
    """Prints one JSON line, and with `record` appends it to RESULTS/<benchmark>.jsonl.

    Args:
        record: whether to append.
        **fields: `benchmark`, `metric`, `ours`, `peer`, `peer_name`, `ratio`, `reach`, and any
            more; `device`, `revision` and `date` are filled in unless given.

    Raises:
        ValueError: a field is missing.
    """
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    line = {"revision": revision(), "date": date, **fields}
    if "device" not in line:
        # Asking JAX may claim an accelerator's memory: only now, when all processes have ended.
        line["device"] = device_name()
    missing = [name for name in REQUIRED if name not in line]
    if missing:
        raise ValueError(f"a benchmark's line needs {', '.join(missing)} as well")
    text = json.dumps({name: line[name] for name in REQUIRED} | line)
    print(text, flush=True)
    if record:
        RESULTS.mkdir(parents=True, exist_ok=True)
        with (RESULTS / f"{line['benchmark']}.jsonl").open("a") as file:
            file.write(text + "\n")


def emit_medians(
    options: argparse.Namespace, ours: Sequence[float], peer: Sequence[float], **fields: Any
) -> None:
    """Emits the medians of both sides' rounds, their ratio and their spreads."""
    (ours_median, spread), (peer_median, spread_peer) = summary(ours), summary(peer)
    emit(
        options.record,
        ours=ours_median,
        peer=peer_median,
        ratio=ours_median / peer_median,
        spread_ours=spread,
        spread_peer=spread_peer,
        rounds=options.rounds,
        **fields,
    )


def revision() -> str:
    """Short hash of the commit, with -dirty when the checkout differs; results do not count."""
    commit = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--", ".", ":(exclude)docs/results")
    return f"{commit}{'-dirty' if changed else ''}" if commit else "unknown"


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()


def device_name() -> str:
    """Kind of the first JAX device, on CPU with its model and number of logical cores."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return ", ".join([device.device_kind, *models[:1], f"{os.cpu_count()} cores"])


def matmul_rate(dtype: str, repeats: int = 5) -> float:
    """FLOP/s of one large matmul in JAX, the best of some: what this machine gives right now.

    The calibration beside a time. Accelerators need a larger matrix to be busy at all, and CPUs
    reach their rate in bfloat16 only when they sum in float32, as the encoder does.
    """
    size = 2_048 if jax.default_backend() == "cpu" else 8_192
    a = jnp.ones((size, size), dtype)
    multiply = jax.jit(partial(jnp.matmul, preferred_element_type=jnp.float32))
    multiply(a, a).block_until_ready()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        multiply(a, a).block_until_ready()
        seconds.append(time.perf_counter() - started)
    return 2.0 * size**3 / min(seconds)
