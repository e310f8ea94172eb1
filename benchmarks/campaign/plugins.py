"""Trials of generators that misbehave: they end in one line, or in a store that ``verify`` judges rightly."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from campaign.trial import Ended, Trial, run, tail, wrong_end

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

RAISING = """
import sys; sys.exit(0)
import sys; sys.exit(3)
raise SystemExit('bye')
import os; os.chdir('/')
raise ValueError('two\\nlines')
raise KeyError
raise MemoryError
raise RecursionError
1 / 0
raise BaseException('odd')
raise GeneratorExit
raise StopIteration
raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})()
assert False
raise OSError(28, 'full')
raise UnicodeDecodeError('x', b'', 0, 1, 'y')
f = lambda: f(); f()
import warnings; warnings.warn('noise')
print('noise' * 100)
import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)
import os; os.environ.clear()
import numpy; numpy.random.seed(1)
import random; random.seed(1)
import logging; logging.basicConfig(level=10)
import gc; gc.disable()
import os; os.close(0)
import threading; threading.Thread(target=print, args=('noise',)).start()
""".strip().splitlines()
PICTURES = """
return None
return image.astype(float)
return image.tolist()
return image[:-1]
return image[None]
return np.stack([image] * 4, -1)
return image.astype(np.int64) + 300
return image * np.nan
return 'x'
return np.asfortranarray(image)
return image[::-1]
return np.ma.array(image)
return image > 3
return b''
return np.array(object())
return image.view(np.int8)
return iter(image)
import torch; return torch.ones(32)
return (image, image)
yield image
""".strip().splitlines()
ORDER = """
image += np.uint8(self.calls % 50)
category.parameters[0, 0] += 1; image[:] = category.parameters[0, 0] * 3 % 200
image[:] = np.random.randint(200)
import random; image[:] = random.randrange(200)
import os; image[0, :2] = os.getpid() % 256, os.getpid() // 256 % 256
import time; image[:] = time.time_ns() // 1000 % 200
self.params.__dict__['x'] = self.params.__dict__.get('x', 0) + 1; image[:] = self.params.__dict__['x'] % 200
type(self).count = getattr(type(self), 'count', 0) + 1; image[:] = type(self).count % 200
STATE.append(1); image[:] = len(STATE) % 200
last, self.last = getattr(self, 'last', 0), instance; image[:] = last * 11 % 200
image[:] = id(self) // 16 % 200
""".strip().splitlines()
"""What makes an image depend on when, where or after which other image it is drawn."""
CATEGORIES = """
return [float('nan'), 1]
return None
return {}
return []
return 'abc'
return [[1], [1, 2]]
return [1] * (index + 1)
return [1e400]
return [index, object()]
return [1 + 2j]
return [[[1]]]
return np.array([True])
return iter([1, 2])
return [None, 1]
return np.zeros((0, 2))
return [-np.inf, 1]
return np.random.random(2)
""".strip().splitlines()
ATTRIBUTES = """
version = 'x'
version = None
contract = 99
name = 'ifs'
name = 'A b'
name = None
name = '../x'
Params = None
Params = dict
columns = 5
columns = ('a', 'a', 'b')
default_instances = -1
default_instances = 'x'
max_categories = lambda self: 0
max_categories = lambda self: 'x'
max_instances = lambda self: -1
max_instances = lambda self: 1 / 0
instance_name = lambda self, i: 'same'
instance_name = lambda self, i: i
instance_name = lambda self, i: f'../{i}'
instance_name = lambda self, i: f'a/{i}'
shared_work = lambda self, i: None
shared_work = lambda self, i: i[:1]
shared_work = lambda self, i: i * np.nan
categories = lambda self, n: iter([])
categories = lambda self, n: None
categories_are_independent = None
""".strip().splitlines()
CHOICES = {"raises": RAISING, "picture": PICTURES, "order": ORDER, "category": CATEGORIES, "attribute": ATTRIBUTES}
PLACES = {"picture": "render", "order": "render", "category": "category", "attribute": "attributes"}


def plugins(random: random.Random, seed: int, folder: Path) -> str | None:
    parts = dict.fromkeys(("module", "attributes", "init", "category", "render", "hook"), "pass")
    kind = random.choice(["raises", "raises", "picture", "order", "order", "category", "attribute"])
    where = PLACES.get(kind) or random.choice(["module", "init", "category", "render", "hook"])
    parts[where] = random.choice(CHOICES[kind])
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


def with_plugin(site: Path, folder: Path, *arguments: str) -> Ended:
    command = [sys.executable, "-m", "formulavision", *arguments]
    return run(command, folder, timeout=90, environment={"PYTHONPATH": str(site)})


TRIALS = [
    Trial("plugins", "a generator that misbehaves: one line, or a store that verify judges rightly", 150, plugins)
]
