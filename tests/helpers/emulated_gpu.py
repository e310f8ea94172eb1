"""A GPU for tests: what Triton compiles for a real one is run by the emulator in ``ptx``, on the CPU's tensors.

The tests that draw on a ``device`` take it where EMULATED_GPU says an architecture, such as 90 for an H100:

    EMULATED_GPU=90 pytest tests/plugins/test_on_device.py
"""

from __future__ import annotations

import os
from typing import Any

import torch
from ptx import Program
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from triton.runtime.jit import JITFunction

from formulavision.rendering import triton_support

__all__ = ["start"]

TYPES = {"float32": "fp32", "float64": "fp64", "int32": "i32", "int64": "i64", "uint8": "u8"}
programs: dict[str, Program] = {}


def start() -> None:
    """From now on, kernels are compiled for the architecture, and emulated."""
    JITFunction.run = launch
    triton_support.runs_on = lambda device: device.type == "cpu"


def launch(kernel: Any, *arguments: Any, grid: tuple[int, ...], warmup: bool, **named: Any) -> None:
    """As ``kernel[grid](...)`` does on a GPU."""
    given = {**dict(zip(kernel.arg_names, arguments, strict=False)), **named}
    constants = {p.name: given[p.name] for p in kernel.params if p.is_constexpr}
    options = {name: value for name, value in named.items() if name not in kernel.arg_names}
    types, aligned = {}, {}
    for place, parameter in enumerate(kernel.params):
        value = given[parameter.name]
        types[parameter.name] = "constexpr" if parameter.is_constexpr else type_of(value)
        # Whatever torch allocates on a GPU begins at a multiple of 512 bytes.
        if isinstance(value, torch.Tensor) and not parameter.do_not_specialize_on_alignment:
            aligned[(place,)] = [["tt.divisibility", 16]]
        assert isinstance(value, torch.Tensor) or parameter.is_constexpr or parameter.do_not_specialize, parameter.name
    key = f"{kernel.__module__}.{kernel.__name__} {types} {constants}"
    if key not in programs:
        source = ASTSource(kernel, signature=types, constexprs=constants, attrs=aligned)
        target = GPUTarget("cuda", int(os.environ["EMULATED_GPU"]), 32)
        compiled = compile(source, target=target, options=options)
        programs[key] = Program(compiled.asm["ptx"], compiled.metadata.shared)
    values = [given[name] for name in kernel.arg_names if name not in constants]
    programs[key].run(grid, [value.numpy() if isinstance(value, torch.Tensor) else value for value in values])


def type_of(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"*{TYPES[str(value.dtype).removeprefix('torch.')]}"
    if isinstance(value, float):
        return "fp32"
    assert isinstance(value, int) and -(2**31) <= value < 2**31, value
    return "i32"
