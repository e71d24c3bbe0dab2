"""A SLURM cluster of two nodes with accounting, on this machine and in a folder of its own.

SLURM, munge and MariaDB are those of Debian. Ports are free ones, sockets, keys and the database
lie in the folder, and the nodes' names are addresses of the loopback device, so that no file
of the machine changes and a cluster that is there already is not touched.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tests.release_check import CheckFailedError

NODES = ("127.0.0.1", "127.0.0.2")  # names that resolve
PACKAGES = {  # program -> package
    "munged": "munge",
    "mariadbd": "mariadb-server",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "slurmdbd": "slurmdbd",
    "sbatch": "slurm-client",
}
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
# A job that goes back into the queue waits there until its credential has expired.
CREDENTIAL_SECONDS = 20
START_SECONDS = 60.0

SLURM = """\
ClusterName=check
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire={credential}
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdSpoolDir={folder}/slurmd.%n
StateSaveLocation={folder}/state
SlurmdParameters=config_overrides
SchedulerParameters=bf_interval=5,sched_interval=5
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd}
AccountingStoragePass={folder}/munge.socket
GresTypes=gpu
FirstJobId={first}
KillWait=10
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr={name} Port={port} CPUs=2 RealMemory=4000"
    " Gres=gpu:1 State=UNKNOWN"
)
DBD = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={dbd}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm
PidFile={folder}/slurmdbd.pid
"""
# No GPU is asked anything: a node has to name a device for each that it counts.
GRES = "NodeName=127.0.0.1 Name=gpu File=/dev/zero\nNodeName=127.0.0.2 Name=gpu File=/dev/null\n"
CGROUP = "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n"
USER = """\
CREATE USER slurm@'127.0.0.1' IDENTIFIED BY '{password}';
GRANT ALL ON slurm.* TO slurm@'127.0.0.1';
"""


def what_is_missing() -> str:
    """Why there can be no cluster here, and what to do; empty where there can."""
    if os.geteuid() != 0:
        return "needs root, who alone may start the daemons of SLURM"
    packages = [p for program, p in PACKAGES.items() if shutil.which(program, path=PATH) is None]
    if packages:
        install = "apt-get install --no-install-recommends"
        return f"not installed: {', '.join(packages)}; on Debian: {install} {' '.join(packages)}"
    return ""


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Starts a cluster and ends it again.

    Args:
        folder: an empty one, for its configuration, state and logs.

    Yields:
        The environment in which SLURM's commands reach it.

    Raises:
        CheckFailedError: a part of it does not come up; with what that part said.
    """
    environment = {**os.environ, "PATH": PATH, "SLURM_CONF": str(folder / "slurm.conf")}
    ports = _free_ports("ctld", "dbd", "database", *NODES)
    password = secrets.token_hex(16)
    _write_files(folder, ports, password)
    with contextlib.ExitStack() as stack:

        def daemon(ready: Callable[[], object], name: str, *argv: str) -> None:
            stack.enter_context(_daemon(folder, environment, ready, name, *argv))

        def port(name: str) -> Callable[[], bool]:
            return lambda: _answers(ports[name])

        own = ("--socket", "--pid-file", "--log-file", "--seed-file")
        files = [f"{flag}={folder}/munge.{flag.removeprefix('--')[:6]}" for flag in own]
        key = f"--key-file={folder}/munge.key"
        munge = folder / "munge.socket"
        daemon(munge.exists, "munged", "munged", "--foreground", "--force", key, *files)
        _start_database(folder, daemon, ports["database"], password)
        daemon(port("dbd"), "slurmdbd", "slurmdbd", "-D")
        ask(environment, "sacctmgr", "--immediate", "add", "cluster", "check")
        daemon(port("ctld"), "slurmctld", "slurmctld", "-D", "-c")
        for node in NODES:
            daemon(port(node), f"slurmd-{node}", "slurmd", "-D", "-N", node)
        idle = ["idle"] * len(NODES)
        _wait(lambda: states(environment) == idle, lambda: f"nodes are {states(environment)}")
        try:
            yield environment
        finally:
            ask(environment, "scancel", "--user=root", "--signal=KILL", "--full")
            _wait(lambda: not ask(environment, "squeue", "--noheader"), lambda: "jobs stay")


def ask(environment: Mapping[str, str], *argv: str) -> str:
    """What a command of SLURM prints."""
    done = subprocess.run(
        argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        raise CheckFailedError(f"{' '.join(argv)}: {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


def states(environment: Mapping[str, str]) -> list[str]:
    """Of the nodes, such as idle, mixed, drained."""
    return ask(environment, "sinfo", "--noheader", "--Node", "--format=%T").split()


def _write_files(folder: Path, ports: Mapping[str, int], password: str) -> None:
    known = {"folder": folder, "password": password, "host": socket.gethostname().split(".")[0]}
    known |= {"credential": CREDENTIAL_SECONDS, "first": 1000 + secrets.randbelow(8000)}
    known |= {name: ports[name] for name in ("ctld", "dbd", "database")}
    nodes = [NODE.format(name=name, host=known["host"], port=ports[name]) for name in NODES]
    texts = {
        "slurm.conf": SLURM.format(nodes="\n".join(nodes), **known),
        "slurmdbd.conf": DBD.format(**known),
        "gres.conf": GRES,
        "cgroup.conf": CGROUP,
        "munge.key": secrets.token_hex(64),
    }
    for name, text in texts.items():
        path = folder / name
        path.touch(mode=0o600)  # slurmdbd and munged refuse secrets that others may read
        path.write_text(text)
    for name in ("state", *(f"slurmd.{node}" for node in NODES)):
        (folder / name).mkdir()


def _start_database(folder: Path, daemon: Callable[..., None], port: int, password: str) -> None:
    data, named = folder / "database", f"--socket={folder}/database.socket"
    bare = ("--no-defaults", "--user=root", f"--datadir={data}")
    subprocess.run(
        ["mariadb-install-db", *bare, "--auth-root-authentication-method=normal"],
        stdout=subprocess.DEVNULL,
        check=True,
    )
    local = (named, f"--port={port}", "--bind-address=127.0.0.1", "--skip-name-resolve")
    pid = f"--pid-file={folder}/database.pid"
    small = "--innodb-buffer-pool-size=64M"
    daemon(lambda: _answers(port), "mariadbd", "mariadbd", *bare, *local, pid, small)
    client = ["mariadb", "--no-defaults", "--user=root", named]
    subprocess.run(client, input=USER.format(password=password), text=True, check=True)


@contextlib.contextmanager
def _daemon(
    folder: Path,
    environment: Mapping[str, str],
    ready: Callable[[], object],
    name: str,
    *argv: str,
) -> Iterator[None]:
    log = folder / f"{name}.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the checks; daemons end in order
        )
    try:
        _wait(ready, lambda: f"{name}: {log.read_text()[-2000:]}", process)
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            print(f"{name} did not end in 20 s, and is killed", file=sys.stderr, flush=True)
            process.kill()
            process.wait()


def _wait(
    happened: Callable[[], object],
    problem: Callable[[], str],
    process: subprocess.Popen[bytes] | None = None,
) -> None:
    limit = time.monotonic() + START_SECONDS
    while not happened():
        if time.monotonic() > limit or (process and process.poll() is not None):
            raise CheckFailedError(problem())
        time.sleep(0.2)


def _answers(port: int) -> bool:
    for address in NODES:
        with contextlib.suppress(OSError), socket.create_connection((address, port), 1):
            return True
    return False


def _free_ports(*names: str) -> dict[str, int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in names]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return {name: probe.getsockname()[1] for name, probe in zip(names, probes, strict=True)}
