"""Cards of models: of a run from its own files, and of an encoder that is shared without them.

No ids, texts or paths.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from clue_jax.buckets import checkpoint_steps
from clue_jax.config import EncoderConfig, PretrainConfig, to_json
from clue_jax.console import duration_text
from clue_jax.files import read_json, write_text
from clue_jax.markdown import CARD, one_line, table
from clue_jax.model.sizes import parameter_count
from clue_jax.training.log import Row, read_rows
from clue_jax.training.trained import read_run

# What operations are turned into electricity with, as in docs/broader-impacts.md.
PEAK_FLOPS, UTILISATION, WATTS, OVERHEAD = 989e12, 0.4, 700.0, 1.2

_USE = """
## What it is for, and what not

One vector of length one for a user, from what the user did on services, as text: for heads, nearest
neighbours and audiences. Not for linking people across services that they did not agree to be
linked across, not for finding a named person by their behaviour, and not for deciding on credit,
insurance, work or housing.

## Limits

- Its embeddings are personal data: it is trained to find the same person again. Who has the encoder
  and the logs can make them.
- It keeps traces of whom it was trained on, also after they are erased from exports; only training
  again without them takes these out.
- What stands behind behaviour (age, gender, income, health) can be read off by a head that nobody
  intended; nothing here takes that out.
- Users of few behaviours, and services it was not trained on, are served worse: evaluate them apart
  (`downstream.histories`).
- Vectors of two models lie in different spaces; `clue-jax embeddings align` turns one into the
  other.
