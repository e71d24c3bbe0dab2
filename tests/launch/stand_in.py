"""Stands in for gcloud, ssh, kubectl, sbatch and the like: records its arguments and acts a little.

It is put on PATH under each of their names (`tests/launch/machines.py`). What a shell on another
machine would read is read by the real /bin/sh, in a folder that stands for that machine.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

HOME = Path(os.environ["STAND_IN_HOME"])
NAME, ARGV = Path(sys.argv[0]).name, sys.argv[1:]
MADE = HOME / "made"
FLAGS = dict(word.partition("=")[::2] for word in ARGV if word.startswith("--"))


def record(**more):
    line = json.dumps({"name": NAME, "argv": ARGV, **more})
    with open(HOME / "record.jsonl", "a") as stream:
        stream.write(line + "\n")


def shell_on(host, line):
    folder = HOME / host.rpartition("@")[2]
    sys.exit(subprocess.run(["/bin/sh", "-c", line], cwd=folder).returncode)


def copy_to(source, target):
    host, _, path = target.partition(":")
    (HOME / host.rpartition("@")[2] / path).write_bytes(Path(source).read_bytes())


def popped(name, otherwise):
    """The next line of a file that a test has filled."""
    file = HOME / name
    lines = file.read_text().splitlines() if file.exists() else []
    file.write_text("\n".join(lines[1:]))
    return lines[0] if lines else otherwise


def gcloud():
    if "ssh" in ARGV:
        shell_on(ARGV[ARGV.index("ssh") + 1], FLAGS["--command"])
    if "scp" in ARGV:
        copy_to(*ARGV[ARGV.index("scp") + 1 :][:2])
    if "create" in ARGV and "workload-policy" not in ARGV:
        MADE.touch()
    if "delete" in ARGV:
        MADE.unlink(missing_ok=True)
    if "describe" in ARGV:
        if not MADE.exists():
            sys.exit("ERROR: NOT_FOUND")
        print(popped("states", "ACTIVE" if "tpus" in ARGV else "True"))
    if "list-instances" in ARGV:
        print("\n".join(f"machine-{number}" for number in range(int(popped("size", "4")))))


def kubectl():
    if "apply" in ARGV:
        MADE.touch()
    if "delete" in ARGV:
        MADE.unlink(missing_ok=True)
    if "--output=jsonpath={.metadata.name}" in ARGV:
        print(ARGV[ARGV.index("jobset") + 1]) if MADE.exists() else sys.exit(1)
    if "--output=jsonpath={.status.terminalState}" in ARGV:
        print(popped("states", "Completed"))


def python():
    if "clue_jax" in ARGV:
        sys.exit(int(popped("codes", "0")))


def srun():
    rest = iter(ARGV)
    program = [next(word for word in rest if not word.startswith("-")), *rest]
    os.execvp(program[0], program)


text = sys.stdin.read() if NAME in ("sbatch", "kubectl") and "get" not in ARGV else ""
named = {name: value for name, value in os.environ.items() if name.startswith(("JAX_", "XLA_"))}
record(stdin=text, environment=named)
if os.environ.get("STAND_IN_FAILS", "nothing") in ARGV:
    sys.exit("it was told to fail")
if NAME == "ssh":
    words = [word for n, word in enumerate(ARGV) if word != "-o" and ARGV[n - 1] != "-o"]
    shell_on(*words)
elif NAME == "scp":
    copy_to(*ARGV[-2:])
elif NAME == "sbatch":
    print("17", flush=True)
    subprocess.run(["/bin/bash", "-s"], input=text, text=True)
elif NAME == "sacct":
    print(popped("states", "COMPLETED|0:0"))
elif NAME == "scontrol" and "hostnames" in ARGV:
    print("node0\nnode1")
elif NAME in globals():
    globals()[NAME]()
