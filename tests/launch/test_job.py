"""A job is refused by field, before anything is asked for."""

import dataclasses
import json
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clue_jax.errors import ConfigError, DataError
from clue_jax.parallel.chips import TPUS
from launch.job import PATTERNS, Job, check_job, read_job
from launch.machines import GPU_LABELS, TPU_NAMES, machines_of

HOSTILE = [
    "a b",
    "$(reboot)",
    "`reboot`",
    "it's",
    'say "no"',
    "two\nlines",
    "../up",
    "a/../b",
    "a;b",
    "a|b",
    "-rf",
    "name\n",
    "a\0b",
    "é",
]
TEXTS = [name for name, hint in typing.get_type_hints(Job).items() if hint is str]


def test_every_text_has_a_pattern_and_its_example_fits():
    assert set(TEXTS) | {"hosts", "environment"} == set(PATTERNS)
    for name, (_, example) in PATTERNS.items():
        text = example.partition(",")[0]
        value = (text,) if name in ("hosts", "environment") else text
        check_job(dataclasses.replace(Job(name="job"), **{name: value}))


@pytest.mark.parametrize("field", [*TEXTS, "hosts"])
@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_is_refused_by_field(field, text):
    value = (text,) if field == "hosts" else text
    with pytest.raises(ConfigError, match=rf"^job\.{field}: .* is refused; it is to be like "):
        check_job(dataclasses.replace(Job(name="job"), **{field: value}))


@given(st.text(min_size=1))
def test_what_passes_as_a_name_is_one_word_for_any_shell(text):
    try:
        check_job(Job(name=text))
    except ConfigError:
        return
    assert text.isascii() and text.replace("-", "").isalnum() and text[0] != "-"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "job.name is missing, such as clue-15m"),
        (
            {"name": "job", "accelerator": "v9:4x4"},
            "no chip 'v9'; known are .* v5e:16x16, .*h100:8",
        ),
        (
            {"name": "job", "accelerator": "v5e:3x4"},
            "job.accelerator=v5e:3x4: a host has 2x2 chips",
        ),
        ({"name": "job", "accelerator": "v5e:4x4x4"}, "2 numbers of chips, for example v5e:16x16"),
        ({"name": "job", "accelerator": "h100:x"}, "how many GPUs has a node"),
        ({"name": "job", "nodes": 0}, "job.nodes: 0: at least 1"),
        ({"name": "job", "price": float("nan")}, "job.price: nan: at least 0"),
        ({"name": "job", "accelerator": "v5e:4x4", "processes": 2}, "a TPU host has one process"),
        ({"name": "job", "accelerator": "h100:8", "processes": 3}, "3 cannot share 8 GPUs"),
        ({"name": "job", "spot": True, "reservation": "r"}, "job.spot: machines of job.reserv"),
        ({"name": "job", "stage": ["train", "a\0"]}, "job.stage: .*NUL"),
        ({"name": "job", "zon": "x"}, "job.zon: no such key; known here: name, stage"),
        ({"name": 3}, "job.name: expected str, found 3"),
        ({"name": "job", "environment": ["1=2"]}, "job.environment: '1=2' is refused"),
    ],
)
def test_a_job_that_cannot_be_is_refused(tmp_path, fields, problem):
    file = tmp_path / "job.json"
    file.write_text(json.dumps(fields))
    with pytest.raises(ConfigError, match=problem):
        read_job(str(file), {}, [])


def test_flags_win_and_words_after_the_dashes_are_added_or_stand_alone(tmp_path):
    file = tmp_path / "job.json"
    file.write_text('{"name": "job", "zone": "us-west4-a", "stage": ["train", "--workdir=w"]}')
    job = read_job(str(file), {"zone": "us-east5-b"}, [])
    assert (job.zone, job.stage, job.results) == ("us-east5-b", ("train", "--workdir=w"), "w")
    added = read_job(str(file), {}, ["--config.seed=1", "--workdir", "it's $(here)"])
    assert added.stage == ("train", "--workdir=w", "--config.seed=1", "--workdir", "it's $(here)")
    assert added.results == "it's $(here)"
    assert read_job(str(file), {}, ["export", "--out=o"]).stage == ("export", "--out=o")


def test_a_file_that_is_no_job(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_job(str(tmp_path / "none.json"), {}, [])
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ConfigError, match="an object of fields"):
        read_job(str(tmp_path / "list.json"), {}, [])


def test_every_chip_of_the_table_has_names():
    assert set(TPU_NAMES) == {chip.name for chip in TPUS}
    assert {"a100", "h100", "h200"} == set(GPU_LABELS)


@pytest.mark.parametrize(
    ("accelerator", "kind", "hosts"),
    [
        ("v4:2x2x2", "v4-16", 2),
        ("v5e:4x4", "v5litepod-16", 4),
        ("v5e:16x16", "v5litepod-256", 64),
        ("v5p:2x2x4", "v5p-32", 4),
        ("v6e:8x16", "v6e-128", 32),
    ],
)
def test_names_of_slices_count_chips_or_cores(accelerator, kind, hosts):
    machines = machines_of(accelerator)
    assert (machines.accelerator_type, machines.hosts) == (kind, hosts)
