"""What a report is made from: files of a run, an evaluation or a quickstart, checked."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from typing import Any

from etils import epath

from clue_jax import files, leases
from clue_jax.embeddings.reader import MANIFEST, SEAL
from clue_jax.errors import ConfigError, DataError
from clue_jax.report.expected import EXPECTED, Expected, read_expected
from clue_jax.report.labelled import LabelTable, read_categories, read_usable, task_tables
from clue_jax.report.people import Neighbourhood, read_people
from clue_jax.report.results import number, read_results
from clue_jax.report.spread import Spread, read_spread
from clue_jax.report.wanted import USUAL, Wanted
from clue_jax.scaling.results import FIGURES, FITS, RESULTS


@dataclass(frozen=True)
class Run:
    """A run directory: its config, where it ran and the rows of its metrics."""

    config: dict[str, Any]
    environment: dict[str, Any]
    training: list[dict[str, Any]]  # rows by step
    validation: list[dict[str, Any]]  # rows by step
    live: bool = False  # somebody is training it


@dataclass(frozen=True)
class Command:
    """A stage as it was run."""

    stage: str
    line: str
    seconds: float | None


@dataclass(frozen=True)
class Study:
    """What `scale` left: contents of fits.json, results of its runs, figures as SVG by name."""

    conclusions: dict[str, Any]
    results: list[dict[str, Any]]
    figures: dict[str, bytes]


@dataclass(frozen=True)
class Material:
    """All that a page may show; what the directory does not have is None or empty."""

    title: str
    run: Run | None = None
    results: list[dict[str, Any]] = field(default_factory=list)
    dataset: dict[str, Any] | None = None  # manifest.json of the prepared dataset
    commands: list[Command] = field(default_factory=list)
    study: Study | None = None
    spread: Spread | None = None
    sealed: bool = False  # the directory takes no file but its own
    people: list[Neighbourhood] = field(default_factory=list)  # of whom texts are shown
    expected: Expected | None = None  # of a quickstart


def read_material(directory: epath.PathLike, view: Wanted = USUAL) -> Material:
    """Reads what `train`, `evaluate`, `export`, `scale` or `quickstart` left in its folder.

    Args:
        directory: the folder.
        view: of an export, where there is one.

    Raises:
        ConfigError: texts are wanted of a folder without an export.
        DataError: nothing to report on, or a file that is missing or damaged; names it.
    """
    material = _read(epath.Path(directory), view)
    if view.show_texts and not material.people:
        raise ConfigError(f"--show_texts: {directory} has no export of users; name one")
    return material


def _read(folder: epath.Path, view: Wanted) -> Material:
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such directory; pass what train, export, evaluate or scale wrote"
        )
    if (folder / "metrics.jsonl").exists():
        run = read_run(folder)
        return Material(_title("Run", folder), run=run, commands=_command_of(folder))
    if (folder / "results.json").exists():
        return Material(
            _title("Evaluation", folder),
            results=read_results(folder / "results.json"),
            spread=_evaluated_spread(folder, view),
        )
    if (folder / FITS).exists():
        return Material(_title("Scaling study", folder), study=read_study(folder))
    if (folder / "run").is_dir() or (folder / "evaluation").is_dir():
        return _read_quickstart(folder, view)
    if _is_export(folder):
        return Material(
            _title("Embeddings", folder),
            spread=read_spread(folder, _labels(view, [])),
            sealed=True,
            people=read_people(folder, view.data) if view.show_texts else [],
        )
    raise DataError(
        f"{folder}: nothing to report on; expected metrics.jsonl (a run), results.json (an"
        f" evaluation), {FITS} (a scaling study that has something to conclude from), {MANIFEST}"
        " of a complete export, or the folders run/ or evaluation/ (a quickstart)"
    )


def _title(kind: str, folder: epath.Path) -> str:
    """The name of the folder, unless it says no more than what it is."""
    return kind if folder.name in kind.lower() else f"{kind}: {folder.name}"


def _read_quickstart(folder: epath.Path, view: Wanted) -> Material:
    run_folder, evaluation = folder / "run", folder / "evaluation"
    manifest, commands = folder / "data" / "manifest.json", folder / "commands.json"
    embeddings, favourites = folder / "embeddings", folder / "logs" / "labels" / "favourite"
    expected = folder / EXPECTED
    exported, usual = _is_export(embeddings), [LabelTable(str(favourites), "favourite")]
    return Material(
        _title("Quickstart", folder),
        run=read_run(run_folder) if run_folder.is_dir() else None,
        results=read_results(evaluation / "results.json") if evaluation.is_dir() else [],
        dataset=read_object(manifest) if manifest.exists() else None,
        commands=read_commands(commands) if commands.exists() else [],
        spread=read_spread(embeddings, _labels(view, usual)) if exported else None,
        people=read_people(embeddings, view.data) if exported and view.show_texts else [],
        expected=read_expected(expected) if expected.exists() else None,
    )


def _labels(view: Wanted, usual: list[LabelTable]) -> dict[str, dict[str, str]]:
    """Of the table that is named, else of the usual ones."""
    if view.labels:
        return {view.labels.column: read_categories(view.labels)}
    return read_usable(usual)


def _is_export(folder: epath.Path) -> bool:
    """Whether a complete export is there."""
    manifest = folder / MANIFEST
    return manifest.exists() and SEAL in read_object(manifest)


def _evaluated_spread(folder: epath.Path, view: Wanted) -> Spread | None:
    """Of the export that tasks were evaluated on, by their labels; None where it has gone."""
    config, evaluated = folder / "config.json", folder / "evaluated.json"
    if not (config.exists() and evaluated.exists()):
        return None
    found = read_object(evaluated)
    export = epath.Path(str(found.get("embeddings", "")))
    labels = _labels(view, task_tables(read_object(config)))
    if not (labels and _is_export(export)):
        return None
    same = read_object(export / MANIFEST)[SEAL] == found.get("embeddings_manifest_sha256")
    return read_spread(export, labels) if same else None


def read_run(folder: epath.Path) -> Run:
    """Reads a run directory; environment.json may be absent, config.json and metrics may not."""
    rows = read_metrics(folder / "metrics.jsonl")
    environment = folder / "environment.json"
    return Run(
        config=read_object(folder / "config.json"),
        environment=read_object(environment) if environment.exists() else {},
        training=[row for row in rows if "split" not in row],
        # Of several datasets: their means.
        validation=[r for r in rows if r.get("split") == "validation" and "dataset" not in r],
        live=leases.is_held(folder / "lock"),
    )


def read_study(folder: epath.Path) -> Study:
    """Reads the folder of a study; figures may be absent, as they need an extra.

    Raises:
        DataError: a file is missing or damaged.
    """
    try:
        lines = (folder / RESULTS).read_text().splitlines()
        results = [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / RESULTS}: no lines of JSON objects: {error}") from error
    drawn = sorted((folder / FIGURES).glob("*.svg")) if (folder / FIGURES).is_dir() else []
    figures = {path.stem: path.read_bytes() for path in drawn}
    return Study(read_object(folder / FITS), results, figures)


def read_metrics(path: epath.Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl by step.

    A last line without its line end is one that a live run is still writing: it is left out.

    Raises:
        DataError: the file is missing, or a line of it is not an object with a step.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; was the run started?") from error
    *lines, _ = content.split(b"\n")
    rows = [_metrics_row(line, f"{path}:{number}") for number, line in enumerate(lines, start=1)]
    return sorted(rows, key=lambda row: row["step"])


def _metrics_row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{where}: not a JSON object ({error}); the file is damaged") from error
    step = row.get("step") if isinstance(row, dict) else None
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise DataError(f"{where}: no object with a whole number as its 'step'")
    return row


def read_commands(path: epath.Path) -> list[Command]:
    """The stages of a quickstart from commands.json.

    Raises:
        DataError: it is damaged.
    """
    entries = files.read_json(path)
    try:
        return [
            Command(entry["stage"], shlex.join(entry["argv"]), number(entry.get("seconds")))
            for entry in entries
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: expected a list of objects with 'stage' and 'argv' ({error})"
        ) from error


def read_object(path: epath.Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DataError: the file is missing, damaged or holds something else.
    """
    value = files.read_json(path)
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected an object, found {type(value).__name__}")
    return value


def _command_of(folder: epath.Path) -> list[Command]:
    """What trains such a run again: from the config it saved, on the data it was trained on."""
    described = folder / "dataset.json"
    if not described.exists():
        return []
    paths = read_object(described).get("path", [])
    data = [f"--data={path}" for path in ([paths] if isinstance(paths, str) else paths)]
    new = f"--workdir={folder.parent / f'{folder.name}_again'}"
    words = ["clue-jax", "train", f"--config={folder / 'config.json'}", *data, new]
    return [Command("train", shlex.join(words), None)]
