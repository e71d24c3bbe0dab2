"""Loaders that read a prepared dataset one record at a time: grain, and a plain loop.

Prints users per second and per second of CPU, over some batches of a random permutation. A batch is
the padded tokens [B, S, T, L] of each user's newest behaviours, what an encoder without packing
takes; with --decoded a list of decoded records, and nothing is padded.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader
from tensorflow_datasets.proto import tf_example_pb2

DTYPES = {
    "item_ids": "<u8",
    "item_lengths": "<i4",
    "tokens": "<i4",
    "behaviour_items": "<i4",
    "behaviour_times": "<i8",
    "behaviour_counts": "<i4",
}


def decode(record):
    features = tf_example_pb2.Example.FromString(record).features.feature
    return {n: np.frombuffer(features[n].bytes_list.value[0], t) for n, t in DTYPES.items()}


def padded(user, history, longest):
    """Tokens [S, T, L] of the newest behaviours."""
    lengths = user["item_lengths"]
    kept = np.minimum(lengths, longest)
    starts = np.cumsum(lengths) - lengths
    place = np.arange(longest)
    inside = place < kept[:, None]
    table = np.zeros((len(lengths), longest), np.int32)
    table[inside] = user["tokens"][(starts[:, None] + place)[inside]]
    counts = user["behaviour_counts"]
    views = np.zeros((len(counts), history, longest), np.int32)
    for service, end in enumerate(np.cumsum(counts)):
        size = min(history, counts[service])
        views[service, :size] = table[user["behaviour_items"][end - size : end]]
    return views


def grain_batches(paths, prepared, batched, users):
    import grain

    source = grain.sources.ArrayRecordDataSource(paths)
    records = grain.MapDataset.source(source).seed(0).shuffle().repeat().map(prepared)
    # 16 threads, the default, halve the rate of two cores.
    reading = grain.ReadOptions(num_threads=2, prefetch_buffer_size=64)
    return iter(records.batch(users, batch_fn=batched).to_iter_dataset(reading))


def loop_batches(paths, prepared, batched, users):
    readers = [ArrayRecordReader(path) for path in paths]
    places = [(r, n) for r in readers for n in range(r.num_records())]
    while True:
        order = np.random.default_rng(0).permutation(len(places))
        for first in range(0, len(order) - users + 1, users):
            chosen = [places[n] for n in order[first : first + users]]
            yield batched([prepared(r.read([n])[0]) for r, n in chosen])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--loader", choices=["grain", "loop"], required=True)
    parser.add_argument("--users", type=int, required=True)
    parser.add_argument("--batches", type=int, required=True)
    parser.add_argument("--history", type=int, required=True)
    parser.add_argument("--longest", type=int, required=True)
    parser.add_argument("--decoded", action="store_true")
    options = parser.parse_args()
    paths = sorted(str(path) for path in Path(options.data, "users").glob("users-train.*"))
    prepared, batched = decode, list
    if not options.decoded:
        prepared = lambda record: padded(decode(record), options.history, options.longest)  # noqa: E731
        batched = np.stack
    make = {"grain": grain_batches, "loop": loop_batches}[options.loader]
    batches = make(paths, prepared, batched, options.users)
    next(batches)  # opening files and threads is not counted
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(options.batches):
        next(batches)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    users = options.batches * options.users
    print(json.dumps({"users_per_second": users / wall, "users_per_cpu_second": users / cpu}))


if __name__ == "__main__":
    main()
