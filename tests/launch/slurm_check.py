"""Runs jobs by `python -m launch slurm` on a real SLURM, and disturbs them.

    python tests/launch/slurm_check.py [--only=run,drained]

The cluster is one of its own: two nodes that are two daemons on this machine, with accounting
(tests/launch/slurm_cluster.py). Needs root, and SLURM, munge and MariaDB of Debian. Jobs are
trainings of two processes, one on each node, on CPUs; they have to come to what `python -m launch
local` comes to. A line for each check; exits 1 with the names of those that failed, 2 where
something is not installed. 20 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from clue_jax.errors import EXIT_INTERRUPTED, ConfigError, DataError  # noqa: E402
from tests.launch.slurm_cluster import NODES, ask, cluster, what_is_missing  # noqa: E402
from tests.launch.slurm_jobs import Jobs, need  # noqa: E402
from tests.release_check import CheckFailedError, run_checks  # noqa: E402

LONGER = "--config.train.steps=1500"
AGAIN = ("REQUEUED|0:0", "COMPLETED|0:0")
NOT_IN_QUEUE_SECONDS = 20.0  # more than a job that goes back needs to be seen there


class Checks(Jobs):
    """Each check has jobs of its own name."""

    def run(self) -> str:
        said = self.launch("run", "run", code=0)
        need("run is on its way" in said, said)
        self.wait(lambda: self.history("run") == ["COMPLETED|0:0"], lambda: self.log("run"))
        return f"0, then COMPLETED; {self.same_rows('run')}"

    def supervise(self) -> str:
        with self.supervised("supervise", code=0):
            pass
        self.need_history("supervise", "COMPLETED|0:0")
        return f"COMPLETED, 0; {self.same_rows('supervise')}"

    def preempted(self) -> str:
        with self.supervised("preempted", code=0):
            self.wait_for_progress("preempted")
            ask(self.environment, "scancel", "--signal=TERM", "--name=preempted")
            self.wait_for_log("preempted", "SIGTERM: stopped at step")
            self.wait_for_log("preempted", "exit code 75: back into the queue")
        self.need_history("preempted", *AGAIN)
        return f"SIGTERM: saved, 75, REQUEUED, COMPLETED, 0; {self.same_rows('preempted')}"

    def out_of_time(self) -> str:
        """The time of a job is cut to that before its end in which SLURM warns it."""
        name = "out-of-time"
        with self.supervised(name, LONGER, code=0):  # SLURM looks every 30 s
            self.wait_for_progress(name)
            (number,) = self.queue("%A")
            ask(self.environment, "scontrol", "update", f"JobId={number}", "TimeLimit=3")
            self.wait_for_log(name, "exit code 75: back into the queue")
            ask(self.environment, "scontrol", "update", f"JobId={number}", "TimeLimit=60")
        self.need_history(name, *AGAIN)
        return "warned by SLURM: saved, 75, REQUEUED, COMPLETED, 0"

    def killed_on_the_first_node(self) -> str:
        return self._killed("killed-first", 0)

    def killed_on_the_second_node(self) -> str:
        return self._killed("killed-second", 1)

    def _killed(self, name: str, node: int) -> str:
        with self.supervised(name, code=0):
            self.wait_for_progress(name)
            stages = self.processes(
                f"SLURM_NODEID={node}\0", f"\0\0{sys.executable}\0-u\0-m\0clue_jax"
            )
            need(stages, f"no stage on {NODES[node]}")
            os.kill(min(stages), signal.SIGKILL)
            killed = time.monotonic()
            self.wait_for_log(name, ": back into the queue")
            seconds = time.monotonic() - killed
        code = self.log(name).partition("launch: exit code ")[2].partition(":")[0]
        self.need_history(name, *AGAIN)
        return f"{code} after {seconds:.0f} s, REQUEUED, COMPLETED, 0; {self.same_rows(name)}"

    def given_up(self) -> str:
        """A job that may not go back into the queue is submitted once more."""
        with self.supervised("given-up", code=0, restarts=0):
            self.wait_for_progress("given-up")
            ask(self.environment, "scancel", "--signal=TERM", "--name=given-up")
        self.need_history("given-up", "FAILED|75:0", "COMPLETED|0:0")
        return f"restarts=0: FAILED with 75, submitted again, 0; {self.same_rows('given-up')}"

    def failed(self) -> str:
        missing = f"--data={self.folder}/missing"
        code = DataError.exit_code
        self.train_here("failed-here", missing, code=code)
        with self.supervised("failed", missing, code=code):
            pass
        self.need_history("failed", f"FAILED|{code}:0")
        return f"a dataset that is missing: {code}, as on this machine; not requeued"

    def failed_on_one_node(self) -> str:
        """A key is unknown there, as where the code is older; the other process waits for its peer.

        Once they have met, processes tell each other why one ends; before, srun ends the other.
        """
        python = self.folder / "python"
        lines = ("#!/bin/bash", '[ "$SLURM_NODEID" = 0 ] || set -- "$@" --config.unknown=1')
        python.write_text("\n".join([*lines, f'exec {sys.executable} "$@"\n']))
        python.chmod(0o755)
        code = ConfigError.exit_code
        with self.supervised("failed-on-one", code=code, python=str(python)):
            pass
        self.need_history("failed-on-one", f"FAILED|{code}:0")
        ends = sorted(re.findall(r"task \d: (Exited.*|Killed)", self.log("failed-on-one")))
        return f"an unknown key: {', '.join(ends)}; the job ends with {code}, not requeued"

    def deleted(self) -> str:
        with self.supervised("deleted", LONGER, code=1):
            self.wait_for_progress("deleted")
            status = self.launch("status", "deleted", code=0)
            need(" R " in status, status)
            self.need_logs("deleted")
            said = self.launch("run", "deleted", LONGER, code=2)
            need("deleted is there already" in said, said)
            self.launch("delete", "deleted", code=0)
            self.wait(lambda: not self.queue(), lambda: f"it stays: {self.queue()}")
            left = self.processes()
            need(not left, f"processes {left} are left")
            time.sleep(NOT_IN_QUEUE_SECONDS)
            need(not self.queue(), "it came back into the queue")
        need(self.history("deleted")[0].startswith("CANCELLED"), str(self.history("deleted")))
        return "status R, logs, a second run refused (2); delete: queue empty, no process, 1"

    def need_logs(self, name: str) -> None:
        """`logs` shows steps until somebody interrupts it."""
        argv = [sys.executable, "-u", "-m", *self.words("logs", name)]
        with subprocess.Popen(
            argv, cwd=self.code, env=self.environment, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            shown = next((line for line in process.stdout if line.startswith("step")), "")
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
        need(shown and process.returncode == 130, f"logs: {shown!r}, {process.returncode}")

    def drained(self) -> str:
        node = f"NodeName={NODES[1]}"
        ask(self.environment, "scontrol", "update", node, "State=DRAIN", "Reason=check")
        try:
            self.launch("run", "drained", "--config.train.steps=20", code=0)
            self.wait(lambda: self.queue("%r") != ["None"], lambda: "no reason comes")
            time.sleep(NOT_IN_QUEUE_SECONDS)  # in which it could begin
            status = self.launch("status", "drained", code=0).splitlines()[-1]
            need(" PD " in status and "(" in status, status)
        finally:
            ask(self.environment, "scontrol", "update", node, "State=RESUME")
        self.wait(lambda: self.history("drained") == ["COMPLETED|0:0"], lambda: self.log("drained"))
        return f"waits, status PD {status[status.index('(') :]}; COMPLETED once the node is back"

    def alone(self, check: Callable[[], str]) -> Callable[[], str]:
        """The check, after which nothing of its jobs is left, however it ended."""

        def checked() -> str:
            began = time.monotonic()
            try:
                return f"{check()}; {time.monotonic() - began:.0f} s"
            finally:
                ask(self.environment, "scancel", "--user=root")
                self.wait(lambda: not self.queue(), lambda: f"jobs stay: {self.queue()}")

        return checked


CHECKS = (
    *("run", "supervise", "preempted", "out_of_time", "killed_on_the_first_node"),
    *(
        "killed_on_the_second_node",
        "given_up",
        "failed",
        "failed_on_one_node",
        "deleted",
        "drained",
    ),
)


def run_all(names: list[str]) -> list[str]:
    """The names of those that failed."""
    with contextlib.ExitStack() as stack:
        # Of a check that is interrupted something may still be ending.
        kept = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(kept))
        folder.chmod(0o755)  # munged takes no socket in a folder that is closed to others
        (folder / "cluster").mkdir()
        environment = stack.enter_context(cluster(folder / "cluster"))
        checks = Checks(environment, folder)
        return run_checks({name: checks.alone(getattr(checks, name)) for name in names})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, usage="%(prog)s [--only=NAME,...]")
    parser.add_argument("--only", default=",".join(CHECKS))
    only = parser.parse_args().only.split(",")
    if unknown := sorted(set(only) - set(CHECKS)):
        print(f"no check {', '.join(unknown)}; there are {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    if missing := what_is_missing():
        print(missing, file=sys.stderr)
        return 2
    # As Ctrl-C: daemons and jobs are ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        failed = run_all(only)
    except CheckFailedError as error:
        print(f"no check could be made: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    print("all checks passed" if not failed else f"failed: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
