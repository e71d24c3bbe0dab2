"""A small company for tests of downstream tasks: a dataset, exports and label tables."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clue_jax.config import (
    EncoderConfig,
    PrepareConfig,
    PretrainConfig,
    SourceConfig,
    SplitConfig,
    TokenizerConfig,
    TransformerConfig,
    to_json,
)
from clue_jax.data.prepare import prepare
from clue_jax.data.records import concatenate, visible
from clue_jax.data.source import open_dataset
from clue_jax.embeddings.schema import item_table
from clue_jax.embeddings.writer import write_manifest, write_part
from tests.embeddings.exports import unit, write_export

USERS, CUTOFF = 150, "2024-02-01"
TINY = PretrainConfig(
    encoder=EncoderConfig(
        width=8,
        embedding_width=8,
        item=TransformerConfig(num_layers=0),
        service=TransformerConfig(num_layers=0),
        max_history=16,
        row_tokens=32,
        item_rows=4,
        row_behaviours=32,
        history_rows=4,
    )
)


def kind_of(user_id):
    """What a user is about, 0 to 3; everything in this company follows from it."""
    return int(user_id[1:]) % 4


def write_data(folder: Path) -> Path:
    """Users of four kinds, who buy and search things of their kind before and after the cutoff."""
    rng = np.random.default_rng(0)
    with (folder / "logs.jsonl").open("w") as stream:
        for user in range(USERS):
            for service in ("shop", "search"):
                for day in range(6):
                    month = 1 if day < 5 else 2
                    number = rng.integers(6)
                    row = {
                        "user_id": f"u{user}",
                        "timestamp": f"2024-{month:02}-{day + 1:02}",
                        "service": service,
                        "item": f"{service}-{user % 4}-{number}",
                        "text": f"{service} kind{user % 4} number{number}",
                    }
                    stream.write(json.dumps(row) + "\n")
    config = PrepareConfig(
        source=str(folder),
        sources=(SourceConfig(path="logs.jsonl", service_column="service", item_id="item"),),
        split=SplitConfig(validation=0.4, test=0.5),
        tokenizer=TokenizerConfig(vocab_size=400),
    )
    prepare(config, str(folder / "prepared"))
    return folder / "prepared"


def directions():
    """A direction for each kind of user, [4, 16]."""
    return unit(np.random.default_rng(5).normal(size=(4, 16)))


def write_users(
    data, folder, cutoff=CUTOFF, hold_out_last=0, noise=0.7, model_version="m", **manifest
):
    """An export whose vectors point where their users' kind does, with noise."""
    dataset, splits = open_dataset(data), ("train", "validation", "test")
    parts = [dataset.users(split) for split in splits]
    seconds = 1_706_745_600 if cutoff else None
    users = visible(concatenate(parts, dataset.services), seconds, hold_out_last)
    rng = np.random.default_rng(1)
    person = directions()[[kind_of(user_id) for user_id in users.user_ids]][:, None]
    z_NSE = unit(person + noise * rng.normal(size=(len(users), 2, 16)) / 4)
    columns = {
        "user_ids": users.user_ids,
        "splits": np.repeat(np.array(splits, object), [len(part) for part in parts]),
        "services": users.services,
        "embedding_NE": unit(z_NSE.sum(axis=1)),
        "z_NSE": z_NSE,
        "counts_NS": users.counts(),
        "tokens_NS": users.counts(),
        "truncated_N": np.zeros(len(users), bool),
        "first_N": None,
        "last_N": None,
        "event_N": None,
        "model_version": model_version,
    }
    origin = {"path": str(data), "services": list(users.services)}
    return write_export(
        folder,
        columns,
        dataset={**origin, "fingerprint": dataset.fingerprint},
        train_seed=7,
        cutoff=cutoff,
        hold_out_last=hold_out_last,
        **{"config": to_json(TINY), **manifest},
    )


def write_items(data: Path, folder: Path, model_version="m"):
    """An export of items that point where their kind does."""
    items = open_dataset(data).items()
    rng = np.random.default_rng(2)
    kinds = [int(source_id.split("-")[1]) for source_id in items.source_ids]
    table = item_table(
        item_ids=items.item_ids,
        source_ids=items.source_ids,
        services=items.services,
        embedding_JE=unit(directions()[kinds] + 0.02 * rng.normal(size=(len(items), 16))),
        model_version=model_version,
    )
    entry = write_part(folder, "part.parquet", table, "export-2")
    manifest = {"what": "items", "embedding_width": 16, "model_version": model_version}
    manifest |= {"precision": "float32", "export_id": "export-2"}
    write_manifest(folder, manifest, [entry])


def write_labels(folder: Path, name, rows):
    """A label table of dicts."""
    folder.mkdir(exist_ok=True)
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, folder / f"{name}.parquet")


def label_rows(value, date="2024-02-10"):
    """A row for each user with a value made from its id."""
    return [{"user_id": f"u{n}", "timestamp": date, "label": value(f"u{n}")} for n in range(USERS)]
