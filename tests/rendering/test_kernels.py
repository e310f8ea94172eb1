"""The cache of compiled kernels: it sees every change of what was compiled, and is never in the way of drawing."""

from __future__ import annotations

import errno
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from cases import slow
from numba.core import config

from formulavision.rendering import kernels

ROOT = Path(__file__).parents[2]

# Three modules deep: a function, a method of access each, and constants of several kinds.
MODULES = {
    "drawing_top": """
from formulavision.rendering import kernel
import drawing_middle
from drawing_middle import SHIFT
from drawing_bottom import TABLE, Corner

@kernel
def draw(x):
    return drawing_middle.scaled(x) + SHIFT + TABLE[1] + Corner.LEFT.value
""",
    "drawing_middle": """
from numba import float64, njit
from numba.extending import intrinsic
from formulavision.rendering import kernel
import drawing_bottom
from drawing_bottom import below

SHIFT = 100.0
WEIGHTS = (1.0, (2.0, 3.0))

@intrinsic
def added(typing, x, y):
    def generate(context, builder, signature, arguments):
        return builder.fadd(*arguments)
    return float64(float64, float64), generate

@njit(inline="always")
def inlined(x):
    return added(x, 1.0)

@kernel(error_model="numpy")
def scaled(x):
    return WEIGHTS[1][1] * inlined(below(x)) + drawing_bottom.deep.OFFSET
""",
    "drawing_bottom": """
import enum
import numpy as np
from formulavision.rendering import kernel
import drawing_constants as deep

TABLE = np.array([10.0, 20.0])

class Corner(enum.IntEnum):
    LEFT = 1

def make(power):
    @kernel
    def raised(x, more=deep.DEFAULT):
        return x ** power + more
    return raised

below = make(2)
""",
    "drawing_constants": """
OFFSET = 0.5
DEFAULT = 0.0
""",
}


class Modules:
    """Modules in a folder, imported anew as another process would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, source in MODULES.items():
            (folder / f"{name}.py").write_text(source)

    def edit(self, module: str, old: str, new: str) -> None:
        path = self.folder / f"{module}.py"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def load(self) -> ModuleType:
        for name in MODULES:
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return importlib.import_module("drawing_top")

    def files(self) -> list[Path]:
        return sorted(self.folder.rglob("*.nbc"))


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Modules]:
    monkeypatch.syspath_prepend(tmp_path)
    # Python itself takes a source of the same size and second for the same.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))  # which new processes read
    yield Modules(tmp_path)
    for name in MODULES:
        sys.modules.pop(name, None)


def test_what_was_compiled_is_read_by_the_next_process(modules: Modules) -> None:
    first = modules.load()
    value = first.draw(3.0)
    assert value == 3 * (3.0**2 + 1) + 0.5 + 100 + 20 + 1
    assert sum(first.draw.stats.cache_misses.values()) == 1
    again = modules.load()
    assert again.draw is not first.draw
    assert again.draw(3.0) == value
    assert sum(again.draw.stats.cache_hits.values()) == 1


def test_copies_of_the_same_code_share_what_was_compiled(
    modules: Modules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wheel and a checkout, or two environments: compiled once for each version, without a file beside the source."""
    value = modules.load().draw(3.0)
    for shift in ("100.0", "7.0"):
        (tmp_path / shift).mkdir()
        copy = Modules(tmp_path / shift)
        copy.edit("drawing_middle", "SHIFT = 100.0", f"SHIFT = {shift}")
        monkeypatch.syspath_prepend(copy.folder)
        top = copy.load()
        assert Path(top.__file__ or "").parent == copy.folder
        assert top.draw(3.0) == value - 100 + float(shift)
        assert bool(top.draw.stats.cache_hits) == (shift == "100.0")
        assert not copy.files()


