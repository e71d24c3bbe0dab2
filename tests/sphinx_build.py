"""Builds the site of docs/ as a process of its own, as strictly as it can be built."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def build(source: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs Sphinx with warnings as errors and no way to the web; gives the finished process."""
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
    strict = ["-q", "-W", "--keep-going", "-n"]
    return subprocess.run(
        [sys.executable, "-m", "sphinx", *strict, *options, str(source), str(out)],
        cwd=ROOT,
        env={**os.environ, **nowhere, "XLA_FLAGS": ""},  # one device, as a reader has it
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
    )
