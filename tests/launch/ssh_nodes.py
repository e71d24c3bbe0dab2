"""Two nodes on this machine that are reached by OpenSSH alone: network, name and home of their own.

Each node is a network namespace with an address, a host name and an sshd, in which a user exists
that this machine does not have. The launcher has a namespace too, in which the home of root is a
temporary folder with the key, so that `ssh` and `scp` are called as anybody calls them and nothing
of this machine is changed: users, keys and mounts are seen in the namespaces alone, and go with
them. Needs root, iproute2 and OpenSSH's server.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

LAUNCHER = "launcher"
# Of TEST-NET-1 (RFC 5737), which is nobody's.
ADDRESSES = {LAUNCHER: "192.0.2.1", "node1": "192.0.2.2", "node2": "192.0.2.3"}
NODES = ("node1", "node2")
USER, UID = "me", 47113
SSHD = "/usr/sbin/sshd"
# What a namespace shows in place of this machine's own; sshd wants a folder below /run.
ENTER = (
    'mount --bind "$1/passwd" /etc/passwd; mount --bind "$2" /etc/hosts; hostname "$3";'
    ' mount -t tmpfs tmpfs /run; mkdir /run/sshd; shift 3; exec "$@"'
)
CONFIG = """ListenAddress {address}
HostKey {folder}/host_key
PidFile none
UsePAM no
UseDNS no
PasswordAuthentication no
KbdInteractiveAuthentication no
Subsystem sftp internal-sftp
"""


def missing() -> str:
    """What this machine lacks to make nodes; empty: nothing."""
    if os.geteuid() != 0:
        return "run it as root: it makes network namespaces"
    if not Path(SSHD).exists():
        return f"{SSHD} is not there: apt-get install openssh-server"
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        return "ip and unshare are not there: apt-get install iproute2 util-linux"
    if any(entry.pw_uid == UID for entry in pwd.getpwall()):
        return f"user id {UID} is somebody's; take another one in tests/launch/ssh_nodes.py"
    if there := [name for name in ADDRESSES if Path("/run/netns", _space(name)).exists()]:
        spaces = " ".join(map(_space, there))
        return f"left by a run that was killed, or of one that runs: ip netns: {spaces}"
    return ""


def _space(name: str) -> str:
    return f"clue-{name}"


def done(*words: str) -> str:
    """What a program printed that has ended well."""
    return subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def until(happened: Callable[[], object], seconds: float, what: str) -> float:
    """Waits for something; how many seconds it took."""
    began = time.monotonic()
    while not happened():
        assert time.monotonic() < began + seconds, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)
    return time.monotonic() - began


class Nodes:
    """The namespaces, and what runs in them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shared = folder / "shared"  # the file system that nodes see in common
        self.listeners: dict[str, subprocess.Popen[bytes]] = {}

    def make(self, wheels: Path) -> None:
        """Network, users and sshd; pip finds what it installs there in the folder `wheels`."""
        folder = self.folder
        self.shared.mkdir()
        os.chown(self.shared, UID, UID)
        names = "".join(f"{address} {name}\n" for name, address in ADDRESSES.items())
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
        self._make_home(LAUNCHER)
        keys = self.home(LAUNCHER) / ".ssh"
        keys.mkdir(0o700)
        done("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / "id_ed25519"))
        for node in NODES:
            self._make_home(node)
            self._let_in(node, keys, wheels)
        self._connect()
        for node in NODES:
            self.listen(node)

    def home(self, name: str) -> Path:
        return self.folder / name / "home"

    def _make_home(self, name: str) -> None:
        """And the list of users that is seen in the namespace."""
        home = self.home(name)
        home.mkdir(parents=True)
        lines = Path("/etc/passwd").read_text().splitlines()
        if name == LAUNCHER:
            lines = [line for line in lines if not line.startswith("root:")]
            lines.insert(0, f"root:x:0:0:root:{home}:/bin/sh")
        else:
            lines.append(f"{USER}:x:{UID}:{UID}::{home}:/bin/sh")
        (self.folder / name / "passwd").write_text("\n".join(lines) + "\n")

    def _let_in(self, node: str, keys: Path, wheels: Path) -> None:
        home, own = self.home(node), self.folder / node
        (home / ".ssh").mkdir(0o700)
        shutil.copy(keys / "id_ed25519.pub", home / ".ssh" / "authorized_keys")
        (home / ".config" / "pip").mkdir(parents=True)
        (home / ".config" / "pip" / "pip.conf").write_text(
            f"[global]\nno-index = true\nfind-links = {wheels}\n"
        )
        done("chown", "-R", f"{UID}:{UID}", str(home))
        done("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(own / "host_key"))
        (own / "sshd_config").write_text(CONFIG.format(address=ADDRESSES[node], folder=own))
        with (keys / "known_hosts").open("a") as known:
            known.write(f"{node} {(own / 'host_key.pub').read_text()}")

    def _connect(self) -> None:
        """A switch in the launcher's namespace, and a cable from each node to it."""
        for name in ADDRESSES:
            done("ip", "netns", "add", _space(name))
            done("ip", "-n", _space(name), "link", "set", "lo", "up")
        switch = ("ip", "-n", _space(LAUNCHER))
        done(*switch, "link", "add", "eth0", "type", "bridge")
        for node in NODES:
            ends = (node, "type", "veth", "peer", "name", "eth0", "netns", _space(node))
            done(*switch, "link", "add", *ends)
            done(*switch, "link", "set", node, "master", "eth0", "up")
        for name, address in ADDRESSES.items():
            done("ip", "-n", _space(name), "address", "add", f"{address}/24", "dev", "eth0")
            done("ip", "-n", _space(name), "link", "set", "eth0", "up")

    def inside(self, name: str, argv: Sequence[str]) -> list[str]:
        """What has a program run in a namespace; its process is the one that is started."""
        own = [str(self.folder / name), str(self.folder / "hosts"), name]
        enter = ["unshare", "--uts", "sh", "-euc", ENTER, "sh", *own]
        return ["ip", "netns", "exec", _space(name), *enter, *argv]

    def listen(self, node: str) -> None:
        """Starts the sshd of a node."""
        own = self.folder / node
        argv = [SSHD, "-D", "-E", str(own / "sshd.log"), "-f", str(own / "sshd_config")]
        self.listeners[node] = subprocess.Popen(self.inside(node, argv), stdin=subprocess.DEVNULL)
        probe = ["ssh-keyscan", "-t", "ed25519", node]
        until(
            lambda: subprocess.run(self.inside(LAUNCHER, probe), capture_output=True).stdout,
            20,
            f"sshd of {node} answers",
        )

    def refuse(self, node: str) -> None:
        """Ends the sshd of a node, so that connections are refused."""
        listener = self.listeners.pop(node)
        listener.terminate()
        listener.wait()

    def link(self, node: str, state: str) -> None:
        """Pulls the cable of a node (`down`) or plugs it in (`up`)."""
        done("ip", "-n", _space(LAUNCHER), "link", "set", node, state)

    def running(self, node: str) -> dict[int, str]:
        """Command lines of all that runs on a node by process id, but for its listening sshd."""
        found = {}
        for pid in map(int, done("ip", "netns", "pids", _space(node)).split()):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes()  # empty: it has ended
                if line:
                    found[pid] = line.replace(b"\0", b" ").decode(errors="replace")
        if node in self.listeners:
            found.pop(self.listeners[node].pid, None)
        return found

    def shell(self, node: str, line: str) -> str:
        """What the shell of a node's user prints, by ssh as the launcher calls it."""
        ssh = ["ssh", "-o", "BatchMode=yes", f"{USER}@{node}", line]
        return done(*self.inside(LAUNCHER, ssh))

    def stages(self, node: str) -> list[int]:
        """The processes of stages themselves, which are neither shells nor sshd."""
        lines = self.running(node).items()
        return [pid for pid, line in lines if line.startswith(".venv/bin/python -u -m clue_jax")]

    def clear(self) -> None:
        """Ends all that runs in the namespaces, but for what listens."""
        for name in ADDRESSES:
            for pid in self.running(name):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def remove(self) -> None:
        """Ends all that runs in the namespaces, and the namespaces."""
        for name in ADDRESSES:
            if not Path("/run/netns", _space(name)).exists():
                continue
            for pid in done("ip", "netns", "pids", _space(name)).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", _space(name)], check=False)
        for listener in self.listeners.values():
            listener.wait()


@contextlib.contextmanager
def two_nodes(wheels: Path) -> Iterator[Nodes]:
    """They are there while the context is, as is their folder."""
    with tempfile.TemporaryDirectory(prefix="clue_ssh_") as name:
        Path(name).chmod(0o755)
        made = Nodes(Path(name))
        try:
            made.make(wheels)
            yield made
        finally:
            made.remove()
