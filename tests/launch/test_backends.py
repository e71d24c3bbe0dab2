"""What each backend asks for; a stage's arguments arrive unchanged, through real shells."""

import json
import re
import shlex
import subprocess
import tempfile

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from clue_jax.errors import ConfigError
from launch.backend import Backend, extras
from launch.backends import BACKENDS
from launch.backends.gke import jobset, literal
from launch.backends.slurm import batch_script
from launch.job import Job, check_job
from launch.show import script
from tests.launch.machines import Machines

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
NASTY = ("--a=it's", '--b="', "--c=$(touch x) `y`", "--d=two\nlines\n", "--e=\\$HOME ;|&", "")
BUCKET = ("train", "--workdir=gs://bucket/runs/first")
JOBS = {
    "gpu": Job("job", BUCKET, "gpu:8", nodes=2, hosts=("me@one", "two")),
    "slurm": Job("job", BUCKET, "h100:8", nodes=2, partition="gpu", python="python"),
    "tpu_vm": Job("job", BUCKET, "v5e:4x4", zone="us-west4-a", spot=True),
    "tpu_gce": Job("job", BUCKET, "v6e:4x4", zone="us-east5-b", project="my-project", spot=True),
    "gke": Job("job", BUCKET, "v6e:4x4", slices=2, image="host.dev/p/i:1"),
}
HOSTS = ("machine-0", "machine-1", "machine-2", "machine-3")


def changed(name, **fields):
    return Job(**{**vars(JOBS[name]), **fields})


@pytest.fixture(scope="module")
def machines():
    with tempfile.TemporaryDirectory() as folder:
        made = Machines(folder, ("one", "two", "job", *HOSTS))
        for number in range(2):
            made.add(f"job-{number}")
        yield made


def arrived(machines, name, job):
    """Arguments of the stages that a backend's `start` has brought onto machines."""
    machines.forget()
    hosts = HOSTS[: job.machines.hosts] if name == "tpu_gce" else HOSTS
    for each in BACKENDS[name].start(job, hosts):
        done = machines.run(each.argv, getattr(each, "stdin", ""))
        assert done.returncode == 0, done.stderr
    if name == "gke":
        (call,) = machines.calls("kubectl")
        template = yaml.safe_load(call["stdin"])["spec"]["replicatedJobs"][0]["template"]
        (container,) = template["spec"]["template"]["spec"]["containers"]
        return [[expanded(word) for word in container["args"]]]
    return machines.stages()


def expanded(text):
    """As Kubernetes expands a text where no variable is known: `$$` is `$`, `$(A)` stays."""
    out, position = "", 0
    while position < len(text):
        if text[position : position + 2] == "$$":
            out, position = out + "$", position + 2
        elif text[position : position + 2] == "$(" and ")" in text[position:]:
            raise AssertionError(f"a variable would be put in place of {text[position:]}")
        else:
            out, position = out + text[position], position + 1
    return out


@pytest.mark.parametrize(
    ("name", "count"), [("gpu", 2), ("slurm", 1), ("tpu_vm", 1), ("tpu_gce", 4), ("gke", 1)]
)
def test_arguments_arrive_unchanged(machines, name, count):
    stage = (*BUCKET, *NASTY)
    assert arrived(machines, name, changed(name, stage=stage)) == [list(stage)] * count


@pytest.mark.parametrize("name", BACKENDS)
def test_any_arguments_arrive_unchanged(machines, name):
    # One example has many words, since each takes several processes.
    fewer = {"tpu_gce": "v6e:2x2", "gpu": "gpu:8"}.get(name, JOBS[name].accelerator)

    @settings(max_examples=3, deadline=None)
    @given(st.lists(WORDS, min_size=5, max_size=40), WORDS)
    def check(words, value):
        stage = ("train", *words)
        own = (f"NOTE={value}",)
        job = changed(name, stage=stage, accelerator=fewer, environment=own, presets=False)
        found = arrived(machines, name, job)
        assert found and all(words == list(stage) for words in found)

    check()


@given(WORDS)
def test_kubernetes_leaves_a_text_as_it_is(text):
    assert expanded(literal(text)) == text


