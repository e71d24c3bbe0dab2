"""Runs `python -m launch gpu` on two nodes over OpenSSH: installs, trains, stops, breaks, refuses.

    python tests/launch/ssh_check.py [--wheels=FOLDER] [--only=NAME,...]

Needs root, Debian's openssh-server, and for what nodes install a package index and 3 GB (the extra
`gpu`), or a folder of such wheels from an earlier run. The nodes are network namespaces of this
machine (`tests/launch/ssh_nodes.py`) with Debian's Python; JAX runs on CPUs there. A line a check;
exits 1 with the names of those that failed. 15 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.launch import ssh_nodes  # noqa: E402
from tests.launch.ssh_launcher import (  # noqa: E402
    FOR_EVER,
    JOB,
    NAME,
    OLDER,
    Launcher,
    Trainings,
    lines_of,
    saved_step,
    wheels_in,
)
from tests.launch.ssh_nodes import NODES, Nodes, done, until  # noqa: E402
from tests.stages import rows  # noqa: E402

ODD = 'it\'s "odd" $(touch pwned) `id`; &'
HOSTILE = f"{ODD} *\\n\n"


class Checks(Trainings):
    """One after the other; later ones use what earlier ones made."""

    def __init__(self, nodes: Nodes, wheels: Path) -> None:
        super().__init__(nodes)
        self.wheels = wheels
        self.whole, self.stopped = nodes.shared / "whole", nodes.shared / "stopped"

    # ------------------------------------------------------------------------------- it works

    def code_is_installed_on_both(self) -> str:
        """The extra `gpu` with the tested versions, in two homes; then the stage begins."""
        self.prepare()
        self.first = self.launch(self.whole)
        took = self.first.comes_to(lambda: lines_of(self.whole), "the first row of metrics", 600)
        found = []
        for node in NODES:
            home = self.nodes.home(node) / f"clue_jax-{NAME}"
            assert (home / "launch/host.sh").read_bytes() == (ROOT / "launch/host.sh").read_bytes()
            freeze = done(str(home / ".venv/bin/python"), "-m", "pip", "freeze").splitlines()
            pinned = set((ROOT / "constraints.txt").read_text().splitlines()) & set(freeze)
            assert any(line.startswith("jax-cuda13-plugin==") for line in freeze), freeze
            size = done("du", "-sh", str(home)).split()[0]
            found.append(f"{node} {len(pinned)} of {len(freeze)} packages pinned, {size}")
        return f"{'; '.join(found)}; first row after {took:.0f} s"

    def training_is_that_of_launch_local(self) -> str:
        self.first.ended(0)
        local = self.nodes.folder / "local"
        own = (sys.executable, "-m", "launch", "local", "--processes=2", "--")
        done(*own, *self.stage(local))
        assert rows(self.whole) == rows(local), "rows of metrics differ"
        self.empty()
        return f"exit code 0, {len(rows(local))} equal rows of metrics"

    def arguments_arrive_unchanged(self) -> str:
        workdir = self.nodes.shared / HOSTILE
        launcher = self.launch(workdir, FOR_EVER)
        self.trains(launcher, workdir)
        for node in NODES:
            (pid,) = self.nodes.stages(node)
            line = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            assert line[4:-1] == self.stage(workdir, FOR_EVER), line
        launcher.process.terminate()
        launcher.ended(75)
        self.empty()
        odd = list(self.nodes.folder.rglob("pwned")) + list(ROOT.glob("pwned"))
        assert not odd, f"a shell has read it: {odd}"
        return f"{HOSTILE!r} in --workdir, by /proc on both"

    def status_logs_fetch_and_delete_find_it(self) -> str:
        workdir = self.nodes.shared / ODD
        stage = self.stage(workdir, FOR_EVER)
        launcher = self.launch(workdir, FOR_EVER)
        self.trains(launcher, workdir)
        status = Launcher(self.nodes, "status", *JOB, "--", *stage).ended(0)
        assert status.count("-m clue_jax train") >= 2, status
        logs = Launcher(self.nodes, "logs", *JOB, "--", *stage)
        logs.comes_to(lambda: logs.said().count('"step"') > 2, "rows in its logs", 30)
        logs.process.send_signal(signal.SIGINT)
        logs.ended(130, 20)
        Launcher(self.nodes, "delete", *JOB, "--", *stage).ended(0)
        launcher.ended(75, 90)
        self.empty()
        Launcher(self.nodes, "fetch", *JOB, "--", *stage).ended(0)
        assert lines_of(ROOT / "runs" / NAME) == lines_of(workdir)
        return "of the run with the odd name; delete stopped it (75), fetch copied its rows"

    # -------------------------------------------------------------------------- it is stopped

    def sigint_saves(self) -> str:
        return self._is_told(signal.SIGINT)

    def sigterm_saves(self) -> str:
        return self._is_told(signal.SIGTERM)

    def _is_told(self, kind: signal.Signals) -> str:
        launcher = self.launch(self.stopped)
        self.trains(launcher, self.stopped)
        launcher.process.send_signal(kind)
        said = launcher.ended(75, 60).splitlines()
        took = self.empty()
        (how,) = (line for line in said if "preempted:" in line and not line.startswith("[1]"))
        return f"75, {how.partition('preempted: ')[2]}; nobody left after {took:.1f} s more"

    def killed_launcher_is_noticed(self) -> str:
        launcher = self.launch(self.stopped)
        self.trains(launcher, self.stopped)
        before = saved_step(self.stopped)
        launcher.process.kill()
        took = self.empty()
        after = saved_step(self.stopped)
        assert after > before, f"nothing was saved after step {before}:\n{launcher.said()}"
        return f"saved step {after} (before: {before}), nobody left after {took:.1f} s"

    def killed_stage_is_supervised(self) -> str:
        """To the end of the run that was stopped three times: all rows as if undisturbed."""
        (log := ROOT / "runs/launch" / NAME / "attempts.jsonl").unlink(missing_ok=True)
        launcher = self.launch(self.stopped, verb="supervise")
        self.trains(launcher, self.stopped)
        (pid,) = self.nodes.stages("node2")
        os.kill(pid, signal.SIGKILL)
        said = launcher.ended(0)
        assert "process 1 of 2 was ended by SIGKILL" in said, said
        codes = [json.loads(line)["exit_code"] for line in log.read_text().splitlines()]
        assert codes == [7, 0], said
        assert rows(self.stopped) == rows(self.whole), "rows of metrics differ"
        self.empty()
        return f"attempts ended with {codes}; {len(rows(self.stopped))} rows as of no interruption"

    # ------------------------------------------------------------------------------ it breaks

    def frozen_node_is_lost(self) -> str:
        workdir = self.nodes.shared / "frozen"
        launcher = self.launch(workdir, FOR_EVER)
        self.trains(launcher, workdir)
        frozen = [p for p, line in self.nodes.running("node2").items() if line.startswith("sshd")]
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        try:
            took, said = launcher.lost()
            more = until(lambda: not self.nodes.stages("node2"), 60, "its stage has ended")
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
        self.empty()
        assert "process 1 of 2 was disconnected" in said, said
        saved = saved_step(workdir)
        assert saved, f"nothing was saved:\n{said}"
        return f"7 after {took:.0f} s, its stage ended {more:.1f} s later, saved step {saved}"

    def unplugged_node_is_lost(self) -> str:
        workdir = self.nodes.shared / "unplugged"
        launcher = self.launch(workdir, FOR_EVER)
        self.trains(launcher, workdir)
        self.nodes.link("node2", "down")
        try:
            took, said = launcher.lost()
            left = self.nodes.running("node2").values()
        finally:
            self.nodes.link("node2", "up")
        took_more = self.empty(120)
        there = ", ".join(sorted({line.split()[0] for line in left})) or "nothing"
        return (
            f"7 after {took:.0f} s ({said.splitlines()[-1]}); on the node itself was left: {there};"
            f" nothing {took_more:.1f} s after it is plugged in"
        )

    # ----------------------------------------------------------------------------- it refuses

    def unreachable_node_is_named(self) -> str:
        self.nodes.refuse("node2")
        try:
            said = self.launch(self.nodes.shared / "never").ended(1, 60)
        finally:
            self.nodes.listen("node2")
        assert "connect to host node2 port 22: Connection refused" in said, said
        self.empty()
        return said.splitlines()[-1]

    def other_version_is_mended_or_named(self) -> str:
        """Of a package in the environment the installation mends it; of one before it, no."""
        shell, environment = self.nodes.shell, f"clue_jax-{NAME}/.venv"
        install = f"{environment}/bin/python -m pip install -q --no-deps {OLDER}"
        versions = f"{environment}/bin/python -m pip freeze"
        shell("node2", install)
        assert OLDER in shell("node2", versions)
        few = "--config.train.steps=10"
        self.launch(self.nodes.shared / "versions", few).ended(0)
        mended = shell("node2", versions)
        assert OLDER not in mended, mended
        shell("node2", f"{install} --target=older")
        # Found first, as what a module of the cluster's puts into PYTHONPATH would be.
        line = f"import sys; sys.path.insert(0, {str(self.nodes.home('node2') / 'older')!r})"
        first = f"{environment}/lib/python3.11/site-packages/older.pth"
        shell("node2", f"cat > {first} <<'END'\n{line}\nEND")
        said = self.launch(self.nodes.shared / "refused", few).ended(2)
        shell("node2", f"rm {first}")
        assert "of process 1 is not that of process 0" in said and "2.4.5" in said, said
        self.empty()
        return next(line for line in said.splitlines() if "of process 1 is not" in line)


def shown(name: str, check: Callable[[], str], nodes: Nodes) -> bool:
    began = time.monotonic()
    try:
        found = check()
    except Exception as error:  # whatever it is, the checks after it are still of interest
        print(f"FAILED {name}: {type(error).__name__}: {error}", flush=True)
        nodes.clear()
        return False
    print(f"ok {name} ({time.monotonic() - began:.0f} s): {found}", flush=True)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--wheels", help="folder for what nodes install, to be used again")
    parser.add_argument("--only", default="", help="names of checks after the second, by commas")
    given = parser.parse_args()
    if problem := ssh_nodes.missing():
        print(f"ssh_check: {problem}", file=sys.stderr)
        return 2
    os.chdir(ROOT)
    # A shell that starts this beside it has Ctrl-C ignored, and the launcher would not hear it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with contextlib.ExitStack() as ending:
        for notes in (ROOT / "runs/launch" / NAME, ROOT / "runs" / NAME):
            ending.callback(shutil.rmtree, notes, ignore_errors=True)
        place = given.wheels or ending.enter_context(tempfile.TemporaryDirectory())
        wheels = wheels_in(Path(place).absolute())
        wheels.chmod(0o755)
        nodes = ending.enter_context(ssh_nodes.two_nodes(wheels))
        checks = Checks(nodes, wheels)
        asked = given.only.split(",") if given.only else list(LATER)
        names = (*FIRST, *asked)
        failed = [name for name in names if not shown(name, getattr(checks, name), nodes)]
    print("all checks passed" if not failed else f"failed: {', '.join(failed)}")
    return int(bool(failed))


FIRST = ("code_is_installed_on_both", "training_is_that_of_launch_local")
LATER = (
    "sigint_saves",
    "sigterm_saves",
    "killed_launcher_is_noticed",
    "killed_stage_is_supervised",
    "frozen_node_is_lost",
    "unplugged_node_is_lost",
    "arguments_arrive_unchanged",
    "status_logs_fetch_and_delete_find_it",
    "unreachable_node_is_named",
    "other_version_is_mended_or_named",
)

if __name__ == "__main__":
    sys.exit(main())
