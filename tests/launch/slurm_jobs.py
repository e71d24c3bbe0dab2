"""Jobs of `python -m launch slurm`, and what SLURM, the log and the machine say of them."""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from launch.pack import pack
from launch.supervise import newest_step
from tests.launch.slurm_cluster import ask
from tests.release_check import PIPELINE, CheckFailedError
from tests.stages import rows

STEPS, SAVED = 300, 100  # of a training; at which it is disturbed
WAIT_SECONDS = 400.0


def need(true: object, problem: str) -> None:
    """Raises CheckFailedError with the problem where something is not as it should be."""
    if not true:
        raise CheckFailedError(problem)


class Jobs:
    """Trainings in a cluster; a job's name is also that of its run directory."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        """Brings the code into the folder, and makes a dataset there."""
        self.environment = environment | {"JAX_PLATFORMS": "cpu"}
        self.folder, self.code = folder, folder / "code"
        archive = folder / "code.tar.gz"
        with contextlib.redirect_stdout(sys.stderr):  # a line of standard output is a check
            pack(archive)
        with tarfile.open(archive) as packed:
            packed.extractall(self.code, filter="data")
        for stage in PIPELINE[:2]:
            self.python("clue_jax", *stage.split(), code=0)

    @functools.cached_property
    def reference(self) -> list[dict[str, object]]:
        """Metrics of the training on this machine, which nothing disturbs."""
        self.train_here("undisturbed", code=0)
        return rows(self.folder / "undisturbed")

    def python(self, *words: str, code: int) -> str:
        done = subprocess.run(
            [sys.executable, "-u", "-m", *words],
            cwd=self.code,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        need(done.returncode == code, f"{words}: {done.returncode}, not {code}\n{done.stdout}")
        return done.stdout

    def stage(self, name: str, *more: str) -> list[str]:
        own = [
            *("--config=configs/pretrain.py:smoke", f"--data={self.code}/data"),
            *(f"--workdir={self.folder}/{name}", f"--config.train.steps={STEPS}"),
            *("--config.train.log_every=10", "--config.train.eval_every=100"),
            "--config.checkpoint.every_steps=50",
        ]
        return ["train", *own, *more]

    def train_here(self, name: str, *more: str, code: int) -> None:
        stage = self.stage(name, *more)
        self.python("launch", "local", "--processes=2", "--", *stage, code=code)

    def words(self, verb: str, name: str, *more: str, **fields: object) -> list[str]:
        """Of the launcher, with the file of a job."""
        own = {"name": name, "accelerator": "gpu:1", "nodes": 2, "cpus": 1}
        own |= {
            "folder": str(self.code),
            "python": sys.executable,
            "stage": self.stage(name, *more),
        }
        file = self.folder / f"{name}.json"
        file.write_text(json.dumps(own | fields))
        return ["launch", "slurm", verb, f"--job={file}"]

    def launch(self, verb: str, name: str, *more: str, code: int) -> str:
        return self.python(*self.words(verb, name, *more), code=code)

    @contextlib.contextmanager
    def supervised(self, name: str, *more: str, code: int, **fields: object) -> Iterator[None]:
        """A job that is supervised meanwhile, and then to the end, which this is to be."""
        said = self.folder / f"{name}.out"
        with said.open("w") as stream:
            process = subprocess.Popen(
                [sys.executable, "-u", "-m", *self.words("supervise", name, *more, **fields)],
                cwd=self.code,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        try:
            yield
            ended = process.wait(WAIT_SECONDS)
        finally:
            process.kill()
            process.wait()
        need(ended == code, f"supervise: {ended}, not {code}\n{said.read_text()}{self.log(name)}")

    def wait_for_progress(self, name: str) -> None:
        def come() -> bool:
            return (newest_step(str(self.folder / name)) or 0) >= SAVED

        self.wait(come, lambda: f"no step {SAVED} of {name}\n{self.log(name)}")

    def wait(self, happened: Callable[[], object], problem: Callable[[], str]) -> None:
        limit = time.monotonic() + WAIT_SECONDS
        while not happened():
            if time.monotonic() > limit:
                raise CheckFailedError(problem())
            time.sleep(0.5)

    def queue(self, form: str = "%T") -> list[str]:
        """A line for each job that is in the queue or runs."""
        return ask(self.environment, "squeue", "--noheader", f"--format={form}").splitlines()

    def history(self, name: str) -> list[str]:
        """State and exit code of each run of a job, the newest last; empty until it is known."""
        asked = ("--duplicates", "--allocations", "--noheader", "--parsable2")
        found = ask(self.environment, "sacct", *asked, f"--name={name}", "--format=State,ExitCode")
        return found.splitlines()

    def need_history(self, name: str, *runs: str) -> None:
        found = self.history(name)
        need(found == list(runs), f"SLURM says {found}, not {list(runs)}\n{self.log(name)}")

    def log(self, name: str) -> str:
        """What the stage has written so far."""
        file = self.code / "runs/launch" / name / "slurm.log"
        return file.read_text() if file.exists() else ""

    def wait_for_log(self, name: str, text: str) -> None:
        self.wait(lambda: text in self.log(name), lambda: f"{text!r} is not in\n{self.log(name)}")

    def processes(self, *marks: str) -> list[int]:
        """Those of jobs of this cluster in whose environment or arguments all the marks are.

        Arguments begin after two NULs.
        """
        own = f"SLURM_CONF={self.environment['SLURM_CONF']}\0"
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended
                texts = [(folder / name).read_bytes() for name in ("environ", "cmdline")]
                text = b"\0".join(texts).decode(errors="replace")
                if own in text and "SLURM_JOB_ID=" in text and all(m in text for m in marks):
                    found.append(int(folder.name))
        return found

    def same_rows(self, name: str) -> str:
        """Raises CheckFailedError unless the metrics are those of the undisturbed training."""
        found = rows(self.folder / name)
        for ours, theirs in zip(found, self.reference, strict=False):
            need(ours == theirs, f"row {ours} of {name} is {theirs} undisturbed")
        need(len(found) == len(self.reference), f"{len(found)} rows, not {len(self.reference)}")
        return f"{len(found)} rows of metrics are the same"
