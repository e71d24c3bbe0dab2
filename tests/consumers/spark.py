"""Reads an export with Spark in local mode and compares it as the tests do with other readers.

    python tests/consumers/spark.py

Spark and a Java are too large for the tests' environment, so this is run by hand; it makes an
environment of its own, prints one JSON line, and ends with an error where anything differs.
"""

import datetime
import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks import harness
from tests.embeddings import test_consumers as checks


def read(folder: Path) -> tuple[str, list[dict]]:
    """Spark's version, and the rows as Python has them."""
    argv = [harness.peer_python("spark"), str(Path(__file__).parent / "spark_rows.py"), str(folder)]
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    for row in found["rows"]:
        for name in checks.TIMES:
            if row[name] is not None:
                row[name] = datetime.datetime.fromtimestamp(row[name], datetime.UTC)
    return found["version"], found["rows"]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        export = Path(folder) / "export"
        checks.write_all_there_may_be(export)
        version, rows = read(export)
        passed = []
        for check in (
            checks.test_all_rows_are_there_as_we_read_them,
            checks.test_vectors_have_length_one_and_are_lacking_where_a_service_is,
            checks.test_times_are_in_utc,
        ):
            check(export, lambda _: rows)
            passed.append(check.__name__)
    line = {"reader": f"Spark {version}", "rows": len(rows), "passed": passed}
    print(json.dumps({**line, "revision": harness.revision()}))


if __name__ == "__main__":
    main()
