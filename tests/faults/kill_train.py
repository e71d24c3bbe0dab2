"""Kills `train` with SIGKILL again and again, each time at a random point of its progress.

    python tests/faults/kill_train.py --kills=8 --processes=1 --work=/tmp/kill_train

Of several processes one is killed, drawn by chance; `launch local` must name it and end with 7.
Progress is the rows of metrics. At the end the parameters' bits and every row of metrics are
compared with those of a run that nobody disturbed, on as many devices. The
suite does the same with fewer kills; figures of this script are in docs/results/reliability.md.
"""

import argparse
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.stages import children, finish, rows, run_stage, start_module, train_arguments
from tests.training.test_loop import fingerprints, logged

STEPS = 60
RUN = (
    f"--config.train.steps={STEPS}",
    "--config.train.log_every=2",
    "--config.train.eval_every=20",
    "--config.checkpoint.every_steps=7",
)


def prepared(work):
    """The synthetic dataset of the smoke configs."""
    data = work / "data"
    if not data.exists():
        logs = work / "logs"
        run_stage("synthesize", "--config=configs/synthesize.py:smoke", f"--out={logs}")
        config = "--config=configs/data/synthetic.py:smoke"
        run_stage("prepare", config, f"--config.source={logs}", f"--out={data}")
    return data


def command(data, workdir, processes):
    """What a person would type, 8 devices over the processes."""
    job = ("local", f"--processes={processes}", f"--devices={8 // processes}", "--", "train")
    return ("launch", *job, *train_arguments(data, workdir, *RUN))


def killed_after(launcher, workdir, more, dice):
    """Kills one process once `more` rows have been added; seconds until all were gone, or None."""
    until = logged(workdir) + more
    while logged(workdir) < until:
        if launcher.poll() is not None:
            finish(launcher)
            return None
        time.sleep(0.02)
    victim = dice.choice(sorted(children(launcher.pid)))
    os.kill(victim, signal.SIGKILL)
    began = time.monotonic()
    output = finish(launcher, code=7)
    assert "was ended by SIGKILL; run the same command again" in output, output
    return time.monotonic() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    dice, data = random.Random(arguments.seed), prepared(arguments.work)
    undisturbed, disturbed = (
        arguments.work / f"{name}-{arguments.processes}-{arguments.seed}"
        for name in ("undisturbed", "disturbed")
    )
    finish(start_module(*command(data, undisturbed, arguments.processes)))
    seconds = []
    while len(seconds) < arguments.kills:
        launcher = start_module(*command(data, disturbed, arguments.processes))
        took = killed_after(launcher, disturbed, dice.randrange(1, STEPS // arguments.kills), dice)
        if took is None:
            break
        seconds.append(took)
        print(f"killed at row {logged(disturbed)}; all gone after {took:.1f} s", flush=True)
    finish(start_module(*command(data, disturbed, arguments.processes)))
    same = {
        "parameters": fingerprints(disturbed) == fingerprints(undisturbed),
        "rows of metrics": rows(disturbed) == rows(undisturbed),
    }
    print(
        json.dumps(
            {
                "kills": len(seconds),
                "processes": arguments.processes,
                "same": same,
                "slowest_end_seconds": round(max(seconds, default=0.0), 1),
            }
        )
    )
    return 0 if all(same.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
