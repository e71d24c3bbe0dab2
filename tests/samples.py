"""Users made up for tests, without logs or files."""

import numpy as np

from clue_jax.data.ragged import offsets_of
from clue_jax.data.records import Users
from clue_jax.data.tokenizer import FIRST_SERVICE_GUIDE

VOCABULARY = 200


def sample_users(
    count=12,
    services=("search", "shop"),
    seed=0,
    *,
    catalogue=40,
    longest_item=9,
    longest_history=7,
    empty=0.2,
):
    """Random users over a shared catalogue, whose items repeat within and across histories.

    Args:
        catalogue: distinct items per service.
        longest_item: tokens, guide included; the shortest item has its guide alone.
        longest_history: behaviours per user and service.
        empty: chance that a user lacks a service.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest_item + 1, (len(services), catalogue))
    first_word = FIRST_SERVICE_GUIDE + len(services)
    texts = [
        [
            np.append(FIRST_SERVICE_GUIDE + s, rng.integers(first_word, VOCABULARY, length - 1))
            for length in lengths[s]
        ]
        for s in range(len(services))
    ]
    identities = np.sort(rng.permutation(10**6)[: len(services) * catalogue].astype(np.uint64))
    identities = identities.reshape(len(services), catalogue)
    items, item_tokens, item_counts, behaviours, counts = [], [], [], [], []
    for _ in range(count):
        drawn = []
        for s in range(len(services)):
            size = 0 if rng.random() < empty else rng.integers(1, longest_history + 1)
            drawn.append(s * catalogue + rng.integers(0, catalogue, size))
            counts.append(size)
        flat = np.concatenate(drawn).astype(int)
        distinct, index = np.unique(flat, return_inverse=True)
        items.append(identities.ravel()[distinct])
        item_tokens += [texts[item // catalogue][item % catalogue] for item in distinct]
        item_counts.append(len(distinct))
        behaviours.append(index)
    return Users(
        user_ids=np.array([f"user-{n}" for n in range(count)], object),
        services=tuple(services),
        item_ids=np.concatenate(items),
        item_offsets=offsets_of(np.array(item_counts)),
        tokens=np.concatenate([*item_tokens, np.zeros(0)]).astype(np.int32),
        token_offsets=offsets_of(np.array([len(tokens) for tokens in item_tokens], int)),
        behaviour_items=np.concatenate(behaviours).astype(np.int32),
        behaviour_times=np.arange(sum(counts), dtype=np.int64),
        behaviour_offsets=offsets_of(np.array(counts)),
    )


def users_with(histories, texts):
    """Users with these histories.

    Args:
        histories: of each user, of each service, numbers of items, oldest first.
        texts: tokens of each item; a user stores those of the items of its histories.
    """
    counts = [len(history) for user in histories for history in user]
    flat = [[item for history in user for item in history] for user in histories]
    own = [np.unique(np.array(items, int), return_inverse=True) for items in flat]
    items = np.concatenate([distinct for distinct, _ in own])
    return Users(
        user_ids=np.array([f"user-{n}" for n in range(len(histories))], object),
        services=tuple(f"service-{s}" for s in range(len(histories[0]))),
        item_ids=items.astype(np.uint64),
        item_offsets=offsets_of(np.array([len(distinct) for distinct, _ in own])),
        tokens=np.concatenate([*(texts[item] for item in items), np.zeros(0)]).astype(np.int32),
        token_offsets=offsets_of(np.array([len(texts[item]) for item in items], int)),
        behaviour_items=np.concatenate([index for _, index in own]).astype(np.int32),
        behaviour_times=np.arange(sum(counts), dtype=np.int64),
        behaviour_offsets=offsets_of(np.array(counts)),
    )
