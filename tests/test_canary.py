"""Planted ids, texts and a secret go through every stage, and show where they may alone."""

import contextlib
import hashlib
import io
import json

import pyarrow.parquet as pq
import pytest
from array_record.python.array_record_module import ArrayRecordReader

from tests.faults.logs import prepare, write
from tests.stages import run_stage

PERSON, SECRET = "canary-person", "canary-secret-0123456789"
TINY = (
    "--config=configs/pretrain.py:smoke",
    "--config.train.steps=4",
    "--config.train.batch_users=8",
    "--config.train.eval_every=2",
    "--config.checkpoint.every_steps=2",
    "--config.train.skip_batches=1:2",  # so that its users are on record
)


def word(user, n):
    """A word that no two behaviours share, so that no vocabulary learns it."""
    return hashlib.sha256(f"{user} {n}".encode()).hexdigest()[:20]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All outputs of all stages; beside it the logs, and what the stages printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        out = outputs(tmp_path_factory.mktemp("canary"))
    (out.parent / "printed.txt").write_text(printed.getvalue())
    return out


def outputs(folder):
    """Runs every stage on planted logs."""
    rows = [
        (f"{PERSON}-{user}@example.org", 1_600_000_000 + n, f"a pen {n % 7} {word(user, n)}")
        for user in range(80)
        for n in range(6)
    ]
    for service in ("shop", "news"):
        bad = (f"{PERSON}-bad@example.org", "no time", word(0, 0))
        write(folder / "logs" / f"{service}.csv", [*rows, bad])
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CLUE_CANARY_KEY", SECRET)
        prepare(
            folder / "logs",
            folder / "out" / "data",
            "--config.pseudonym.key_env=CLUE_CANARY_KEY",
            "--config.max_bad_rows=2",
            "--config.split.test=0.3",
            "--config.split.validation=0.2",
            sources=(("shop*", "shop"), ("news*", "news")),
        )
    out = folder / "out"
    run_stage("train", *TINY, f"--data={out / 'data'}", f"--workdir={out / 'run'}")
    run_stage(
        "export", f"--workdir={out / 'run'}", f"--data={out / 'data'}", f"--out={out / 'users'}"
    )
    evaluate(out)
    run_stage("report", str(out / "run"))
    return out


def evaluate(out):
    run_stage(
        "evaluate",
        "--config=configs/evaluate/matching.py",
        "--config.matching.min_behaviours=2",
        "--config.matching.bootstrap=5",
        f"--embeddings={out / 'users'}",
        f"--out={out / 'evaluation'}",
    )


def contents(path):
    """What a file says, unpacked where it is packed."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        return json.dumps(table.to_pydict(), default=str).encode()
    if ".array_record" in path.name:
        reader = ArrayRecordReader(str(path))
        records = reader.read_all() if reader.num_records() else []
        reader.close()
        return b"\n".join(records)
    return path.read_bytes()


def holding(folder, *words):
    """Files below a folder that hold one of the words."""
    wanted = [word.encode() for word in words]
    return {
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and any(word in contents(path) for word in wanted)
    }


def test_ids_and_secrets_are_nowhere(folder):
    assert holding(folder, PERSON, SECRET) == set()
    assert len(holding(folder.parent / "logs", PERSON)) == 2  # the control
    names = {path.name for path in folder.rglob("*")}
    assert {"skipped.jsonl", "rejects.jsonl", "results.json", "report.html"} <= names


def test_texts_are_in_the_dataset_alone(folder):
    words = [word(user, n) for user in range(80) for n in range(6)]
    found = holding(folder, *words)
    assert found and {name.split("/")[:2] == ["data", "items"] for name in found} == {True}


def test_nothing_of_them_was_printed(folder):
    printed = (folder.parent / "printed.txt").read_text()
    assert "clue-jax train: done" in printed and "skipped, as" in printed
    words = [word(user, n) for user in range(80) for n in range(6)]
    assert not [w for w in (PERSON, SECRET, *words) if w in printed]
