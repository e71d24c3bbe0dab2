"""The train step: the same on any number of devices, compiled once, learning."""

import math
from functools import partial

import jax
import numpy as np
import pytest

from clue_jax.config import (
    AttentionKernel,
    EncoderConfig,
    LossConfig,
    LossForm,
    MeshConfig,
    OptimConfig,
    Precision,
    PretrainConfig,
    SamplingConfig,
    TrainConfig,
    TransformerConfig,
)
from clue_jax.data.batches import Source, TrainBatches
from clue_jax.model import attention, clue
from clue_jax.parallel.mesh import make_mesh
from clue_jax.training import step as step_module
from clue_jax.training.state import init_state, state_shardings
from clue_jax.training.step import make_step
from tests.samples import VOCABULARY, sample_users

USERS = sample_users(80, seed=8, longest_history=12, empty=0.1)
LAYER = TransformerConfig(1, 2, 32)


def config_of(**loss):
    return PretrainConfig(
        encoder=EncoderConfig(
            width=16,
            embedding_width=16,
            item=LAYER,
            service=LAYER,
            max_history=12,
            max_item_tokens=7,
            row_tokens=32,
            row_behaviours=32,
            item_rows=1,  # several chunks a device
            history_rows=1,
        ),
        sampling=SamplingConfig(
            behaviours_kept=0.8,
            token_dropout=0.2,
            layer_dropout=0.2,
            within_service_weight=0.5,
            item_steps=5,
        ),
        loss=LossConfig(**loss),
        optim=OptimConfig(learning_rate=3e-3),
        train=TrainConfig(steps=20, batch_users=32),
    )


class Trial:
    """Some steps of a run on the first devices."""

    def __init__(self, config, devices=1, users=USERS, others=None, **axes):
        mesh = make_mesh(MeshConfig(**axes), jax.devices()[:devices])
        sources = [Source("users", "abcdef0123456789", users)]
        if others is not None:
            sources.append(Source("others", "9876543210fedcba", others))
        self.batches = TrainBatches(sources, config, mesh)
        self.pairs = self.batches.pairs
        self.step = make_step(config, self.pairs, mesh, self.batches.capacity.items)
        self.state = jax.device_put(init_state(config, VOCABULARY), state_shardings(config, mesh))
        self.metrics = []

    def run(self, steps, batch=None):
        for k in range(steps):
            packed = self.batches.global_batch(k if batch is None else batch).packed
            self.state, metrics = self.step(self.state, packed)
            self.metrics.append(jax.device_get(metrics))
        return self

    def values(self, key):
        return [float(metrics[key]) for metrics in self.metrics]


@pytest.fixture(scope="module")
def alone():
    return Trial(config_of()).run(20)


@pytest.fixture(scope="module")
def on_eight():
    return Trial(config_of(), devices=8).run(20)


def test_the_batches_need_several_chunks_on_every_device(alone, on_eight):
    for trial in (alone, on_eight):
        packed, _ = trial.batches.host_batch(7)
        assert packed.num_item_chunks.min() > 2 and packed.num_view_chunks.min() > 2
        assert packed.item_skips_CU.any() and packed.view_skips_CU.any()


