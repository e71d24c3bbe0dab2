"""The audit of an export: who can be linked, and who is told to have been trained on.

Tasks are `audit/linkage/SPLITS/A<->B (mean)` for two services, `clue<->NAME (mean)` for another
export, with `, N known pairs` where the attacker needs some; each also `among N` for smaller
galleries and by length of history; and `audit/membership/A<->B`, of more than two services also all
together, `A+B+C`. Attributes that can be predicted,
and groups that are served worse, are tasks of `downstream`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clue_jax.config import EvaluateConfig
from clue_jax.console import progress, say
from clue_jax.embeddings.reader import Embeddings
from clue_jax.errors import ConfigError
from clue_jax.evaluation.exported import rows_of_splits, taken
from clue_jax.evaluation.linkage import linkage_results
from clue_jax.evaluation.membership import Membership, membership_results, read_membership
from clue_jax.evaluation.results import LINKAGE, MEMBERSHIP, Result
from clue_jax.evaluation.two_sides import Sides, two_exports, two_services


@dataclass(frozen=True)
class Attacks:
    """All attacks of a config, read and found possible."""

    export: Embeddings
    sides: tuple[Sides, ...]
    membership: Membership | None

    def origin(self) -> dict[str, Any]:
        """People of each linkage, for evaluated.json."""
        return {"linked": {sides.name: len(sides.first_nE) for sides in self.sides}}


def read_attacks(config: EvaluateConfig, export: Embeddings) -> Attacks:
    """Reads everything the attacks need, so that nothing is refused halfway.

    Raises:
        ConfigError: a service that the export does not have, or too few services.
        DataError: a split that was not exported, another export that cannot be used, people who are
            not in both, or too few of them.
    """
    audit = config.audit
    held = taken(export, rows_of_splits(export, audit.splits))
    sides = (*two_services(held, audit), *two_exports(held, audit))
    membership = None
    if audit.membership:
        if len(export.services) < 2:
            raise ConfigError(
                "config.audit.membership: it is told by two services of a user, but there is only"
                f" {', '.join(export.services)}; leave it out with --config.audit.membership=false"
            )
        membership = read_membership(config, export)
    for one in sides:
        say(f"{one.name}: {len(one.first_nE):,} people to be linked")
    return Attacks(export, sides, membership)


def audit_results(config: EvaluateConfig, attacks: Attacks) -> list[Result]:
    """Results of every attack."""
    trained = int(attacks.export.manifest["train_seed"])
    prefix, results = f"{LINKAGE}{'+'.join(config.audit.splits)}/", []
    with progress("linking", len(attacks.sides)) as advance:
        for sides in attacks.sides:
            results += linkage_results(config, sides, prefix, trained)
            advance(1)
    if attacks.membership is not None:
        results += membership_results(attacks.membership, MEMBERSHIP)
    return results
