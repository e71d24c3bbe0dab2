"""Run, supervise, delete: on machines that are folders, by programs that only record."""

import json
import subprocess
from pathlib import Path

import pytest

from clue_jax.errors import ConfigError
from launch import fits, plan, verbs
from launch.__main__ import main
from launch.command_line import usage
from launch.machines import machines_of
from launch.pack import pack
from launch.show import cost_lines
from tests.launch.machines import Machines
from tests.launch.test_backends import BACKENDS, JOBS, changed

ARCHIVE = Path("runs/launch/job/code.tar.gz")
TRAIN = ["train", "--config=configs/pretrain.py:smoke", "--data=d"]
TPU = ["--name=job", "--accelerator=v5e:4x4", "--zone=us-west4-a", "--spot", "--nofit"]
BUCKET = [*TRAIN, "--workdir=gs://bucket/runs/it's $(here)"]


@pytest.fixture
def machines(tmp_path, monkeypatch):
    made = Machines(tmp_path, ("job", "one", "two", *(f"machine-{n}" for n in range(4))))
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(plan, "run", without_packing(plan.run))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(verbs, "newest_step", lambda results: None)
    monkeypatch.chdir(tmp_path)
    ARCHIVE.parent.mkdir(parents=True)
    ARCHIVE.write_bytes(EMPTY)
    return made


def without_packing(run):
    """`test_the_code_that_arrives_is_the_code_that_is_here` packs for real."""

    def run_others(command, **more):
        return "" if "launch.pack" in command.argv else run(command, **more)

    return run_others


EMPTY = subprocess.run(["tar", "-czT", "/dev/null"], capture_output=True, check=True).stdout


def asked(machines, program="gcloud"):
    """What a program was asked for, in order, without the questions that are repeated."""
    words = ("create", "delete", "scp", "ssh", "list-instances", "apply", "describe")
    asked = [next((w for w in words if w in call["argv"]), "") for call in machines.calls(program)]
    return [word for n, word in enumerate(asked) if word and (n == 0 or asked[n - 1] != word)]


def test_a_run_makes_machines_and_removes_them(machines, capfd):
    assert main(["tpu_vm", *TPU, "--", *BUCKET]) == 0
    assert asked(machines) == ["describe", "create", "describe", "scp", "ssh", "delete"]
    assert machines.stages() == [BUCKET]
    out = capfd.readouterr().out
    billed = out.index("billed from now on")
    assert billed < out.index("queued-resources create")
    assert "to remove everything: python -m launch tpu_vm delete --name=job" in out


def test_the_exit_code_is_that_of_the_stage(machines):
    machines.put("codes", "6")
    assert main(["tpu_vm", *TPU, "--", *BUCKET]) == 6
    assert asked(machines)[-1] == "delete"


@pytest.mark.parametrize("step", ["create", "scp", "list-instances"])
def test_what_fails_on_the_way_leaves_nothing_behind(machines, monkeypatch, capfd, step):
    monkeypatch.setenv("STAND_IN_FAILS", step)
    own = ["--name=job", "--accelerator=v6e:4x4", "--zone=us-east5-b", "--project=my-project"]
    assert main(["tpu_gce", *own, "--nofit", "--", *BUCKET]) == 1
    assert asked(machines)[-1] == "delete" and machines.stages() == []
    assert "ended with 1, see above" in capfd.readouterr().err


def test_machines_of_another_job_of_that_name_are_left_alone(machines, capfd):
    (machines.home / "made").touch()
    assert main(["tpu_vm", *TPU, "--", *BUCKET]) == 2
    assert asked(machines) == ["describe"]
    assert "job.name: job is there already" in capfd.readouterr().err


def test_too_few_machines_are_no_slice(machines, capfd):
    machines.put("size", "3")
    own = ["--name=job", "--accelerator=v6e:4x4", "--zone=us-east5-b", "--project=my-project"]
    assert main(["tpu_gce", *own, "--nofit", "--", *BUCKET]) == 1
    assert "names 3 machines, the job has 4" in capfd.readouterr().err
    assert asked(machines)[-1] == "delete"


def test_machines_that_are_kept_stay(machines):
    assert main(["tpu_vm", *TPU, "--keep", "--", *BUCKET]) == 0
    assert "delete" not in asked(machines)


def test_what_was_never_made_is_no_removal_that_failed(machines, monkeypatch, capfd):
    monkeypatch.setenv("STAND_IN_FAILS", "queued-resources")
    monkeypatch.setenv("STAND_IN_SAYS", "NOT_FOUND: Resource 'job' was not found")
    assert main(["tpu_vm", *TPU, "--", *BUCKET]) == 1
    assert asked(machines) == ["describe", "create", "delete"]
    assert "perhaps still billed" not in capfd.readouterr().err


