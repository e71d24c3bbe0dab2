"""Small logs of every format, and the command that prepares them."""

import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq

from tests.stages import run_stage, start

COLUMNS = ("user_id", "timestamp", "text")
CONFIG = """
from clue_jax.config import PrepareConfig, SourceConfig, SplitConfig, TokenizerConfig

def get_config():
    sources = tuple(SourceConfig(path=path, service=service) for path, service in {sources!r})
    split, tokenizer = SplitConfig(validation=0.0, test=0.0), TokenizerConfig(vocab_size=400)
    return PrepareConfig(sources=sources, split=split, tokenizer=tokenizer, users_per_shard=8)
"""


def good_rows(count=20, users=5):
    return [(f"u{n % users}", 1_600_000_000 + n, f"a pen {n % 7}") for n in range(count)]


def write(path, rows):
    """Writes rows (user, time, text) in the format that the name says, all cells as text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [[None if cell is None else str(cell) for cell in row] for row in rows]
    if path.suffix == ".parquet":
        columns = list(zip(*cells, strict=True))
        pq.write_table(pa.table(dict(zip(COLUMNS, map(list, columns), strict=True))), path)
    elif path.suffix == ".csv":
        text = io.StringIO()
        csv.writer(text).writerows([COLUMNS, *cells])
        path.write_text(text.getvalue())
    else:
        lines = (json.dumps(dict(zip(COLUMNS, row, strict=True))) for row in cells)
        path.write_text("".join(line + "\n" for line in lines))


def write_parts(folder):
    """Four files of the same 600 users, for many shards and some processes."""
    for part in range(4):
        write(folder / f"part-{part}.jsonl", good_rows(2_000, users=600))


def arguments(folder, out, *overrides, sources=(("*", "shop"),)):
    """Flags of `prepare` for the logs in `folder`."""
    config = folder.parent / f"{folder.name}_config.py"
    config.write_text(CONFIG.format(sources=tuple(sources)))
    return [f"--config={config}", f"--config.source={folder}", f"--out={out}", *overrides]


def prepare(folder, out, *overrides, code=0, **sources):
    run_stage("prepare", *arguments(folder, out, *overrides, **sources), code=code)


def start_prepare(folder, out, *overrides, **sources):
    return start("prepare", *arguments(folder, out, *overrides, **sources))


def manifest(out):
    return json.loads((out / "manifest.json").read_text())


def contents(folder):
    """Bytes of every file; the manifest, and the card of it, without what they say of the logs."""
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    found["manifest.json"] = manifest(folder)["fingerprint"]
    assert found.pop("card.md")
    return found
