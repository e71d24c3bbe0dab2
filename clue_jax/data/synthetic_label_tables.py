"""The label tables that `synthesize` writes: `labels/NAME/part-*.parquet` and `labels/best.json`.

Tables: subscribes, segment, favourite, spend, next_item (see synthetic_labels.py), impressions and
true_clicks (see synthetic_clicks.py). All have user_id; all but true_clicks have timestamp.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from clue_jax.config import SynthesizeConfig
from clue_jax.data.synthetic_best import best_scores
from clue_jax.data.synthetic_clicks import Impressions, place_advertisements, show
from clue_jax.data.synthetic_labels import (
    Labels,
    NextItems,
    cutoff_second,
    draw_tastes,
    label_block,
    label_service,
    next_items,
)
from clue_jax.data.synthetic_users import Block
from clue_jax.data.synthetic_world import World

UserIds = Callable[[np.ndarray], pa.Array]  # numbers in the population -> ids


class LabelWriter:
    """Makes the tables of one part after the other and remembers what best.json needs."""

    def __init__(self, config: SynthesizeConfig, world: World, user_ids: UserIds):
        self._config, self._world, self._user_ids = config, world, user_ids
        self._tastes = draw_tastes(config, world.topics)
        self._ads = place_advertisements(config, world.topics)
        self._parts: dict[str, list[np.ndarray]] = defaultdict(list)

    def tables(self, blocks: list[Block], first: int, last: int) -> dict[str, pa.Table]:
        """The tables, by name, of the users `first` to `last`."""
        pieces: dict[str, list[pa.Table]] = defaultdict(list)
        for block in blocks:
            rows = np.arange(block.first, block.first + len(block.interests))
            rows = rows[(rows >= first) & (rows < last)]
            for name, table in self._of_block(block, rows).items():
                pieces[name].append(table)
        return {name: pa.concat_tables(tables) for name, tables in pieces.items()}

    def best(self) -> dict[str, Any]:
        """Contents of best.json for all tables so far."""
        ads = [_advertisement(n) for n in range(len(self._ads.topic))]
        return best_scores(self._parts) | {
            "cutoff_epoch_seconds": cutoff_second(self._config),
            "advertisements": dict(zip(ads, self._ads.logged.tolist(), strict=True)),
        }

    def _of_block(self, block: Block, users: np.ndarray) -> dict[str, pa.Table]:
        config, world = self._config, self._world
        labels = label_block(config, world, self._tastes, block)
        items = next_items(config, world, block)
        shown = show(config, world, self._ads, block)
        at = users - block.first
        with_item = np.flatnonzero(np.isin(items.user, users))
        visits = np.flatnonzero(np.isin(shown.user, users))
        self._remember(labels, items, shown, at, with_item, visits, block.first)
        ids = self._user_ids(users)
        return {
            **self._user_labels(labels, at, ids),
            "next_item": self._next_table(items, with_item),
            "impressions": self._impression_table(shown, visits),
            "true_clicks": pa.table(
                {
                    "user_id": ids,
                    "clicks": _lists(shown.true_clicks[at]),
                    "logged": _lists(np.tile(self._ads.logged, (len(at), 1))),
                    "stated": _lists(shown.stated[at]),
                }
            ),
        }

    def _remember(
        self,
        labels: Labels,
        items: NextItems,
        shown: Impressions,
        at: np.ndarray,
        with_item: np.ndarray,
        visits: np.ndarray,
        first: int,
    ) -> None:
        visits_U = np.bincount(shown.user[visits] - first, minlength=len(shown.stated))[at]
        clicks_UA = shown.true_clicks[at]
        for name, column in {
            "subscribes": labels.subscribes_best[at],
            "segment": labels.segment_best[at],
            "favourite": labels.favourite_best[at],
            "spend": labels.spend_best[at],
            "next_item": items.chances[with_item],
            "visits": visits_U,
            "logged": visits_U * (clicks_UA @ self._ads.logged),
            "stated": visits_U * (clicks_UA * shown.stated[at]).sum(axis=1),
        }.items():
            self._parts[name].append(column)

    def _user_labels(self, labels: Labels, at: np.ndarray, ids: pa.Array) -> dict[str, pa.Table]:
        categories = [f"category-{n:03d}" for n in range(labels.favourite_best.shape[1])]
        favourite = pa.array(categories).take(pa.array(labels.favourite[at]))
        columns = {
            "subscribes": (pa.array(labels.subscribes[at]), pa.array(labels.subscribes_best[at])),
            "segment": (pa.array(labels.segment[at]), pa.array(labels.segment_best[at])),
            "favourite": (favourite, _lists(labels.favourite_best[at])),
            "spend": (pa.array(labels.spend[at]), pa.array(labels.spend_best[at])),
        }
        return {
            name: pa.table(
                {"user_id": ids, "timestamp": _times(labels.seconds[at, n]), name: drawn}
                | {"best": best}
            )
            for n, (name, (drawn, best)) in enumerate(columns.items())
        }

    def _next_table(self, items: NextItems, rows: np.ndarray) -> pa.Table:
        catalogue = self._world.catalogues[label_service(self._config)]
        item_ids = pa.array(catalogue.item_ids, pa.string())
        best = pa.FixedSizeListArray.from_arrays(
            item_ids.take(pa.array(items.best[rows].ravel())), items.best.shape[1]
        )
        return pa.table(
            {
                "user_id": self._user_ids(items.user[rows]),
                "timestamp": _times(items.seconds[rows]),
                "service": pa.array([catalogue.service] * len(rows), pa.string()),
                "item_id": item_ids.take(pa.array(items.item[rows])),
                "best": best,
            }
        )

    def _impression_table(self, shown: Impressions, rows: np.ndarray) -> pa.Table:
        names = pa.array([_advertisement(n) for n in range(len(self._ads.topic))])
        return pa.table(
            {
                "user_id": self._user_ids(shown.user[rows]),
                "timestamp": _times(shown.seconds[rows]),
                "advertisement": names.take(pa.array(shown.advertisement[rows])),
                "position": pa.array(shown.position[rows].astype(np.int32)),
                "propensity": pa.array(shown.propensity[rows]),
                "click": pa.array(shown.click[rows]),
            }
        )


def _advertisement(number: int) -> str:
    return f"ad-{number:02d}"


def _times(seconds: np.ndarray) -> pa.Array:
    return pa.array(seconds, pa.int64()).cast(pa.timestamp("s", tz="UTC"))


def _lists(values_NX: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values_NX.ravel()), values_NX.shape[1])
