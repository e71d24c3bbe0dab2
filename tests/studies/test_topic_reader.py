"""The study of what true topics tell: shares of topics, newest first where they shall be."""

import dataclasses
import types

import numpy as np

from tests.samples import users_with
from tests.studies.topic_reader import read_config, topic_shares


def people(times):
    users = users_with([[[0, 1, 1], []], [[2], [0]]], [np.array([5, n]) for n in range(3)])
    users = dataclasses.replace(users, behaviour_times=np.array(times))
    items = types.SimpleNamespace(
        source_ids=np.array(["a", "b", "c"], object), lookup=lambda ids: ids.astype(int)
    )
    return types.SimpleNamespace(seen=users, dataset=types.SimpleNamespace(items=lambda: items))


def test_shares_count_all_alike_or_the_newest_most():
    days = np.array([0, 60, 120, 7, 7]) * 86_400
    topic_of = {"a": 0, "b": 1, "c": 2}
    whole = topic_shares(people(days), topic_of, 0.0)
    np.testing.assert_allclose(whole, [[1 / 3, 2 / 3, 0], [0.5, 0, 0.5]], atol=1e-6)
    recent = topic_shares(people(days), topic_of, 60.0)
    np.testing.assert_allclose(recent[0], [0.25 / 1.75, 1.5 / 1.75, 0], atol=1e-6)


def test_it_reads_the_tasks_that_need_no_items():
    names = [task.name for task in read_config("x").downstream.tasks]
    assert names == ["subscribes", "favourite", "spend", "segment"]
