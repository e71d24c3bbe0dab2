"""Steps that the update was skipped at: on record, and no more than so many in a row."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
from etils import epath

from clue_jax.console import say
from clue_jax.errors import NonFiniteError
from clue_jax.training.metrics import Log

RECORDED_USERS = 1_000  # of a batch; what the others are follows from seed, step and dataset


class Skips:
    """Counts the steps whose loss or gradients were not finite, and records their batches.

    `<workdir>/skipped.jsonl` has a line for each: step, loss, gradient_norm, users (rows of the
    training splits end to end, never ids) and the SHA-256 of all of these.

    Args:
        workdir: the run directory.
        restored_step: later lines are removed; a resumed run writes them again.
        most: steps in a row before the run stops.
        users_of: step -> [B] rows of the users of its batch.
    """

    def __init__(
        self,
        workdir: epath.Path,
        restored_step: int,
        most: int,
        users_of: Callable[[int], np.ndarray],
    ):
        self.most, self.users_of, self.in_a_row = most, users_of, 0
        self._log = Log(workdir / "skipped.jsonl", restored_step)

    def note(self, done: int, metrics: dict[str, float]) -> bool:
        """Takes the metrics of the step that made `done` of them; whether it was skipped.

        Raises:
            NonFiniteError: too many in a row.
        """
        if not metrics["skipped"]:
            self.in_a_row = 0
            return False
        self.in_a_row += 1
        loss, norm = metrics["loss"], metrics["gradient_norm"]
        users = self.users_of(done - 1).astype("<i8")
        self._log.write(
            {
                "step": done,
                "loss": str(loss),
                "gradient_norm": str(norm),
                "users": users[:RECORDED_USERS].tolist(),
                "users_sha256": hashlib.sha256(users.tobytes()).hexdigest(),
            }
        )
        say(f"step {done}: loss {loss}, gradient norm {norm}: skipped, see {self._log.path}")
        if self.in_a_row >= self.most:
            raise NonFiniteError(
                f"step {done}: loss {loss}, gradient norm {norm}, the last of {self.in_a_row} steps"
                " in a row that are not finite (config.train.max_skipped); lower"
                f" config.optim.learning_rate, or look at the users named in {self._log.path}"
            )
        return True
