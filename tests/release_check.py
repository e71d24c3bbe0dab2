"""What has to be true before a release, as a person who installs it would find it.

    python tests/release_check.py [--online] [--only=links,versions]

Builds sdist and wheel, installs the wheel outside of the checkout in a fresh environment, and runs
every `--help` and a small pipeline from there; compares versions; builds the docs with warnings as
errors; follows the links of all pages, those to the web with --online. Needs the extra `docs` and a
package index. One line a check; exits 1 with the names of those that failed. 5 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import venv
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests import links  # noqa: E402
from tests.sphinx_build import build  # noqa: E402

PIPELINE = (
    "synthesize --config=configs/synthesize.py:smoke --out=logs",
    "prepare --config=configs/data/synthetic.py:smoke --config.source=logs --out=data",
    "train --config=configs/pretrain.py:smoke --data=data --workdir=run",
    "export --workdir=run --data=data --out=users",
    "embeddings verify users",
    "evaluate --config=configs/evaluate/matching.py --embeddings=users --out=evaluation"
    " --config.matching.min_behaviours=2 --config.matching.bootstrap=100",
    "report .",
)
Check = Callable[[], str]


class CheckFailedError(Exception):
    """A check failed; the message says what is wrong."""


def run_checks(checks: Mapping[str, Check]) -> list[str]:
    """Runs all checks, prints a line for each, and gives the names of those that failed."""
    failed = []
    for name, check in checks.items():
        try:
            print(f"ok    {name}: {check()}", flush=True)
        except (CheckFailedError, OSError, subprocess.SubprocessError) as error:
            failed.append(name)
            print(f"FAIL  {name}: {error}", flush=True)
    return failed


# ------------------------------------------------------------------------------ of the checkout


def check_versions(root: Path = ROOT) -> str:
    """Package, newest heading of the changelog and CITATION.cff have the same version."""
    places = {
        "clue_jax/__init__.py": r'^__version__ = "(.+)"$',
        "CHANGELOG.md": r"^## (\S+)",
        "CITATION.cff": r"^version: (\S+)$",
    }
    found = {}
    for file, pattern in places.items():
        match = re.search(pattern, (root / file).read_text(encoding="utf-8"), re.MULTILINE)
        found[file] = match[1] if match else "none"
    if len(set(found.values())) > 1:
        raise CheckFailedError(", ".join(f"{file} has {found[file]}" for file in found))
    return found["CITATION.cff"]


def check_links(root: Path = ROOT) -> str:
    """Relative links and anchors of all pages lead somewhere."""
    files = links.pages(root)
    if broken := links.broken_links(root, files):
        raise CheckFailedError("; ".join(broken))
    return f"those of {len(files)} pages lead somewhere"


def check_web_links(root: Path = ROOT) -> str:
    """Links to the web are answered."""
    addresses = links.external_links(links.pages(root))
    broken = [f"{address}: {why}" for address in addresses if (why := _unanswered(address))]
    if broken:
        raise CheckFailedError("; ".join(broken))
    return f"{len(addresses)} addresses answer"


def _unanswered(address: str) -> str:
    """Why an address is not there; empty: it is, or it is and lets no program in."""
    request = urllib.request.Request(address, headers={"User-Agent": "Mozilla/5.0"})
    try:
        with urllib.request.urlopen(request, timeout=30):
            return ""
    except urllib.error.HTTPError as error:
        return "" if error.code in (401, 403, 429) else str(error)
    except OSError as error:
        return str(error)


def check_docs(out: Path) -> str:
    """The site builds without a warning."""
    done = build(ROOT / "docs", out / "html")
    if done.returncode:
        raise CheckFailedError(done.stdout)
    return f"{len(list((out / 'html').rglob('*.html')))} pages without a warning"


# ------------------------------------------------------------------------------- of what is built


class Release:
    """Sdist and wheel in a folder, and an environment with the wheel alone."""

    def __init__(self, folder: Path):
        self.folder, self.environment = folder, folder / "venv"
        self.work = folder / "work"  # far from the checkout, so that nothing of it is found
        self.work.mkdir()

    def check_build(self) -> str:
        """An sdist, and from it a wheel that has the configs, are built."""
        tools = self.folder / "tools"
        venv.create(tools, with_pip=True)
        pip = [str(tools / "bin/python"), "-m", "pip", "install", "-q"]
        _run([*pip, "-c", str(ROOT / "constraints.txt"), "build"])
        dist = self.folder / "dist"
        _run([str(tools / "bin/python"), "-m", "build", "--outdir", str(dist), str(ROOT)])
        sdist, wheel = self._one("*.tar.gz"), self._one("*.whl")
        with tarfile.open(sdist) as archive, zipfile.ZipFile(wheel) as installed:
            names = [name.partition("/")[2] for name in archive.getnames()]
            lost = {"README.md", "LICENSE", "constraints.txt", "configs/pretrain.py"} - {*names}
            lost |= {"clue_jax/configs/pretrain.py"} - {*installed.namelist()}
        if lost:
            raise CheckFailedError(f"{', '.join(sorted(lost))}: not in what is built")
        return f"{sdist.name}, {wheel.name}"

    def check_install(self) -> str:
        """The wheel installs in a fresh environment, and is what is imported there."""
        venv.create(self.environment, with_pip=True)
        pip = [self._program("python"), "-m", "pip", "install", "-q"]
        _run([*pip, "-c", str(ROOT / "constraints.txt"), str(self._one("*.whl"))])
        place = self._clue_jax_says("import clue_jax; print(clue_jax.__file__)")
        if not Path(place).is_relative_to(self.environment):
            raise CheckFailedError(f"{place} is imported, which is not of the wheel")
        return self._clue_jax_says("import clue_jax; print(clue_jax.__version__)")

    def check_help(self) -> str:
        """`--help` of all stages."""
        names = self._clue_jax_says("from clue_jax import cli; print('\\n'.join(cli.STAGES))")
        self._clue_jax("--help")
        for name in names.splitlines():
            self._clue_jax(f"{name} --help")
        return f"of {len(names.splitlines())} stages"

    def check_pipeline(self) -> str:
        """Every stage of the small pipeline, with configs from the wheel."""
        for command in PIPELINE:
            self._clue_jax(command)
        if not (self.work / "report.html").stat().st_size:
            raise CheckFailedError("report.html is empty")
        return f"{len(PIPELINE)} commands"

    def _one(self, pattern: str) -> Path:
        found = list((self.folder / "dist").glob(pattern))
        if len(found) != 1:
            raise CheckFailedError(f"{len(found)} files {pattern} were built, not one")
        return found[0]

    def _program(self, name: str) -> str:
        return str(self.environment / "bin" / name)

    def _clue_jax(self, command: str) -> str:
        return _run([self._program("clue-jax"), *command.split()], self.work)

    def _clue_jax_says(self, source: str) -> str:
        return _run([self._program("python"), "-c", source], self.work).strip()


def _run(command: list[str], folder: Path | None = None) -> str:
    """What a command printed, once it has ended well."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command, cwd=folder, env=kept, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        shown = " ".join(command)
        raise CheckFailedError(f"{shown} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def checks_in(folder: Path, online: bool) -> dict[str, Check]:
    """All checks by name, the cheap ones first; later ones use what earlier ones made."""
    release = Release(folder)
    checks: dict[str, Check] = {"versions": check_versions, "links": check_links}
    if online:
        checks["web links"] = check_web_links
    return checks | {
        "build": release.check_build,
        "install": release.check_install,
        "help": release.check_help,
        "pipeline": release.check_pipeline,
        "docs": lambda: check_docs(folder / "site"),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--online", action="store_true", help="also ask the web for each address")
    parser.add_argument("--only", default="", help="names of checks, by commas")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clue_jax_release_") as folder:
        checks = checks_in(Path(folder), options.online)
        wanted = options.only.split(",") if options.only else list(checks)
        if unknown := sorted({*wanted} - {*checks}):
            parser.error(f"no check {unknown[0]!r}; there are {', '.join(checks)}")
        failed = run_checks({name: checks[name] for name in wanted})
    print(f"failed: {', '.join(failed)}" if failed else "ready to be released")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
