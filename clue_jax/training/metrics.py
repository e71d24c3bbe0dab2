"""metrics.jsonl and TensorBoard of a run, and the line a person reads."""

from __future__ import annotations

import json
import math
from typing import Any

import jax
from etils import epath
from tensorboardX import SummaryWriter

from clue_jax.console import say
from clue_jax.files import storage_errors, write_text
from clue_jax.parallel.chips import chip_of_kind

Row = dict[str, Any]


def peak_flops() -> float | None:
    """Peak of all devices of the job; None where no data sheet gives one (CPU)."""
    chip = chip_of_kind(jax.devices()[0].device_kind)
    return chip.bf16_flops * jax.device_count() if chip else None


class Log:
    """Appends rows of steps to a file of JSON lines; only process 0 writes.

    Rows beyond `restored_step` are removed first: a resumed run computes them again.
    """

    def __init__(self, path: epath.Path, restored_step: int):
        self.path, self._writes = path, jax.process_index() == 0
        if self._writes and path.exists():
            kept = [line for line in path.read_text().splitlines() if _step(line) <= restored_step]
            write_text(path, "".join(line + "\n" for line in kept))

    def write(self, row: Row) -> Row:
        """Appends one row; NaN becomes null, so that every line stays JSON. Returns what it is."""
        plain = {
            k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()
        }
        if self._writes:
            with storage_errors(self.path), self.path.open("a") as stream:
                stream.write(json.dumps(plain) + "\n")
        return plain


class MetricsWriter:
    """Writes rows to `<workdir>/metrics.jsonl` and to TensorBoard; only process 0 does."""

    def __init__(self, workdir: epath.PathLike, restored_step: int):
        self._log = Log(epath.Path(workdir) / "metrics.jsonl", restored_step)
        self._writes = jax.process_index() == 0
        if self._writes:
            self._board = SummaryWriter(str(epath.Path(workdir) / "tensorboard"))

    def write(self, row: Row) -> None:
        """Appends one row."""
        plain = self._log.write(row)
        if not self._writes:
            return
        prefix = "/".join(str(row[key]) for key in ("split", "dataset") if key in row) or "train"
        for key, value in plain.items():
            if isinstance(value, (int, float)) and key != "step":
                self._board.add_scalar(f"{prefix}/{key}", value, row["step"])

    def close(self) -> None:
        if self._writes:
            self._board.close()


def _step(line: str) -> float:
    """Step of a line; a torn last line belongs to no step that was kept."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


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
        f"  eta {_duration(seconds_left)}"
    )


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
