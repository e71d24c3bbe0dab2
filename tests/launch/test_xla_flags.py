"""Every flag has a reason, and the compilers that are installed take it."""

import importlib.util
import os
import subprocess
import sys

import pytest

from clue_jax.compilation.topology import ENVIRONMENT
from launch import xla_flags
from launch.machines import machines_of

TPU_PROGRAM = """
from jax.experimental import topologies
topologies.get_topology_desc(platform="tpu", topology_name="v6e:2x2", num_slices=1)
"""


def ended(source, **environment):
    named = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    argv = [sys.executable, "-c", source]
    done = subprocess.run(argv, env=named | environment, capture_output=True, text=True)
    return done.returncode, done.stderr


def test_every_flag_has_a_reason_and_stands_once():
    for flags in (xla_flags.TPU, xla_flags.LARGE_VMEM, xla_flags.SDC, xla_flags.GPU):
        assert all(len(flag.reason) > 20 for flag in flags)
        assert len({flag.name for flag in flags}) == len(flags)


def test_presets_are_those_of_the_chip():
    v5e, v6e = (xla_flags.preset(machines_of(f"{chip}:4x4")) for chip in ("v5e", "v6e"))
    assert set(v5e) == set(v6e) == {"LIBTPU_INIT_ARGS"}
    assert "vmem_limit" in v6e["LIBTPU_INIT_ARGS"] and "vmem_limit" not in v5e["LIBTPU_INIT_ARGS"]
    assert "sdc" not in v5e["LIBTPU_INIT_ARGS"]
    checked = xla_flags.preset(machines_of("v5e:4x4"), sdc_checks=True)
    assert "--xla_tpu_enable_sdc_checker=true" in checked["LIBTPU_INIT_ARGS"]
    assert "--xla_gpu_enable_latency" in xla_flags.preset(machines_of("h100:8"))["XLA_FLAGS"]
    assert xla_flags.preset(machines_of("")) == {}


def test_jaxlib_takes_the_flags_of_gpus_and_ends_on_others():
    flags = xla_flags.preset(machines_of("h100:8"))["XLA_FLAGS"]
    source = "import jax; jax.devices()"
    code, said = ended(source, JAX_PLATFORMS="cpu", XLA_FLAGS=flags)
    assert code == 0, said
    code, said = ended(source, JAX_PLATFORMS="cpu", XLA_FLAGS=f"{flags} --xla_gpu_none_such=1")
    assert code != 0 and "xla_gpu_none_such" in said


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="the TPU compiler is not installed"
)
def test_libtpu_takes_the_flags_of_tpus_and_ends_on_others():
    flags = xla_flags.preset(machines_of("v6e:4x4"), sdc_checks=True)["LIBTPU_INIT_ARGS"]
    environment = {**ENVIRONMENT, "TPU_ACCELERATOR_TYPE": "v6e-4"}
    code, said = ended(TPU_PROGRAM, **environment, LIBTPU_INIT_ARGS=flags)
    assert code == 0, said
    more = f"{flags} --xla_tpu_none_such=1"
    code, said = ended(TPU_PROGRAM, **environment, LIBTPU_INIT_ARGS=more)
    assert code != 0 and "xla_tpu_none_such" in said
