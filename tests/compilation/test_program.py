"""HLO texts: instructions, and how often each computation runs."""

import pytest

from clue_jax.compilation.program import Array, read_program
from tests.compilation.programs import COUNTED, SUM, loop, program

STATED = ', backend_config={"known_trip_count":{"n":"3"},"known_init_step":{"init":"0"}}'


def runs(text, computation="step"):
    return read_program(text).times().get(computation, 0)


@pytest.mark.parametrize(
    ("dtype", "size"),
    [("f32", 24), ("bf16", 12), ("pred", 6), ("s4", 3), ("f8e4m3fn", 6), ("c64", 48), ("token", 0)],
)
def test_arrays_have_their_size(dtype, size):
    assert Array(dtype, (2, 3)).bytes == size


def test_instructions_are_read_with_tpu_layouts():
    line = (
        "  ROOT %pair.1 = (f32[4,128]{1,0:T(8,128)S(1)}, /*index=1*/bf16[<=2]{0:T(8,128)(2,1)})"
        ' custom-call(%x, /*index=1*/%x), custom_call_target="f(g", calls=%sum'
    )
    read = read_program(program(line, SUM))
    found = read.computations["main"]["pair.1"]
    assert found.arrays == (Array("f32", (4, 128)), Array("bf16", (2,)))
    assert (found.opcode, found.operands, found.is_root) == ("custom-call", ("x", "x"), True)
    assert found.called() == [("calls", "sum")] and read.devices == 8
    assert str(found.arrays[0]) == "f32[4,128]"


def test_other_texts_are_refused():
    with pytest.raises(ValueError, match="ENTRY"):
        read_program("module @jit_f { func.func public @main() }")


def test_what_nothing_runs_is_left_out():
    assert read_program(program("  ROOT %y = f32[] constant(0)", SUM)).times() == {"main": 1}


def test_a_stated_trip_count_is_taken():
    assert runs(loop(COUNTED, attributes=STATED)) == 3


@pytest.mark.parametrize("start", ["%zero", "%copied"])
def test_a_count_from_0_to_a_constant_is_found(start):
    text = loop(COUNTED, start=start)
    assert runs(text) == 8 and runs(text, "test") == 9


@pytest.mark.parametrize(
    "text",
    [
        loop(COUNTED, start="%five"),
        loop(COUNTED, step="%two"),
        loop(COUNTED.replace("LT", "NE")),
        loop("  ROOT %lt = pred[] compare(%i, %bound), direction=LT"),
        loop("  %n = s32[] custom-call(%i)\n  ROOT %lt = pred[] compare(%n, %eight), direction=LT"),
        loop("  ROOT %lt = pred[] custom-call(%i)"),
    ],
)
def test_other_loops_have_no_known_count(text):
    assert runs(text) is None


def test_nested_loops_multiply():
    inner = loop(COUNTED).partition("ENTRY")[0].partition("\n\n")[2]
    outer = inner.replace("%test", "%outer_test").replace("%step", "%outer_step")
    outer = outer.replace("constant(8)", "constant(4)").replace(
        "%sent = f32[4,128] collective-permute(%v), source_target_pairs={{0,1},{1,0}}",
        "%zero = s32[] constant(0)\n  %init = (s32[], f32[4,128]) tuple(%zero, %v)\n"
        "  %inner = (s32[], f32[4,128]) while(%init), condition=%test, body=%step\n"
        "  %sent = f32[4,128] get-tuple-element(%inner), index=1",
    )
    whole = loop(COUNTED).replace(
        "condition=%test, body=%step", "condition=%outer_test, body=%outer_step"
    )
    text = whole.replace("ENTRY", f"{outer}\nENTRY")
    assert (runs(text, "outer_step"), runs(text, "step"), runs(text, "test")) == (4, 32, 36)
    # One loop of unknown length makes all inside unknown.
    text = text.replace("constant(4)", "custom-call()")
    assert runs(text, "outer_step") is None and runs(text, "step") is None


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("  ROOT %y = f32[] fusion(%x), kind=kLoop, calls=%sum", 1),
        ("  %z = f32[] call(%x), to_apply=%sum\n  ROOT %y = f32[] call(%x), to_apply=%sum", 2),
        ("  ROOT %y = f32[] conditional(%x, %x), branch_computations={%sum, %main2}", 1),
        ("  ROOT %y = f32[] conditional(%x), true_computation=%sum, false_computation=%main2", 1),
        ("  %z = () async-start(%x), calls=%sum\n  ROOT %y = f32[] async-done(%z), calls=%sum", 1),
    ],
)
def test_called_computations_run_as_often_as_they_are_called(line, count):
    other = SUM.replace("%sum", "%main2")
    assert runs(program(line, SUM, other), "sum") == count
