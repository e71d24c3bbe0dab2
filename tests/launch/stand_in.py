"""Stands in for gcloud, ssh, kubectl, sbatch and the like: records its arguments and acts a little.

It is put on PATH under each of their names (`tests/launch/machines.py`). What a shell on another
machine would read is read by the real /bin/sh, in a folder that stands for that machine. It imports
next to nothing, since tests start it some hundred times.
"""

import os
import sys

HOME = os.environ["STAND_IN_HOME"] + "/"
NAME, ARGV = sys.argv[0].rpartition("/")[2], sys.argv[1:]
MADE = HOME + "made"
FLAGS = dict(word.partition("=")[::2] for word in ARGV if word.startswith("--"))


def read(path):
    with open(path) as stream:
        return stream.read()


def write(path, text, mode="w"):
    with open(path, mode) as stream:
        stream.write(text)


def machine(host):
    return HOME + host.rpartition("@")[2]


def shell_on(host, line):
    os.chdir(machine(host))
    os.execv("/bin/sh", ["sh", "-c", line])


def copy_to(source, target):
    host, _, path = target.partition(":")
    with open(source, "rb") as stream:
        write(f"{machine(host)}/{path}", stream.read(), "wb")


def popped(name, otherwise):
    """The next line of a file that a test has filled."""
    lines = read(HOME + name).splitlines() if os.path.exists(HOME + name) else []
    write(HOME + name, "\n".join(lines[1:]))
    return lines[0] if lines else otherwise


def made():
    return os.path.exists(MADE)


def make_or_remove():
    if ("create" in ARGV and "workload-policy" not in ARGV) or "apply" in ARGV:
        write(MADE, "")
    if "delete" in ARGV and made():
        os.unlink(MADE)


def gcloud():
    if "ssh" in ARGV:
        shell_on(ARGV[ARGV.index("ssh") + 1], FLAGS["--command"])
    if "scp" in ARGV:
        copy_to(*ARGV[ARGV.index("scp") + 1 :][:2])
    make_or_remove()
    if "describe" in ARGV:
        if not made():
            sys.exit("ERROR: NOT_FOUND")
        print(popped("states", "ACTIVE" if "tpus" in ARGV else "True"))
    if "list-instances" in ARGV:
        print("\n".join(f"machine-{number}" for number in range(int(popped("size", "4")))))


def kubectl():
    make_or_remove()
    if "--output=jsonpath={.metadata.name}" in ARGV:
        print(ARGV[ARGV.index("jobset") + 1]) if made() else sys.exit("Error: (NotFound)")
    if "--output=jsonpath={.status.terminalState}" in ARGV:
        print(popped("states", "Completed"))


def ssh():
    words = [word for n, word in enumerate(ARGV) if word != "-o" and ARGV[n - 1] != "-o"]
    shell_on(*words)


def scp():
    copy_to(*ARGV[-2:])


def python():
    if "clue_jax" in ARGV:
        sys.exit(int(popped("codes", "0")))


def sbatch():
    write(HOME + "batch", TEXT)
    print("17", flush=True)
    os.spawnlp(os.P_WAIT, "bash", "bash", HOME + "batch")


def sacct():
    print(popped("states", "COMPLETED|0:0"))


def squeue():
    print(popped("comments", "(null)") if "--format=%k" in ARGV else "")


def srun():
    rest = iter(ARGV)
    program = [next(word for word in rest if not word.startswith("-")), *rest]
    os.execvp(program[0], program)


def scontrol():
    if "hostnames" in ARGV:
        print("node0\nnode1")


TEXT = sys.stdin.read() if NAME == "sbatch" or "apply" in ARGV else ""
NAMED = {name: value for name, value in os.environ.items() if name.startswith(("JAX_", "XLA_"))}
CALL = {"name": NAME, "argv": ARGV, "stdin": TEXT, "environment": NAMED}
write(HOME + "record", ascii(CALL) + "\n", "a")
if os.environ.get("STAND_IN_FAILS", "nothing") in ARGV:
    sys.exit(os.environ.get("STAND_IN_SAYS", "it was told to fail"))
globals().get(NAME, str)()
