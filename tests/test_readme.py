"""Commands that are printed somewhere exist as printed: README, docs, config headers, --help."""

import ast
import csv
import gzip
import json
import re
import shlex
from pathlib import Path

import pytest

from clue_jax import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SETUP = [line for line in README.splitlines() if line.startswith("python3 -m venv ")]
OWN_LOGS = (ROOT / "docs" / "own-logs.md").read_text()
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(
    r"^\s*(?:\$ )?(?:python -m clue_jax|clue-jax|python -m launch .* --) ((?:.*\\\n)*.*)$",
    re.MULTILINE,
)


def commands(text: str) -> list[str]:
    """What follows `clue-jax` in every line that is a command, joined where it goes on."""
    return [re.sub(r"\s*\\\n\s*", " ", found).strip() for found in COMMAND.findall(text)]


def problem(command: str) -> str:
    """What is wrong with a command after `clue-jax`, or nothing."""
    try:
        cli.parse(*cli.find_stage(shlex.split(command)))
    except cli.ConfigError as error:
        return str(error)
    return ""


def _printed():
    sources = {"README.md": README}
    for path in sorted((ROOT / "configs").rglob("*.py")):
        sources[str(path.relative_to(ROOT))] = ast.get_docstring(ast.parse(path.read_text())) or ""
    for path in sorted((ROOT / "docs").rglob("*.md")):
        sources[str(path.relative_to(ROOT))] = path.read_text()
    found = [(name, command) for name, text in sources.items() for command in commands(text)]
    return found + [(f"{stage.name} --help", stage.example) for stage in cli.STAGES.values()]


@pytest.mark.parametrize(("where", "command"), _printed())
def test_printed_commands_parse(where, command, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert problem(command) == ""


def test_problems_are_found(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert problem("trian --out=x")
    assert problem("embeddings verfy x")
    assert problem("synthesize --config=configs/none.py --out=x")
    assert problem("synthesize --config=configs/synthesize.py --out=x --config.none=1")
    assert problem("synthesize --config=configs/synthesize.py --output=x")
    text = (
        "see `clue-jax x`\n    python -m clue_jax train --a=1 \\\n      --b=2\nclue-jax report d\n"
        "python -m launch local --processes=2 -- report e\n"
    )
    assert commands(text) == ["train --a=1 --b=2", "report d", "report e"]


def test_every_stage_is_in_the_readme():
    shown = {command.split()[0] for command in commands(README)}
    assert {"synthesize", "prepare", "train", "export", "evaluate", "report", "compile"} <= shown
    assert "quickstart" in SETUP[0]


def test_there_are_exactly_two_set_up_commands():
    install, test = SETUP
    for command in (install, test):
        assert f"```bash\n{command}\n```" in README, "alone in its block"
        assert "-c constraints.txt" in command
    assert install.endswith("/clue-jax quickstart")
    assert test.endswith("/python -m pytest -n 2 --dist loadgroup")
    assert README.count("pip install") == 2


def test_files_that_are_named_exist():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    pattern = re.compile(r"`((?:configs|tests|clue_jax|docs|\.ci)/[\w./]+)`")
    named = {name for page in pages for name in pattern.findall(page.read_text())}
    assert {".ci/run", "configs/evaluate/tasks.py", "tests/consumers/spark.py"} <= named
    assert [name for name in named if not (ROOT / name).exists()] == []
    layout = re.findall(r"^((?:clue_jax|configs|docs|tests)/\S*)", README, re.MULTILINE)
    assert len(layout) > 8
    assert [name for name in layout if not (ROOT / name).exists()] == []


def test_the_exit_codes_in_the_docs_are_all_of_them():
    page = (ROOT / "docs" / "cli.md").read_text()
    table = set(map(int, re.findall(r"\| (\d+) \|", page)))
    assert table == set(map(int, re.findall(r"(?:^|, )(\d+) ", cli.cli_help.EXIT_CODES)))


def test_the_config_in_the_docs_prepares_such_logs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    (source,) = PYTHON.findall(OWN_LOGS)
    (tmp_path / "logs.py").write_text(source)
    with open("logs/orders-1.csv", "w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["customer", "ordered_at", "brand", "title", "category"])
        table.writerows([f"c{i}", f"2024-01-{i % 28 + 1:02}", "b", f"t{i}", "k"] for i in range(40))
    with gzip.open("logs/queries.jsonl.gz", "wt") as stream:
        for i in range(40):
            row = {"account": f"c{i}", "time": 1_704_067_200 + i, "query": f"q{i}"}
            stream.write(json.dumps(row) + "\n")
    for page in (README, OWN_LOGS):
        assert "`clue-jax prepare --config=logs.py --out=data/mine`" in page
    assert cli.main(["prepare", "--config=logs.py", "--out=data/mine"]) == 0
    manifest = json.loads((tmp_path / "data/mine/manifest.json").read_text())
    assert manifest["services"] == ["shop", "search"]
    assert sum(split["users"] for split in manifest["splits"].values()) == 40


def test_the_lines_of_python_in_the_readme_encode_a_user(smoke_run):
    (source,) = PYTHON.findall(README)
    assert '"runs/quickstart/run"' in source
    found = {}
    code = compile(source.replace("runs/quickstart/run", str(smoke_run)), "README.md", "exec")
    exec(code, found)
    assert found["z"].shape == (1, 16) and abs(float((found["z"] ** 2).sum()) - 1) < 1e-5
