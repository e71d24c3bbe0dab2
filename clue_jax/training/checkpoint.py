"""Checkpoints of pytrees through Orbax: asynchronous, rotated, best kept, verified when read.

`params` and `optimizer` are stored apart, so that export reads one without knowing the other.
Beside them lies a fingerprint of every leaf's bits, which does not depend on how leaves are
sharded; it is compared after a restore, because a flipped bit may otherwise come back silently.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from etils import epath
from orbax.checkpoint import v1 as ocp

from clue_jax.buckets import absolute, in_bucket, make_folder, move_files
from clue_jax.console import say
from clue_jax.errors import CheckpointError, NonFiniteError, StorageError
from clue_jax.files import storage_errors
from clue_jax.parallel.agreement import check_agreed, first_alone, together
from clue_jax.training.checkpoint_storage import context_by_itself, context_for, may_be_whole
from clue_jax.training.fingerprint import fingerprint, not_finite, summary

Tree = Any
NEWEST, BEST = -1, -2
_REASON_LETTERS = 300  # of an error of Orbax, which may go on about all its handlers

# Orbax raises what goes wrong, after each of its threads has logged it with its whole stack.
logging.getLogger("absl").addFilter(
    lambda record: record.levelno < logging.ERROR or "orbax" not in record.pathname
)
logging.getLogger("asyncio").addFilter(lambda record: "orbax" not in record.getMessage())


class Restored(NamedTuple):
    step: int
    parts: dict[str, Tree]  # as asked for: "params", "optimizer"
    fingerprint: str  # of "params"
    notes: Tree = None  # what `save` was given besides, as JSON

    @property
    def model_version(self) -> str:
        """Names the parameters, in exports and wherever else they go."""
        return f"{self.fingerprint[:12]}-{self.step}"


class Checkpoints:
    """The checkpoints of one run.

    Args:
        directory: created on the first save.
        keep: newest ones to keep.
        keep_best: best ones to keep by `metric`, higher is better.
        keep_every: those of multiples of this step stay; 0: none for that.
        batches_left_out: step -> the batches before it that the run learns nothing from, in words;
            checkpoints that were made otherwise are none of this run. None: any will do.
        metric: key of the metrics given to `save`.
    """

    def __init__(
        self,
        directory: epath.PathLike,
        *,
        keep: int = 1,
        keep_best: int = 0,
        keep_every: int = 0,
        metric: str = "recall_at_10",
        batches_left_out: Callable[[int], str] | None = None,
    ):
        self.directory = epath.Path(directory)
        self.metric, self.batches_left_out = metric, batches_left_out
        self.refused: dict[int, str] = {}  # steps that the last `restore` passed over, and why
        self._doubtful: set[int] = set()  # of these, those that may be read another time
        policies = ocp.training.preservation_policies
        best = policies.BestN(
            get_metric_fn=lambda metrics: metrics[metric],
            n=keep_best,
            keep_checkpoints_without_metrics=False,
        )
        kept = [policies.LatestN(keep), best]
        if keep_every:
            kept.append(policies.EveryNSteps(keep_every))
        self._orbax = ocp.training.Checkpointer(
            absolute(self.directory),
            context=context_for(self.directory),
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=policies.AnyPreservationPolicy(kept),
        )

    def steps(self) -> list[int]:
        """Committed steps, oldest first."""
        return [c.step for c in self._orbax.checkpoints]

    def best_step(self) -> int | None:
        """The step with the highest metric, if any has one."""
        scored = [c for c in self._orbax.checkpoints if c.metrics and self.metric in c.metrics]
        return max(scored, key=lambda c: c.metrics[self.metric]).step if scored else None

    def version(self, step: int) -> str:
        """The model version of a checkpoint, of which only what is said beside it is read.

        Raises:
            CheckpointError: it cannot be read.
        """
        saved = self._load(step, {})["info"]["fingerprints"]["params"]
        return Restored(step, {}, summary(saved)).model_version

    def save(
        self, step: int, parts: dict[str, Tree], metrics: dict[str, float] | None, notes: Any = None
    ) -> None:
        """Starts writing a checkpoint; the caller may change its arrays as soon as this returns.

        Args:
            step: of it.
            parts: trees of arrays.
            metrics: by which the best is known.
            notes: JSON that comes back with it.

        Raises:
            NonFiniteError: a leaf is not finite; names it, and nothing is written.
            StorageError: this save, or the one before it, could not be written.
        """
        broken = not_finite(parts)
        if broken:
            raise NonFiniteError(
                f"{self.directory / str(step)}: not written, since {broken} is not finite; continue"
                " from an earlier checkpoint with a lower config.optim.learning_rate"
            )
        info = {
            "step": step,
            "fingerprints": {part: fingerprint(tree) for part, tree in parts.items()},
            "batches_left_out": self.batches_left_out(step) if self.batches_left_out else "",
            "notes": notes,
        }
        with self._writing():
            self._orbax.save_checkpointables_async(
                step, {**parts, "info": info}, metrics=metrics, overwrite=True
            )

    def check(self) -> None:
        """Tells at once, without waiting, of a save in the background that has failed.

        Raises:
            StorageError: it could not be written.
        """
        if not self._orbax.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Returns when everything that was saved is on disk.

        Raises:
            StorageError: it could not be written.
        """
        with self._writing():
            self._orbax.wait()

    def close(self) -> None:
        """Waits as `wait` does, and lets go of the threads that write."""
        with self._writing():
            self._orbax.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            raise StorageError(
                f"{self.directory}: a checkpoint could not be written ({error}); earlier ones are"
                " intact; make room and run the same command again"
            ) from error

    def restore(self, abstract: dict[str, Tree], step: int = NEWEST) -> Restored | None:
        """Reads the newest good checkpoint, the best one, or a given one; None when there is none.

        All processes of a job take the same one: what one of them cannot read is bad for all.

        Args:
            abstract: `ShapeDtypeStruct` trees with shardings, by part.
            step: NEWEST, BEST or a step.

        Raises:
            CheckpointError: there are checkpoints, but none that is asked for is whole.
        """
        steps = self.steps()[::-1]
        check_agreed({f"the checkpoints seen in {self.directory}": steps})
        if not steps:
            return None
        if step == BEST:
            step = self.best_step() or steps[0]
        wanted = steps if step == NEWEST else [step]
        problems: dict[int, str] = {}
        for candidate in wanted:
            try:
                restored = self._restore(candidate, abstract)
            except CheckpointError as error:
                say(f"{error}")
                problems[candidate] = str(error)
                if may_be_whole(error.__cause__):
                    self._doubtful.add(candidate)
                continue
            self.refused = problems
            return restored
        raise CheckpointError(
            f"{self.directory}: no usable checkpoint among steps {wanted} (there are {steps}):"
            f" {'; '.join(problems.values())}"
        )

    def quarantine(self) -> None:
        """Moves those that `restore` refused to `<directory>/../quarantine`, with the reason.

        One that the file system did not let us read stays: nothing says that it is damaged. Only
        called for where a good one was found: were all refused, the fault may lie elsewhere.
        To be called while nobody else writes checkpoints here.

        Raises:
            StorageError: they could not be moved.
        """
        first_alone(self._move_refused)
        self._orbax.reload()
        self.refused = {}

    def _move_refused(self) -> None:
        for step in self.refused.keys() - self._doubtful:
            source = self.directory / str(step)
            target = self.directory.parent / "quarantine" / f"{step}-{time.time():.0f}"
            with storage_errors(target):
                make_folder(target.parent)
                if in_bucket(source):
                    move_files(source, target)
                else:
                    source.rename(target)
                (target / "reason.txt").write_text(self.refused[step] + "\n")
            say(f"{source}: moved to {target}, where reason.txt says why")

    def _restore(self, step: int, abstract: dict[str, Tree]) -> Restored:
        where = self.directory / str(step)
        # What comes next are collectives, which every process must enter or none.
        loaded = together(lambda: self._load(step, abstract))
        info = loaded.pop("info")
        for part, tree in loaded.items():
            found, saved = fingerprint(tree), info["fingerprints"][part]
            changed = [path for path in saved if found.get(path) != saved[path]]
            if changed or set(found) != set(saved):
                raise CheckpointError(
                    f"{where}: damaged or of another model: {part}{changed[0] if changed else ''}"
                    " does not have the bits that were saved"
                )
        return Restored(step, loaded, summary(info["fingerprints"]["params"]), info.get("notes"))

    def _load(self, step: int, abstract: dict[str, Tree]) -> dict[str, Any]:
        where = self.directory / str(step)
        try:
            with context_by_itself(self.directory):
                loaded = ocp.load_checkpointables(absolute(where), {**abstract, "info": None})
            of, fingerprints = loaded["info"]["step"], loaded["info"]["fingerprints"]
            left_out = loaded["info"].get("batches_left_out", "")
            missing = [part for part in abstract if part not in fingerprints]
        except Exception as error:  # Orbax raises many kinds for a damaged or different tree
            reason = (str(error).strip() or repr(error)).splitlines()[0][:_REASON_LETTERS]
            raise CheckpointError(f"{where}: cannot be read: {reason}") from error
        if missing:
            raise CheckpointError(f"{where}: has no fingerprints of {', '.join(missing)}")
        if of != step:
            raise CheckpointError(f"{where}: holds step {of}; it was renamed or copied")
        if self.batches_left_out and left_out != (ours := self.batches_left_out(step)):
            raise CheckpointError(
                f"{where}: learnt with config.train.skip_batches={left_out!r} before that step,"
                f" not {ours!r}"
            )
        return loaded
