"""Pages show what the launcher prints, and commands that it takes."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from launch import command_line
from launch.__main__ import main
from launch.backends import BACKENDS

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "launch.md").read_text()
SHOWN = re.findall(r"^```console\n\$ (.*)\n((?:.*\n)*?)```$", DOCS, re.MULTILINE)
COMMANDS = sorted(
    {
        line
        for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
        for line in re.findall(
            r"^\s*(?:\$ )?(python -m launch (?!local).*)$", page.read_text(), re.MULTILINE
        )
    }
)
JOBS = sorted((ROOT / "launch" / "jobs").glob("*.json"))


@pytest.mark.parametrize(("command", "output"), SHOWN)
def test_what_is_shown_is_what_is_printed(monkeypatch, capsys, command, output):
    monkeypatch.chdir(ROOT)
    assert main(shlex.split(command)[3:]) == 0
    assert capsys.readouterr().out.replace(sys.executable, "python") == output


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_taken(monkeypatch, command):
    monkeypatch.chdir(ROOT)
    words = shlex.split(command.replace("PRICE", "1.5"), comments=True)[3:]
    if "--help" in words:
        return
    at = words.index("--") if "--" in words else len(words)
    command_line.parse(words[0], words[1:at], words[at + 1 :])


def test_there_are_commands_and_output_for_each_backend():
    assert len(SHOWN) >= 3 and len(COMMANDS) > 8
    assert {name for name in BACKENDS if f"python -m launch {name} " in DOCS} == set(BACKENDS)


@pytest.mark.parametrize("file", JOBS, ids=lambda file: file.stem)
def test_every_job_is_in_the_docs_and_fits_its_backend(monkeypatch, file):
    monkeypatch.chdir(ROOT)
    (backend,) = {
        name for name in BACKENDS if f"launch {name} --job=launch/jobs/{file.name}" in DOCS
    } or {
        name
        for name in BACKENDS
        if f"launch {name} supervise --job=launch/jobs/{file.name}" in DOCS
    }
    command_line.parse(backend, [f"--job={file}"], [])


def test_the_image_is_pinned_and_not_roots():
    lines = (ROOT / "launch" / "Dockerfile").read_text().splitlines()
    (base,) = [line for line in lines if line.startswith("FROM ")]
    assert base == "FROM python:${PYTHON}-slim-bookworm" and "ARG PYTHON=3.11" in lines
    installs = [line for line in lines if "pip install" in line]
    assert all("-c constraints.txt" in line or "--no-deps" in line for line in installs)
    users = [line for line in lines if line.startswith("USER ")]
    assert users == ["USER 10001"] and lines.index(users[0]) < lines.index(
        'ENTRYPOINT ["python", "-u", "-m", "clue_jax"]'
    )
    sources = [line.split()[1:-1] for line in lines if line.startswith("COPY ")]
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    for name in [word for words in sources for word in words]:
        assert (ROOT / name).exists() and f"!{name.split('/')[0]}" in kept
