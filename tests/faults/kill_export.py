"""Kills `export` with SIGKILL again and again, each time at a random point of its progress.

    python tests/faults/kill_export.py --kills=20 --hosts=1 --work=/tmp/kill_export

Progress is what has appeared in the folder of the unfinished export, half-written files included.
After each kill the same command starts again on what the killed one left. At the end every byte
but the time in the manifest is compared with an export that nobody disturbed. With `--hosts=P`
hosts that know nothing of each other share the export, and all are killed at once. The suite does
the same with fewer kills; figures of this script are in docs/results/reliability.md.
"""

import argparse
import json
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.embeddings.exports import contents
from tests.faults.kill_train import prepared
from tests.stages import finish, run_stage, start, train_arguments

PARTS = 40


def points(out):
    """How many files the export has shown by now."""
    partial = out.parent / f"{out.name}.partial"
    return sum(1 for path in partial.rglob("*") if path.is_file())


def command(run, data, out, host=""):
    """What a person would type."""
    where = [f"--workdir={run}", f"--data={data}", f"--out={out}"]
    settings = [f"--config.num_shards={PARTS}", f"--config.host={host}", "--config.batch_users=8"]
    return ["export", *where, *settings]


def killed(commands, out, more):
    """Starts all commands and kills them once there are `more` files more.

    Returns:
        Whether one was killed: not where all were done before.
    """
    processes, until = [start(*line) for line in commands], points(out) + more
    while points(out) < until and any(process.poll() is None for process in processes):
        time.sleep(0.001)
    for process in processes:
        process.kill()
    outputs = [process.communicate()[0] for process in processes]
    codes = [process.returncode for process in processes]
    assert set(codes) <= {0, -signal.SIGKILL}, outputs
    return any(codes)


def disturbed(commands, out, kills, dice, most=2 * PARTS):
    """Kills `kills` times, each time after up to `most` files more, then lets all finish.

    Returns:
        How many were killed, and how many parts were done after each kill.
    """
    done = []
    while len(done) < kills and not out.exists():
        more = dice.randrange(1, max(2, most // kills))
        if killed(commands, out, more):
            done.append(len(list(out.parent.glob(f"{out.name}.partial/done/*.json"))))
            print(f"killed: {done[-1]} of {PARTS} parts were done", file=sys.stderr, flush=True)
    if not out.exists():
        for process in [start(*line) for line in commands]:
            finish(process)
    return done


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--hosts", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    data, run = prepared(options.work), options.work / "run"
    if not run.exists():
        run_stage("train", *train_arguments(data, run))
    once, again = (
        options.work / f"{name}-{options.hosts}-{options.seed}" for name in ("once", "again")
    )
    if not once.exists():
        finish(start(*command(run, data, once)))
    hosts = [f"{n}/{options.hosts}" for n in range(options.hosts)] if options.hosts > 1 else [""]
    commands = [command(run, data, again, host) for host in hosts]
    done = disturbed(commands, again, options.kills, random.Random(options.seed))
    same = contents(again) == contents(once)
    found = {"fault": "export: kill -9", "kills": len(done), "hosts": options.hosts}
    print(json.dumps(found | {"parts": PARTS, "parts_done_after_each": done, "same": same}))
    return 0 if same and len(done) == options.kills else 1


if __name__ == "__main__":
    sys.exit(main())
