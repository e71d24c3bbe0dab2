"""Collectives: each way a compiler writes them, and those of real programs on 8 devices."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

from clue_jax.compilation.collectives import collectives
from tests.compilation.programs import COUNTED, SUM, loop, program

HALVES = "replica_groups={{0,1,2,3},{4,5,6,7}}"
X = 4 * 128 * 4  # bytes of the parameter


def only(text, devices_per_slice=None):
    (found,) = collectives(text, devices_per_slice)
    return found


@pytest.mark.parametrize(
    ("line", "kind", "payload", "sent"),
    [
        ("f32[16,128] all-gather(%x), dimensions={0}", "all-gather", 4 * X, 3 * X),
        ("f32[1,128] reduce-scatter(%x), to_apply=%sum", "reduce-scatter", X, 3 * X // 4),
        ("f32[4,128] all-reduce(%x), to_apply=%sum", "all-reduce", X, 3 * X // 2),
        ("f32[4,128] all-to-all(%x), dimensions={0}", "all-to-all", X, 3 * X // 4),
        ("bf16[4,128] all-reduce(%x), to_apply=%sum", "all-reduce", X, 3 * X // 2),
        (
            "(f32[4,128]{1,0:T(8,128)}, f32[4,128]) all-reduce(%x, /*index=1*/%x), to_apply=%sum",
            "all-reduce",
            2 * X,
            3 * X,
        ),
    ],
)
def test_a_ring_of_4_sends_what_theory_says(line, kind, payload, sent):
    found = only(program(f"  ROOT %y = {line}, channel_id=1, {HALVES}", SUM))
    assert (found.kind, found.group_size, found.times) == (kind, 4, 1)
    assert (found.payload_bytes, found.bytes_per_run) == (payload, sent)


def test_a_permutation_sends_its_operand():
    line = "f32[4,128] collective-permute(%x), source_target_pairs={{0,1},{1,2},{2,0}}"
    found = only(program(f"  ROOT %y = {line}"))
    assert (found.kind, found.group_size, found.bytes_per_run) == ("collective-permute", 3, X)


@pytest.mark.parametrize(
    ("groups", "size", "crosses"),
    [
        ("{{0,1},{2,3},{4,5},{6,7}}", 2, False),
        ("{{0,4},{1,5},{2,6},{3,7}}", 2, True),
        ("{}", 8, True),
        ("[2,4]<=[8]", 4, False),
        ("[4,2]<=[2,4]T(1,0)", 2, True),  # 0 with 4, 1 with 5, ...
        ("[4,2]<=[4,2]T(0,1)", 2, False),
        ("mesh['a'=2,'b'=4] {'b'}", 4, False),
        ("mesh['a'=2,'b'=4] {'a'}", 2, True),
        ("mesh['a'=2,'b'=4] {'a','b'}", 8, True),
        ("mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}", 2, True),  # 0 with 4, 1 with 5, ...
        ("mesh['a'=2,'b'=2], device_ids=(0,1,4,5) {'b'}", 2, False),
    ],
)
def test_groups_are_read_in_every_form(groups, size, crosses):
    line = f"  ROOT %y = f32[4,128] all-reduce(%x), replica_groups={groups}, to_apply=%sum"
    found = only(program(line, SUM), devices_per_slice=4)
    assert (found.group_size, found.crosses_slices) == (size, crosses)
    assert only(program(line, SUM)).crosses_slices is None


def test_unknown_groups_are_an_error():
    line = "  ROOT %y = f32[4,128] all-reduce(%x), replica_groups=mesh, to_apply=%sum"
    with pytest.raises(ValueError, match="y: its groups"):
        collectives(program(line, SUM))


@pytest.mark.parametrize("kind", ["all-gather", "collective-permute", "all-reduce"])
def test_an_asynchronous_pair_is_one(kind):
    groups = "source_target_pairs={{0,1},{1,0}}" if "permute" in kind else HALVES
    text = program(
        f"  %s = (f32[4,128], f32[16,128], u32[]{{:S(2)}}) {kind}-start(%x), {groups}\n"
        f"  ROOT %d = f32[16,128]{{1,0:T(8,128)}} {kind}-done(%s)"
    )
    found = only(text)
    assert found.kind == kind and [str(a) for a in found.arrays] == ["f32[16,128]"]


def test_a_wrapped_collective_is_found_in_its_computation():
    wrapped = f"""\
