"""Every stage on synthetic logs, run as a person would: offline, minutes on two CPU cores.

    logs/ -> data/ -> run/ -> embeddings/ -> evaluation/ -> report.html

Each stage is a process of its own that is given files and leaves files. Running quickstart again
continues where it stopped.
"""

from __future__ import annotations

import dataclasses
import shlex
import time
from dataclasses import dataclass
from typing import Any

from etils import epath

from clue_jax import files, leases
from clue_jax.console import say
from clue_jax.errors import ClueError
from clue_jax.report.expected import EXPECTED, Expected, means
from clue_jax.report.glossary import BASELINES
from clue_jax.report.read import read_commands
from clue_jax.report.results import headline, read_results
from clue_jax.stage_process import run_stage

# R@10 of the trained encoder on test users, mean over pairs of services: .820 .813 .802 with seeds
# 0, 1 and 2, and as much to either side as a resample of the users may bring.
TO_EXPECT = Expected("recall_at_10", 0.77, 0.87)

COMMANDS = "commands.json"


class StageFailedError(ClueError):
    """A stage ended with an error; quickstart ends with the same exit code."""

    def __init__(self, command: str, code: int):
        # A negative code is the signal that ended the process, as shells number it.
        self.exit_code = code if code > 0 else 128 - code
        super().__init__(f"this command ended with exit code {self.exit_code}: {command}")


@dataclass(frozen=True)
class Stage:
    """One command of the front door and the file that exists once its output is complete."""

    name: str
    arguments: tuple[str, ...]
    complete: str  # relative to the quickstart folder

    @property
    def argv(self) -> list[str]:
        """The command as a person types it."""
        return ["python", "-m", "clue_jax", self.name, *self.arguments]


def stages(out: str) -> list[Stage]:
    """The stages of a quickstart in `out`, in order."""
    logs, data, run, embeddings, evaluation = (
        str(epath.Path(out) / name) for name in ("logs", "data", "run", "embeddings", "evaluation")
    )
    return [
        Stage(
            "synthesize",
            ("--config=configs/synthesize.py:quickstart", f"--out={logs}"),
            "logs/manifest.json",
        ),
        Stage(
            "prepare",
            (
                "--config=configs/data/synthetic.py:quickstart",
                f"--config.source={logs}",
                f"--out={data}",
            ),
            "data/manifest.json",
        ),
        Stage(
            "train",
            ("--config=configs/pretrain.py:quickstart", f"--data={data}", f"--workdir={run}"),
            "run/metrics.jsonl",
        ),
        Stage(
            "export",
            (f"--workdir={run}", f"--data={data}", f"--out={embeddings}"),
            "embeddings/manifest.json",
        ),
        Stage(
            "evaluate",
            (
                "--config=configs/evaluate/matching.py",
                f"--embeddings={embeddings}",
                f"--out={evaluation}",
            ),
            "evaluation/results.json",
        ),
    ]


def quickstart(out: str) -> None:
    """Runs all stages into folders of `out`, writes out/report.html, prints what was measured.

    Raises:
        StageFailedError: a stage failed; carries the stage's exit code and names the command.
        LockedError: another quickstart is at work in `out`.
        StorageError: `out` cannot be written.
    """
    folder = epath.Path(out)
    started = time.monotonic()
    with files.storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with leases.lease(folder / "quickstart.lock"):
        recorded = _recorded(folder)
        for stage in stages(out):
            if _is_complete(stage, folder, recorded):
                say(f"{stage.name}: complete already, skipped (delete {out} to begin afresh)")
                continue
            seconds = _run(stage.argv)
            recorded[stage.name] = {"stage": stage.name, "argv": stage.argv, "seconds": seconds}
            files.write_json(folder / COMMANDS, list(recorded.values()))
        files.write_json(folder / EXPECTED, dataclasses.asdict(TO_EXPECT))
        _run(["python", "-m", "clue_jax", "report", out])
    say("")
    say(summary(read_results(folder / "evaluation" / "results.json")))
    say(f"{time.monotonic() - started:.0f} s; curves and all results: {folder / 'report.html'}")


def summary(results: list[dict[str, Any]]) -> str:
    """The headline as lines of text: R@10 and MRR by model, mean over directions, best first."""
    recall, mrr = (means(results, metric) for metric in (TO_EXPECT.metric, "mrr"))
    tasks = len({entry["task"] for entry in headline(results)})
    lines = [
        f"Finding test users again through another service (mean of {tasks} pairs of services)",
        f"{'model':<24}{'R@10':>8}{'MRR':>8}",
    ]
    for model in sorted({**recall, **mrr}, key=lambda model: -recall.get(model, 0.0)):
        cells = "".join(
            f"{of[model]:>8.3f}" if model in of else f"{'-':>8}" for of in (recall, mrr)
        )
        note = ""
        if model not in BASELINES:
            inside = TO_EXPECT.holds(recall.get(model))
            note = f"   expected R@10 {TO_EXPECT.low:.2f} to {TO_EXPECT.high:.2f}"
            note += "" if inside else ": OUTSIDE"
        lines.append(f"{model:<24}{cells}{note}")
    return "\n".join(lines)


def _recorded(folder: epath.Path) -> dict[str, dict[str, Any]]:
    """Stages that an earlier call saw finish, by name; see COMMANDS."""
    path = folder / COMMANDS
    if not path.exists():
        return {}
    return {
        command.stage: {
            "stage": command.stage,
            "argv": shlex.split(command.line),
            "seconds": command.seconds,
        }
        for command in read_commands(path)
    }


def _is_complete(stage: Stage, folder: epath.Path, recorded: dict[str, dict[str, Any]]) -> bool:
    # A run directory has its files from the first step on, so only a seen end counts for it.
    ended = stage.name != "train" or stage.name in recorded
    return ended and (folder / stage.complete).exists()


def _run(argv: list[str]) -> float:
    """Runs a command with this interpreter, its output passed on as it comes; gives seconds."""
    command = shlex.join(argv)
    say(f"\n$ {command}")
    started = time.monotonic()
    code = run_stage(argv[3:])
    if code != 0:
        raise StageFailedError(command, code)
    return round(time.monotonic() - started, 1)
