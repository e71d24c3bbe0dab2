"""The encoder on padded arrays [users N, views V, behaviours T, tokens L]: the mathematics alone.

The same parameters as `clue_jax.model.clue`, but no packing, no chunks, no shared items and no
Flax: every behaviour's text is encoded where it stands. What the fast form is compared with.
"""

import jax
import jax.numpy as jnp
import numpy as np

from clue_jax.config import Activation


def pad(users, views, config, *, count=None):
    """Views as padded tokens, user by user in loops.

    Args:
        users: N users.
        views: theirs.
        config: of the encoder; caps the text of an item.
        count: users to pad to; the added ones have no behaviours.

    Returns:
        tokens_NVTL int32, and is_token_NVTL bool; a behaviour is real when it has a token.
    """
    shape = count or len(users), views.num_views, config.max_history, config.max_item_tokens
    tokens, is_token = np.zeros(shape, np.int32), np.zeros(shape, bool)
    for n in range(len(users)):
        for v in range(views.num_views):
            row = n * views.num_views + v
            for t, item in enumerate(views.items[views.offsets[row] : views.offsets[row + 1]]):
                text = users.tokens[users.token_offsets[item] : users.token_offsets[item + 1]]
                text = text[: config.max_item_tokens]
                tokens[n, v, t, : len(text)] = text
                is_token[n, v, t, : len(text)] = True
    return tokens, is_token


def encode(params, config, tokens_NVTL, is_token_NVTL, gain_BNVT=None, gain_BNV=None):
    """Unit vectors z_NVE in float32, zero where a view has no behaviours.

    Args:
        params: from `clue.init`.
        config: of the encoder.
        tokens_NVTL: from `pad`.
        is_token_NVTL: from `pad`.
        gain_BNVT: what block B of the item level multiplies its branches by for each behaviour;
            None: 1.
        gain_BNV: the same of the service level, for each view.
    """
    with jax.numpy_rank_promotion("allow"):
        is_behaviour_NVT = is_token_NVTL.any(axis=-1)
        x_NVTLD = params["embedding"][tokens_NVTL]
        x_NVTLD = _transformer(
            params["item"], config.item, config, x_NVTLD, is_token_NVTL, gain_BNVT
        )
        x_NVTD = _mean(x_NVTLD, is_token_NVTL)
        if config.normalize_items:
            x_NVTD = _unit(x_NVTD, is_behaviour_NVT)
        else:
            x_NVTD = _rms_norm(params["item"]["norm"], x_NVTD)
        x_NVTD = _transformer(
            params["service"], config.service, config, x_NVTD, is_behaviour_NVT, gain_BNV
        )
        z_NVE = _mean(x_NVTD, is_behaviour_NVT)
        if config.project:
            z_NVE = _rms_norm(params["service"]["norm"], z_NVE) @ params["service"]["projection"]
        return _unit(z_NVE, is_behaviour_NVT.any(axis=-1))


def _transformer(params, stack, config, x, real, gain):
    for n in range(stack.num_layers):
        block = jax.tree.map(lambda stacked, n=n: stacked[n], params["stack"]["blocks"])
        g = 1 if gain is None else gain[n][..., None, None]
        x = x + g * _attention(block["attention"], _rms_norm(block["attention_norm"], x), real)
        x = x + g * _mlp(block["mlp"], config.activation, _rms_norm(block["mlp_norm"], x))
    return x


def _attention(params, x, real):
    """softmax(q k^T / sqrt(K)) v over the real positions of x [..., L, D]."""
    q, k, v = (jnp.einsum("...LD,DHK->...HLK", x, params["qkv"][:, n]) for n in range(3))
    logits = _rotated(q) @ jnp.swapaxes(_rotated(k), -1, -2) / np.sqrt(q.shape[-1])
    # Padded sequences have no real position at all: uniform weights there, and no NaN.
    weights = jax.nn.softmax(jnp.where(real[..., None, None, :], logits, -1e9), axis=-1)
    return jnp.einsum("...HLK,HKD->...LD", weights @ v, params["out"])


def _rotated(x):
    """RoPE: component pairs (k, k + K/2) as complex numbers, turned by position / 10000^(2k/K)."""
    length, half = x.shape[-2], x.shape[-1] // 2
    turns = np.outer(np.arange(length), 10_000.0 ** (-np.arange(half) / half))
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * turns).astype(np.complex64)
    return jnp.concatenate([turned.real, turned.imag], axis=-1)


def _mlp(params, activation, x):
    if activation is Activation.SWIGLU:
        gate, value = x @ params["up"][:, 0], x @ params["up"][:, 1]
        return (gate * jax.nn.sigmoid(gate) * value) @ params["down"]
    up = x @ params["up"][:, 0]
    cubic = np.sqrt(2 / np.pi) * (up + 0.044715 * up**3)
    return (up * 0.5 * (1 + jnp.tanh(cubic))) @ params["down"]


def _mean(x, real):
    total = jnp.where(real[..., None], x, 0).sum(axis=-2)
    return total / jnp.maximum(real.sum(axis=-1), 1)[..., None]


def _rms_norm(params, x):
    return params["scale"] * x / jnp.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6)


def _unit(x, real):
    # One inside the root where nothing is real, so that its gradient is zero and not NaN.
    square = jnp.where(real[..., None], (x**2).sum(axis=-1, keepdims=True), 1)
    return jnp.where(real[..., None], x / jnp.sqrt(square), 0)
