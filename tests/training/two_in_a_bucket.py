"""One of two processes that keep checkpoints in a bucket; prints which were there and read."""

import logging
import sys

import jax
import numpy as np
from etils import epath

from clue_jax.parallel.agreement import first_alone
from clue_jax.parallel.processes import joined_processes
from clue_jax.training.checkpoint import BEST, Checkpoints

RECALL = (0.1, 0.3, 0.2, 0.2, 0.2)  # of steps 1 to 5
WIDTH = 1024


def parts_of(step, mesh):
    """One array of which either process has a half, and one that both have."""

    def laid(whole, axes):
        sharding = jax.sharding.NamedSharding(mesh, axes)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return {
        "params": {"w": laid(np.arange(WIDTH, dtype=np.float32) * step, jax.P("data"))},
        "optimizer": {"m": laid(np.full((3,), step, np.float32), jax.P())},
    }


def same_here(array, other):
    """Whether what this process has of two arrays is the same."""
    pairs = zip(array.addressable_shards, other.addressable_shards, strict=True)
    return all(bool((a.data == b.data).all()) for a, b in pairs)


def damage(folder):
    """Flips a bit of an array of the newest checkpoint; of the one before it nobody said so."""
    file = max((folder / "5" / "params" / "d").iterdir(), key=lambda path: path.stat().length)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(bytes(content))
    (folder / "4" / "commit_success.txt").unlink()


def seen_of(folder):
    """Steps there, the best, what is restored after the damage, and steps at the end."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    settings = {"keep": 2, "keep_best": 1}
    checkpoints = Checkpoints(folder, **settings)
    for step, recall in enumerate(RECALL, start=1):
        checkpoints.save(step, parts_of(step, mesh), {"recall_at_10": recall})
    checkpoints.close()

    abstract = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), parts_of(0, mesh)
    )
    checkpoints = Checkpoints(folder, **settings)
    seen = [checkpoints.steps(), checkpoints.restore(abstract, BEST).step]
    checkpoints.close()
    first_alone(lambda: damage(folder))

    checkpoints = Checkpoints(folder, **settings)
    restored = checkpoints.restore(abstract)
    same = jax.tree.map(same_here, restored.parts, parts_of(2, mesh))
    seen += [restored.step, jax.tree.all(same)]
    checkpoints.quarantine()
    checkpoints.save(4, parts_of(4, mesh), None)
    checkpoints.wait()
    seen += [checkpoints.steps(), checkpoints.restore(abstract).step]
    checkpoints.close()
    return seen


def main():
    # Of an emulator it complains at every call, more than the pipe of a test that waits holds.
    logging.getLogger("gcsfs").setLevel(logging.ERROR)
    with joined_processes():
        print(f"seen: {seen_of(epath.Path(sys.argv[1]))}", flush=True)


if __name__ == "__main__":
    main()
