"""Whom a step draws: shares that are exact in the long run, epochs that hold nobody twice."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from clue_jax.data.strata import Strata, Stratum
from clue_jax.errors import ConfigError


def strata(sizes, batch, weights=(), seed=0):
    return Strata([Stratum(f"d{d}", n, seed + d) for d, n in enumerate(sizes)], batch, weights)


def test_one_dataset_is_drawn_as_it_always_was():
    """What a run begun long ago has drawn it draws again."""
    for size, batch, seed, step, users in (
        (100, 10, 3, 0, [86, 47, 20, 82, 72, 76, 2, 94]),
        (100, 30, 3, 7, [86, 49, 64, 27, 99, 68, 13, 88]),
        (1_000, 64, 2**50, 123, [776, 975, 926, 192, 127, 966, 2, 908]),
    ):
        (drawn,) = Strata([Stratum("", size, seed)], batch).draw(step)
        assert len(drawn) == batch and drawn[: len(users)].tolist() == users


@hypothesis.given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**40))
@hypothesis.settings(max_examples=60, deadline=None)
def test_epochs_and_batches_of_one_dataset_hold_nobody_twice(count, batch, seed):
    """What does not fill a batch is left out of an epoch, fewer than a batch, others each time."""
    hypothesis.assume(batch <= count)
    order, per_epoch = strata([count], batch, seed=seed), count // batch
    assert order.steps_per_epoch == (per_epoch,)
    for epoch in range(4):
        steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
        visited = np.concatenate([order.draw(step)[0] for step in steps])
        assert len(set(visited.tolist())) == len(visited) == count - count % batch
        assert visited.min() >= 0 and visited.max() < count


MIXTURES = st.lists(
    st.tuples(st.integers(1, 200), st.floats(1e-3, 1.0)), min_size=1, max_size=4
).flatmap(lambda mix: st.tuples(st.just(mix), st.integers(1, 60), st.booleans()))


@hypothesis.given(MIXTURES, st.integers(0, 2**40))
@hypothesis.settings(max_examples=60, deadline=None)
def test_each_dataset_has_its_share_and_its_own_epochs(mixture, first):
    mix, batch, weighed = mixture
    sizes = [size for size, _ in mix]
    weights = [weight for _, weight in mix] if weighed else ()
    try:
        order = strata(sizes, batch, weights)
    except ConfigError:
        hypothesis.reject()
    share = np.array(weights or sizes) / sum(weights or sizes)
    assert [float(s) for s in order.shares] == pytest.approx(share.tolist())
    for step in (first, first + 1):  # any step, without the ones before it
        drawn = order.draw(step)
        assert sum(map(len, drawn)) == batch
        assert [len(users) for users in drawn] == [
            after - before
            for before, after in zip(order.before(step), order.before(step + 1), strict=True)
        ]
        assert (np.array([len(users) for users in drawn]) <= order.most()).all()
    for steps in (1, 7, 1_000):
        assert (np.abs(np.array(order.before(steps)) - steps * batch * share) < len(sizes)).all()
    for d, per_epoch in enumerate(order.steps_per_epoch):
        assert order.most(per_epoch)[d] <= sizes[d] < order.most(per_epoch + 1)[d]
        begin = first // per_epoch * per_epoch
        some = range(begin, begin + min(per_epoch, 20))
        visited = np.concatenate([order.draw(step)[d] for step in some])
        assert len(set(visited.tolist())) == len(visited)
        assert order.epochs(begin)[d] == begin / per_epoch


def test_an_epoch_of_a_mixture_leaves_out_less_than_a_step_and_a_user_for_each_dataset():
    order = strata([1_000, 230, 61], 48, (0.6, 0.3, 0.1))
    for d, (size, per_epoch) in enumerate(
        zip((1_000, 230, 61), order.steps_per_epoch, strict=True)
    ):
        for epoch in range(5):
            steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
            visited = sum(len(order.draw(step)[d]) for step in steps)
            assert 0 <= size - visited < 48 * float(order.shares[d]) + 2 * 3


def test_whom_one_epoch_leaves_out_another_visits():
    order = strata([100], 30)
    epochs = [
        np.concatenate([order.draw(3 * epoch + k)[0] for k in range(3)]) for epoch in range(40)
    ]
    missed = [frozenset(set(range(100)) - set(epoch.tolist())) for epoch in epochs]
    assert {len(users) for users in missed} == {10} and len(set(missed)) > 35
    visits = np.bincount(np.concatenate(epochs), minlength=100)
    assert visits.min() > 25  # of 40, 36 on average


def test_users_of_two_datasets_do_not_meet_again_and_again():
    """Of datasets as large as each other, the same places are other users at every epoch."""
    order = strata([64, 64], 16)
    met = [
        {(a, b) for a in order.draw(step)[0].tolist() for b in order.draw(step)[1].tolist()}
        for step in range(2 * order.steps_per_epoch[0])
    ]
    same = sum((n, n) in pairs for pairs in met for n in range(64))
    assert 2 < same < 40  # an eighth of 128 by chance; 128 if both had one order


def test_a_dataset_of_small_weight_is_drawn_now_and_then():
    order = strata([100, 4], 10, (0.98, 0.02))
    counts = [len(order.draw(step)[1]) for step in range(100)]
    assert set(counts) == {0, 1} and sum(counts) in (20, 21)
    assert order.steps_per_epoch[1] == 19  # 20 steps may need a fifth: .02 in binary is more


@pytest.mark.parametrize(
    ("sizes", "batch", "weights", "problem"),
    [
        ([60], 64, (), "batch_users: 64 users .*, 64 of them of d0, but only 60 .* at most 60"),
        ([900, 10], 64, (0.5, 0.5), "32 of them of d1, but only 10 .* at most 20 .*weights"),
        ([900, 0], 64, (), "--data=d1: no training user has a positive pair"),
        ([0], 4, (), "--data=d0: no training user has a positive pair"),
    ],
)
def test_more_users_than_a_dataset_has_are_refused(sizes, batch, weights, problem):
    with pytest.raises(ConfigError, match=problem):
        strata(sizes, batch, weights)


def test_the_largest_batch_that_it_names_is_possible():
    assert strata([900, 10], 20, (0.5, 0.5)).most() == [10, 10]
    with pytest.raises(ConfigError):
        strata([900, 10], 21, (0.5, 0.5))
