"""The engine of many machines: starts the pipeline, waits for it, and finishes the dataset."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from etils import epath

from clue_jax import files
from clue_jax.buckets import in_bucket
from clue_jax.config import PrepareConfig
from clue_jax.console import say
from clue_jax.data.beam.conclusion import CONTENTS_FILE
from clue_jax.data.beam.pipeline import build, told
from clue_jax.data.beam.plan import Plan, buckets_for
from clue_jax.data.events import units_of
from clue_jax.data.items import item_features
from clue_jax.data.log_reader import SPLITS
from clue_jax.data.prepare import Built, Job, prepare, say_new_services
from clue_jax.data.records import user_features
from clue_jax.data.shards import write_metadata
from clue_jax.data.tokenizer import Tokenizer
from clue_jax.errors import ConfigError, LostPeerError, StorageError


def prepare_on_beam(config: PrepareConfig, out: str, options: Sequence[str]) -> None:
    """Builds the dataset `out` as `prepare` does, on a runner of Apache Beam.

    Args:
        config: as of `prepare`; `memory_mb` is that of each worker process.
        out: a folder that all workers share, or a bucket.
        options: of the pipeline, such as `--runner=FlinkRunner`, passed on unchanged.

    Raises:
        ConfigError: Beam is not installed, or refuses an option; a setting that needs one machine;
            and as `prepare` does.
        LostPeerError: the runner did not finish the pipeline.
    """
    if config.min_item_users > 1:
        raise ConfigError(
            f"config.min_item_users: {config.min_item_users}, but users of an item are counted by"
            " prepare without --beam alone; leave rare texts out of the logs before, or run it so"
        )
    prepare(config, out, functools.partial(_build, options=_parsed(options)))


def _parsed(options: Sequence[str]) -> Any:
    try:
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise ConfigError(
            f"--beam={options[0]}: Apache Beam cannot be imported ({error}); in a virtual"
            " environment of its own: pip install '.[beam]'"
        ) from error
    parsed = PipelineOptions(list(options))
    try:
        parsed.get_all_options()
    except SystemExit as error:  # argparse has said why
        raise ConfigError(f"--beam: {' '.join(options)}: not options of Apache Beam") from error
    return parsed


def _build(job: Job, options: Any) -> Built:
    config, staged = job.config, _absolute(job.staged)
    for leftover in staged.iterdir():
        leftover.rmtree() if leftover.is_dir() else leftover.unlink()
    plan = Plan(
        config=config,
        staged=str(staged),
        buckets=buckets_for(config, sum(job.logs.values())),
        now=time.time(),
        trains=job.given is None,
        key_id=job.pseudonyms.key_id if job.pseudonyms else None,
    )
    _run(plan, options, job.given)
    contents = _contents(staged)
    if job.given is not None:
        guided = job.given.with_reserved(contents["guides"])
        say_new_services(job.given, guided, contents["services"])
    by_split = {split: contents["splits"][split]["shards"] for split in SPLITS}
    write_metadata(staged / "users", user_features(), by_split, "users")
    items = {"items": contents["items"]["shards"]}
    write_metadata(staged / "items", item_features(), items, "items")
    return Built(contents, reused=0)


def _absolute(path: epath.Path) -> epath.Path:
    """Workers have other working folders."""
    return path if in_bucket(path) else epath.Path(Path(path).absolute())


def _run(plan: Plan, options: Any, given: Tokenizer | None) -> None:
    import apache_beam as beam

    units = [
        unit._replace(file=replace(unit.file, path=_absolute(unit.file.path)))
        for unit in units_of(plan.config)
    ]
    say(f"{len(units):,} log files, {plan.buckets:,} buckets of users")
    pipeline = beam.Pipeline(options=options)
    build(pipeline, units, plan, given)
    try:
        state = pipeline.run().wait_until_finish()
    except Exception as error:  # each runner has its own
        if known := told(error):
            raise known from error
        raise
    if state != "DONE":
        raise LostPeerError(f"the pipeline ended as {state}, not as DONE; run the command again")


def _contents(staged: epath.Path) -> dict[str, Any]:
    """What the pipeline left, without what workers that were stopped have left."""
    path = staged / CONTENTS_FILE
    if not path.exists():
        raise StorageError(
            f"{path}: the workers have written elsewhere; --out must be a folder that all of them"
            " share, or a bucket"
        )
    contents = files.read_json(path)
    path.unlink()
    for folder in (staged, staged / "users", staged / "items"):
        for leftover in folder.glob(".*"):
            leftover.unlink()
    return contents
