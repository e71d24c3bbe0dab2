"""Which of several heads speaks for a fold, and the best prediction that labels bring along."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import scipy.sparse as sp

from clue_jax.config import TaskConfig, TaskKind
from clue_jax.errors import DataError
from clue_jax.evaluation.folds import Folds
from clue_jax.evaluation.heads import Problem
from clue_jax.evaluation.labels import Labels
from clue_jax.evaluation.predictions import Prediction, choose, references
from clue_jax.evaluation.targets import TaskInputs, own_items

FOLDS = Folds(np.array([0, 1, 2, 0]), 3)
NOTHING = own_items(sp.csr_array((4, 7)))


def inputs(kind, target, outputs=1, column=None, classes=(), catalogue=None, prior=None, own=None):
    problem = Problem(kind, np.arange(4), np.array(target), FOLDS, outputs, prior, own)
    task = TaskConfig("t", kind, "t", best="best" if column is not None else "")
    labels = Labels(task, pa.table({"best": column or [0] * 4}), np.arange(4), 0)
    return TaskInputs(task, labels, problem, classes, catalogue)


def test_each_fold_has_the_head_that_lost_least_on_its_validation_users():
    task = inputs(TaskKind.BINARY, [0, 1, 0, 1])
    found = {
        "linear": Prediction(np.array([1.0, 2.0, 3.0, 4.0]), (0.1, 0.9, 0.5), ("a", "b", "c")),
        "mlp": Prediction(np.array([10.0, 20.0, 30.0, 40.0]), (0.2, 0.3, 0.6), ("d", "e", "f")),
    }
    chosen = choose(task, found)
    assert chosen.values.tolist() == [1.0, 20.0, 3.0, 4.0]
    assert chosen.losses == (0.1, 0.3, 0.5) and chosen.loss == pytest.approx(0.3)
    assert chosen.fitted == ("a", "e", "c")
    found["knn"] = Prediction(np.zeros(4), (0.0, 1.0, 1.0))
    chosen = choose(task, found)
    assert chosen.values.tolist() == [0.0, 20.0, 3.0, 0.0] and chosen.fitted == ()


def test_references_know_no_user():
    found = references(inputs(TaskKind.MULTICLASS, [0, 1, 1, 2], 3), None)
    np.testing.assert_allclose(found["prior"], [[0.25, 0.5, 0.25]] * 4)
    found = references(inputs(TaskKind.REGRESSION, [1.0, 2.0, 3.0, 6.0]), None)
    assert found["prior"].tolist() == [3.0] * 4
    prior = np.log([3.0, 1.0, 2.0])
    counts = sp.csr_array(np.array([[0, 0, 0], [1, 2, 0], [0, 0, 5], [0, 1, 0]]))
    asked = inputs(TaskKind.RETRIEVAL, [0, 1, 2, 0], 3, prior=prior, own=own_items(counts))
    found = references(asked, None)
    assert found["popularity"].tolist() == [1.0, 3.0, 2.0, 1.0]
    assert found["history"].tolist() == [1.0, 1.0, 1.0, 2.0]


def test_own_items_are_those_a_user_had_most_often_first():
    own = own_items(sp.csr_array(np.array([[0, 2, 1, 2], [0, 0, 0, 0], [1, 0, 0, 9]])))
    assert own.entry_UH.tolist() == [[1, 3, 2], [4, 4, 4], [3, 0, 4]]
    assert own.count_UH.tolist() == [[2, 2, 1], [0, 0, 0], [9, 1, 0]]
    assert own_items(sp.csr_array((2, 5))).entry_UH.tolist() == [[5], [5]]


class Catalogue:
    names = pa.array(list("abcdefg"))

    def __len__(self):
        return len(self.names)

    def find(self, values):
        return pc.index_in(values, self.names).to_numpy(zero_copy_only=False).astype(int)


def test_the_best_list_of_items_ranks_what_is_not_in_it_behind():
    lists = [["a", "b"], ["b", "a"], ["c", "d"], ["g", "a"]]
    column = pa.array(lists, pa.list_(pa.string(), 2))
    task = inputs(
        TaskKind.RETRIEVAL, [0, 0, 5, 0], 7, column, (), Catalogue(), np.zeros(7), NOTHING
    )
    # Five items tie behind two: places 3 to 7.
    assert references(task, None)["best"].tolist() == [1.0, 2.0, 5.0, 2.0]
    ragged = pa.array([["a"], ["b", "a"], ["c", "d"], ["g"]], pa.list_(pa.string()))
    task = inputs(
        TaskKind.RETRIEVAL, [0, 0, 5, 0], 7, ragged, (), Catalogue(), np.zeros(7), NOTHING
    )
    with pytest.raises(DataError, match="'best' has lists of different lengths"):
        references(task, None)


def test_the_best_chances_are_of_the_classes_there_are():
    column = pa.array([[0.5, 0.5]] * 4, pa.list_(pa.float64(), 2))
    task = inputs(TaskKind.MULTICLASS, [0, 1, 1, 0], 2, column, ("x", "y"))
    np.testing.assert_allclose(references(task, None)["best"], 0.5)
    task = inputs(TaskKind.MULTICLASS, [0, 1, 1, 2], 3, column, ("x", "y", "z"))
    with pytest.raises(DataError, match="'best' has 2 chances a row, but the labels have 3"):
        references(task, None)
