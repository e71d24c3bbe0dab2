"""A behaviour log of any size as Parquet parts, written in bounded memory at millions of rows/s.

    python tests/benchmarks/synthetic_log.py --rows=1000000 --out=/tmp/log

Users and items follow power laws; rows are in order of time, as logs are, so that the behaviours of
a user lie far apart. `--giant` gives one user a share of all rows.
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PART_ROWS = 1_000_000
SERVICES = ("search", "shop", "news")
FIRST, LAST = 1_600_000_000, 1_700_000_000
SYLLABLES = "ka lo mi ra su te no vi pel dor gan tis bru fen cal mon".split()


def words(count: int) -> np.ndarray:
    """[count] distinct made-up words."""
    base = len(SYLLABLES)
    spelled = [
        SYLLABLES[n % base] + SYLLABLES[n // base % base] + SYLLABLES[n // base**2 % base]
        for n in range(min(count, base**3))
    ]
    return np.array(spelled, object)


def titles(items: np.ndarray, vocabulary: np.ndarray) -> pa.Array:
    """The text of each item: five words that follow from its number, and the number."""
    mixed = items.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    dictionary = pa.array(vocabulary, pa.string())
    columns = []
    for shift in (4, 16, 28, 40, 52):
        index = (mixed >> np.uint64(shift)) % np.uint64(len(vocabulary))
        columns.append(dictionary.take(pa.array(index.astype(np.int64))))
    columns.append(pa.array(items).cast(pa.string()))
    return pa.compute.binary_join_element_wise(*columns, " ")


def part(rng: np.random.Generator, rows: int, span: tuple[float, float], options) -> pa.Table:
    """`rows` behaviours with times in `span`, ascending."""
    users = (options.users * rng.random(rows) ** 2).astype(np.int64)
    if options.giant:
        users[rng.random(rows) < options.giant] = options.users
    items = (options.items * rng.random(rows) ** 3).astype(np.int64)
    service = items % len(SERVICES)
    return pa.table(
        {
            "user_id": pa.array(users),
            "timestamp": pa.array(np.sort(rng.integers(int(span[0]), int(span[1]), rows))),
            "item_id": pa.array(items),
            "service": pa.DictionaryArray.from_arrays(pa.array(service), pa.array(SERVICES)),
            "title": titles(items, words(4_096)),
        }
    )


def write(options: argparse.Namespace) -> int:
    """Writes the parts; returns their bytes."""
    options.out.mkdir(parents=True, exist_ok=True)
    parts = -(-options.rows // PART_ROWS)
    cuts = np.linspace(FIRST, LAST, parts + 1)
    written = 0
    for number in range(parts):
        rng = np.random.default_rng([options.seed, number])
        rows = min(PART_ROWS, options.rows - number * PART_ROWS)
        path = options.out / f"part-{number:05d}.parquet"
        table = part(rng, rows, (cuts[number], cuts[number + 1]), options)
        pq.write_table(table, path, compression="zstd", row_group_size=1 << 18)
        written += path.stat().st_size
    return written


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--giant", type=float, default=0.0, help="share of rows of one user")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    return parser


if __name__ == "__main__":
    print(f"{write(arguments().parse_args()):,} bytes")
