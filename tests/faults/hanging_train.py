"""`train` in which something never ends, as when a file system hangs: the first argument says what,
the others are its own."""

import sys
import threading

from clue_jax import cli
from clue_jax.data.batches import TrainBatches
from clue_jax.training.checkpoint import Checkpoints

HANGS_AT = 7
packed = TrainBatches.global_batch


def never_comes(self, step):
    if step == HANGS_AT:
        threading.Event().wait()
    return packed(self, step)


def never_closes(self):
    threading.Event().wait()


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what == "batch":
        TrainBatches.global_batch = never_comes
    else:
        Checkpoints.close = never_closes
    sys.exit(cli.main(["train", *arguments]))
