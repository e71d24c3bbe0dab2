"""The sharded loss over real processes."""

import pytest

from tests.stages import finish_job, start_job


@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_compute_the_formula(processes):
    job = start_job(processes, "tests.losses.one_of_several", devices=8 // processes)
    for number, output in enumerate(finish_job(job)):
        assert f"process {number} of {processes}: the formula holds" in output