@pytest.mark.parametrize("devices", [2, 8])
def test_twenty_steps_are_the_same_on_any_number_of_devices(alone, on_eight, devices):
    dealt = on_eight if devices == 8 else Trial(config_of(), devices).run(20)
    for key in ("loss", "gradient_norm"):  # not the hits: of equal scores rounding picks one
        np.testing.assert_allclose(dealt.values(key), alone.values(key), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("data", "fsdp", "tensor"), [(2, 4, 1), (1, 8, 1), (4, 1, 2), (1, 4, 2), (2, 2, 2)]
)
def test_twenty_steps_are_the_same_on_any_shape_of_mesh(alone, data, fsdp, tensor):
    trial = Trial(config_of(), devices=8, data=data, fsdp=fsdp, tensor=tensor).run(20)
    for key in ("loss", "gradient_norm", "logit_scale"):
        np.testing.assert_allclose(trial.values(key), alone.values(key), rtol=1e-5, atol=1e-5)
    largest = trial.state.params["encoder"]["item"]["stack"]["blocks"]["mlp"]["up"]
    parts = {shard.data.size for shard in largest.addressable_shards}
    assert parts == {largest.size // (fsdp * tensor)}


@pytest.mark.parametrize("form", LossForm)
def test_neither_does_the_mesh_change_a_bag_of_items(form):
    config = config_of(form=form)
    config.encoder.item = config.encoder.service = TransformerConfig(num_layers=0)
    config.encoder.project, config.encoder.normalize_items = False, True
    alone = Trial(config).run(10)
    dealt = Trial(config, devices=8, data=2, fsdp=2, tensor=2).run(10)
    for key in ("loss", "gradient_norm", "logit_scale"):
        np.testing.assert_allclose(dealt.values(key), alone.values(key), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("axes", [{"data": 2}, {"fsdp": 2, "tensor": 2}])
def test_a_fused_kernel_gives_the_same_steps_on_several_devices(monkeypatch, axes):
    # The libraries' kernels do not tell shard_map what varies over devices; this one is the TPU's.
    config = config_of()
    config.encoder.row_tokens = config.encoder.row_behaviours = 128
    dense = Trial(config).run(2)
    monkeypatch.setattr(attention, "splash", partial(attention.splash, interpret=True))
    splash = attention.Kernels(AttentionKernel.SPLASH, AttentionKernel.SPLASH)
    for module in (clue, step_module):
        monkeypatch.setattr(module, "choose_kernels", lambda *_: splash)
    fused = Trial(config, devices=math.prod(axes.values()), **axes).run(2)
    for key in ("loss", "gradient_norm"):
        np.testing.assert_allclose(fused.values(key), dense.values(key), rtol=1e-5, atol=1e-5)


def test_shards_in_bfloat16_give_nearly_the_same_steps():
    config = config_of()
    config.encoder.precision = Precision.BFLOAT16
    copies = Trial(config, devices=8).run(5)
    shards = Trial(config, devices=8, fsdp=4, tensor=2).run(5)
    np.testing.assert_allclose(shards.values("loss"), copies.values("loss"), rtol=5e-3)
    assert shards.values("loss") != copies.values("loss"), "nothing was rounded"


def test_a_run_compiles_once(alone):
    assert alone.step._cache_size() == 1 and int(alone.state.step) == 20


def test_so_does_a_run_on_two_datasets_whose_steps_are_those_of_one_device():
    others = sample_users(40, ("news", "shop"), seed=3, longest_history=12)
    config = config_of()
    config.encoder.item = config.encoder.service = TransformerConfig(num_layers=0)
    config.sampling.dataset_weights = (0.71, 0.29)
    alone, dealt = (Trial(config, devices, others=others).run(6) for devices in (1, 8))
    for key in ("loss", "gradient_norm"):
        np.testing.assert_allclose(dealt.values(key), alone.values(key), rtol=1e-5, atol=1e-5)
    assert alone.step._cache_size() == dealt.step._cache_size() == 1
    counts = {(alone.batches.drawn(step)[0] < len(USERS)).sum() for step in range(6)}
    assert counts == {22, 23}


def test_the_state_is_donated():
    trial = Trial(config_of())
    before = trial.state.params["encoder"]["embedding"]
    trial.run(1)
    assert before.is_deleted()


def test_it_learns_a_batch_by_heart():
    config = config_of()
    config.train.steps = 100
    config.sampling.layer_dropout = 0.0
    trial = Trial(config).run(100, batch=7)
    assert trial.values("loss")[-1] < 0.3 * trial.values("loss")[0]
    assert trial.values("retrieval_at_1")[-1] > 0.5


def test_a_fixed_temperature_stays():
    trial = Trial(config_of(temperature=0.15, learn_temperature=False)).run(3)
    assert trial.values("logit_scale") == pytest.approx([1 / 0.15] * 3)
    assert float(trial.state.params["log_scale"]) == pytest.approx(-math.log(0.15), abs=1e-6)


def test_a_learned_temperature_moves_up_to_its_limit(alone):
    assert alone.values("logit_scale")[-1] != pytest.approx(alone.values("logit_scale")[0])
    # Where logits are flat a larger scale pays off at once, so the limit is reached.
    limit = config_of(temperature=0.5, max_logit_scale=2.002)
    trial = Trial(limit).run(40, batch=7)
    assert max(trial.values("logit_scale")) == pytest.approx(2.002, rel=1e-5)


def test_the_loss_of_nested_widths_is_their_mean():
    """Each from the same parameters: a step reports the loss before it changes them."""

    def loss(**settings):
        return Trial(config_of(**settings)).run(1).values("loss")[0]

    def narrow(z_VbE, width, real=step_module._prefix):
        return real(z_VbE, 5)

    whole = loss()
    assert loss(matryoshka=(16,)) == whole
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_module, "_prefix", narrow)
        first = loss()
    assert abs(first - whole) > 0.01
    assert loss(matryoshka=(5, 16)) == pytest.approx((first + whole) / 2, rel=1e-5)


def test_first_dimensions_of_length_one_and_of_nobody():
    z_VbE = np.random.default_rng(0).normal(size=(2, 3, 16)).astype(np.float32)
    z_VbE[1, 2] = 0
    first = np.asarray(step_module._prefix(z_VbE, 5))
    lengths = np.linalg.norm(first, axis=-1)
    np.testing.assert_allclose(lengths, [[1, 1, 1], [1, 1, 0]], atol=1e-6)
    np.testing.assert_allclose(first[0, 0], z_VbE[0, 0, :5] / np.linalg.norm(z_VbE[0, 0, :5]), 1e-5)


def test_the_first_dimensions_become_useful_on_their_own():
    """What the loss of all dimensions leaves to them is less than what their own does."""

    def first_loss(trial):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                step_module, "_prefix", lambda z, width, real=step_module._prefix: real(z, 4)
            )
            probe = Trial(config_of())
            probe.state = trial.state
            return probe.run(1, batch=19).values("loss")[0]

    plain = Trial(config_of()).run(20)
    nested = Trial(config_of(matryoshka=(4, 16))).run(20)
    assert first_loss(nested) < first_loss(plain)
