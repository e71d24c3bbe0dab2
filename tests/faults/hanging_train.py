"""`train` with a batch that never comes, as when a file system hangs: arguments are its own."""

import sys
import threading

from clue_jax import cli
from clue_jax.data.batches import TrainBatches

HANGS_AT = 7
packed = TrainBatches.global_batch


def never_comes(self, step):
    if step == HANGS_AT:
        threading.Event().wait()
    return packed(self, step)


if __name__ == "__main__":
    TrainBatches.global_batch = never_comes
    sys.exit(cli.main(["train", *sys.argv[1:]]))
