"""Flags of XLA for each kind of chip, with what each is for.

They come from what public codebases for the same chips set (MaxText, AXLearn, NVIDIA's JAX images)
and fit a step that gathers parameters once, computes in loops, and reduces gradients once. That
the compilers take them is tested; what they gain has not been measured for this step. Programs, and
so the last bits of a run, depend on them: a run goes on with those that it began with.
"""

from __future__ import annotations

from dataclasses import dataclass

from launch.machines import Cpus, Gpus, Slice


@dataclass(frozen=True)
class Flag:
    """A flag, its value, and why."""

    name: str
    value: str
    reason: str

    def __str__(self) -> str:
        return f"--{self.name}={self.value}"


TPU = (
    Flag(
        "xla_tpu_enable_async_collective_fusion",
        "true",
        "a collective and arithmetic beside it become one program, so that links and MXU both work",
    ),
    Flag(
        "xla_tpu_enable_async_collective_fusion_fuse_all_gather",
        "true",
        "the same for the gathers of parameters over fsdp",
    ),
    Flag(
        "xla_tpu_enable_async_collective_fusion_multiple_steps",
        "true",
        "a collective may go on over several programs, where one is too short to hide it",
    ),
    Flag(
        "xla_tpu_overlap_compute_collective_tc",
        "true",
        "the TensorCore computes while it has a collective under way",
    ),
    Flag("xla_enable_async_all_gather", "true", "gathers begin early and are waited for late"),
    Flag(
        "xla_tpu_enable_data_parallel_all_reduce_opt",
        "true",
        "all-reduces of gradients over the data axis are moved beside the backward pass",
    ),
    Flag(
        "xla_tpu_data_parallel_opt_different_sized_ops",
        "true",
        "the same where gradients differ in size, as those of embeddings and norms do",
    ),
)
LARGE_VMEM = (
    Flag(
        "xla_tpu_scoped_vmem_limit_kib",
        "98304",
        "v6e has 128 MiB of VMEM; by default one program may plan with 16, and cuts loops small",
    ),
)
SDC = (
    Flag(
        "xla_tpu_enable_sdc_checker",
        "true",
        "every program runs again and is compared, to find a chip that computes wrongly",
    ),
    Flag("xla_tpu_sdc_check_repeat_count", "1", "once more, which halves the speed"),
    Flag("xla_tpu_sdc_check_halt_on_detection", "true", "no step follows a wrong one"),
)
GPU = (
    Flag(
        "xla_gpu_enable_latency_hiding_scheduler",
        "true",
        "collectives begin early and are waited for late, so that kernels run beside them",
    ),
    Flag(
        "xla_gpu_all_gather_combine_threshold_bytes",
        "134217728",
        "the many gathers of parameters become few large ones, which links carry better",
    ),
    Flag(
        "xla_gpu_reduce_scatter_combine_threshold_bytes",
        "134217728",
        "likewise what their gradients go back by",
    ),
    Flag(
        "xla_gpu_all_reduce_combine_threshold_bytes",
        "134217728",
        "likewise the sums over the data axis",
    ),
)
# Of a GPU's memory JAX takes 75 %, and the rest would lie idle; what is left here is for NCCL.
GPU_MEMORY = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92"}


def preset(machines: Slice | Gpus | Cpus, sdc_checks: bool = False) -> dict[str, str]:
    """Environment variables that carry the flags for these machines."""
    if isinstance(machines, Slice):
        flags = TPU + (LARGE_VMEM if machines.chip == "v6e" else ()) + (SDC if sdc_checks else ())
        return {"LIBTPU_INIT_ARGS": " ".join(map(str, flags))}
    if isinstance(machines, Gpus):
        return {"XLA_FLAGS": " ".join(map(str, GPU)), **GPU_MEMORY}
    return {}