def test_processes_are_told_who_they_are(machines):
    arrived(machines, "gpu", JOBS["gpu"])
    told = [call["environment"] for call in machines.calls("python")]
    assert [each["JAX_PROCESS_ID"] for each in told] == ["0", "1"]
    assert {each["JAX_COORDINATOR_ADDRESS"] for each in told} == {"one:8476"}  # without the user
    assert {each["JAX_NUM_PROCESSES"] for each in told} == {"2"}
    assert {each["JAX_LOCAL_DEVICE_IDS"] for each in told} == {"0,1,2,3,4,5,6,7"}
    assert {each["JAX_COMPILATION_CACHE_DIR"] for each in told} == {"gs://bucket/runs/compiled"}
    arrived(machines, "slurm", changed("slurm", processes=4))
    (told,) = (call["environment"] for call in machines.calls("python"))
    assert told["JAX_PROCESS_ID"] == "1" and told["JAX_NUM_PROCESSES"] == "2"  # as SLURM said
    assert told["JAX_LOCAL_DEVICE_IDS"] == "0,1"
    assert told["JAX_COORDINATOR_ADDRESS"] == "node0:20017"
    arrived(machines, "tpu_gce", JOBS["tpu_gce"])
    told = [call["environment"] for call in machines.calls("python")]
    assert [each["JAX_PROCESS_ID"] for each in told] == ["0", "1", "2", "3"]
    assert {each["JAX_COORDINATOR_ADDRESS"] for each in told} == {"machine-0:8476"}
    arrived(machines, "tpu_vm", changed("tpu_vm", slices=2))
    told = [call["environment"]["JAX_NUM_PROCESSES"] for call in machines.calls("python")]
    assert told == ["auto", "auto"]


def test_several_processes_share_the_gpus_of_a_machine():
    job = changed("gpu", hosts=(), nodes=1, processes=2, stage=BUCKET)
    planned = BACKENDS["gpu"].start(job, [])
    devices = [each.environment["JAX_LOCAL_DEVICE_IDS"] for each in planned]
    assert devices == ["0,1,2,3", "4,5,6,7"]
    (alone,) = BACKENDS["gpu"].start(changed("gpu", hosts=(), nodes=1), [])
    assert not {name for name in alone.environment if name.startswith("JAX_NUM")}


@pytest.mark.parametrize(
    ("code", "requeued"), [(75, True), (7, True), (137, True), (0, False), (3, False)]
)
def test_slurm_goes_back_into_the_queue_where_that_helps(machines, code, requeued):
    machines.forget()
    machines.put("codes", str(code))
    text = batch_script(JOBS["slurm"])
    assert machines.run(["bash", "-s"], text).returncode == code
    calls = [call["argv"] for call in machines.calls("scontrol") if "requeue" in call["argv"]]
    assert calls == ([["requeue", "17"]] if requeued else [])


def test_slurm_ends_for_the_reason_of_one_of_several(machines):
    """A task that fails takes the others with it, which die with a higher code."""
    text = batch_script(JOBS["slurm"])
    for comment, code in (("launch 0: 3", 3), ("launch 1: 3", 137), ("a note: 3", 137)):
        machines.forget()
        machines.put("codes", "137")
        machines.put("comments", comment)
        assert machines.run(["bash", "-s"], text).returncode == code
        asked = [word for call in machines.calls("scontrol") for word in call["argv"]]
        assert ("requeue" in asked) == (code == 137)
    for code in (2, 3, 4, 5, 6, 8, 1, 7, 75, 137):
        machines.forget()
        machines.put("codes", str(code))
        machines.run(["bash", "-s"], f"export SLURM_RESTART_COUNT=20\n{text}")
        told = [call["argv"] for call in machines.calls("scontrol") if "update" in call["argv"]]
        reason = ["update", "JobId=17", f"Comment=launch 20: {code}"]
        assert told == ([reason] if code in (2, 3, 4, 5, 6, 8) else [])


def test_slurm_goes_back_so_often_and_no_oftener(machines):
    machines.forget()
    machines.put("codes", "75")
    text = "export SLURM_RESTART_COUNT=3\n" + batch_script(changed("slurm", restarts=3))
    assert machines.run(["bash", "-s"], text).returncode == 75
    assert not [call for call in machines.calls("scontrol") if "requeue" in call["argv"]]


@pytest.mark.parametrize(
    ("name", "fields", "problem"),
    [
        ("tpu_vm", {"accelerator": "tpu7x:4x4x4"}, "has no tpu7x; use tpu_gce or gke"),
        ("tpu_vm", {"accelerator": "h100:8"}, "this backend has TPUs"),
        ("tpu_vm", {"zone": ""}, "tpu_vm: job.zone: needed here"),
        ("tpu_vm", {"stage": ("train", "--workdir=runs/a")}, "'runs/a' would be lost"),
        ("tpu_vm", {"stage": ("prepare", "--out=gs://b/a")}, "prepare is the work of one process"),
        (
            "tpu_gce",
            {"accelerator": "v5e:4x4"},
            "has no v5e, but v5p, v6e, tpu7x; v5e is at tpu_vm",
        ),
        ("tpu_gce", {"slices": 2}, "job.slices: 2: a group is one slice"),
        ("gke", {"image": ""}, "gke: job.image: needed here"),
        ("gke", {"accelerator": "gpu:8"}, "job.accelerator: gpu:8: which"),
        ("gke", {"service_account": "a@b.com"}, "here it is one of Kubernetes"),
        ("slurm", {"accelerator": "v5e:4x4"}, "TPUs are at tpu_gce, gke and tpu_vm"),
        ("slurm", {"hosts": ("a",)}, "SLURM chooses the nodes"),
        ("gpu", {"nodes": 1}, "job.nodes: 1, but job.hosts names 2"),
        (
            "gpu",
            {"stage": ("prepare", "--beam=--runner=X"), "hosts": ("a",), "nodes": 1},
            "--beam needs an environment of its own",
        ),
        ("gpu", {"stage": ("train", "--workdir=runs/a")}, "in a bucket, or by its whole path"),
    ],
)
def test_what_a_place_cannot_do_is_refused_by_field(name, fields, problem):
    job = changed(name, **fields)
    check_job(job)
    with pytest.raises(ConfigError, match=problem):
        BACKENDS[name].check(job)


