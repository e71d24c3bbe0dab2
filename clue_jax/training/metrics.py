"""metrics.jsonl and TensorBoard of a run, and the line a person reads."""

from __future__ import annotations

import time
from collections.abc import Mapping

import jax
from etils import epath
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

from clue_jax.config import PretrainConfig
from clue_jax.console import duration_text, say
from clue_jax.files import storage_errors
from clue_jax.model.sizes import dense_counts, step_flops
from clue_jax.parallel.chips import chip_of_kind
from clue_jax.training.log import Log, Row


def peak_flops() -> float | None:
    """Peak of all devices of the job; None where no data sheet gives one (CPU)."""
    chip = chip_of_kind(jax.devices()[0].device_kind)
    return chip.bf16_flops * jax.device_count() if chip else None


_FLUSH_SECONDS = 30.0


class Board:
    """Scalars for TensorBoard, written by the caller: a thread of its own would die of a full disk
    unseen, and hold up the run for ever once its queue is full."""

    def __init__(self, folder: epath.Path):
        self.folder, self._flushed = folder, time.monotonic()
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{time.time():.3f}"
            self._records = RecordWriter(str(folder / name))
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add(self, step: int, scalars: dict[str, float]) -> None:
        """Raises StorageError where the file system refuses, at times only a few rows later."""
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _write(self, event: Event) -> None:
        with storage_errors(self.folder):
            self._records.write(event.SerializeToString())
            if time.monotonic() - self._flushed > _FLUSH_SECONDS:
                self._records.flush()
                self._flushed = time.monotonic()

    def close(self) -> None:
        with storage_errors(self.folder):
            self._records.close()


class MetricsWriter:
    """Writes rows to `<workdir>/metrics.jsonl` and to TensorBoard; only process 0 does.

    `kept` are the rows of earlier attempts that still count.
    """

    def __init__(self, workdir: epath.PathLike, restored_step: int):
        self._log = Log(epath.Path(workdir) / "metrics.jsonl", restored_step)
        self.kept = self._log.kept
        self._writes = jax.process_index() == 0
        if self._writes:
            self._board = Board(epath.Path(workdir) / "tensorboard")

    def write(self, row: Row) -> None:
        """Appends one row."""
        plain = self._log.write(row)
        if not self._writes:
            return
        prefix = "/".join(str(row[key]) for key in ("split", "dataset") if key in row) or "train"
        scalars = {
            f"{prefix}/{key}": float(value)
            for key, value in plain.items()
            if isinstance(value, (int, float)) and key != "step"
        }
        self._board.add(row["step"], scalars)

    def close(self) -> None:
        if self._writes:
            self._board.close()


def work_row(
    config: PretrainConfig, counts: Mapping[str, float], pairs: int, seconds: float
) -> Row:
    """What the steps of a row computed, in closed form, and how fast.

    Args:
        config: of the run.
        counts: of all of the steps.
        pairs: of views, over all of the steps.
        seconds: that they took.
    """
    peak, flops = peak_flops(), step_flops(config, counts, pairs)
    return {
        "flops": flops,
        "dense_flops": step_flops(config, dense_counts(counts), pairs),
        "flops_per_second": flops / seconds,
        "mfu": flops / seconds / peak if peak else None,
    }


def say_row(row: Row, steps: int, seconds_left: float) -> None:
    """Prints one line about a training or an evaluation row."""
    head = f"step {row['step']:>{len(str(steps))}}/{steps}"
    if "split" in row:
        whose = f"{row['split']} of {row['dataset']}" if "dataset" in row else row["split"]
        say(
            f"{head}  {whose}: R@1 {row['recall_at_1']:.3f}  R@10 {row['recall_at_10']:.3f}"
            f"  MRR {row['mrr']:.3f}  (chance R@10 {row['chance']:.3f}, {row['users']} users)"
        )
        return
    mfu = "" if row["mfu"] is None else f"  mfu {row['mfu']:.0%}"
    say(
        f"{head}  loss {row['loss']:.4f}  R@1 {row['retrieval_at_1']:.3f}  scale"
        f" {row['logit_scale']:.1f}  lr {row['learning_rate']:.2e}  {row['users_per_second']:,.0f}"
        f" users/s  wait {row['data_wait']:.0%}{mfu}  fill {row['fill']:.0%}"
        f"  eta {duration_text(seconds_left)}"
    )
