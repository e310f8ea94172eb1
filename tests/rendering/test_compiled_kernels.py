"""The kernels for GPUs as a GPU will run them, on machines without one: that they compile, and with what arithmetic."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is not here: it comes with torch on Linux")

ROUNDED = {"add.rn", "sub.rn", "mul.rn", "div.rn", "sqrt.rn"}
"""Rounded once each, as IEEE 754 and so the CPU does; .ftz only takes numbers below 1e-38 for 0."""


@pytest.fixture(scope="module")
def compiled() -> dict[str, dict[str, dict[str, Any]]]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = Path(__file__).with_name("compiled_kernels.py")
    command = [sys.executable, str(script), "80", "90"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-4000:]
    return json.loads(ended.stdout)


@pytest.mark.parametrize("architecture", ["80", "90"])
def test_every_kernel_compiles_and_rounds_as_the_cpu_does(
    compiled: dict[str, dict[str, dict[str, Any]]], architecture: str
) -> None:
    kernels = compiled[architecture]
    assert {name.partition("(")[0] for name in kernels} == {
        "_mark_orbits",
        "_mark_published_orbits",
        "_shade",
        "_draw_perlin",
        "_curve_points",
        "_draw_polylines",
    }
    for name, kernel in kernels.items():
        arithmetic = {operation.rpartition(".")[0].replace(".ftz", "") for operation in kernel["arithmetic"]}
        assert arithmetic <= ROUNDED, name
        assert kernel["fusion"] is False, name
        assert not kernel["local memory"], name
    assert any(kernel["atomics"] for kernel in kernels.values())
