"""What a compiled program takes of each device, as figures and as lines to read."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import jax

from clue_jax.compilation.collectives import Collective, collectives
from clue_jax.compilation.workload import Workload
from clue_jax.console import size_text
from clue_jax.parallel.chips import Chip
from clue_jax.parallel.mesh import axes_text


@dataclass(frozen=True)
class Report:
    """Bytes and FLOPs are of one device; seconds of one step."""

    program: str  # step or loss
    topology: str
    slices: int
    devices: int
    mesh: dict[str, int]
    parameters: int
    batch_users: int
    profile: dict[str, int]  # of the assumed users
    memory: dict[str, int]  # state, batch, results, temporaries, code, total, usable
    collectives: list[dict[str, Any]]
    # Useful (as MFU counts), executed (with recomputation), and as the compiler counts: each
    # body of a loop once.
    flops: dict[str, float]
    bounds: dict[str, float | None]  # seconds at least: compute, links, network; step, mfu
    compile_seconds: float

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def report_of(
    work: Workload,
    program: str,
    compiled: jax.stages.Compiled,
    chip: Chip,
    topology: str,
    slices: int,
    seconds: float,
) -> Report:
    """Reads a compiled step, or loss."""
    found = collectives(compiled.as_text() or "", work.mesh.size // slices, work.chunks)
    flops = _flops(work, program, compiled)
    return Report(
        program=program,
        topology=topology,
        slices=slices,
        devices=work.mesh.size,
        mesh=dict(work.mesh.shape),
        parameters=work.parameters if program == "step" else 0,
        batch_users=work.config.train.batch_users,
        profile=dataclasses.asdict(work.profile) if program == "step" else {},
        memory=_memory(compiled, chip),
        collectives=_grouped(found),
        flops=flops,
        bounds=_bounds(found, flops, chip),
        compile_seconds=round(seconds, 1),
    )


def _memory(compiled: jax.stages.Compiled, chip: Chip) -> dict[str, int]:
    stated = compiled.memory_analysis()
    assert stated is not None  # the TPU compiler always states it
    parts = {
        "state": stated.alias_size_in_bytes,  # what is donated, and comes back in its place
        "batch": stated.argument_size_in_bytes - stated.alias_size_in_bytes,
        "results": stated.output_size_in_bytes - stated.alias_size_in_bytes,
        "temporaries": stated.temp_size_in_bytes,
        "code": stated.generated_code_size_in_bytes,
    }
    return parts | {"total": sum(parts.values()), "usable": chip.usable_hbm_bytes or 0}


def _grouped(found: list[Collective]) -> list[dict[str, Any]]:
    """Alike collectives together, those that send most first."""
    groups: dict[tuple, list[Collective]] = defaultdict(list)
    for one in found:
        arrays = ", ".join(str(array) for array in one.arrays[:2])
        more = f", {len(one.arrays) - 2} more" if len(one.arrays) > 2 else ""
        groups[one.kind, arrays + more, one.group_size, one.crosses_slices, one.times].append(one)
    rows = [
        {
            "kind": kind,
            "arrays": arrays,
            "devices": size,
            "between_slices": crosses,
            "count": len(alike),
            "times": times,
            "bytes": sum(one.bytes_per_run for one in alike) * (times or 1),
        }
        for (kind, arrays, size, crosses, times), alike in groups.items()
    ]
    return sorted(rows, key=lambda row: -row["bytes"])


def _flops(work: Workload, program: str, compiled: jax.stages.Compiled) -> dict[str, float]:
    config, users = work.config, work.config.train.batch_users
    if program == "step":
        useful, executed = work.useful_flops(), work.executed_flops()
    else:
        product = 2.0 * users**2 * config.encoder.embedding_width
        useful, executed = 3 * product, 4 * product
    cost = compiled.cost_analysis() or {}
    return {
        "useful": useful / work.mesh.size,
        "executed": executed / work.mesh.size,
        "compiler": float(cost.get("flops", 0.0)),
        "compiler_bytes": float(cost.get("bytes accessed", 0.0)),
    }


def _bounds(
    found: list[Collective], flops: dict[str, float], chip: Chip
) -> dict[str, float | None]:
    """Seconds that each resource needs at least, were it never idle.

    A step takes at least the longest of them (all at once) and at most about their sum (one after
    the other); memory traffic is not among them.
    """
    sent = {True: 0.0, False: 0.0}
    for one in found:
        sent[bool(one.crosses_slices)] += one.bytes_per_run * (one.times or 1)
    share = chip.devices_per_chip
    network = chip.network_bandwidth
    seconds: dict[str, float | None] = {
        "compute": flops["executed"] / chip.bf16_flops,
        "links": sent[False] * share / chip.chip_link_bandwidth,
        "network": sent[True] * share / network if network else None,
    }
    known = [value for value in seconds.values() if value is not None]
    for name, step in (("overlapped", max(known)), ("serial", sum(known))):
        seconds[name] = step
        seconds[f"mfu_{name}"] = flops["useful"] / (step * chip.bf16_flops)
    return seconds


def lines(report: Report) -> list[str]:
    """The report for a terminal of 100 columns."""
    slices = f"{report.slices} slices of " if report.slices > 1 else ""
    what = (
        f"{report.parameters:,} parameters, "
        if report.parameters
        else "the loss alone, without keys, "
    )
    head = [
        f"{slices}{report.topology}, {report.devices} devices, mesh"
        f" {axes_text(report.mesh)}: {what}{report.batch_users:,} users a batch; compiled in"
        f" {report.compile_seconds:.0f} s"
    ]
    if report.profile:
        head.append(
            "assumed of a user: "
            + ", ".join(f"{value:,} {name}" for name, value in report.profile.items())
        )
    return [*head, *_memory_lines(report), *_collective_lines(report), *_bound_lines(report)]


def _memory_lines(report: Report) -> list[str]:
    memory = dict(report.memory)
    total, usable = memory.pop("total"), memory.pop("usable")
    parts = ", ".join(f"{name} {size_text(value)}" for name, value in memory.items() if value)
    share = f" of {size_text(usable)} ({total / usable:.0%})" if usable else ""
    return ["", f"bytes per device: {size_text(total)}{share}: {parts}"]


def _collective_lines(report: Report) -> list[str]:
    head = f"{'sent per device':>16}  {'kind':<20}{'among':>6}{'times':>8}  arrays"
    rows = ["", head]
    shown = [row for row in report.collectives if row["bytes"] >= 1_000]
    for row in shown:
        times = "?" if row["times"] is None else f"{row['count'] * row['times']:,}"
        where = " between slices" if row["between_slices"] else ""
        rows.append(
            f"{size_text(row['bytes']):>16}  {row['kind']:<20}{row['devices']:>6}{times:>8}"
            f"  {row['arrays']}{where}"
        )
    rest = len(report.collectives) - len(shown)
    return [*rows, f"{'':>16}  and {rest} of less than 1 kB"] if rest else rows


def _bound_lines(report: Report) -> list[str]:
    flops, bounds = report.flops, report.bounds
    seconds = ", ".join(
        f"{name} {_time(value)}"
        for name in ("compute", "links", "network")
        if (value := bounds[name]) is not None
    )
    return [
        "",
        f"FLOPs per device: {flops['useful']:.3g} useful, {flops['executed']:.3g} with what is"
        " computed again",
        f"the compiler counts {flops['compiler']:.3g} FLOPs and"
        f" {size_text(flops['compiler_bytes'])} accessed, each loop's body once",
        f"at least: {seconds}",
        f"step between {_time(bounds['overlapped'])} and {_time(bounds['serial'])} but for memory"
        f" traffic; MFU at most {bounds['mfu_overlapped']:.0%}, {bounds['mfu_serial']:.0%} if"
        " nothing overlaps",
    ]


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
