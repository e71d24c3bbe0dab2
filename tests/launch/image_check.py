"""Builds launch/Dockerfile and looks at what is in the image and whether it works, without Docker.

    python tests/launch/image_check.py [--extras=gs] [-- OPTIONS OF buildah build ...]

Needs buildah (no daemon; `BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs` where there are no
namespaces), the base image and a package index. The context is this checkout with files planted in
it that must not arrive. A JSON line a check; exits 1 with the names of those that failed.
10 minutes on 2 cores, nearly all of it downloads and copies of layers.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from launch.pack import pack  # noqa: E402
from tests.release_check import PIPELINE  # noqa: E402

TAG = "localhost/clue_jax:check"
CODE = "/opt/clue_jax"
PLANTED = (
    *(".git/config", ".env", "secret.pem", "tests/planted.py", "runs/planted.json"),
    *("clue_jax/__pycache__/planted.pyc", ".venv/planted.py", "data/planted.parquet"),
)


def buildah(*words: str) -> str:
    done = subprocess.run(
        ["buildah", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


@contextlib.contextmanager
def context() -> Iterator[Path]:
    """What git tracks, and what must stay outside."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "code.tar.gz"
        with contextlib.redirect_stdout(sys.stderr):  # a line of standard output is a check
            pack(archive)
        code = Path(folder) / "code"
        with tarfile.open(archive) as packed:
            packed.extractall(code, filter="data")
        for name in PLANTED:
            (code / name).parent.mkdir(parents=True, exist_ok=True)
            (code / name).write_text("planted")
        yield code


class Image:
    """A container of the image, in which a shell reads lines as the image's own user."""

    def __init__(self) -> None:
        self.container = buildah("from", "--pull=never", TAG).strip()

    def __call__(self, line: str) -> str:
        return buildah("run", self.container, "--", "sh", "-euc", line)

    def is_not_root(self) -> str:
        user = self("id -u").strip()
        assert user == "10001", user
        refused = self(
            f"for d in {CODE} /usr/local /etc; do touch $d/x 2>/dev/null || echo $d; done"
        )
        assert len(refused.split()) == 3, f"only {refused.split()} refuse to be written to"
        return f"user {user}, who can write to none of {' '.join(refused.split())}"

    def holds_the_code_alone(self) -> str:
        held = set(self(f"cd {CODE} && find . -type f").split())
        wanted = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        stray = sorted(held - {f"./{name}" for name in wanted})
        assert not stray, f"not of the checkout: {stray}"
        outside = [name for name in held if name.startswith(("./tests", "./docs", "./launch"))]
        assert not outside, outside
        found = self(
            "grep -rlx planted / --include='*planted*' --include='*.pem' --include=.env"
            " --exclude-dir=proc --exclude-dir=sys 2>/dev/null || :"
        )
        assert not found, f"planted files arrived: {found}"
        return f"{len(held)} files, none of {len(PLANTED)} planted ones"

    def has_the_tested_versions(self) -> str:
        lines = (ROOT / "constraints.txt").read_text().splitlines()
        pinned = dict(line.split("==") for line in lines if re.match(r"[\w.-]+==", line))
        pinned = {_plain(name): version.split(";")[0].strip() for name, version in pinned.items()}
        freeze = self("python -m pip list --format=freeze").split()
        installed = {_plain(n): v for n, _, v in (line.partition("==") for line in freeze)}
        wrong = {n: v for n, v in installed.items() if pinned.get(n, v) != v}
        assert not wrong, f"other versions than those of constraints.txt: {wrong}"
        self("python -m pip check")
        return f"{len(installed.keys() & pinned.keys())} of {len(installed)} packages are pinned"

    def runs_every_stage(self) -> str:
        entry = buildah("inspect", "--type=image", "--format={{.OCIv1.Config.Entrypoint}}", TAG)
        self(entry.strip().strip("[]") + " --help")
        began = time.monotonic()
        self("cd $(mktemp -d)\n" + "\n".join(f"clue-jax {stage} >&2" for stage in PIPELINE))
        return f"{len(PIPELINE)} stages in {time.monotonic() - began:.0f} s"


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def build(extras: str, options: list[str]) -> str:
    began = time.monotonic()
    with context() as code:
        own = ("--file", f"{code}/launch/Dockerfile", f"--build-arg=EXTRAS={extras}")
        buildah("build", *own, f"--tag={TAG}", *options, str(code))
    (found,) = json.loads(buildah("images", "--json", TAG))
    return f"{found['size']} in {time.monotonic() - began:.0f} s"


def checked(name: str, check: Callable[[], str]) -> bool:
    try:
        found, passed = check(), True
    except (AssertionError, subprocess.CalledProcessError) as error:
        found, passed = str(error), False
    print(json.dumps({"check": name, "passed": passed, "found": found}), flush=True)
    return passed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, usage="%(prog)s [--extras=gs] [-- ...]")
    parser.add_argument("--extras", default="gs")
    parser.add_argument("options", nargs="*")
    given = parser.parse_args()
    if not checked("build", lambda: build(given.extras, given.options)):
        return 1
    image = Image()
    checks = (
        image.is_not_root,
        image.holds_the_code_alone,
        image.has_the_tested_versions,
        image.runs_every_stage,
    )
    failed = [check.__name__ for check in checks if not checked(check.__name__, check)]
    buildah("rm", image.container)
    print("all checks passed" if not failed else f"failed: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
