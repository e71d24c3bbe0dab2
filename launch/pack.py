"""The code of this checkout as one archive: `python -m launch.pack FILE.tar.gz`.

What git tracks or would track, as it is in the folder now, so that changes need no commit; what git
ignores (data, runs, environments) stays.
"""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

from etils import epath

from clue_jax import files
from clue_jax.console import say, size_text
from clue_jax.errors import ClueError, ConfigError
from launch.plan import require_tools

ROOT = Path(__file__).parents[1]


def pack(target: Path, root: Path = ROOT) -> None:
    """Writes the archive; the same files give the same bytes.

    Raises:
        ConfigError: `root` is no checkout.
        StorageError: the file system refused.
    """
    names = _names(root)
    payload = _archive(root, names)
    files.write_bytes(epath.Path(target), payload)
    say(f"packed {len(names)} files, {size_text(len(payload))}: {target}")


def _names(root: Path) -> list[str]:
    require_tools(["git"])
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(argv, cwd=root, capture_output=True, text=True)
    if listed.returncode:
        raise ConfigError(
            f"{root}: {listed.stderr.strip()}; code is packed from a git checkout of this project"
        )
    return [n for n in sorted(set(listed.stdout.split("\0"))) if n and (root / n).is_file()]


def _archive(root: Path, names: Iterable[str]) -> bytes:
    packed = io.BytesIO()
    # Times and owners are left out: neither is code.
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as archive,
    ):
        for name in names:
            content = (root / name).read_bytes()
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


if __name__ == "__main__":
    try:
        pack(Path(sys.argv[1]))
    except ClueError as error:
        print(f"launch: error: {error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
