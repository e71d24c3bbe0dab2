"""What runs came to: a JSON object each, in `results/NAME.json` and in the lines of a file."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

from etils import epath

from clue_jax import files
from clue_jax.data.timestamps import DAY_SECONDS
from clue_jax.errors import DataError

Result = dict[str, Any]
PF_DAY = 1e15 * DAY_SECONDS  # FLOPs
FITS, RESULTS, FIGURES = "fits.json", "results.jsonl", "figures"  # in the folder of a study
_NEEDED = (
    *("run", "cell", "size", "width", "users", "behaviours", "batch", "steps", "seed"),
    *("learning_rate", "temperature", "dataset"),
)


def result_file(root: epath.Path, name: str) -> epath.Path:
    """Where a run's result lies in a study."""
    return root / "results" / f"{name}.json"


def write_lines(path: epath.Path, results: Sequence[Result]) -> None:
    """Writes results as a file that another study can start from."""
    lines = [json.dumps(result, sort_keys=True) for result in results]
    files.write_text(path, "\n".join(lines) + "\n")


def read_known(
    paths: Sequence[str], names: Collection[str], fingerprint: str
) -> tuple[dict[str, Result], dict[str, str]]:
    """Results of a plan's runs that were made elsewhere.

    Args:
        paths: files of results, a JSON object a line.
        names: of the plan's runs; others are passed over.
        fingerprint: of the dataset.

    Returns:
        Result of each run, and for runs that are there again, with another loss, what was left
        out: the first counts.

    Raises:
        DataError: a file that cannot be read, a line that is no result, or a run on another
            dataset; names file and line.
    """
    known: dict[str, Result] = {}
    again: dict[str, str] = {}
    for path in paths:
        try:
            lines = epath.Path(path).read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"config.known: {path} cannot be read: {error}") from error
        for number, line in enumerate(lines, start=1):
            result = _parsed(line, f"{path}, line {number}")
            name = result["run"]
            if name not in names:
                continue
            if result["dataset"] != fingerprint:
                raise DataError(
                    f"{path}, line {number}: run {name} is of dataset {result['dataset'][:12]},"
                    f" this study of {fingerprint[:12]}: losses of different people cannot be"
                    " compared; prepare the same dataset, or leave the file out of config.known"
                )
            first = known.setdefault(name, result)
            if first.get("loss") != result.get("loss"):
                again[name] = (
                    f"there twice, with losses {first.get('loss')} and {result.get('loss')}"
                    f" ({path}, line {number}): the first counts"
                )
    return known, again


def _parsed(line: str, where: str) -> Result:
    try:
        result = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: no JSON object: {error}") from error
    missing = [key for key in _NEEDED if key not in result] if isinstance(result, dict) else _NEEDED
    if missing:
        raise DataError(f"{where}: no result of a run: {missing[0]!r} is missing")
    return dict(result)
