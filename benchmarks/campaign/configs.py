"""Trials of text files: recipes, comparisons and category files that editors, scripts and attackers changed."""

from __future__ import annotations

import csv
import difflib
import math
import os
import random
import re
import resource
import shutil
from pathlib import Path
from typing import Any

from campaign.stores import verify
from campaign.trial import Trial, change_bytes, cli, kept, run, wrong_end

REPOSITORY = Path(__file__).parents[2]
_MEMORY = 500_000_000
_SECONDS = 2.0

# Recipes and comparisons ---------------------------------------------------------------------------------------------

RECIPE = b"""generator:
  name: ifs
  dots: 2000
  patch: point
categories: 4
instances: 3
canvas: {size: 32, padding: 1, channels: 1}
seed: 1
"""

VALUES = r"""
yes
no
on
off
~
null
[]
{}
1e400
-1
0
.inf
.nan
0x10
0o17
1_000
12:30:00
2024-01-01
true
1.5
'text'
"\0"
=
<<
|
"
!!int ''
!!binary abc
!!python/object:os.system x
!!set {a}
*anchor
[[[1]]]
{a: {b: {c: 1}}}
&a [*a]
- 1
? x
> text
""".splitlines()
VALUES += ["9" * 5000, f"1{'0' * 400}", "[" * 500, "{a: " * 300, "x" * 100_000, "\0", "\U0001f600", "\ufeff"]
BOMB = "\n".join(["a0: &a0 [x, x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9))])
PIECES = ["&a ", "*a", "<<: *a", "!!int ", "!!str ", "%YAML 1.1\n---\n", "---\n", "...\n", "\t", "? ", "- ", BOMB]


def mutated_text(random: random.Random, data: bytes) -> bytes:
    """A few changes that an editor, a script or an attacker makes in a YAML file."""
    for _ in range(random.choice([1, 1, 1, 2, 3, 6])):
        lines = data.split(b"\n")
        place = random.randrange(len(lines))
        kind = random.choice(
            ["bytes", "remove", "double", "move", "indent", "value", "value", "value", "insert", "key"]
        )
        if kind == "bytes":
            data = change_bytes(random, data)
            continue
        if kind == "remove":
            del lines[place]
        elif kind == "double":
            lines.insert(place, lines[place])
        elif kind == "move":
            lines.insert(random.randrange(len(lines)), lines.pop(place))
        elif kind == "indent":
            lines[place] = b" " * random.choice([0, 1, 2, 3, 8]) + lines[place].lstrip()
        elif kind == "insert":
            at = random.randint(0, len(lines[place]))
            piece = random.choice(PIECES + VALUES).encode()
            lines[place] = lines[place][:at] + piece + lines[place][at:]
        else:
            value = random.choice(VALUES).encode()
            pattern = rb"[\w-]+(?=:)" if kind == "key" else rb"(?<=[:,\[] )[^\s,{}\[\]#]+"
            found = list(re.finditer(pattern, lines[place]))
            if found:
                match = random.choice(found)
                lines[place] = lines[place][: match.start()] + value + lines[place][match.end() :]
        data = b"\n".join(lines)
    return data


def odd_file(random: random.Random, path: Path) -> None:
    """Something else than a text file under the name of one."""
    path.unlink()
    match random.choice(["device", "loop", "folder", "absent", "fifo", "binary"]):
        case "device":
            path.symlink_to("/dev/zero")
        case "loop":
            path.symlink_to(path)
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "binary":
            path.write_bytes(random.randbytes(3000))


def configs(random: random.Random, seed: int, folder: Path) -> str | None:
    # Comparisons name recipes and lists by paths beside them.
    shutil.copytree(REPOSITORY / "configs", folder / "configs")
    path = folder / "configs/recipe.yaml"
    path.write_bytes(RECIPE)
    if random.random() < 0.5:
        path = random.choice(sorted(folder.rglob("*.yaml")))
    old = path.read_bytes()
    new = mutated_text(random, old)
    path.write_bytes(new)
    if random.random() < 0.02:
        odd_file(random, path)
    comparison = b"\narms:" in old
    ended = run(lambda: load_config(path, comparison), folder, timeout=30, limits={resource.RLIMIT_AS: _space()})
    flaw = wrong_end(ended, 0, 2)
    if flaw is None and ended.cpu_seconds > _SECONDS:
        flaw = f"takes {ended.cpu_seconds:.1f} s"
    if flaw is None:
        return None
    before, after = (data.decode(errors="replace").splitlines() for data in (old, new))
    difference = difflib.unified_diff(before, after, lineterm="", n=0)
    changed = [line[:200] for line in difference if line[:2] not in ("--", "++", "@@")]
    kind = path.lstat().st_mode if path.exists() or path.is_symlink() else "absent"
    return f"{path.name} ({kind}): {flaw}\n" + "\n".join(changed[:12])


def load_config(path: Path, comparison: bool) -> int:
    """Load a recipe or comparison; what loads must be the same after it is written and read again."""
    from formulavision import ConfigError, Recipe
    from formulavision.comparison import ComparisonSettings

    try:
        loaded: Any = ComparisonSettings.load(path) if comparison else Recipe.load(path)
    except ConfigError as error:
        print(f"error: {' '.join(str(error).split())}")
        return 2
    again = path.with_name("again.yaml")
    again.write_text(loaded.to_yaml())
    same = type(loaded).load(again)
    assert same.to_dict() == loaded.to_dict(), "is another after it was written and read again"
    return 0


def _space() -> int:
    """Address space of this process, and as much more as a command may need."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize() + _MEMORY


# Category files ------------------------------------------------------------------------------------------------------

CELLS = ["nan", "inf", "-inf", "1e308", "1e-320", "x", "0x1", "1,5", "'1'", "1_0", "٣", "-0", "0", "-1", "5", "", " "]
NAMES = ["a.b.csv", "-.csv", " .csv", "é.csv", f"{'x' * 200}.csv", "=1.csv", "CON.csv", "a\nb.csv", "..csv"]


def csvs(random: random.Random, seed: int, folder: Path) -> str | None:
    out, store = folder / "cats", folder / "store"
    made = kept(
        "categories",
        lambda target: cli("categories", "--plugin", "ifs", "--categories", "3", "--out", target / "cats")(),
    )
    shutil.copytree(made / "cats", out)
    path = random.choice(sorted(out.glob("*.csv")))
    if random.random() < 0.4:
        path.write_bytes(change_bytes(random, path.read_bytes()))
    else:
        path.write_text(mutated_table(random, path.read_text()))
    if random.random() < 0.1:
        path.rename(path.with_name(random.choice(NAMES)))
    small = ["--instances", "1", "--size", "32", "--workers", "1", "--set", "generator.dots=1000"]
    ended = run(cli("generate", "--plugin", "ifs", "--categories-from", out, *small, "--out", store), store, timeout=60)
    flaw = wrong_end(ended, 0, 2)
    if flaw is None and ended.status == 0:
        flaw = wrong_end(run(verify(store), store), 0)
        cells = [cell for file in out.glob("*.csv") for row in csv.reader(file.open()) for cell in row]
        if not all(math.isfinite(float(cell)) for cell in cells):
            flaw = "a category that is no number is drawn"
    files = " | ".join(f"{file.name} {file.read_bytes()[:150]!r}" for file in sorted(out.glob("*.csv")))
    return flaw and f"{flaw}\n{files}"


def mutated_table(random: random.Random, text: str) -> str:
    rows = [line.split(",") for line in text.splitlines()]
    for _ in range(random.choice([1, 1, 2, 4])):
        row = random.choice(rows)
        match random.choice(["cell", "cell", "cell", "drop", "more", "row", "rows", "header"]):
            case "cell" if row:
                row[random.randrange(len(row))] = random.choice(CELLS)
            case "drop" if row:
                row.pop()
            case "more":
                row.append("1")
            case "row" if len(rows) > 1:
                rows.remove(row)
            case "rows":
                rows += [list(row) for _ in range(random.choice([1, 300]))]
            case "header":
                rows.insert(0, list("abcdefp"[: len(row)]))
    return random.choice(["\n", "\r\n"]).join(random.choice([",", ",", ",", ";", ", "]).join(row) for row in rows)


TRIALS = [
    Trial("configs", "a recipe or comparison changed: loads or is refused, in 2 s and 500 MB", 5000, configs, short=15),
    Trial("csvs", "a category file changed: drawn and verified, or refused", 200, csvs, short=2),
]