EDITS = {
    "a function of another module": ("drawing_middle", "inlined(below(x))", "inlined(-below(x))", -54),
    "what is inlined": ("drawing_middle", "x, 1.0", "x, 2.0", 3),
    "an instruction of LLVM": ("drawing_middle", "builder.fadd", "builder.fmul", -3),
    "a constant of another module": ("drawing_middle", "SHIFT = 100.0", "SHIFT = 101.0", 1),
    "the inside of a tuple": ("drawing_middle", "3.0))", "4.0))", 10),
    "an array": ("drawing_bottom", "20.0", "22.0", 2),
    "a member of an enumeration": ("drawing_bottom", "LEFT = 1", "LEFT = 2", 1),
    "the third module": ("drawing_bottom", "x ** power", "x * power", -9),
    "a closure": ("drawing_bottom", "make(2)", "make(3)", 54),
    "a default": ("drawing_constants", "DEFAULT = 0.0", "DEFAULT = 1.0", 3),
    "an attribute of a module's module": ("drawing_constants", "OFFSET = 0.5", "OFFSET = 1.5", 1),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_change_anywhere_is_seen(modules: Modules, edit: str) -> None:
    before = modules.load().draw(3.0)
    *change, difference = EDITS[edit]
    modules.edit(*change)
    assert modules.load().draw(3.0) - before == difference


def test_options_of_a_kernel_belong_to_it(modules: Modules) -> None:
    kept = modules.load()
    kept.draw(3.0)
    modules.edit("drawing_middle", 'error_model="numpy"', "fastmath=True")
    again = modules.load()
    again.draw(3.0)
    assert not again.draw.stats.cache_hits


@pytest.mark.slow
def test_a_plugin_sees_a_change_in_the_kernels_of_the_framework(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In processes of their own, with a copy of the framework that is upgraded in place."""
    package = tmp_path / "formulavision"
    for source in ["__init__.py*", "rendering/*.py*", "util/*.py"]:
        for path in (ROOT / "formulavision").glob(source):
            target = package / path.relative_to(ROOT / "formulavision")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    (tmp_path / "plugin.py").write_text(
        "from formulavision import rendering\n"
        "@rendering.kernel\n"
        "def draw(n):\n    return rendering.random.philox4x32(n, 0, 0, 0, 0, 0)[0]\n"
    )
    command = [sys.executable, "-B", "-c", "import plugin; print(plugin.draw(1), bool(plugin.draw.stats.cache_hits))"]

    def run() -> list[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, check=True).stdout.split()

    first, again = run(), run()
    assert first[0] == again[0] and (first[1], again[1]) == (b"False", b"True")
    kernels_of_ours = package / "rendering" / "random.py"
    kernels_of_ours.write_text(kernels_of_ours.read_text().replace("_ROUNDS = 10", "_ROUNDS = 11"))
    assert run()[0] != first[0]


def test_what_is_edited_while_a_process_runs_is_not_mistaken_for_what_it_imported(modules: Modules) -> None:
    running = modules.load()
    modules.edit("drawing_middle", "SHIFT = 100.0", "SHIFT = 200.0")
    before = running.draw(3.0)  # compiled now, from what was imported before the edit
    assert modules.load().draw(3.0) == before + 100


def test_a_constant_that_changes_under_way_is_not_kept(modules: Modules) -> None:
    running = modules.load()
    running.draw(3.0)
    number = len(modules.files())
    running.draw.py_func.__globals__["SHIFT"] = 500.0
    running.draw(np.float32(3))  # numba reads the constant again for another type
    assert len([file for file in modules.files() if file.name.startswith("draw.")]) == 1
    assert len(modules.files()) > number  # the others have not changed
    assert modules.load().draw(np.float32(3)) == 151.5


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "one byte": lambda content: content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
    "garbage": lambda content: b"\x80\x04garbage" * 1000,
    "another file's": lambda content: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_replaced(modules: Modules, damage: str) -> None:
    value = modules.load().draw(3.0)
    files = modules.files()
    whole = {file: file.read_bytes() for file in files}
    for file, other in zip(files, files[1:] + files[:1], strict=True):
        file.write_bytes(whole[other] if damage == "another file's" else DAMAGES[damage](whole[file]))
    assert modules.load().draw(3.0) == value
    assert modules.files() == files
    third = modules.load()
    assert third.draw(3.0) == value and third.draw.stats.cache_hits


def test_files_in_the_way_of_folders_and_folders_in_the_way_of_files(
    modules: Modules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FORMULAVISION_CACHE", str(tmp_path / "user"))
    value = modules.load().draw(3.0)
    for file in modules.files():
        file.unlink()
        file.mkdir()
    assert modules.load().draw(3.0) == value
    assert list((tmp_path / "user").rglob("*.nbc"))
    assert Path(modules.load().draw.stats.cache_path) == tmp_path / "cache" / "drawing_top"
    assert not caplog.records


@pytest.mark.parametrize("trouble", ["no folder can be made", "the disk is full"])
def test_without_a_place_it_is_compiled_in_memory_and_said_once(
    modules: Modules,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    trouble: str,
) -> None:
    monkeypatch.setattr(kernels, "_warned", [])
    monkeypatch.setenv("FORMULAVISION_CACHE", str(tmp_path / "user"))
    if trouble == "the disk is full":

        def full(self: Path, content: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

        monkeypatch.setattr(Path, "write_bytes", full)
    else:
        (tmp_path / "user").touch()
        (tmp_path / "cache").touch()
    assert modules.load().draw(3.0) == modules.load().draw(3.0)
    (record,) = caplog.records
    line = record.getMessage()
    assert "NUMBA_CACHE_DIR" in line and str(tmp_path / "user") in line and "\n" not in line
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix not in ("", ".py")]


def test_a_kernel_without_a_file_is_kept_in_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.setenv("FORMULAVISION_CACHE", str(tmp_path))

    def cell(code: str) -> dict[str, object]:
        namespace: dict[str, object] = {"__name__": "__main__"}
        exec(compile(code, "<cell 1>", "exec"), namespace)
        return namespace

    source = "from formulavision.rendering import kernel\nK = 2.0\n@kernel\ndef f(x):\n    return K * x\n"
    assert cell(source)["f"](3.0) == 6.0  # type: ignore[operator]
    again = cell(source)["f"]
    assert again(3.0) == 6.0 and again.stats.cache_hits  # type: ignore[operator,attr-defined]
    assert cell(source.replace("2.0", "4.0"))["f"](3.0) == 12.0  # type: ignore[operator]


def test_arguments_that_their_types_text_does_not_tell_are_compiled_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fields of a named tuple and the body of a function are not in the text of their types."""
    monkeypatch.setenv("FORMULAVISION_CACHE", str(tmp_path))
    source = (
        "from collections import namedtuple\nfrom formulavision.rendering import kernel\n"
        "Point = namedtuple('Point', 'x y')\n"
        "@kernel\ndef f(p):\n    return p.x\n@kernel\ndef g():\n    return 1\n@kernel\ndef h(g):\n    return g()\n"
    )

    def values(code: str) -> tuple[float, int]:
        namespace: dict[str, object] = {"__name__": "__main__"}
        exec(compile(code, "<cell 2>", "exec"), namespace)
        point = namespace["Point"](1.0, 2.0)  # type: ignore[operator]
        return namespace["f"](point), namespace["h"](namespace["g"])  # type: ignore[operator]

    assert values(source) == (1.0, 1)
    assert values(source.replace("'x y'", "'y x'").replace("return 1", "return 2")) == (2.0, 2)


def test_files_of_a_function_do_not_grow_without_end(modules: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_MOST_FILES", 3)
    for shift in range(100, 106):
        modules.load().draw(1.0)
        modules.edit("drawing_middle", f"SHIFT = {shift}.0", f"SHIFT = {shift + 1}.0")
    assert len([file for file in modules.files() if file.name.startswith("draw.")]) == 3


@pytest.mark.parametrize("delay", [0.3, *slow(0.1, 0.6)])
def test_an_interrupt_while_a_kernel_compiles_is_not_lost(modules: Modules, delay: float) -> None:
    code = (
        "import os, signal, threading, time, drawing_top\n"
        f"threading.Timer({delay}, os.kill, [os.getpid(), signal.SIGINT]).start()\n"
        "try:\n    drawing_top.draw(3.0)\n    time.sleep(20)\n"
        "except KeyboardInterrupt:\n    print('interrupted')\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{modules.folder}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


@pytest.mark.slow
def test_processes_that_compile_at_once_do_not_meet(modules: Modules) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{modules.folder}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-c", "import drawing_top; print(drawing_top.draw(3.0))"]
    started = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)
    ]
    assert {process.communicate() for process in started} == {(b"151.5\n", b"")}
    assert {file.suffix for file in (modules.folder / "cache" / "drawing_top").iterdir()} == {".nbc"}


def test_every_kernel_of_ours_is_cached_so() -> None:
    sources = [*(ROOT / "formulavision").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]
    own = [path for path in sources if re.search(r"@\w*\.?njit|cache=True\)", path.read_text())]
    assert not [path for path in own if path.name != "kernels.py"]
