"""`export` killed with SIGKILL at points of its progress ends as if nobody had killed it."""

import random

import pytest

from tests.embeddings.exports import contents
from tests.faults.kill_export import PARTS, command, disturbed
from tests.stages import finish, start


@pytest.fixture(scope="module")
def undisturbed(smoke_run, smoke_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("kills") / "once"
    finish(start(*command(smoke_run, smoke_data, out)))
    return contents(out)


@pytest.mark.parametrize("hosts", [("",), ("0/2", "1/2")], ids=["alone", "two hosts"])
def test_it_ends_as_if_nobody_had_killed_it(smoke_run, smoke_data, tmp_path, undisturbed, hosts):
    out = tmp_path / "users"
    commands = [command(smoke_run, smoke_data, out, host) for host in hosts]
    done = disturbed(commands, out, kills=2, dice=random.Random(3), most=PARTS)
    assert len(done) == 2 and max(done) > 0, "it was done before it could be killed"
    assert contents(out) == undisturbed
    assert not (tmp_path / "users.partial").exists()
