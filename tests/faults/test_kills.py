"""`prepare` killed with SIGKILL at points of its progress ends as if nobody had killed it."""

import functools
import shutil

import pytest

from tests.faults.kill_prepare import killed_and_finished, undisturbed
from tests.faults.logs import start_prepare, write_parts


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """A command, its output, the points of its progress and the bytes it ends with."""
    folder = tmp_path_factory.mktemp("kills")
    write_parts(folder / "logs")
    start = functools.partial(start_prepare, folder / "logs", folder / "out")
    return start, folder / "out", *undisturbed(start, folder / "out")


@pytest.mark.parametrize(("share", "processes"), [(0.05, 1), (0.3, 2), (0.6, 1), (0.9, 2)])
def test_it_ends_as_if_nobody_had_killed_it(build, share, processes):
    start, out, points, expected = build
    start = functools.partial(start, f"--config.processes={processes}")
    assert points > 75
    shutil.rmtree(out, ignore_errors=True)
    kept = killed_and_finished(start, out, int(share * points), expected)
    assert kept is not None, "it was done before it could be killed"
    assert kept > 0 or share < 0.5
