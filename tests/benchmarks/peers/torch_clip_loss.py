"""open_clip's ClipLoss on one process, forward and backward; prints one JSON line.

    python tests/benchmarks/peers/torch_clip_loss.py --users=8192 --width=512

The formula of open_clip's `ClipLoss.forward` for a world of one: two products for the two
directions, cross entropy of each, their mean. Needs torch and numpy alone.
"""

import argparse
import json
import os
import resource
import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F


def loss_of(x: torch.Tensor, y: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    labels = torch.arange(len(x))
    return (F.cross_entropy(scale * x @ y.T, labels) + F.cross_entropy(scale * y @ x.T, labels)) / 2


def vectors(users: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As the other side draws them."""
    rng = np.random.default_rng(0)
    pair = []
    for _ in range(2):
        z = rng.normal(size=(users, width)).astype(np.float32)
        pair.append(torch.from_numpy(z / np.linalg.norm(z, axis=1, keepdims=True)))
    return pair[0], pair[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=8_192)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    x, y = (z.requires_grad_() for z in vectors(options.users, options.width))
    scale = torch.tensor(14.3, requires_grad=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(1 + options.steps):
        for leaf in (x, y, scale):
            leaf.grad = None
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=options.dtype == "bfloat16"):
            loss = loss_of(x, y, scale)
        loss.backward()
        seconds.append(time.perf_counter() - began)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps(
            {
                "seconds": statistics.median(seconds[1:]),
                "loss": float(loss.detach()),
                "bytes": (after - before) * 1_024,
            }
        )
    )


if __name__ == "__main__":
    main()
