"""One process of several that compute the sharded loss together; run by test_processes.py."""

import numpy as np

from clue_jax.parallel.mesh import to_host
from clue_jax.parallel.processes import join_processes

join_processes()  # before anything below looks at a device

import jax  # noqa: E402

from clue_jax.config import LossForm, Transport  # noqa: E402
from clue_jax.losses.contrastive import Sharding  # noqa: E402
from tests.losses import test_contrastive as cases  # noqa: E402


def main():
    for transport in Transport:
        for form in LossForm:
            run = cases.sharded(jax.device_count(), Sharding("data", 4, transport), form)
            for mask in cases.MASKS:
                arrays, truth = cases.inputs(mask, 14.3, form)
                values, gradients = run(*arrays)
                gradients = [to_host(gradient) for gradient in gradients]
                cases.assert_same((values, gradients), truth, 14.3)
                assert np.any(gradients[0]) == np.any(truth[1][0])
    print(f"process {jax.process_index()} of {jax.process_count()}: the formula holds")


if __name__ == "__main__":
    main()
