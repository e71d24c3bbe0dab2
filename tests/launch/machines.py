"""Machines that are folders, and stand-ins for the programs that reach them."""

import ast
import os
import stat
import subprocess
import sys
from pathlib import Path

STAND_IN = Path(__file__).with_name("stand_in.py")
PROGRAMS = (
    *("gcloud", "kubectl", "docker", "ssh", "scp", "aws"),
    *("sbatch", "srun", "scontrol", "squeue", "scancel", "sacct"),
)


class Machines:
    """A folder for each host, the stand-ins on PATH, and what they recorded."""

    def __init__(self, home, hosts=()):
        self.home, self.programs = Path(home), Path(home) / "bin"
        self.programs.mkdir()
        for name in PROGRAMS:
            self._put(self.programs / name)
        for host in hosts:
            self.add(host)
        self._put(self.programs / "python")

    def add(self, host, name="job"):
        """A machine that has an environment already, so that nothing is downloaded."""
        python = self.home / host / f"clue_jax-{name}" / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        self._put(python)
        launch = python.parents[2] / "launch"
        launch.mkdir()
        script = Path(__file__).parents[2] / "launch" / "host.sh"
        (launch / "host.sh").write_bytes(script.read_bytes())

    def _put(self, path):
        path.write_text(f"#!{sys.executable} -ISE\n" + STAND_IN.read_text())
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    @property
    def environment(self):
        return {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "STAND_IN_HOME": str(self.home),
            "SLURM_PROCID": "1",
            "SLURM_LOCALID": "0",
            "SLURM_NTASKS": "2",
            "SLURM_JOB_ID": "17",
            "SLURM_JOB_NODELIST": "node[0-1]",
        }

    def put(self, name, *lines):
        """What a stand-in takes a line from each time: codes, states, size."""
        (self.home / name).write_text("\n".join(lines))

    def calls(self, name=None):
        """What was recorded of one program, or of all; `python` is what machines started."""
        file = self.home / "record"
        lines = map(ast.literal_eval, file.read_text().splitlines() if file.exists() else [])
        return [line for line in lines if name in (None, line["name"])]

    def stages(self):
        """Arguments of the stages that were started."""
        found = [call["argv"] for call in self.calls("python")]
        return [argv[argv.index("clue_jax") + 1 :] for argv in found if "clue_jax" in argv]

    def forget(self):
        (self.home / "record").unlink(missing_ok=True)

    def run(self, argv, stdin=""):
        """Runs a program that reads a text, or whose input stays open until it has ended."""
        settings = dict(env={**os.environ, **self.environment}, text=True, capture_output=True)
        if stdin:
            return subprocess.run(argv, input=stdin, **settings)
        end, held = os.pipe()
        try:
            return subprocess.run(argv, stdin=end, **settings)
        finally:
            os.close(end)
            os.close(held)
