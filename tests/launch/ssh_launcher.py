"""A launcher that runs a small training on the nodes of ssh_nodes.py, and how far that is."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from clue_jax.buckets import checkpoint_steps
from tests.launch.ssh_nodes import NODES, USER, Nodes, done, until
from tests.release_check import PIPELINE

ROOT = Path(__file__).parents[2]
NAME = "ssh-check"
JOB = (
    *(f"--hosts={USER}@{node}" for node in NODES),
    *(f"--name={NAME}", "--nodes=2", "--accelerator=gpu:1", "--environment=JAX_PLATFORMS=cpu"),
)
# Nothing is saved but when a stage is told to stop, or has come to its end.
STEPS, ROWS_EACH = 300, 5
OVERRIDES = (
    *(f"--config.train.steps={STEPS}", f"--config.train.log_every={ROWS_EACH}"),
    *("--config.train.eval_every=0", f"--config.checkpoint.every_steps={STEPS}"),
)
FOR_EVER = "--config.train.steps=1000000"
OLDER = "numpy==2.4.5"


class Launcher:
    """`python -m launch gpu` in its own namespace, and what it has said so far."""

    def __init__(self, nodes: Nodes, verb: str, *words: str) -> None:
        self.log = nodes.folder / "launcher" / f"{time.monotonic_ns()}.log"
        kept = {name: value for name, value in os.environ.items() if name != "SSH_AUTH_SOCK"}
        argv = nodes.inside("launcher", [sys.executable, "-m", "launch", "gpu", verb, *words])
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                argv, cwd=ROOT, env=kept, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def ended(self, code: int, seconds: float = 300) -> str:
        """What it said, once it has ended with this code."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        found = self.process.poll()
        assert found == code, f"exit code {found}, not {code}, after {seconds:g} s:\n{self.said()}"
        return self.said()

    def lost(self) -> tuple[float, str]:
        """How long it took to end with 7 from now on, and what it said."""
        began = time.monotonic()
        said = self.ended(7, 150)
        return time.monotonic() - began, said

    def comes_to(self, happened: Callable[[], object], what: str, seconds: float = 300) -> float:
        """Waits for something that it brings about; how long that took."""

        def looked() -> object:
            ended = self.process.poll()
            assert ended is None, f"ended with {ended} before {what}:\n{self.said()}"
            return happened()

        try:
            return until(looked, seconds, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.said()}") from None


class Trainings:
    """Trainings by `python -m launch gpu` on the nodes, of data that are made first."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes, self.data = nodes, nodes.shared / "data"

    def prepare(self) -> None:
        for command in PIPELINE[:2]:
            words = command.replace("=logs", f"={self.nodes.shared}/logs").split()
            words = [word.replace("=data", f"={self.data}") for word in words]
            done(sys.executable, "-m", "clue_jax", *words)

    def stage(self, workdir: Path, *more: str) -> list[str]:
        config = ("train", "--config=configs/pretrain.py:smoke", f"--data={self.data}")
        return [*config, f"--workdir={workdir}", *OVERRIDES, *more]

    def launch(self, workdir: Path, *more: str, verb: str = "run") -> Launcher:
        return Launcher(self.nodes, verb, *JOB, "--", *self.stage(workdir, *more))

    def trains(self, launcher: Launcher, workdir: Path) -> None:
        """Waits until this attempt has come further than the one before."""
        before = len(lines_of(workdir))
        launcher.comes_to(lambda: len(lines_of(workdir)) > before + 2, f"{workdir} grows")

    def empty(self, seconds: float = 60) -> float:
        """Waits until nothing is left on the nodes; how long that took."""
        with contextlib.suppress(AssertionError):
            return until(lambda: not self.left(), seconds, "")
        raise AssertionError(f"left on the nodes after {seconds:g} s: {self.left()}")

    def left(self) -> dict[str, dict[int, str]]:
        """What runs on the nodes that have anything running."""
        return {node: found for node in NODES if (found := self.nodes.running(node))}


def lines_of(workdir: Path) -> list[str]:
    path = workdir / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def saved_step(workdir: Path) -> int:
    folder = workdir / "checkpoints"
    return max(checkpoint_steps(folder), default=0) if folder.is_dir() else 0


def wheels_in(folder: Path) -> Path:
    """What nodes install, downloaded where it is not there; and one package older than tested."""
    if not any(folder.glob("jax_cuda13_plugin-*")):
        folder.mkdir(parents=True, exist_ok=True)
        pip = (sys.executable, "-m", "pip", "download", "-q", "-d", str(folder))
        done(*pip, "-c", str(ROOT / "constraints.txt"), f"{ROOT}[gpu]", "setuptools")
        done(*pip, "--no-deps", OLDER)
        for own in folder.glob("clue_jax-*"):  # which nodes get from the launcher alone
            own.unlink()
    return folder