def test_a_removal_that_fails_is_tried_again_and_told(machines, monkeypatch, capfd):
    monkeypatch.setenv("STAND_IN_FAILS", "delete")
    assert main(["tpu_vm", *TPU, "--", *BUCKET]) == 0
    assert "not removed, and perhaps still billed: gcloud" in capfd.readouterr().err
    assert all("delete" in call["argv"] for call in machines.calls("gcloud")[-3:])
    assert main(["tpu_vm", "delete", *TPU]) == 1


def test_lost_capacity_is_asked_for_again(machines):
    """Preempted twice, the second time for good; the first new machines do not come."""
    machines.put("codes", "75", "75", "0")
    machines.put("states", "ACTIVE", "ACTIVE", "SUSPENDED", "SUSPENDED")
    assert main(["tpu_vm", "supervise", *TPU, "--", *BUCKET]) == 0
    made = [word for word in asked(machines) if word in ("create", "delete")]
    assert made == ["create", "delete"] * 3
    assert machines.stages() == [BUCKET] * 3
    log = ARCHIVE.with_name("attempts.jsonl").read_text()
    attempts = [json.loads(line) for line in log.splitlines()]
    assert [each["exit_code"] for each in attempts] == [75, 75, 7, 0]
    assert "the machines did not come" in attempts[2]["reason"]
    assert [each["then"] for each in attempts] == [
        "again in 10 s",
        "again in 20 s",
        "again in 40 s",
        "done",
    ]


def test_what_is_shown_is_what_is_done(machines, capfd):
    """A dry run is a script: run by /bin/sh it makes the calls that a run makes."""
    assert main(["tpu_vm", *TPU, "--dry_run", "--", *BUCKET]) == 0
    assert machines.calls() == []
    shown = capfd.readouterr().out.splitlines()
    kept = "\n".join(line for line in shown if "launch.pack" not in line)
    machines.run(["/bin/sh", "-ec", kept])
    by_shell = [(call["name"], call["argv"]) for call in machines.calls()]
    machines.forget()
    assert main(["tpu_vm", *TPU, "--", *BUCKET]) == 0
    # A run also looks first whether the bucket and such machines are there.
    assert [(call["name"], call["argv"]) for call in machines.calls()][2:] == by_shell


def test_kubernetes_and_slurm_are_asked_until_the_end(machines):
    image = ["--image=host.dev/p/i:1", "--accelerator=v6e:4x4", "--nofit", "--name=job"]
    assert main(["gke", *image, "--", *BUCKET]) == 0  # on its way
    assert main(["gke", *image, "--", *BUCKET]) == 2  # there already
    assert main(["gke", "delete", "--name=job"]) == 0
    machines.put("states", "", "Failed")
    assert main(["gke", "supervise", *image, "--", *BUCKET]) == 1
    machines.put("states", "PENDING|0:0", "FAILED|4:0")
    slurm = ["--name=job", f"--python={machines.programs}/python", f"--folder={machines.home}"]
    assert main(["slurm", "supervise", *slurm, "--", *TRAIN, "--workdir=w"]) == 4
    machines.put("states", "FAILED|137:0", "COMPLETED|0:0")  # SLURM has given up; once more
    assert main(["slurm", "supervise", *slurm, "--", *TRAIN, "--workdir=w"]) == 0


def test_the_code_that_arrives_is_the_code_that_is_here(tmp_path, machines, monkeypatch):
    subprocess.run(["git", "init", "-q", str(tmp_path / "repo")], check=True)
    (tmp_path / "repo" / "a b.py").write_text("new")
    (tmp_path / "repo" / ".gitignore").write_text("/runs\n")
    (tmp_path / "repo" / "runs").mkdir()
    (tmp_path / "repo" / "runs" / "large").write_text("x")
    for name in ("1.tar.gz", "2.tar.gz"):
        pack(tmp_path / name, tmp_path / "repo")
    assert (tmp_path / "1.tar.gz").read_bytes() == (tmp_path / "2.tar.gz").read_bytes()
    listed = subprocess.run(
        ["tar", "-tzf", tmp_path / "1.tar.gz"], capture_output=True, text=True, check=True
    )
    assert listed.stdout.splitlines() == [".gitignore", "a b.py"]
    ARCHIVE.write_bytes((tmp_path / "1.tar.gz").read_bytes())
    hosts = ["--hosts=me@one", "--hosts=two", "--nodes=2", "--name=job"]
    assert main(["gpu", *hosts, "--", *TRAIN, "--workdir=/shared/w"]) == 0
    for host in ("one", "two"):
        assert (machines.home / host / "clue_jax-job" / "a b.py").read_text() == "new"
    installs = [call["argv"] for call in machines.calls("python") if "pip" in call["argv"]]
    assert len(installs) == 2 and all("constraints.txt" in argv for argv in installs)


