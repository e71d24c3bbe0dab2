"""`train` that fails, once, in the second of two processes: the first argument says where."""

import sys

import jax
from orbax.checkpoint import v1 as ocp

from clue_jax import cli
from clue_jax.data.batches import TrainBatches
from clue_jax.errors import DataError, StorageError
from clue_jax.training.checkpoint import Checkpoints
from clue_jax.training.metrics import MetricsWriter

FAILS_AT = 7  # a batch
WHERE = {
    "table": (TrainBatches, "_capacity", DataError("a damaged shard")),
    "log": (MetricsWriter, "__init__", StorageError("a full disk")),
    "save": (Checkpoints, "wait", StorageError("a full disk")),
    "bug": (MetricsWriter, "write", ZeroDivisionError("a bug")),
    "restore": (ocp, "load_checkpointables", ValueError("a damaged shard")),
    "batch": (TrainBatches, "global_batch", DataError("a damaged record")),
}


def fail_in(kind, name, error):
    sound = getattr(kind, name)

    def fails(self, *arguments):
        early = name == "global_batch" and arguments[0] < FAILS_AT
        if early or jax.process_index() == 0:
            return sound(self, *arguments)
        setattr(kind, name, sound)
        if kind is ocp:  # as where what it has read turns out to be damaged
            sound(self, *arguments)
        raise error

    setattr(kind, name, fails)


if __name__ == "__main__":
    where, *arguments = sys.argv[1:]
    fail_in(*WHERE[where])
    sys.exit(cli.main(["train", *arguments]))
