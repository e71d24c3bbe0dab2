"""CLUE's train step as written in PyTorch from parts that exist; prints one JSON line.

    python tests/benchmarks/peers/torch_clue.py batch.npz --width=128 --steps=10

HF BertModel encodes the text of every behaviour slot of the padded batch; their masked means go
through torch.nn.TransformerEncoder; CLIP's loss (as in open_clip's ClipLoss) over pairs of
services; AdamW. The batch is `tokens` [B, V, T, L] and `is_token` from workloads.padded_npz.
Needs torch, transformers and numpy alone (requirements-torch.txt).
"""

import argparse
import ctypes
import itertools
import json
import math
import os
import resource
import statistics
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertConfig, BertModel

MAX_LOGIT_SCALE = 100.0  # CLIP, section 2.5


class TorchClue(nn.Module):
    """Item and service Transformers, and the loss; without dropout, like the other side."""

    def __init__(self, options: argparse.Namespace, history: int, item_tokens: int):
        super().__init__()
        width, heads, mlp_width = options.width, options.heads, options.mlp_width
        bert = BertConfig(
            vocab_size=options.vocab,
            hidden_size=width,
            num_hidden_layers=options.item_layers,
            num_attention_heads=heads,
            intermediate_size=mlp_width,
            max_position_embeddings=item_tokens,
            type_vocab_size=1,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            attn_implementation="sdpa",
        )
        self.item = BertModel(bert, add_pooling_layer=False)
        layer = nn.TransformerEncoderLayer(
            width, heads, mlp_width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.service = nn.TransformerEncoder(
            layer, options.service_layers, nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.position = nn.Parameter(0.02 * torch.randn(history, width))
        self.projection = nn.Linear(width, options.embedding_width, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(0.07)))

    def encode(
        self, tokens: torch.Tensor, is_token: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit vectors [B, V, E], and whether a user has the view [B, V]."""
        users, views, history = tokens.shape[:3]
        real = is_token.any(-1).flatten(0, 1)
        text = is_token.flatten(0, 2)
        states = self.item(tokens.flatten(0, 2), attention_mask=_never_empty(text))
        items = _mean(states.last_hidden_state, text).unflatten(0, (users * views, history))
        items = items + self.position[:history]
        states = self.service(items, src_key_padding_mask=~_never_empty(real))
        embedding = F.normalize(self.projection(_mean(states, real)).float(), dim=-1)
        return embedding.unflatten(0, (users, views)), real.any(-1).unflatten(0, (users, views))

    def forward(self, tokens: torch.Tensor, is_token: torch.Tensor) -> torch.Tensor:
        """Mean loss over pairs of services."""
        embedding, present = self.encode(tokens, is_token)
        sides = list(zip(embedding.unbind(1), present.unbind(1), strict=True))
        losses = [
            self._clip_loss(first, second, has_first & has_second)
            for (first, has_first), (second, has_second) in itertools.combinations(sides, 2)
        ]
        return torch.stack(losses).mean()

    def _clip_loss(
        self, first: torch.Tensor, second: torch.Tensor, valid: torch.Tensor
    ) -> torch.Tensor:
        """Both directions of the softmax loss; users without the pair are no candidates either."""
        logits = self.log_scale.exp() * first @ second.T
        labels = torch.arange(len(valid), device=valid.device).masked_fill(~valid, -100)
        forward = F.cross_entropy(logits.masked_fill(~valid, -1e4), labels)
        return (forward + F.cross_entropy(logits.T.masked_fill(~valid, -1e4), labels)) / 2


def _never_empty(real: torch.Tensor) -> torch.Tensor:
    """Lets an empty row attend to its first slot, since a softmax over nothing is not a number."""
    first = torch.zeros_like(real)
    first[:, 0] = ~real.any(-1)
    return real | first


def _mean(states: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    weight = real / real.sum(-1, keepdim=True).clamp(min=1)
    return torch.einsum("nl,nld->nd", weight.to(states.dtype), states)


def read_batch(path: str, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch on the device, cut to its longest history and its longest item."""
    with np.load(path) as file:
        tokens, is_token = file["tokens"], file["is_token"]
    history = int(is_token.any(-1).sum(-1).max())
    length = int(is_token.sum(-1).max())
    cut = (slice(None), slice(None), slice(history), slice(length))
    return (
        torch.from_numpy(tokens[cut].astype(np.int64)).to(device),
        torch.from_numpy(np.ascontiguousarray(is_token[cut])).to(device),
    )


def train(options: argparse.Namespace) -> dict[str, float]:
    """Takes the steps on one batch and measures those after the warm-up."""
    tokens, is_token = read_batch(options.batch, options.device)
    model = TorchClue(options, *tokens.shape[2:]).to(options.device).train()
    loss_of = torch.compile(model) if options.compile else model
    optimizer = torch.optim.AdamW(
        model.parameters(), options.learning_rate, (0.9, 0.98), 1e-6, 0.01, fused=True
    )
    dtype = getattr(torch, options.dtype)
    seconds = []
    for _ in range(options.warmup + options.steps):
        started = time.perf_counter()
        with torch.autocast(options.device, dtype, enabled=dtype != torch.float32):
            loss = loss_of(tokens, is_token)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            model.log_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))
        _wait(options.device)
        seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds[options.warmup :])
    return {
        "seconds_per_step": median,
        "users_per_second": len(tokens) / median,
        "loss": loss.item(),
        "peak_bytes": _peak_bytes(options.device),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "slots": tokens.numel(),
    }


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _peak_bytes(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@torch.no_grad()
def matmul_rate(options: argparse.Namespace, repeats: int = 5) -> float:
    """FLOP/s of one large matmul, the best of some; sizes are those of harness.matmul_rate."""
    size = 2_048 if options.device == "cpu" else 8_192
    a = torch.ones(size, size, dtype=getattr(torch, options.dtype), device=options.device)
    seconds = []
    for _ in range(1 + repeats):
        started = time.perf_counter()
        a @ a
        _wait(options.device)
        seconds.append(time.perf_counter() - started)
    return 2.0 * size**3 / min(seconds[1:])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("batch", help=".npz with tokens and is_token")
    for name, default in {
        "width": 128,
        "embedding_width": 128,
        "heads": 4,
        "mlp_width": 512,
        "item_layers": 4,
        "service_layers": 4,
        "vocab": 4_096,
        "steps": 10,
        "warmup": 2,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--compile", action="store_true", help="torch.compile the model")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return parser.parse_args()


def keep_freed_memory() -> None:
    """Lets glibc reuse large activations instead of mapping them anew each step.

    What LD_PRELOAD of another allocator is for in PyTorch's tuning guide; a quarter of a step.
    """
    if sys.platform == "linux":
        no_mapping, never_trim = (-4, 0), (-1, 2**31 - 1)  # M_MMAP_MAX, M_TRIM_THRESHOLD
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(*no_mapping)
            libc.mallopt(*never_trim)


def main() -> None:
    options = parse()
    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count() or 1)
    if options.device == "cpu":
        keep_freed_memory()
    else:
        # JAX multiplies float32 in TF32 by default too.
        torch.set_float32_matmul_precision("high")
    print(json.dumps({**train(options), "matmul_rate": matmul_rate(options)}))


if __name__ == "__main__":
    main()
