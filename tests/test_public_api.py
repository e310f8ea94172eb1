from __future__ import annotations

import importlib
import subprocess
import sys
from types import ModuleType

import formulavision


def test_every_public_name_is_what_it_says_even_after_all_modules_were_imported() -> None:
    for module in set(formulavision._PUBLIC.values()):
        importlib.import_module(module)
    assert [name for name in formulavision.__all__ if isinstance(getattr(formulavision, name), ModuleType)] == []


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, formulavision; assert not {'torch', 'numba', 'numpy', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
