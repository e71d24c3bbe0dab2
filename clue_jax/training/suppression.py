"""The suppression list of a run: honoured from the step at which it is given, and on record."""

from __future__ import annotations

from etils import epath

from clue_jax.console import say
from clue_jax.data.id_list import IdList
from clue_jax.errors import CheckpointError
from clue_jax.training.log import Log
from clue_jax.training.trained import SUPPRESSED

KEY = "config.sampling.suppress"


def record_suppression(workdir: epath.Path, restored_step: int, suppressed: IdList | None) -> None:
    """Notes the list that holds from here on, where it is another one than so far.

    `<workdir>/suppressed.jsonl` has a line for each list: the step from which it holds, how many
    ids are on it, and its SHA-256.

    Args:
        workdir: the run directory.
        restored_step: from which the run goes on.
        suppressed: the list of `config.sampling.suppress`.

    Raises:
        CheckpointError: the run had a list so far and now has none, so it would learn from people
            again who were taken out of it.
    """
    log, now = Log(workdir / SUPPRESSED, restored_step), suppressed.identity if suppressed else None
    before = {k: v for k, v in log.kept[-1].items() if k != "step"} if log.kept else None
    if before == now:
        return
    if now is None and before is not None:
        raise CheckpointError(
            f"{workdir}: has left out the users of a suppression list of {before['ids']:,} ids; to"
            " go on without one would take them in again. Give that list or a longer one with"
            f" --{KEY}=FILE, or use another --workdir"
        )
    assert now is not None
    log.write({"step": restored_step, **now})
    say(f"suppression list of {now['ids']:,} ids: not drawn from step {restored_step} on")
