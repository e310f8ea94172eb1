"""Compile every kernel that the generators launch, for GPUs that are not here, and print what came of it as JSON.

Triton compiles without a GPU. The launches are those of a drawing: they are noted instead of run.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import numpy as np
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from formulavision import Drawer, Recipe
from formulavision.device import DeviceDrawer
from formulavision.rendering import triton_support

DRAWINGS: list[tuple[str, list[str]]] = [
    ("ifs", []),
    ("ifs", ["generator.patch=point"]),
    ("ifs", ["generator.patch=fixed", "canvas.channels=3"]),
    ("ifs", ["generator.orbit=published", "generator.weights=table"]),
    ("perlin", []),
    ("perlin", ["generator.octaves=4", "canvas.channels=3"]),
    ("bezier", []),
    ("bezier", ["canvas.channels=3"]),
]
TYPES = {"float32": "fp32", "float64": "fp64", "int32": "i32", "int64": "i64", "uint8": "u8"}


def launches() -> dict[str, tuple[JITFunction[Any], dict[str, str], dict[str, Any], dict[str, Any]]]:
    """Kernels by name and constants: their types, their constants and their options."""
    found = {}

    def note(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **named: Any) -> None:
        given = {**dict(zip(kernel.arg_names, arguments, strict=False)), **named}
        constants = {p.name: given[p.name] for p in kernel.params if p.is_constexpr}
        options = {name: value for name, value in named.items() if name not in kernel.arg_names}
        types = {name: "constexpr" if name in constants else type_of(given[name]) for name in kernel.arg_names}
        found[f"{kernel.__name__}({', '.join(f'{k}={v}' for k, v in constants.items())})"] = (
            kernel,
            types,
            constants,
            options,
        )

    JITFunction.run = note
    triton_support.runs_on = lambda device: True
    for name, changes in DRAWINGS:
        recipe = Recipe.from_dict({"generator": {"name": name}, "categories": 2, "instances": 4}, changes)
        DeviceDrawer(Drawer(recipe), torch.device("cpu")).draw_instances(np.array([0, 1]), np.array([0, 3]))
    return found


def type_of(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"*{TYPES[str(value.dtype).removeprefix('torch.')]}"
    if isinstance(value, float):
        return "fp32"
    assert isinstance(value, int), value
    return "i32" if -(2**31) <= value < 2**31 else "i64"


def compiled(architecture: int, found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    results = {}
    for name, (kernel, types, constants, options) in found.items():
        source = ASTSource(kernel, signature=types, constexprs=constants)
        ptx = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options).asm["ptx"]
        arithmetic = re.findall(r"\b(?:add|sub|mul|fma|mad|div|rcp|sqrt|rsqrt|ex2|lg2)[a-z0-9.]*\.f(?:32|64)\b", ptx)
        results[name] = {
            "fusion": options["enable_fp_fusion"],
            "arithmetic": sorted(set(arithmetic)),
            "atomics": sorted(set(re.findall(r"atom\.[a-z0-9.]+", ptx))),
            "local memory": "ld.local" in ptx or "st.local" in ptx,
        }
    return results


if __name__ == "__main__":
    noted = launches()
    json.dump({number: compiled(int(number), noted) for number in sys.argv[1:]}, sys.stdout, indent=1)
