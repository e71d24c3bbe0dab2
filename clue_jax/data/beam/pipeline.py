"""The steps of `prepare` as a pipeline of Apache Beam.

    files -> rows, catalogue -> by bucket of users: histories -> used items
          -> by bucket of items: names, tokens -> by bucket of users: records -> shards

Each step is a function of its own, that yields elements of the outputs it names; numbers about all
of an earlier step come beside the elements. What goes wrong in a worker comes back as text.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from clue_jax.data.beam import conclusion, items, reading, users, writing
from clue_jax.data.beam.plan import Output, Plan
from clue_jax.data.events import Unit
from clue_jax.data.item_tokens import merge_lengths
from clue_jax.data.tokenizer import Tokenizer
from clue_jax.errors import ClueError, kind_of

Step = Callable[..., Iterator[Output]]
# What each step yields elements of.
OUTPUTS: dict[Step, tuple[str, ...]] = {
    reading.read_unit: ("rows", "catalogue", "rejects", "reports"),
    reading.know: ("known",),
    reading.write_rejects: ("written",),
    users.group_bucket: ("histories", "used", "counts", "tallies"),
    users.lay_users_out: ("layout",),
    items.name_bucket: ("named", "texts", "counts"),
    writing.lay_items_out: ("layout",),
    items.train_tokenizer: ("tokenizer",),
    items.guide_tokenizer: ("tokenizer",),
    items.tokenize_bucket: ("tokens", "lengths"),
    users.encode_bucket: ("pieces",),
    items.encode_item_bucket: ("pieces",),
    writing.write_shard: ("entries",),
    conclusion.conclude: ("written",),
}
_TOLD = re.compile(r"<<clue_jax (\d+) ([0-9a-f]*)>>")


def build(root: Any, units: Sequence[Unit], plan: Plan, given: Tokenizer | None) -> None:
    """Adds the steps to a pipeline.

    Args:
        root: an `apache_beam.Pipeline`.
        units: the log files.
        plan: what workers are told.
        given: the tokenizer to use; None: one is trained.
    """
    steps = _Steps()
    read = steps.add("read", steps.dealt(root, units), reading.read_unit, plan)
    reports = steps.all_of("all reports", read.reports)
    known = steps.one(steps.add("know", reports, reading.know, plan).known)
    rejects = steps.all_of("all rejects", read.rejects)
    steps.add("write rejects", rejects, reading.write_rejects, plan)

    by_user = steps.by_key("rows", read.rows)
    grouped = steps.add("group", by_user, users.group_bucket, known, plan)
    tallies = steps.one(steps.merged("all tallies", grouped.tallies, users.merge_tallies))
    counts = steps.all_of("all counts", grouped.counts)
    found = steps.add("lay users out", counts, users.lay_users_out, tallies, plan)
    layout = steps.one(found.layout)

    by_item = steps.by_key("items", read.catalogue, grouped.used)
    named = steps.add("name", by_item, items.name_bucket, plan)
    counts = steps.all_of("all counts of items", named.counts)
    found = steps.add("lay items out", counts, writing.lay_items_out, plan)
    item_layout = steps.one(found.layout)
    if given is None:
        tokenizer = steps.one(_trained(steps, named.texts, known, plan))
    else:
        constant = steps.constant(root, given)
        guided = steps.add("guide", constant, items.guide_tokenizer, known, plan)
        tokenizer = steps.one(guided.tokenizer)
    tokenised = steps.add("tokenise", named.named, items.tokenize_bucket, tokenizer, plan)
    lengths = steps.one(steps.merged("all lengths", tokenised.lengths, merge_lengths))

    by_user = steps.by_key("users", grouped.histories, tokenised.tokens)
    of_users = steps.add("encode users", by_user, users.encode_bucket, layout, known, plan)
    of_items = steps.add("encode items", named.named, items.encode_item_bucket, item_layout)
    by_shard = steps.by_key("shards", of_users.pieces, of_items.pieces)
    written = steps.add("write shards", by_shard, writing.write_shard, plan)
    entries = steps.all_of("all entries", written.entries)
    beside = (layout, item_layout, known, tallies, tokenizer, lengths, plan)
    steps.add("conclude", entries, conclusion.conclude, *beside)


def _trained(steps: _Steps, texts: Any, known: Any, plan: Plan) -> Any:
    first = functools.partial(items.first_texts, most=plan.config.tokenizer.max_training_texts)
    sample = steps.merged("texts", texts, first)
    return steps.add("train", sample, items.train_tokenizer, known, plan).tokenizer


class _Steps:
    """Beam's transforms as this pipeline uses them."""

    def __init__(self) -> None:
        import apache_beam

        self._beam = apache_beam
        self.one = apache_beam.pvalue.AsSingleton  # to have it beside the elements of a step

    def add(self, name: str, elements: Any, function: Step, *beside: Any) -> Any:
        """A step; its outputs are attributes."""
        each = self._beam.FlatMap(_run, function, *beside)
        return elements | name >> each.with_outputs(*OUTPUTS[function])

    def dealt(self, root: Any, units: Sequence[Unit]) -> Any:
        """Log files, so that every worker gets some."""
        every = root | "files" >> self._beam.Create(units)
        return every | "deal files" >> self._beam.Reshuffle()

    def constant(self, root: Any, value: Tokenizer) -> Any:
        return root | "tokenizer" >> self._beam.Create([value])

    def all_of(self, name: str, elements: Any) -> Any:
        """One element, a list."""
        return elements | name >> self._beam.combiners.ToList()

    def merged(self, name: str, elements: Any, function: Callable[..., Any]) -> Any:
        """One element, of any number."""
        return elements | name >> self._beam.CombineGlobally(function).without_defaults()

    def by_key(self, name: str, *parts: Any) -> Any:
        """The elements of several steps, by bucket or shard."""
        together = parts | f"{name}: together" >> self._beam.Flatten()
        return together | f"{name}: by key" >> self._beam.GroupByKey()


def _run(element: Any, function: Step, *beside: Any) -> Iterator[Any]:
    """A step in a worker."""
    from apache_beam.pvalue import TaggedOutput

    try:
        for output, value in function(element, *beside):
            yield TaggedOutput(output, value)
    except ClueError as error:
        # Runners put it into texts of their own, tracebacks and quotes; digits come through whole.
        digits = str(error).encode("utf-8").hex()
        raise RuntimeError(f"{error} <<clue_jax {error.exit_code} {digits}>>") from error


def told(error: BaseException) -> ClueError | None:
    """The error that a worker met, from what a runner says of it; None for one of another kind."""
    found = _TOLD.search(str(error))
    if not found:
        return None
    return kind_of(int(found[1]))(bytes.fromhex(found[2]).decode("utf-8"))
