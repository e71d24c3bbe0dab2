"""HLO texts by hand, each with one feature that the reader must understand."""

SUM = """\
%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %s = f32[] add(%a, %b)
}
"""


def program(body, *computations, devices=8, parameters="x: f32[4,128]"):
    """A program whose entry computation is `body`, after `computations`."""
    return "\n".join(
        (
            f"HloModule test, is_scheduled=true, num_partitions={devices}\n",
            *computations,
            f"ENTRY %main ({parameters}) -> f32[] {{\n  %x = f32[4,128]{{1,0:T(8,128)S(1)}}"
            f" parameter(0)\n{body}\n}}",
        )
    )


def loop(condition, *, start="%zero", step="%one", attributes="", body=""):
    """A while loop over (i, x) with a permute in its body, run from the entry computation."""
    return program(
        f"""\
  %zero = s32[]{{:T(128)}} constant(0)
  %five = s32[] constant(5)
  %copied = s32[]{{:T(128)}} copy(%zero)
  %init = (s32[]{{:T(128)}}, f32[4,128]{{1,0:T(8,128)S(1)}}) tuple({start}, %x)
  ROOT %run = (s32[], f32[4,128]) while(%init), condition=%test, body=%step{attributes}""",
        f"""\
%test (state: (s32[], f32[4,128])) -> pred[] {{
  %eight = s32[]{{:T(128)}} constant(8)
  %state = (s32[], f32[4,128]) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
{condition}
}}
""",
        f"""\
%step (state: (s32[], f32[4,128])) -> (s32[], f32[4,128]) {{
  %state = (s32[], f32[4,128]) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %one = s32[] constant(1)
  %two = s32[] constant(2)
  %next = s32[] add(%i, {step})
  %v = f32[4,128] get-tuple-element(%state), index=1
  %sent = f32[4,128] collective-permute(%v), source_target_pairs={{{{0,1}},{{1,0}}}}
{body}
  ROOT %out = (s32[], f32[4,128]) tuple(%next, %sent)
}}
""",
    )


COUNTED = "  ROOT %lt = pred[]{:T(512)} compare(%i, %eight), direction=LT"
