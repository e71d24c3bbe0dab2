"""Compilations after the first step, and what an asynchronous save costs the loop (row 14).

    python tests/benchmarks/recompiles.py --record

A real run of the quickstart's recipe through the command line's own function. Compilations are
counted by JAX's own events; the save is timed where the loop calls it, beside a median step.
"""

import contextlib
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from clue_jax import cli
from clue_jax.training.checkpoint import Checkpoints
from clue_jax.training.meter import Meter
from tests.benchmarks import harness
from tests.compilations import compilations


class Watch:
    """When compilations ended, steps were asked for, and how long saves held the loop."""

    def __init__(self) -> None:
        self.compilations: list[float] = []
        self.steps: list[float] = []
        self.saves: list[float] = []

    @contextlib.contextmanager
    def installed(self):
        add, save = Meter.add, Checkpoints.save

        def noted_add(meter, *arguments):
            metrics = add(meter, *arguments)
            self.steps.append(time.perf_counter())
            return metrics

        def timed_save(checkpoints, *arguments):
            began = time.perf_counter()
            save(checkpoints, *arguments)
            self.saves.append(time.perf_counter() - began)

        Meter.add, Checkpoints.save = noted_add, timed_save
        try:
            with compilations() as self.compilations:
                yield
        finally:
            Meter.add, Checkpoints.save = add, save


def run(folder: str) -> None:
    logs, data = f"{folder}/logs", f"{folder}/data"
    for arguments in (
        ["synthesize", "--config=configs/synthesize.py:quickstart", f"--out={logs}"],
        [
            "prepare",
            "--config=configs/data/synthetic.py:quickstart",
            f"--config.source={logs}",
            f"--out={data}",
        ],
        [
            "train",
            "--config=configs/pretrain.py:quickstart",
            f"--data={data}",
            f"--workdir={folder}/run",
            "--config.train.steps=40",
            "--config.train.eval_every=10",
            "--config.checkpoint.every_steps=10",
        ],
    ):
        if code := cli.main(arguments):
            raise SystemExit(code)


def main() -> None:
    options = harness.options(__doc__).parse_args()
    watch = Watch()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(sys.stderr),
        watch.installed(),
    ):
        run(folder)
    # The first evaluation and the first save, after step 10, compile what they need, once.
    tenth = watch.steps[10]
    later = sum(moment > tenth for moment in watch.compilations)
    between = sum(watch.steps[0] < moment < watch.steps[8] for moment in watch.compilations)
    step = statistics.median(b - a for a, b in zip(watch.steps, watch.steps[1:], strict=False))
    save = statistics.median(watch.saves)
    for metric, ours, peer, peer_name, reach in (
        ("compilations in steps 2 to 9", between, 0, "none", 0),
        ("compilations after the first evaluation and save", later, 0, "none", 0),
        ("seconds the loop is held by a save / a step", save, step, "a median step", 1.0),
    ):
        harness.emit(
            options.record,
            benchmark="recompiles",
            metric=metric,
            ours=ours,
            peer=peer,
            peer_name=peer_name,
            ratio=ours / peer if peer else None,
            reach=reach,
            compilations_in_all=len(watch.compilations),
        )


if __name__ == "__main__":
    main()
