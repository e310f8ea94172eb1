"""The emulator of GPUs refuses what must not be done."""

from __future__ import annotations

import numpy as np
import pytest
from ptx import Program

KERNEL = """
.visible .entry kernel(
	.param .u64 .ptr .global .align 1 kernel_param_0,
	.param .u32 kernel_param_1
)
.reqntid 64
{
	.reg .pred 	%p<9>;
// %bb.0:
	ld.param.b64 	%rd1, [kernel_param_0];
	ld.param.b32 	%r1, [kernel_param_1];
	mov.u32 	%r2, %tid.x;
	mov.u32 	%r3, %ctaid.x;
	mad.lo.s32 	%r4, %r3, 64, %r2;
	mad.wide.s32 	%rd2, %r4, 4, %rd1;
CODE
	ret;
}
"""


def run(code: str, number: int | float = 0, words: int = 128) -> list[int]:
    """What two blocks of 64 threads leave in an array; %r4 is a thread's number, %rd2 its word's address."""
    array = np.zeros(words, np.int32)
    Program(KERNEL.replace("CODE", code), shared=0).run((2,), [array, number])
    return array.tolist()


def test_each_thread_has_its_number_and_writes_its_word() -> None:
    assert run("st.global.b32 [ %rd2 + 0 ], { %r4 };") == list(range(128))


def test_threads_that_a_branch_separates_meet_again() -> None:
    code = """
	mov.b32 	%r5, 0;
	setp.ge.s32 	%p1, %r2, 3;
	@%p1 bra 	$L__BB0_2;
$L__BB0_1:
	add.s32 	%r5, %r5, 10;
	setp.le.s32 	%p2, %r5, %r4;
	@%p2 bra 	$L__BB0_1;
	add.s32 	%r5, %r5, 1;
$L__BB0_2:
	add.s32 	%r5, %r5, 100;
	st.global.b32 [ %rd2 + 0 ], { %r5 };
"""
    expected = [100 if n % 64 >= 3 else 10 * (n // 10 + 1) + 101 for n in range(128)]
    assert run(code) == expected


@pytest.mark.parametrize(
    ("code", "given", "expected"),
    [
        ("cvt.rzi.s32.f32 %r5, %r1;", -2.5, -2),
        ("cvt.rzi.s32.f32 %r5, %r1;", 3e9, 2**31 - 1),
        ("cvt.rzi.s32.f32 %r5, %r1;", -np.inf, -(2**31)),
        ("cvt.rzi.s32.f32 %r5, %r1;", np.nan, 0),
        ("min.f32 %r6, %r1, 0f40A00000;\n\tcvt.rzi.s32.f32 %r5, %r6;", np.nan, 5),
        ("div.s32 %r5, %r1, 4;", -7, -1),
        ("rem.s32 %r5, %r1, 4;", -7, -3),
        ("mul.hi.u32 %r5, %r1, 3;", -1, 2),
        ("shl.b32 %r5, %r1, 32;", 1, 0),
        ("shr.s32 %r5, %r1, 40;", -5, -1),
        ("shr.u32 %r5, %r1, 28;", -1, 15),
        ("prmt.b32 %r5, %r1, 1023, 0x0041U;", 0x1234, 0x3434FF12),
        ("add.s16x2 %r5, %r1, 65535;", 0x10000, 0x1FFFF),
        ("setp.gtu.f32 %p1, %r1, 0f00000000;\n\tselp.b32 %r5, 1, 0, %p1;", np.nan, 1),
        ("shfl.sync.bfly.b32 %r6, %r2, 16, 31, -1;\n\tadd.s32 %r5, %r6, -16;", 0, 0),
        ("redux.sync.add.s32 %r6, %r2, %r1;\n\tmov.b32 %r5, %r6;", -1, 496),
    ],
)
def test_instructions_do_what_their_manual_says(code: str, given: int | float, expected: int) -> None:
    assert run(f"{code}\n\tst.global.b32 [ %rd2 + 0 ], {{ %r5 }};", given)[0] == expected


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("st.global.b32 [ %rd2 + 4 ], { %r4 };", IndexError),
        ("st.global.b32 [ %rd2 + -4 ], { %r4 };", IndexError),
        ("ld.global.b32 { %r5 }, [ %rd2 + 2 ];", IndexError),
        ("ld.global.b64 { %rd5 }, [ %rd1 + 508 ];", IndexError),
        ("st.global.b32 [ %rd1 + 0 ], { %r4 };", RuntimeError),
        ("st.global.b32 [ %rd2 + 0 ], { %r4 };\n\tld.global.b32 { %r5 }, [ %rd1 + 8 ];", RuntimeError),
        (
            "atom.global.gpu.relaxed.max.s32 %r5, [ %rd1 + 0 ], %r4;\n\tld.global.b32 { %r6 }, [ %rd1 + 0 ];",
            RuntimeError,
        ),
        ("add.s32 %r5, %r9, 1;", KeyError),
        ("setp.lt.s32 %p1, %r4, 40;\n\t@%p1 bar.sync 0;", AssertionError),
        ("setp.lt.s32 %p1, %r4, 40;\n\t@%p1 shfl.sync.bfly.b32 %r5, %r4, 1, 31, -1;", AssertionError),
        ("fma.rn.f32 %r5, %r1, %r1, %r1;", NotImplementedError),
        ("div.full.f32 %r5, %r1, %r1;", NotImplementedError),
        ("add.rn.ftz.f32 %r5, %r1, %r1;", NotImplementedError),
        ("ld.local.b32 %r5, [%rd1];", NotImplementedError),
    ],
)
def test_what_must_not_be_done_is_refused(code: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        run(code)


def test_threads_that_exchange_values_wait_for_those_that_jump_back() -> None:
    code = (
        "setp.lt.s32 %p1, %r4, 40;\n\t@%p1 bra $L__far;\n$L__near:\n\tredux.sync.add.s32 %r5, %r2, -1;\n"
        "\tst.global.b32 [ %rd2 + 0 ], { %r5 };\n\tret;\n$L__far:\n\tbra $L__near;"
    )
    assert set(run(code)) == {496, 1520}


def test_atomic_maxima_of_many_threads_leave_the_highest() -> None:
    assert run("atom.global.gpu.relaxed.max.s32 %r5, [ %rd1 + 8 ], %r4;")[:4] == [0, 0, 127, 0]
