"""Attention kernels: which is chosen where, and that all compute the same function."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clue_jax.config import AttentionKernel, EncoderConfig, Precision, TransformerConfig
from clue_jax.errors import ConfigError
from clue_jax.model.attention import attend, choose_kernels, splash

# Float32 sums in another order.
TOLERANCE = 5e-6
# Two bfloat16 kernels, each a few roundings (2^-8) from the truth.
HALF_TOLERANCE = 2.0**-6

AUTO, DENSE, CUDNN, SPLASH = AttentionKernel
SINGLE, HALF = Precision


def chosen(attention, backend, row, precision=HALF, **changes):
    config = EncoderConfig(attention=attention, precision=precision, width=128)
    config = dataclasses.replace(config, row_tokens=row, row_behaviours=row, **changes)
    items, histories = choose_kernels(config, backend)
    assert items is histories
    return items


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("row", [64, 128, 256, 500, 512])
def test_auto_takes_a_fused_kernel_for_long_rows_where_one_runs(row, precision):
    assert chosen(AUTO, "cpu", row, precision) is DENSE
    assert chosen(AUTO, "gpu", row, precision) is (
        CUDNN if row > 256 and precision is HALF else DENSE
    )
    assert chosen(AUTO, "tpu", row, precision) is (SPLASH if row == 512 else DENSE)


def test_each_level_chooses_for_its_own_rows():
    config = EncoderConfig(row_tokens=128, row_behaviours=512)
    assert choose_kernels(config, "tpu") == (DENSE, SPLASH)
    bag = dataclasses.replace(config, attention=SPLASH, item=TransformerConfig(0), row_tokens=100)
    assert choose_kernels(bag, "tpu") == (DENSE, SPLASH), "a bag attends nowhere"


def test_auto_leaves_head_widths_to_dense_that_cudnn_lacks():
    assert chosen(AUTO, "gpu", 512, width=36) is DENSE


@pytest.mark.parametrize("row", [64, 100, 128, 256])
def test_a_kernel_asked_for_is_taken_wherever_it_runs(row):
    for backend in ("cpu", "gpu", "tpu"):
        assert chosen(DENSE, backend, row, SINGLE) is DENSE
    assert chosen(CUDNN, "gpu", row) is CUDNN
    if row % 128 == 0:
        assert chosen(SPLASH, "tpu", row, SINGLE) is SPLASH


@pytest.mark.parametrize(
    ("attention", "backend", "changes", "lack"),
    [
        (CUDNN, "cpu", {}, "an NVIDIA GPU, not cpu"),
        (CUDNN, "tpu", {}, "an NVIDIA GPU, not tpu"),
        (CUDNN, "gpu", dict(precision=SINGLE), "config.encoder.precision=bfloat16"),
        (CUDNN, "gpu", dict(width=36), "a head width that is a multiple of 8"),
        (SPLASH, "cpu", {}, "a TPU, not cpu"),
        (SPLASH, "gpu", {}, "a TPU, not gpu"),
        (SPLASH, "tpu", dict(row=100), "rows of a multiple of 128 slots, not 100"),
    ],
)
def test_a_kernel_that_cannot_run_is_refused_by_key_and_says_what_it_needs(
    attention, backend, changes, lack
):
    with pytest.raises(ConfigError) as refusal:
        chosen(attention, backend, **{"row": 256, **changes})
    message = str(refusal.value)
    assert message.startswith(f"config.encoder.attention: {attention.value} needs {lack};")
    assert message.endswith("auto and dense run anywhere")


def arrays(row, width, dtype=jnp.float32, seed=0):
    """Two rows of a few uneven segments, one of them a single slot; and weights of the result."""
    rng = np.random.default_rng(seed)
    q, k, v, weights = (jnp.asarray(rng.normal(size=(2, 2, row, width)), dtype) for _ in range(4))
    segment = np.sort(rng.integers(0, 5, (2, row)), axis=1).astype(np.int32)
    segment[:, -1] = 9
    return (q, k, v), segment, weights


def value_and_gradients(form, qkv, segment, weights):
    def run(*qkv):
        out, pull = jax.vjp(lambda *qkv: form(*qkv, segment), *qkv)
        return out, pull(weights)

    return jax.jit(run)(*qkv)


def dense(*given):
    return attend(DENSE, *given)


def off_by(given, expected):
    """Largest difference of value and gradients, relative to the largest of each array."""
    pairs = zip(*map(jax.tree.leaves, (given, expected)), strict=True)
    return max(
        float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max() / np.abs(b).max())
        for a, b in pairs
    )


def test_dense_is_softmax_attention_of_each_segment_alone():
    (q, k, v), segment, _ = arrays(12, 8)
    out = np.asarray(dense(q, k, v, segment))
    for r in range(2):
        for number in np.unique(segment[r]):
            own = segment[r] == number
            for h in range(2):
                queries, keys, values = (np.asarray(a, np.float64)[r, h, own] for a in (q, k, v))
                weights = np.exp(queries @ keys.T / np.sqrt(8))
                weights /= weights.sum(axis=1, keepdims=True)
                np.testing.assert_allclose(out[r, h, own], weights @ values, 0, TOLERANCE)


@pytest.mark.parametrize("width", [16, 128])
def test_splash_equals_dense(width):
    def interpreted(*given):
        return splash(*given, interpret=True)

    given = arrays(128, width)
    assert off_by(*(value_and_gradients(form, *given) for form in (interpreted, dense))) < TOLERANCE


def test_a_wrong_segment_is_seen():
    """Control of the comparisons: one slot in another segment is far beyond every tolerance."""
    qkv, segment, weights = arrays(128, 16)
    other = segment.copy()
    other[0, 0] = 9
    differs = off_by(*(value_and_gradients(dense, qkv, s, weights) for s in (segment, other)))
    assert differs > 0.1


def cudnn_is_off_by():
    """How far cuDNN in bfloat16 is from dense in float32; run on a machine with a GPU."""
    half, segment, weights = arrays(256, 64, jnp.bfloat16)
    single, weights_32 = jax.tree.map(lambda a: a.astype(jnp.float32), (half, weights))

    def cudnn(*given):
        return attend(CUDNN, *given)

    with jax.default_matmul_precision("highest"):
        expected = value_and_gradients(dense, single, segment, weights_32)
    return off_by(value_and_gradients(cudnn, half, segment, weights), expected)


@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="cuDNN needs an NVIDIA GPU")
def test_cudnn_equals_dense_on_a_gpu():
    # A process of its own: conftest.py keeps this one on the CPU.
    code = "from tests.model.test_attention import cudnn_is_off_by; print(cudnn_is_off_by())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "JAX_PLATFORMS": "cuda"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < HALF_TOLERANCE
