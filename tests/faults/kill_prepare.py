"""Kills `prepare` with SIGKILL again and again, each time at a random point of its progress.

    python tests/faults/kill_prepare.py --kills=20 --rows=2000000

Progress is what has appeared in the folder of the unfinished build. After each kill the same
command runs to its end, and every byte is compared with those of a run that nobody disturbed. The
suite kills a few times (test_kills.py); figures of this script are in docs/results/data.md.
"""

import argparse
import functools
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks import synthetic_log
from tests.faults.logs import contents, start_prepare
from tests.stages import finish


def seen_in(folder, names):
    """Adds what is in a folder that others change meanwhile; what is only half there is not."""
    for root, _, files in os.walk(folder):
        inside = re.sub(r"\.spill\.[^/]+", "put_aside", os.path.relpath(root, folder))
        if not inside.startswith(".shard"):
            names |= {f"{inside}/{name}" for name in files if not name.startswith(".")}


def watched(process, out, until=None):
    """What a build has shown of itself when it ends, or has shown `until` different files."""
    names, partial = set(), out.parent / f"{out.name}.partial"
    while process.poll() is None and not (until and len(names) >= until):
        seen_in(partial, names)
        time.sleep(0.001)
    return names


def killed(start, out, until):
    """Kills a build at a point of its progress; False when it was done before."""
    process = start()
    watched(process, out, until)
    process.kill()
    process.wait()
    output = process.communicate()[0]
    assert process.returncode in (0, -signal.SIGKILL), output
    return process.returncode != 0


def undisturbed(start, out):
    """How many points a whole build has, and the bytes of its output."""
    process = start()
    shown = watched(process, out)
    finish(process)
    return len(shown), contents(out)


def finished_files(out):
    """Of an unfinished build, as its own account has them."""
    account = out.parent / f"{out.name}.partial" / "build.json"
    return len(json.loads(account.read_text())["files"]) if account.exists() else 0


def killed_and_finished(start, out, until, expected):
    """Kills once and lets the same command finish; gives how many files it reused, None where the
    build was faster.

    Raises AssertionError: the output was there too early, nothing finished was reused, or the end
    is not that of an undisturbed run.
    """
    if not killed(start, out, until):
        return None
    assert not out.exists()
    kept = finished_files(out)
    output = finish(start())
    if kept:
        assert f"continuing an interrupted build, {kept} files finished" in output, output
        assert f"; {kept} finished files reused" in output, output
    assert contents(out) == expected
    assert not (out.parent / f"{out.name}.partial").exists()
    return kept


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--flags", default="", help="more flags of prepare, between blanks")
    options = parser.parse_args()
    draw, kept = random.Random(options.seed), []
    with tempfile.TemporaryDirectory() as folder:
        logs, out = Path(folder) / "logs", Path(folder) / "out"
        made = [f"--rows={options.rows}", f"--users={options.rows // 50}", f"--out={logs}"]
        synthetic_log.write(synthetic_log.arguments().parse_args(made))
        flags = ("--config.sources[0].text={title}", *options.flags.split())
        start = functools.partial(start_prepare, logs, out, *flags)
        points, expected = undisturbed(start, out)
        while len(kept) < options.kills:
            shutil.rmtree(out)
            until = draw.randrange(1, points)
            if (reused := killed_and_finished(start, out, until, expected)) is not None:
                kept.append(reused)
                print(f"killed at {until} of {points}: {reused} files reused", file=sys.stderr)
    found = {"fault": "prepare: kill -9", "kills": len(kept), "rows": options.rows}
    found |= {"flags": options.flags, "different_endings": 0, "files_reused": kept}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
