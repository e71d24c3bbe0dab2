"""What a person is shown before anything is done: what it costs, and every command."""

from __future__ import annotations

from collections.abc import Sequence

from launch.backend import Backend
from launch.fits import compile_command
from launch.job import Job
from launch.local import Planned
from launch.plan import Command, Poll


def cost_lines(backend: Backend, job: Job, clean_up: str) -> list[str]:
    """What is about to be paid for, and how it ends."""
    machines = job.machines
    if not backend.billed:
        # Where there is nothing to remove the stage ends with its launcher.
        stop = clean_up if backend.delete(job) else "Ctrl-C"
        return [f"{job.name}: {machines}; nothing is billed by this; to stop it: {stop}"]
    spot = ", spot" if job.spot else ""
    price = job.price * machines.all_chips  # of an hour
    hourly = "price unknown (job.price)"
    if job.price:
        hourly = f"USD {price:,.2f} an hour, {price * job.max_hours:,.2f} in {job.max_hours} h"
    return [
        f"{job.name}: {machines}{spot}; billed from now on, {hourly}; {backend.end(job)}",
        f"to remove everything: {clean_up}",
    ]


def script(backend: Backend, job: Job, clean_up: str, keep: bool, fit: bool) -> str:
    """What `run` would do, as a shell script: every command with its arguments and input."""
    hosts = [f"HOST{number}" for number in range(job.machines.all_hosts)]
    lines = [f"# {line}" for line in cost_lines(backend, job, clean_up)]
    if fit and (compiled := compile_command(job)):
        lines += ["# Does it fit?", compiled.text()]
    if created := backend.create(job):
        lines += ["# Machines", *_texts(created)]
    lines += _texts(backend.ready(job))
    if asked := backend.hosts(job):
        lines += [f"# The machines' names, here {', '.join(hosts)}", asked.text()]
    if staged := backend.stage_code(job, hosts):
        lines += ["# Code", *(line for step in staged for line in _together(step))]
    started = backend.start(job, hosts)
    held = any(isinstance(each, Planned) and each.remote for each in started)
    lines += ["# Stage" + "; input stays open, and tells the stage to stop by its end" * held]
    lines += _together(started)
    if backend.billed and not backend.detached and not keep:
        lines += ["# Removal", *_texts(backend.delete(job))]
    return "\n".join(lines)


def _together(commands: Sequence[Command | Planned]) -> list[str]:
    """Lines of a script that run commands side by side."""
    if len(commands) == 1:
        return [commands[0].text()]
    return [*(f"{each.text()} &" for each in commands), "wait"]


def _texts(commands: Sequence[Command | Poll]) -> list[str]:
    return [command.text() for command in commands]
