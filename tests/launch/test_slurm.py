"""What tests/launch/slurm_check.py needs; it starts a cluster and runs jobs there."""

import os

from tests.launch import slurm_check, slurm_cluster


def test_what_is_missing_is_said_with_the_way_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["slurm_check.py"])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert slurm_check.main() == 2
    assert "needs root" in capsys.readouterr().err
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(slurm_cluster, "PATH", "")
    assert slurm_check.main() == 2
    said = capsys.readouterr().err
    assert "on Debian: apt-get install" in said
    assert all(f" {package}" in said for package in slurm_cluster.PACKAGES.values())
    monkeypatch.setattr("sys.argv", ["slurm_check.py", "--only=run,runn"])
    assert slurm_check.main() == 2
    assert "no check runn; there are run, supervise" in capsys.readouterr().err


def test_every_check_is_one():
    names = {name for name in vars(slurm_check.Checks) if not name.startswith(("_", "need_"))}
    assert names - {"alone"} == set(slurm_check.CHECKS)