%wrapped (p: f32[4,128]) -> f32[1,128] {{
  %p = f32[4,128] parameter(0)
  ROOT %rs = f32[1,128] reduce-scatter(%p), {HALVES}, dimensions={{0}}, to_apply=%sum
}}
"""
    text = program(
        "  %s = ((f32[4,128]), f32[1,128], u32[]) async-start(%x), calls=%wrapped\n"
        "  ROOT %d = f32[1,128] async-done(%s), calls=%wrapped",
        SUM,
        wrapped,
    )
    found = only(text)
    assert (found.name, found.kind, found.times) == ("rs", "reduce-scatter", 1)


def test_an_all_reduce_fused_with_a_slice_of_it_is_a_reduce_scatter():
    def text(sliced):
        fused = f"""\
%all-reduce-scatter (p: f32[4,128], i: s32[]) -> f32[1,128] {{
  %p = f32[4,128] parameter(0)
  %i = s32[] parameter(1)
  %sums = f32[4,128] all-reduce(%p), {HALVES}, to_apply=%sum
  ROOT %part = f32[1,128] dynamic-slice({sliced}, %i, %i), dynamic_slice_sizes={{1,128}}
}}
"""
        fusion = "  ROOT %f = f32[1,128] fusion(%x, %x), kind=kCustom, calls=%all-reduce-scatter"
        return program(fusion, SUM, fused)

    found = only(text("%sums"))
    assert (found.kind, found.bytes_per_run) == ("reduce-scatter", 3 * X // 4)
    assert [str(a) for a in found.arrays] == ["f32[1,128]"]
    assert only(text("%p")).kind == "all-reduce"


def test_a_collective_fused_with_other_work_is_one():
    def part(name, rest):
        return (
            f"%{name} (p: f32[4,128]) -> f32[16,128] {{\n  %p = f32[4,128] parameter(0)\n"
            f"  %g.{name} = f32[16,128] all-gather(%p), {HALVES}, dimensions={{0}},"
            f' frontend_attributes={{chain_id="0"}}\n  ROOT %r = f32[16,128] {rest}\n}}\n'
        )

    text = program(
        "  %a = f32[16,128] fusion(%x), calls=%begin\n"
        "  %b = f32[16,128] fusion(%x), calls=%middle\n"
        "  ROOT %c = f32[16,128] fusion(%x), calls=%end",
        part("begin", 'custom-call(%g.begin), custom_call_target="AsyncCollectiveStart"'),
        part("middle", "copy(%g.middle)"),
        part("end", 'custom-call(%g.end), custom_call_target="AsyncCollectiveDone"'),
    )
    assert only(text).name == "g.begin"
    # Without a start among them they are not known to be one.
    assert len(collectives(text.replace("AsyncCollectiveStart", "Other"))) == 3


@pytest.mark.parametrize(
    ("transfer", "target", "kind", "size", "sent"),
    [
        ("ALL_GATHER", '"{1,2}x{0:255}"', "all-gather", 2, X),
        ("REDUCE_SCATTER", '"{1,2,3,4}x{0:15}"', "reduce-scatter", 4, 3 * X // 4),
        ("ALL_REDUCE", '"{1,2,3,4}x{0:15}"', "all-reduce", 4, 3 * X // 2),
        ("ONE_TO_ONE", "{{100001->200000},{200001->100000}}", "collective-permute", 4, X),
        ("ALL_TO_ALL", "{{100000,100001,200000,200001}}", "all-to-all", 4, 3 * X // 4),
    ],
)
def test_exchanges_between_slices_are_sends_to_the_network(transfer, target, kind, size, sent):
    attributes = (
        'frontend_attributes={_xla_host_transfer_rendezvous="r_0",'
        f'_xla_megascale_target={target},_xla_megascale_transfer_type="{transfer}"}}'
    )
    text = program(
        "  %token = token[] after-all()\n"
        "  %s = (f32[4,128], u32[], token[]) send(%x, %token), is_host_transfer=true, "
        f"{attributes}\n  %r = (bf16[8,128], u32[], token[]) recv(%token), {attributes}\n"
        "  ROOT %q = (f32[4,128], u32[], token[]) send(%x, %token), is_host_transfer=true"
    )
    found = only(text, devices_per_slice=256)
    assert (found.kind, found.group_size, found.bytes_per_run) == (kind, size, sent)
    assert found.crosses_slices and [str(a) for a in found.arrays] == ["bf16[8,128]"]


def test_a_collective_in_a_loop_runs_as_often_as_its_body():
    assert only(loop(COUNTED)).times == 8
    assert only(loop(COUNTED.replace("LT", "GT"))).times is None


def test_other_names_are_no_collectives():
    assert collectives(program("  ROOT %all-gather.1 = f32[4,128] copy(%x)")) == []


# Real programs.


def compiled(function, in_specs, out_specs, *arguments):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    mapped = jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )
    return collectives(jax.jit(mapped).lower(*arguments).compile().as_text(), devices_per_slice=4)


def rows(n):
    return jax.ShapeDtypeStruct((n, 128), jnp.float32)


@pytest.mark.parametrize(
    ("function", "name", "kind", "payload", "sent"),
    [
        (lax.psum, "psum", "all-reduce", X, 7 * X // 4),
        (lax.all_gather, "all_gather", "all-gather", 8 * X, 7 * X),
    ],
)
def test_real_collectives_are_found(function, name, kind, payload, sent):
    (found,) = compiled(lambda x_bE: function(x_bE, "data"), P("data"), P(), rows(32))
    assert (found.kind, found.group_size, found.times) == (kind, 8, 1)
    assert (found.payload_bytes, found.bytes_per_run) == (payload, sent)
    assert found.crosses_slices and found.op_name.endswith(name)


def test_a_real_reduce_scatter_is_found():
    scatter = functools.partial(lax.psum_scatter, axis_name="data", tiled=True)
    (found,) = compiled(scatter, P(), P("data"), rows(32))
    assert found.kind == "reduce-scatter"
    assert (found.payload_bytes, found.bytes_per_run) == (8 * X, 7 * X)
    assert [str(a) for a in found.arrays] == ["f32[4,128]"]


def shift(x_bE):
    return lax.ppermute(x_bE, "data", [(i, (i + 1) % 8) for i in range(8)])


def test_a_real_ring_of_8_turns_runs_8_times():
    def turn(x_bE):
        return lax.fori_loop(0, 8, lambda _, x_bE: jnp.sin(shift(x_bE)), x_bE)

    (found,) = compiled(turn, P("data"), P("data"), rows(32))
    assert (found.kind, found.times, found.bytes_per_run) == ("collective-permute", 8, X)


def test_a_real_loop_within_a_loop_multiplies():
    def turn(x_bE):
        def outer(_, x_bE):
            return lax.fori_loop(0, 8, lambda _, x_bE: jnp.sin(shift(x_bE)), x_bE) + 1.0

        return lax.fori_loop(0, 5, outer, x_bE)

    (found,) = compiled(turn, P("data"), P("data"), rows(32))
    assert found.times == 40


def test_a_real_loop_as_long_as_data_says_is_of_unknown_length():
    def turn(x_bE, n):
        return lax.while_loop(
            lambda state: state[0] < n, lambda state: (state[0] + 1, shift(state[1])), (0, x_bE)
        )[1]

    n = jax.ShapeDtypeStruct((), jnp.int32)
    (found,) = compiled(turn, (P("data"), P()), P("data"), rows(32), n)
    assert (found.kind, found.times) == ("collective-permute", None)
