"""The table of chips: found by either name, and plausible throughout."""

import pytest

from clue_jax.parallel.chips import GPUS, TPUS, chip_of_kind, chip_of_topology


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("TPU v4", "v4"),
        # "TPU v5" begins both, and is itself what v5p calls itself.
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v5p", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("TPU7x", "tpu7x"),
        ("NVIDIA H100 80GB HBM3", "h100"),
    ],
)
def test_a_chip_is_known_by_its_device_kind(kind, name):
    chip = chip_of_kind(kind)
    assert chip and chip.name == name


def test_other_devices_are_unknown():
    assert chip_of_kind("cpu") is None and chip_of_topology("v9:4x4") is None


@pytest.mark.parametrize("chip", TPUS, ids=lambda chip: chip.name)
def test_a_chip_is_known_by_its_topology(chip):
    assert chip_of_topology(f"{chip.name}:4x4") is chip


@pytest.mark.parametrize("chip", TPUS + GPUS, ids=lambda chip: chip.name)
def test_figures_are_in_their_units(chip):
    assert 1e14 < chip.bf16_flops < 3e15
    assert 1e11 < chip.chip_link_bandwidth < 1e12
    if chip.hbm_bandwidth:
        # Arithmetic per byte of memory traffic has stayed within a small range.
        assert 100 < chip.bf16_flops / chip.hbm_bandwidth < 700
    if chip.network_bandwidth:
        assert chip.network_bandwidth < chip.chip_link_bandwidth / 10
    if chip.usable_hbm_bytes:
        assert 0.9 < chip.usable_hbm_bytes / chip.hbm_bytes < 1.01
