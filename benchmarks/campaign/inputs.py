"""Trials of what users bring: configuration files, category files, image folders, plugins."""

from __future__ import annotations

import difflib
import random
import re
import resource
import shutil
import sys
from pathlib import Path
from typing import Any

from campaign.trial import Trial, change_bytes, cli, kept, run, tail, wrong_end

REPOSITORY = Path(__file__).parents[2]
_MEMORY = 500_000_000
_SECONDS = 2.0

# Configuration files -------------------------------------------------------------------------------------------------

RECIPE = b"""generator:
  name: ifs
  dots: 2000
  patch: point
categories: 4
instances: 3
canvas: {size: 32, padding: 1, channels: 1}
seed: 1
"""

VALUES = [
    *(
        "yes",
        "no",
        "on",
        "off",
        "~",
        "",
        "null",
        "[]",
        "{}",
        "1e400",
        "-1",
        "0",
        ".inf",
        ".nan",
        "0x10",
        "0o17",
        "1_000",
    ),
    *("12:30:00", "2024-01-01", "!!int ''", "!!binary abc", "!!python/object:os.system x", "!!set {a}", "*anchor"),
    *(
        "'text'",
        '"\\0"',
        "[[[1]]]",
        "{a: {b: {c: 1}}}",
        "true",
        "1.5",
        "&a [*a]",
        "- 1",
        "? x",
        "|",
        "> text",
        "=",
        "<<",
    ),
    *("9" * 5000, "1" + "0" * 400, "[" * 500, "{a: " * 300, "x" * 100_000, "\u0000", "\U0001f600", "\ufeff", "\u2028"),
]
BOMB = "\n".join([f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" if i else "a0: &a0 [x, x, x, x]" for i in range(9)])
PIECES = [
    "&a ",
    "*a",
    "<<: *a",
    "!!int ",
    "!!float ",
    "!!str ",
    "%YAML 1.1\n---\n",
    "---\n",
    "...\n",
    "\t",
    "? ",
    "- ",
    BOMB,
]


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
            lines[place] = (
                b" " * random.randint(1, 8) + lines[place] if random.random() < 0.7 else lines[place].lstrip()
            )
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
    comparison = b"\narms:" in old
    ended = run(lambda: load_config(path, comparison), folder, timeout=30, limits={resource.RLIMIT_AS: _space()})
    flaw = wrong_end(ended, 0, 2)
    if flaw is None and ended.cpu_seconds > _SECONDS:
        flaw = f"takes {ended.cpu_seconds:.1f} s"
    if flaw is None:
        return None
    texts = [data.decode(errors="replace").splitlines() for data in (old, new)]
    lines = [
        line[:200]
        for line in difflib.unified_diff(*texts, lineterm="", n=0)
        if not line.startswith(("---", "+++", "@@"))
    ]
    return f"{path.name}: {flaw}\n" + "\n".join(lines[:12])


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

CELLS = [
    "nan",
    "inf",
    "-inf",
    "1e308",
    "1e-320",
    "",
    " ",
    "x",
    "0x1",
    "1,5",
    '"1"',
    "1_0",
    "٣",
    "-0",
    "1e5",
    "0",
    "-1",
    "5",
]


def csvs(random: random.Random, seed: int, folder: Path) -> str | None:
    import csv

    def make(target: Path) -> None:
        cli("categories", "--plugin", "ifs", "--categories", "3", "--out", target / "cats")()

    out = folder / "cats"
    shutil.copytree(kept("categories", make) / "cats", out)
    path = random.choice(sorted(out.glob("*.csv")))
    if random.random() < 0.4:
        path.write_bytes(change_bytes(random, path.read_bytes()))
    else:
        rows = [line.split(",") for line in path.read_text().splitlines()]
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
        text = random.choice(["\n", "\r\n"]).join(random.choice([",", ",", ",", ";", ", "]).join(row) for row in rows)
        path.write_text(text)
    if random.random() < 0.1:
        path.rename(path.with_name(random.choice(["a.b.csv", "-.csv", " .csv", "é.csv", "x" * 200 + ".csv", "=1.csv"])))
    store = folder / "store"
    call = cli(
        "generate", "--plugin", "ifs", "--categories-from", out, "--instances", "1", "--size", "32", "--workers", "1",
        "--set", "generator.dots=1000", "--out", store,
    )  # fmt: skip
    ended = run(call, store, timeout=60)
    flaw = wrong_end(ended, 0, 2)
    if flaw is None and ended.status == 0:
        flaw = wrong_end(run(cli("verify", store), store), 0)
        for file in out.glob("*.csv"):
            numbers = [float(cell) for row in csv.reader(file.open()) for cell in row]
            if any(number != number or abs(number) == float("inf") for number in numbers):
                flaw = "a category that is no number is drawn"
    return flaw and f"{flaw}\n--- the file begins:\n{next(iter(out.glob(path.name)), path).name}: {_begin(out)}"


def _begin(out: Path) -> str:
    return " | ".join(repr(path.read_bytes()[:150]) for path in sorted(out.glob("*.csv")))


# Image folders -------------------------------------------------------------------------------------------------------


def images(random: random.Random, seed: int, folder: Path) -> str | None:
    from PIL import Image

    root = folder / "data"
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for i in range(2):
                Image.frombytes("RGB", (12, 9), random.randbytes(324)).save(root / part / name / f"{i}.png")
    name = random.choice(["train/cat/0", "train/dog/1", "test/cat/0", "test/dog/1"])
    path, told = write_odd_image(random, root / f"{name}.png")
    ended = run(lambda: read_folder(root, path, folder / "pixels"), folder, timeout=60)
    flaw = wrong_end(ended, 0, 2)
    if flaw is None and ended.status == 2 and path.name not in ended.output:
        flaw = f"does not name {path.name}: {tail(ended)}"
    if flaw is None and ended.status == 0:
        flaw = wrong_pixels(told, folder / "pixels")
    return flaw and f"{path.name}, {told['what']}: {flaw}"


def write_odd_image(random: random.Random, path: Path) -> tuple[Path, dict[str, Any]]:
    """Replace an image by an odd or damaged one; returns its path, and what it must be read as, where that is sure."""
    import numpy as np
    from PIL import Image

    suffix = random.choice([".png", ".png", ".jpg", ".bmp", ".gif", ".tif", ".webp", ".ppm"])
    target = path.with_suffix(suffix)
    path.unlink()
    kind = random.choice(["damaged", "damaged", "damaged", "mode", "mode", "deep", "empty", "suffix", "text", "folder"])
    mode = random.choice(["RGB", "L", "1", "P", "RGBA", "LA", "CMYK"]) if kind == "mode" else "RGB"
    pixels = np.frombuffer(random.randbytes(324), np.uint8).reshape(9, 12, 3)
    picture = Image.fromarray(pixels).convert(mode)
    told: dict[str, Any] = {"what": f"{kind} {mode}"}
    if kind == "deep":
        # 16-bit gray: 0 to 65535, which must become 0 to 255 or be refused.
        deep = np.frombuffer(random.randbytes(216), "<u2").reshape(9, 12)
        target = path.with_suffix(random.choice([".png", ".tif"]))
        Image.fromarray(deep.astype(np.uint16)).save(target)
        return target, {"what": "16-bit gray", "near": (deep / 257.0)[:, :, None].repeat(3, 2).tolist()}
    if kind in ("empty", "text", "folder"):
        target.mkdir() if kind == "folder" else target.write_bytes(b"" if kind == "empty" else b"<html></html>")
        return target, told
    form = {".jpg": "JPEG", ".tif": "TIFF", ".ppm": "PPM"}.get(suffix, suffix[1:].upper())
    if kind == "suffix":
        form = random.choice(["PNG", "JPEG", "GIF", "BMP"])
    try:
        picture.save(target, form)
    except OSError:  # the format has not this mode
        picture = picture.convert("RGB")
        picture.save(target, form)
    if kind == "damaged":
        target.write_bytes(change_bytes(random, target.read_bytes()))
    elif form in ("PNG", "BMP", "TIFF"):  # without loss
        told["exact"] = np.asarray(picture.convert("RGB")).tolist()
    return target, told


def read_folder(root: Path, odd: Path, pixels: Path) -> int:
    """Read all images of a downstream folder; leave those of ``odd`` as an array."""
    import numpy as np

    from formulavision.data.downstream import open_downstream
    from formulavision.util.errors import DownstreamError

    try:
        opened = open_downstream(f"folder:{root}")
        for side in (opened.train, opened.test):
            for index in range(len(side)):
                image, _ = side[index]
                if side is (opened.train if "train" in odd.parts else opened.test) and index == _index(odd):
                    np.save(pixels.with_suffix(".npy"), np.asarray(image))
    except DownstreamError as error:
        print(f"error: {' '.join(str(error).split())}")
        return 2
    return 0


def _index(odd: Path) -> int:
    return 2 * (odd.parent.name == "dog") + int(odd.stem)


def wrong_pixels(told: dict[str, Any], pixels: Path) -> str | None:
    import numpy as np

    file = pixels.with_suffix(".npy")
    if not file.is_file() or not ("exact" in told or "near" in told):
        return None
    found = np.load(file).astype(float)
    if found.shape[0] == 3 and found.shape[-1] != 3:
        found = found.transpose(1, 2, 0)
    wanted = np.array(told.get("exact", told.get("near")), float)
    if found.shape != wanted.shape:
        return f"is read as {found.shape}, not {wanted.shape}"
    off = np.abs(found - wanted).max()
    return f"is read wrongly, by up to {off:.0f} gray levels" if off > ("near" in told) else None


# Plugins -------------------------------------------------------------------------------------------------------------

GOOD = """
import numpy as np
from formulavision import Generator, hookimpl

{module}

class Odd(Generator):
    name = "{name}"
    {attributes}

    def __init__(self, params, canvas, seed):
        super().__init__(params, canvas, seed)
        self.calls = 0
        {init}

    def category(self, index):
        {category}
        return [index, index + 0.5]

    def render(self, category, instance):
        self.calls += 1
        image = np.full((self.canvas.size, self.canvas.size), (7 * category.index + instance) % 200, np.uint8)
        {render}
        return image

class Hooks:
    @hookimpl
    @staticmethod
    def register_generators(register):
        {hook}
        register(Odd)
"""

RAISING = [
    *("import sys; sys.exit(0)", "import sys; sys.exit(3)", "raise SystemExit('bye')", "import os; os.chdir('/')"),
    *("raise ValueError('two\\nlines')", "raise KeyError", "raise MemoryError", "raise RecursionError", "1 / 0"),
    *("raise BaseException('odd')", "raise GeneratorExit", "raise StopIteration"),
    *(
        "raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})()",
        "assert False",
        "raise OSError(28, 'full')",
    ),
    *("f = lambda: f(); f()", "raise UnicodeDecodeError('x', b'', 0, 1, 'y')"),
    *("import warnings; warnings.warn('noise')", "print('noise' * 100)"),
    *("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"),
    *("import os; os.environ.clear()", "import numpy; numpy.random.seed(1)", "import random; random.seed(1)"),
    *("import logging; logging.basicConfig(level=10)", "import gc; gc.disable()", "import locale"),
]
PICTURES = [
    *("return None", "return image.astype(float)", "return image.tolist()", "return image[:-1]", "return image[None]"),
    *("return np.stack([image] * 4, -1)", "return image.astype(np.int64) + 300", "return image * np.nan", "return 'x'"),
    *(
        "return np.asfortranarray(image)",
        "return image[::-1]",
        "return np.ma.array(image)",
        "return image > 3",
        "return b''",
    ),
    *(
        "return np.array(object())",
        "return image.view(np.int8)",
        "return iter(image)",
        "import torch; return torch.ones(32)",
    ),
]
ORDER = [
    "image += np.uint8(self.calls % 50)",
    "category.parameters[0, 0] += 1; image[:] = category.parameters[0, 0] * 3 % 200",
    "image[:] = np.random.randint(200)",
    "import random; image[:] = random.randrange(200)",
    "import os; image[0, :2] = os.getpid() % 256, os.getpid() // 256 % 256",
    "import time; image[:] = time.time_ns() // 1000 % 200",
    "self.params.__dict__['x'] = self.params.__dict__.get('x', 0) + 1; image[:] = self.params.__dict__['x'] % 200",
    "type(self).version += 1; image[:] = type(self).version % 200",
    "STATE.append(1); image[:] = len(STATE) % 200",
]
"""What makes an image depend on when it is drawn."""
CATEGORIES = [
    *("return [float('nan'), 1]", "return None", "return {}", "return []", "return 'abc'", "return [[1], [1, 2]]"),
    *("return [1] * (index + 1)", "return [1e400]", "return [index, object()]", "return [1 + 2j]", "return [[[1]]]"),
    *(
        "return np.array([True])",
        "return iter([1, 2])",
        "return [None, 1]",
        "return np.zeros((0, 2))",
        "return [-np.inf, 1]",
    ),
]
ATTRIBUTES = [
    *(
        "version = 'x'",
        "version = None",
        "contract = 99",
        "name = 'ifs'",
        "name = 'A b'",
        "name = None",
        "Params = None",
    ),
    *("columns = 5", "columns = ('a', 'a', 'b')", "default_instances = -1", "default_instances = 'x'", "name = '../x'"),
    *("max_categories = lambda self: 0", "max_categories = lambda self: 'x'", "max_instances = lambda self: -1"),
    *(
        "max_instances = lambda self: 1 / 0",
        "instance_name = lambda self, i: 'same'",
        "instance_name = lambda self, i: i",
    ),
    *("instance_name = lambda self, i: f'../{i}'", "instance_name = lambda self, i: f'a/{i}'", "Params = dict"),
    *(
        "shared_work = lambda self, i: None",
        "shared_work = lambda self, i: i[:1]",
        "shared_work = lambda self, i: i * np.nan",
    ),
    *(
        "categories = lambda self, n: iter([])",
        "categories = lambda self, n: None",
        "categories_are_independent = None",
    ),
]


def plugins(random: random.Random, seed: int, folder: Path) -> str | None:
    parts = dict.fromkeys(("module", "attributes", "init", "category", "render", "hook"), "pass")
    kind = random.choice(["raises", "raises", "picture", "order", "order", "category", "attribute"])
    where = {"picture": "render", "order": "render", "category": "category", "attribute": "attributes"}.get(
        kind, random.choice(list(parts.keys() - {"attributes"}))
    )
    choices = {"raises": RAISING, "picture": PICTURES, "order": ORDER, "category": CATEGORIES, "attribute": ATTRIBUTES}
    parts[where] = random.choice(choices[kind])
    if random.random() < 0.3 and where in ("category", "render"):  # later, not at once
        parts[where] = f"if {'index' if where == 'category' else 'instance'} == 2: {parts[where]}"
    if kind == "order":
        parts["module"] = "STATE = []"
    site = folder / "site"
    (site / "odd-1.0.dist-info").mkdir(parents=True)
    (site / "odd_plugin.py").write_text(GOOD.format(name="odd-one", **parts) + "\nhooks = Hooks()\n")
    (site / "odd-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (site / "odd-1.0.dist-info/entry_points.txt").write_text("[formulavision]\nodd = odd_plugin:hooks\n")
    store = folder / "store"
    workers = random.choice(["1", "1", "2"])
    format = random.choice(["parquet", "webdataset", "imagefolder"])
    arguments = ["--plugin", "odd-one", "--categories", "3", "--instances", "4", "--size", "32", "--format", format]
    ended = with_plugin(site, folder, "generate", *arguments, "--workers", workers, "--out", str(store))
    flaw = wrong_end(ended, 0, 2)
    complete = (store / "manifest.json").is_file()
    if flaw is None and (ended.status == 0) != complete:
        flaw = f"exit status {ended.status}, and {'a' if complete else 'no'} store\n{tail(ended)}"
    if flaw is None and complete:
        verified = with_plugin(site, folder, "verify", str(store), "--all")
        flaw = wrong_end(verified, 0, 1, 2)
        if flaw is None and kind == "order" and verified.status == 0:
            flaw = "an image that depends on when it is drawn passes verify"
        if flaw is None and kind != "order" and verified.status:
            flaw = f"a store that was just generated does not pass verify: {tail(verified)}"
    return flaw and f"{where}: {parts[where]} ({format}, {workers} workers): {flaw}"


def with_plugin(site: Path, folder: Path, *arguments: str) -> Any:
    command = [sys.executable, "-m", "formulavision", *arguments]
    return run(command, folder, timeout=90, environment={"PYTHONPATH": str(site)})


TRIALS = [
    Trial(
        "configs",
        "a recipe or comparison file changed: loads or is refused, in 2 s and 500 MB",
        5000,
        configs,
        short=60,
    ),
    Trial("csvs", "a category file changed: drawn and verified, or refused", 200, csvs, short=3),
    Trial("images", "an image of a downstream folder damaged or odd: read rightly, or named", 300, images, short=5),
    Trial("plugins", "a generator that misbehaves: one line, or a store that verify judges rightly", 150, plugins),
]