"""


def write_run_card(workdir: epath.PathLike) -> None:
    """Writes card.md of a run from what is in its directory.

    Raises:
        CheckpointError: it is no run directory.
        DataError: a file is damaged.
        StorageError: the card cannot be written.
    """
    folder = epath.Path(workdir)
    run, known = read_run(folder), read_json(folder / "dataset.json")
    environment = read_json(folder / "environment.json")
    rows = read_rows(folder / "metrics.jsonl")
    saved = folder / "checkpoints"
    steps = checkpoint_steps(saved) if saved.exists() else []
    parts = (
        f"# Encoder {one_line(folder.name)}\n\nA CLUE user encoder, trained by clue_jax.\n\n",
        _facts(_encoder_facts(run.config.encoder, run.vocab_size)),
        "\n## Training\n\n",
        _facts(_training_facts(run.config, known, environment, rows, steps)),
        "\n## Validation\n\n",
        _validation(rows),
        "\n## Energy\n\n",
        _energy(rows, environment),
        _USE,
    )
    write_text(folder / CARD, "".join(parts))


def encoder_card(
    config: EncoderConfig, vocab_size: int, services: Sequence[str], model_version: str
) -> str:
    """Of an encoder without its run."""
    facts = {"version": f"`{one_line(model_version)}`", "services": _names(services)}
    return (
        "# User encoder\n\nA CLUE user encoder, saved by clue_jax.\n\n"
        + _facts(facts | _encoder_facts(config, vocab_size))
        + "\n## How to use it\n\n```python\nfrom clue_jax import UserEncoder\n\n"
        'encoder = UserEncoder.from_pretrained("DIR")\n'
        f"z = encoder.encode([{{{one_line(services[0] if services else 'service')!r}:"
        ' ["a text", "a newer one"]}])\n```\n' + _USE
    )


def _encoder_facts(config: EncoderConfig, vocab_size: int) -> dict[str, str]:
    stacks = [
        f"{name}, {stack.num_layers} x {stack.num_heads} heads"
        for name, stack in (("items", config.item), ("services", config.service))
    ]
    return {
        "parameters": f"{parameter_count(config, vocab_size):,}",
        "transformers (layers x heads)": f"of {' and '.join(stacks)}, width {config.width}",
        "embedding": f"{config.embedding_width} dimensions, length one",
        "reads": f"the newest {config.max_history} behaviours of a service,"
        f" {config.max_item_tokens} tokens of each",
        "tokenizer": f"byte-level BPE of {vocab_size:,} tokens",
        "computes in": config.precision.value,
    }


def _training_facts(
    config: PretrainConfig,
    known: Mapping[str, Any],
    environment: Mapping[str, Any],
    rows: Sequence[Row],
    checkpoints: Sequence[int],
) -> dict[str, str]:
    steps = [row for row in rows if "split" not in row]
    done, batch = (steps[-1]["step"] if steps else 0), config.train.batch_users
    fingerprints = known["fingerprint"].split("+")
    skipped = sum(row.get("skipped") or 0 for row in steps)
    loss = to_json(config.loss)
    return {
        "datasets, by fingerprint": ", ".join(f"`{one[:12]}`" for one in fingerprints),
        "services": _names(known["services"]),
        "steps": f"{done:,} of {config.train.steps:,}" + (f", {skipped:,} skipped" * bool(skipped)),
        "saw": f"{done * batch:,} users in batches of {batch:,}, each as two views"
        + (f", {steps[-1]['epoch']:.1f} epochs" if steps and "epoch" in steps[-1] else ""),
        "began from": "another run's parameters" if config.init_from else "random parameters",
        "loss": f"contrastive, {loss['form']}",
        "learning rate, seed": f"{config.optim.learning_rate:g}, {config.seed}",
        "checkpoints": f"of steps {', '.join(map(str, checkpoints))}" if checkpoints else "none",
        "devices": f"{environment['devices']} x {one_line(environment['device_kind'])},"
        f" in {environment['processes']} process{'es' * (environment['processes'] > 1)}",
        "versions": ", ".join(f"{name} {of}" for name, of in environment["packages"].items()),
    }


def _validation(rows: Sequence[Row]) -> str:
    found = [row for row in rows if row.get("split") == "validation"]
    if not found:
        return "There has been none.\n"
    last = [row for row in found if row["step"] == found[-1]["step"]]
    best = max(found, key=lambda row: row["recall_at_10"] or 0.0)
    lines = [
        f"- {one_line(row.get('dataset', 'all'))}: R@1 {row['recall_at_1']:.3f}, R@10"
        f" {row['recall_at_10']:.3f}, MRR {row['mrr']:.3f} among {row['users']:,} held-out users"
        f" (chance R@10 {row['chance']:.3f})\n"
        for row in last
    ]
    return (
        f"The same user found again through another service, after step {last[0]['step']:,}:\n\n"
        f"{''.join(lines)}\nThe best R@10 was {best['recall_at_10']:.3f}, at step"
        f" {best['step']:,}. `clue-jax evaluate` gives intervals and baselines on test users.\n"
    )


def _energy(rows: Sequence[Row], environment: Mapping[str, Any]) -> str:
    """From operations alone, so that it is comparable; what was used here was not measured."""
    steps = [row for row in rows if row.get("flops")]
    if not steps:
        return "No step has been logged.\n"
    flops, seconds = (math.fsum(row[key] for row in steps) for key in ("flops", "step_seconds"))
    hours = flops / (PEAK_FLOPS * UTILISATION) / 3600
    kilowatt_hours = hours * WATTS / 1e3 * OVERHEAD
    return (
        f"{flops:.2e} floating-point operations in {duration_text(seconds)} of steps on"
        f" {environment['devices']} x {one_line(environment['device_kind'])}, without evaluations"
        " and steps that were taken again. Electricity was not measured. With these assumptions, to"
        f" be replaced by what is known of the machine, it is **{kilowatt_hours:.2g} kWh**:\n\n"
        "    kWh = FLOP / (peak FLOP/s x utilisation) x watts / 3.6e6 x overhead\n"
        f"        = {flops:.2e} / ({PEAK_FLOPS:.3g} x {UTILISATION}) x {WATTS:g} / 3.6e6 x"
        f" {OVERHEAD}\n\n(an H200 in bfloat16 at {UTILISATION:.0%} of its peak, the overhead of a"
        " data centre).\n"
    )


def _facts(facts: Mapping[str, str]) -> str:
    return table(("", ""), facts.items())


def _names(services: Sequence[str]) -> str:
    return ", ".join(map(one_line, services)) or "none"
