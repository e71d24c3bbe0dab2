"""Results of runs whose losses follow a law that was planted."""

import itertools
import math

import numpy as np

from clue_jax.scaling.results import PF_DAY

PARAMETERS = {"16x1": 4e3, "64x2": 6e4, "256x2": 1e6}
LAW = {"floor": 0.3, "a": 30.0, "alpha": 0.4, "b": 40.0, "beta": 0.35}


def planted_loss(parameters, samples):
    return (
        LAW["floor"] + LAW["a"] * parameters ** -LAW["alpha"] + LAW["b"] * samples ** -LAW["beta"]
    )


def result(size, steps, seed=0, loss=None, noise=0.005, **changes):
    """As `measured` gives it, of runs that follow a law of size and samples.

    `changes` may hold an `effect`, a factor on the loss.
    """
    batch = changes.get("batch", 256)
    samples, times = steps * batch, changes.pop("effect", 1.0)
    law = times * planted_loss(PARAMETERS[size], samples)
    draw = np.random.default_rng([len(size), steps, seed, int(1e6 * times)]).normal()
    seen = law * math.exp(noise * draw) if loss is None else loss
    run = {
        "cell": f"{size}-{steps}" + "".join(f"-{v}" for v in changes.values()),
        "size": size,
        "width": int(size.split("x")[0]),
        "users": 5_000,
        "behaviours": 32,
        "batch": batch,
        "steps": steps,
        "learning_rate": 1e-3,
        "temperature": 0.1,
        "seed": seed,
        "parameters": PARAMETERS[size],
        "compute": 60 * PARAMETERS[size] * samples / PF_DAY,
        "loss": seen,
        "loss_own": seen,
        "loss_best_scale": seen,
        "chance": math.log(64),
        "mrr": math.exp(-law),
        "dataset": "d" * 64,
    }
    run["run"] = f"{run['cell']}-{seed}"
    return run | changes


def grid(steps=(100, 400, 1_600, 6_400), seeds=(0, 1)):
    return [result(*of) for of in itertools.product(PARAMETERS, steps, seeds)]
