"""Where jobs can run, by the name that the command line gives it."""

from launch.backend import Backend
from launch.backends.gke import Gke
from launch.backends.gpu import Gpu
from launch.backends.slurm import Slurm
from launch.backends.tpu_gce import TpuGce
from launch.backends.tpu_vm import TpuVm

BACKENDS: dict[str, Backend] = {
    "gpu": Gpu(),
    "slurm": Slurm(),
    "tpu_gce": TpuGce(),
    "tpu_vm": TpuVm(),
    "gke": Gke(),
}