@pytest.mark.parametrize("name", BACKENDS)
def test_what_is_shown_is_what_a_shell_would_run(name):
    """Every line of a dry run parses; commands in it are those of the plan, word for word."""
    job = changed(name, stage=(*BUCKET, *NASTY))
    backend: Backend = BACKENDS[name]
    shown = script(backend, job, "python -m launch x delete", keep=False, fit=False)
    subprocess.run(["/bin/sh", "-n"], input=shown, text=True, check=True)
    inputs = re.compile(r"<<'END_OF_INPUT'\n.*?\nEND_OF_INPUT$", re.DOTALL | re.MULTILINE)
    words = shlex.split(inputs.sub("", shown), comments=True)
    removal = backend.delete(job) if backend.billed and not backend.detached else []
    for command in [*backend.create(job), *backend.start(job, ["HOST0"] * 4), *removal]:
        argv = list(command.argv)
        found = any(words[i : i + len(argv)] == argv for i in range(len(words)))
        assert found or "HOST0" in argv, argv


def test_logs_and_results_are_read_where_they_lie():
    nodes = BACKENDS["gpu"]
    shared = changed("gpu", stage=("train", "--workdir=/shared/run 1"))
    (log,) = nodes.logs(shared)
    assert log.argv[0] == "ssh" and "me@one" in log.argv
    assert log.argv[-1] == "tail -n 100 -F '/shared/run 1/metrics.jsonl'"
    assert nodes.fetch(shared)[-1].argv[-2] == "me@one:/shared/run 1/."
    (log,) = nodes.logs(JOBS["gpu"])
    assert log.argv[:3] == ("gcloud", "storage", "cat") and log.again > 0
    for look in (nodes.logs, nodes.fetch):
        with pytest.raises(ConfigError, match="it writes no --workdir or --out"):
            look(changed("gpu", stage=()))


def test_extras_are_those_of_chips_buckets_and_stage():
    assert extras(JOBS["tpu_vm"]) == "tpu,gs"
    study = ("scale", "--data=s3://b/d", "--workdir=/shared/w")
    assert extras(changed("gpu", stage=study)) == "gpu,s3,scale"
    assert extras(changed("gpu", stage=("evaluate", "--out=o"), accelerator="")) == "probes"


def test_a_spot_slice_of_v5e_is_asked_for():
    (create,) = BACKENDS["tpu_vm"].create(JOBS["tpu_vm"])
    assert create.argv[:6] == ("gcloud", "compute", "tpus", "queued-resources", "create", "job")
    assert {"--accelerator-type=v5litepod-16", "--spot", "--node-id=job"} <= set(create.argv)
    (several,) = BACKENDS["tpu_vm"].create(changed("tpu_vm", slices=2, spot=False))
    assert {"--node-count=2", "--node-prefix=job"} <= set(several.argv)
    assert not {"--spot", "--node-id=job"} & set(several.argv)


def test_a_jobset_asks_for_its_nodes_and_never_repeats_what_would_fail_again():
    made = jobset(changed("gke", spot=True, queue="ours"))
    assert json.loads(json.dumps(made)) == made
    (replicas,) = made["spec"]["replicatedJobs"]
    job = replicas["template"]["spec"]
    pod = job["template"]["spec"]
    assert (replicas["replicas"], job["parallelism"], job["completions"]) == (2, 4, 4)
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
        "cloud.google.com/gke-tpu-topology": "4x4",
        "cloud.google.com/gke-spot": "true",
    }
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob" and rule["onExitCodes"]["values"] == [2, 3, 4, 5, 6, 8]
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "ours"
    gpus = jobset(changed("gke", accelerator="h100:8", slices=1, nodes=2))
    pod = gpus["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    environment = {each["name"]: each for each in pod["containers"][0]["env"]}
    assert environment["JAX_COORDINATOR_ADDRESS"]["value"] == "job-workers-0-0.job:8476"
    assert "fieldRef" in environment["JAX_PROCESS_ID"]["valueFrom"]
