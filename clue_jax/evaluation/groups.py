"""Groups of users whose results are shown on their own, and which are too small to be shown.

A figure of a handful of people is close to a figure of each of them. A group below the minimum
audience is counted and not shown. Where a table names the groups, nor are then the next larger ones
while those left out together are fewer than the minimum, since the whole less what is shown would
tell of them. Lengths of history are cut without that: there it would cost the figures of new users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clue_jax.config import GroupConfig, TaskConfig, TaskKind
from clue_jax.console import say
from clue_jax.errors import DataError
from clue_jax.evaluation.labels import read_every_label
from clue_jax.evaluation.people import People


@dataclass(frozen=True)
class Partition:
    """Groups without a common member; some users may be in none.

    Attributes:
        name: of the table that says who is in which; empty: it follows from the behaviours.
        members: group -> bool [N].
    """

    name: str
    members: Mapping[str, np.ndarray]

    def shown(self, taking_part_N: np.ndarray, least: int) -> tuple[list[str], int]:
        """Groups that may be shown, and how many groups with somebody in them may not.

        Args:
            taking_part_N: bool, the users that the figures are of.
            least: users of a group and, where a table names them, of all that are in none shown.
        """
        sizes = {g: int((member_N & taking_part_N).sum()) for g, member_N in self.members.items()}
        shown = [group for group in sizes if sizes[group] >= least]
        rest = int(taking_part_N.sum()) - sum(sizes[group] for group in shown)
        for group in sorted(shown, key=sizes.__getitem__):
            if self.name and 0 < rest < least:
                shown.remove(group)
                rest += sizes[group]
        return shown, sum(size > 0 for size in sizes.values()) - len(shown)


def partitions(people: People) -> list[Partition]:
    """By length of history, who has one service only, and by each table of the config.

    Raises:
        DataError: a table that cannot be used, see labels.py; one group only; or a group whose name
            would be read as two.
    """
    downstream = people.config.downstream
    found = [Partition("", by_history(people.behaviours_N, downstream.histories))]
    if len(people.export.services) > 1:
        found.append(Partition("", {"one service only": people.services_N == 1}))
    return found + [_from_table(group, people) for group in downstream.groups]


def by_history(behaviours_N: np.ndarray, most: Sequence[int]) -> dict[str, np.ndarray]:
    """Who has at most the first number of behaviours, more and at most the second, and so on."""
    found, least = {}, 1
    for bound in most:
        name = f"at most {bound}" if least == 1 else f"{least} to {bound}"
        found[f"{name} behaviours"] = (behaviours_N >= least) & (behaviours_N <= bound)
        least = bound + 1
    if least > 1:
        found[f"{least} behaviours or more"] = behaviours_N >= least
    return found


def _from_table(group: GroupConfig, people: People) -> Partition:
    table = TaskConfig(
        name=group.name,
        kind=TaskKind.MULTICLASS,
        labels=group.labels,
        user_id=group.user_id,
        label=group.label,
        timestamp="",
        timeless=True,
    )
    labels = read_every_label(table, people)
    value_n = labels.texts(group.label).astype(str)
    values = np.unique(value_n)
    if len(values) < 2:
        raise DataError(
            f"groups of {group.name}: all {len(value_n):,} users are in {str(values[0])!r}; name a"
            " table with two groups or more, or leave it out"
        )
    members = {}
    for value in values.tolist():
        if ", " in value:
            raise DataError(f"groups of {group.name}: {value!r}: write it without ', '")
        member_N = np.zeros(len(people.held), bool)
        member_N[labels.place_n[value_n == value]] = True
        members[f"{group.name} {value}"] = member_N
    known, users = len(value_n), len(people.held)
    say(f"groups of {group.name}: {len(values):,}, of {known:,} among {users:,} users")
    return Partition(group.name, members)