def test_only_a_checkout_is_packed(tmp_path):
    with pytest.raises(ConfigError, match="code is packed from a git checkout"):
        pack(tmp_path / "x.tar.gz", tmp_path)


def test_missing_programs_end_with_2_before_anything_is_done(monkeypatch, capfd):
    monkeypatch.setenv("PATH", "")
    assert main(["tpu_vm", *TPU, "--", *BUCKET]) == 2
    assert "not on PATH: gcloud (https://cloud.google.com/sdk" in capfd.readouterr().err
    assert main(["gke", "status", "--name=job"]) == 2
    assert "not on PATH: kubectl (" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["tpu_vm", *TPU, "--", "trian"], "after -- stands a stage: "),
        (["tpu_vm", *TPU, "--", *BUCKET, "--config.none=1"], "config.none"),
        (["tpu_vm", "rnu", *TPU, "--", *BUCKET], "'rnu' is no flag nor verb (run, supervise"),
        (["tpu_vm", *TPU, "--zoen=x", "--", *BUCKET], "Unknown command line flag 'zoen'"),
        (["tpu_vm", *TPU, "--zone=$(x)", "--", *BUCKET], "job.zone: '$(x)' is refused"),
        (["tpu_vm", "supervise", *TPU, "--dry_run", "--", *BUCKET], "--dry_run shows a `run`"),
        (["tpu_vm", "--job=none.json", "--", *BUCKET], "none.json: no such file"),
        (["tpu_vm", "--job=/", "--", *BUCKET], "--job=/: is a folder"),
    ],
)
def test_slips_are_found_before_anything_is_asked_for(machines, capfd, argv, problem):
    assert main(argv) in (2, 3)
    assert problem in capfd.readouterr().err
    assert machines.calls() == []


def test_a_step_that_does_not_fit_is_refused_before_machines_are_asked_for(machines, monkeypatch):
    monkeypatch.setattr(fits.importlib.util, "find_spec", lambda name: "found")
    compiled = []
    monkeypatch.setattr(fits, "run_stage", lambda argv: compiled.append(argv) or 2)
    own = [word for word in TPU if word != "--nofit"]
    assert main(["tpu_vm", *own, "--", *BUCKET, "--config.seed=1"]) == 2
    assert asked(machines) == ["describe"]
    flags = ["--config=configs/pretrain.py:smoke", "--config.seed=1"]
    assert compiled == [("compile", *flags, "--topology=v5e:4x4", "--slices=1")]
    monkeypatch.setattr(fits, "run_stage", lambda argv: 0)
    assert main(["tpu_vm", *own, "--", *BUCKET]) == 0


def test_the_command_that_compiles_is_one(tmp_path):
    from clue_jax import cli

    job = changed("tpu_vm", stage=("train", "--data", str(tmp_path), *BUCKET[1:], "--workdir", "w"))
    stage = list(fits.compile_command(job).argv[3:])
    assert stage.count("--data") == 1 and not any("workdir" in word for word in stage)
    cli.parse(*cli.find_stage(stage))
    assert fits.compile_command(changed("gpu")) is None
    assert fits.compile_command(changed("tpu_vm", stage=("export", "--out=x"))) is None


def test_the_cost_is_said(capsys):
    job = changed("tpu_gce", price=2.5, max_hours=10)
    first, second = cost_lines(BACKENDS["tpu_gce"], job, "CLEAN")
    assert "16 v6e chips (4x4) on 4 hosts, spot" in first
    assert "USD 40.00 an hour, 400.00 in 10 h; they end by themselves 10 h after" in first
    assert second == "to remove everything: CLEAN"
    assert "do not end by themselves" in cost_lines(BACKENDS["tpu_vm"], JOBS["tpu_vm"], "")[0]
    assert "nothing is billed" in cost_lines(BACKENDS["slurm"], JOBS["slurm"], "")[0]
    assert str(machines_of("gpu:8", nodes=2)) == "8 GPUs on each node, 2 nodes"


def test_help_names_every_field_and_fits_a_terminal():
    shown = usage()
    assert all(f"  {name} " in shown for name in vars(JOBS["gke"]))
    assert max(map(len, shown.splitlines())) <= 100
