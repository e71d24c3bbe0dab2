"""Several processes or hosts make one export, and nobody makes it with them unasked."""

import shutil

import pytest

from clue_jax import leases, publishing
from clue_jax.config import ExportConfig
from clue_jax.embeddings.erase import erase
from clue_jax.embeddings.verify import verify
from clue_jax.errors import ConfigError, LockedError, StorageError
from clue_jax.export import export
from tests.embeddings.exports import contents
from tests.stages import finish, finish_job, start, start_job


@pytest.fixture(scope="module")
def command(smoke_run, smoke_data):
    """Exports to a folder, in this process."""

    def run(out, host="", **settings):
        config = ExportConfig(host=host, num_shards=5, splits=("test", "validation"), **settings)
        export(config, str(smoke_run), str(smoke_data), str(out))

    return run


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    out = tmp_path_factory.mktemp("share") / "users"
    command(out)
    return out


def test_hosts_one_after_the_other(command, tmp_path, whole, capsys):
    out = tmp_path / "users"
    for host in ("2/3", "0/3"):
        command(out, host)
        assert "once all hosts are, or ran again" in capsys.readouterr().out
        assert not out.exists()
    done = sorted(path.name for path in (tmp_path / "users.partial/done").iterdir())
    assert [name[:10] for name in done] == ["part-00000", "part-00002", "part-00003"]
    command(out, "1/3")
    assert contents(out) == contents(whole)
    assert [path.name for path in tmp_path.iterdir()] == ["users"]
    capsys.readouterr()
    command(out, "0/3")  # say it was killed before it could tell
    assert "this export is complete" in capsys.readouterr().out
    with pytest.raises(StorageError, match="already there"):
        command(out, "0/3", hold_out_last=1)
    with pytest.raises(StorageError, match="already there"):
        command(out)


def test_a_host_that_is_lost_may_be_replaced_by_any_number(command, tmp_path, whole):
    out = tmp_path / "users"
    command(out, "0/4")
    command(out, "1/2")
    assert not out.exists()
    command(out)
    assert contents(out) == contents(whole)


def test_hosts_at_the_same_time(smoke_run, smoke_data, tmp_path):
    arguments = [f"--workdir={smoke_run}", f"--data={smoke_data}", "--config.num_shards=30"]
    hosts = [
        start("export", *arguments, f"--out={tmp_path / 'users'}", f"--config.host={n}/2")
        for n in range(2)
    ]
    outputs = finish_job(hosts)
    assert any(f"to {tmp_path / 'users'}" in output for output in outputs)
    finish(start("export", *arguments, f"--out={tmp_path / 'once'}"))
    assert contents(tmp_path / "users") == contents(tmp_path / "once")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["once", "users"]


def test_processes_of_one_job(smoke_run, smoke_data, tmp_path):
    arguments = [f"--workdir={smoke_run}", f"--data={smoke_data}", "--config.num_shards=5"]
    job = start_job(2, "clue_jax", "export", *arguments, f"--out={tmp_path / 'users'}", devices=2)
    first, second = finish_job(job)
    assert f"to {tmp_path / 'users'}" in first and "checkpoint of step" not in second
    assert "0 of 2: makes 3 of 5 parts" in first
    finish(start("export", *arguments, f"--out={tmp_path / 'once'}", devices=2))
    assert contents(tmp_path / "users") == contents(tmp_path / "once")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["once", "users"]


def test_an_export_over_another_one_by_several_hosts(command, tmp_path, whole):
    out = shutil.copytree(whole, tmp_path / "users")
    command(out, "0/2", hold_out_last=1, overwrite=True)
    assert contents(out) == contents(whole)
    command(out, "1/2", hold_out_last=1, overwrite=True)
    assert verify(out) and contents(out) != contents(whole)


def test_who_may_not_write_at_the_same_time(command, tmp_path, whole):
    out = shutil.copytree(whole, tmp_path / "users")
    with leases.lease(publishing.lock_of(out, "0-of-2")):
        for refused in (
            lambda: command(out, "0/2", overwrite=True, hold_out_last=1),
            lambda: command(out, overwrite=True),
            lambda: erase(out, ["nobody"]),
        ):
            with pytest.raises(LockedError, match=r"users.lock.0-of-2: held by process"):
                refused()
        command(out, "1/2", overwrite=True, hold_out_last=1)
    assert contents(out) == contents(whole)


@pytest.mark.parametrize("host", ["2/2", "1", "a/2", "-1/2", "1/2/3", "/"])
def test_hosts_are_numbered_from_zero(command, tmp_path, host):
    with pytest.raises(ConfigError, match=r"config.host: .* give i/P"):
        command(tmp_path / "users", host)
