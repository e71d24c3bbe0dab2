"""Steps that were not learnt from: on record, and no more than so many in a row."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence

import numpy as np
from etils import epath

from clue_jax.config import TrainConfig
from clue_jax.console import say
from clue_jax.errors import NonFiniteError
from clue_jax.training.log import Log, Row
from clue_jax.training.spikes import Reason

RECORDED_USERS = 1_000  # of a batch; what the others are follows from seed, step and dataset


class Skips:
    """Counts the steps that were skipped for their loss or gradients, and records their batches.

    `<workdir>/skipped.jsonl` has a line for each: step, reason, loss, gradient_norm, users (rows of
    the training splits end to end, never ids) and the SHA-256 of all of these. Those skipped
    because `train.skip_batches` names them are on record, but no reason to stop.

    Args:
        workdir: the run directory.
        restored_step: later lines are removed; a resumed run writes them again.
        config: `max_skipped` steps in a row stop the run.
        users_of: step -> [B] rows of the users of its batch.
    """

    def __init__(
        self,
        workdir: epath.Path,
        restored_step: int,
        config: TrainConfig,
        users_of: Callable[[int], np.ndarray],
    ):
        self.config, self.users_of = config, users_of
        self._log = Log(workdir / "skipped.jsonl", restored_step)
        self.in_a_row = _in_a_row(self._log.kept, restored_step)

    def note(self, done: int, metrics: dict[str, float]) -> bool:
        """Takes the metrics of the step that made `done` of them; whether it was skipped.

        Raises:
            NonFiniteError: too many in a row.
        """
        reason = Reason(int(metrics["skipped"]))
        if reason is Reason.NONE:
            self.in_a_row = 0
            return False
        said = _SAID[reason]
        loss, norm = metrics["loss"], metrics["gradient_norm"]
        users = self.users_of(done - 1).astype("<i8")
        self._log.write(
            {
                "step": done,
                "reason": reason.name.lower(),
                "loss": str(loss),
                "gradient_norm": str(norm),
                "users": users[:RECORDED_USERS].tolist(),
                "users_sha256": hashlib.sha256(users.tobytes()).hexdigest(),
            }
        )
        what = f"step {done}: loss {loss}, gradient norm {norm}"
        say(f"{what}: skipped, {said}, see {self._log.path}")
        if reason is Reason.ASKED:
            return True
        self.in_a_row += 1
        if self.in_a_row >= self.config.max_skipped:
            asked, own = self.config.skip_batches, f"{done - self.in_a_row}:{done}"
            raise NonFiniteError(
                f"{what}, the last of {self.in_a_row} steps in a row that are {said}"
                " (config.train.max_skipped); lower config.optim.learning_rate, or leave out the"
                f" users named in {self._log.path}, from an earlier checkpoint, with"
                f" --config.train.skip_batches={','.join(filter(None, (asked, own)))}"
            )
        return True


def _in_a_row(rows: Sequence[Row], restored_step: int) -> int:
    """Skipped one after the other up to a step; those that somebody asked for neither count nor
    end it."""
    reasons = {row["step"]: row["reason"] for row in rows}
    before = (reasons.get(step) for step in range(restored_step, 0, -1))
    row = itertools.takewhile(lambda reason: reason is not None, before)
    return sum(reason != Reason.ASKED.name.lower() for reason in row)


_SAID = {
    Reason.NOT_FINITE: "not finite",
    Reason.SPIKE: "above train.spike_deviations",
    Reason.ASKED: "as train.skip_batches says",
}
