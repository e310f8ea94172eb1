"""Trials of training: killed and resumed, a run's files damaged, odd and malicious checkpoints, comparisons killed."""

from __future__ import annotations

import csv
import functools
import json
import os
import pickle
import random
import shutil
import signal
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from campaign.stores import CRASHED, crash_at, kill, wait_until, wrong_interruption
from campaign.trial import Process, Trial, change_bytes, cli, damage, kept, run, tail, wrong_end

RECIPE = """generator: {name: perlin, grid: 2}
categories: 4
instances: 12
canvas: {size: 36, padding: 0}
"""
TRAINING = ["--model", "test_resnet", "--epochs", "2", "--batch-size", "16", "--learning-rate", "0.05"]
TRAINING += [part for setting in ("resize=36", "crop=32", "device=cpu") for part in ("--set", setting)]
COMPARISON = """
name: faults
arms:
  scratch: {}
  perlin: {recipe: {generator: {name: perlin, grid: 2}, categories: 4, instances: 12, canvas: {size: 36, padding: 0}}}
downstreams:
  digits: {kind: digits, train_per_class: 3, test_per_class: 3}
model: test_resnet
pretrain: &training {epochs: 2, batch_size: 16, resize: 36, crop: 32, device: cpu, checkpoint_minutes: 0}
finetune: *training
pictures: false
"""

Command = Callable[..., Callable[[], None]]


def pretrain(out: Path, *options: object, store: Path | None = None) -> Callable[[], None]:
    recipe = kept("recipe", lambda folder: (folder / "recipe.yaml").write_text(RECIPE)) / "recipe.yaml"
    source = ["--data", store] if store else ["--recipe", recipe]
    return cli("pretrain", *source, *TRAINING, "--out", out, *options)


def finetune(out: Path, *options: object, checkpoint: Path | None = None) -> Callable[[], None]:
    start = ["--checkpoint", checkpoint or complete("pretrain")]
    return cli(
        "finetune", *start, "--downstream", "digits", "--train-per-class", "3", *TRAINING, "--out", out, *options
    )


def complete(kind: str, *options: object) -> Path:
    """A run that nothing interrupted."""
    command: Command = pretrain if kind == "pretrain" else finetune
    name = "-".join(["run", kind, *(str(option).strip("-") for option in options)])
    return kept(name, lambda folder: command(folder / "run", *options)()) / "run"


def unfinished(kind: str) -> Path:
    """A run that was killed after a few steps, and can be resumed."""

    def make(folder: Path) -> None:
        steps = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal steps
            steps += event == "os.rename" and str(arguments[1]).endswith("last.ckpt")
            if steps == 4:
                os._exit(0)

        sys.addaudithook(hook)
        (pretrain if kind == "pretrain" else finetune)(folder / "run", "--set", "checkpoint_minutes=0")()

    return kept(f"unfinished-run-{kind}", make) / "run"


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


# Killed --------------------------------------------------------------------------------------------------------------


def kill_training(random: random.Random, seed: int, folder: Path) -> str | None:
    kind = ("pretrain", "finetune", "compare")[seed % 3]
    out = folder / "out"
    together: list[object] = []
    resume: list[object] = ["--resume"]
    command: Command
    if kind == "compare":
        (folder / "comparison.yaml").write_text(COMPARISON)
        command = functools.partial(cli, "compare", folder / "comparison.yaml", "--out", out)
        resume = []
    else:
        # Several processes make other weights, since each has its share of a batch.
        together = ["--devices", "2"] if random.random() < 0.1 else []
        free = [
            "--set",
            f"checkpoint_minutes={random.choice([0, 0, 10])}",
            "--set",
            f"workers={random.choice([0, 0, 2])}",
        ]
        command = functools.partial(pretrain if kind == "pretrain" else finetune, out, *together, *free)
    kinds: list[signal.Signals] = []
    for _ in range(random.choice([1, 1, 2, 3])):
        process = Process(command(*resume if kinds else []), folder / "killed.log")
        wait_until(random, process, out, most_files=30, seconds=12.0 if kind == "compare" or together else 5.0)
        kinds.append(kill(random, process))
        ended = process.wait()
        process.end_group()
        if flaw := wrong_interruption(ended, kinds[-1]):
            return f"{kind} {together}, {kinds[-1].name}: {flaw}"
    overwrite = random.random() < 0.25
    ended = run(command("--overwrite") if overwrite else command(*resume), out)
    flaw = wrong_end(ended, 0)
    if flaw is None and kind == "compare":
        found, expected = figures(out), figures(compared())
        flaw = None if found == expected else f"its table is {found} and not {expected}"
    elif flaw is None:
        flaw = None if weights(out) == weights(complete(kind, *together)) else "its weights are others"
    how = "--overwrite" if overwrite else "resumed"
    return flaw and f"{kind} {together}, {', '.join(k.name for k in kinds)}, {how}: {flaw}"


def compared() -> Path:
    """A comparison that nothing interrupted."""

    def make(folder: Path) -> None:
        (folder / "comparison.yaml").write_text(COMPARISON)
        cli("compare", folder / "comparison.yaml", "--out", folder / "out")()

    return kept("compared", make) / "out"


def figures(out: Path) -> list[dict[str, str]]:
    """Rows of a comparison's table, without times."""
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [
        {k: v for k, v in row.items() if "second" not in k and "minute" not in k and "time" not in k} for row in rows
    ]


# Killed before every file operation ----------------------------------------------------------------------------------

STATES = ("new", "resumed", "overwrite complete")


def begun(state: str, out: Path) -> Callable[[], None]:
    """Bring ``out`` into a state; returns the command that is then crashed."""
    if state != "new":
        shutil.copytree(unfinished("pretrain") if state == "resumed" else complete("pretrain"), out)
    option = {"new": [], "resumed": ["--resume"], "overwrite complete": ["--overwrite"]}[state]
    return pretrain(out, "--set", "checkpoint_minutes=0", *option)


def operations(state: str) -> int:
    """Number of file operations of pre-training in a state."""

    def count(folder: Path) -> None:
        out = folder / "out"
        ended = run(crash_at(0, begun(state, out), out), out)
        (folder / "count").write_text(ended.output.rpartition("operations: ")[2])

    return int((kept(f"operations-pretrain-{state.replace(' ', '-')}", count) / "count").read_text())


def crash_training(random: random.Random, seed: int, folder: Path) -> str | None:
    state = STATES[seed % len(STATES)]
    operation = 1 + seed // len(STATES) * 1009 % operations(state)
    out, copy = folder / "out", folder / "copy"
    ended = run(crash_at(operation, begun(state, out), out), out)
    where = f"{state}, before operation {operation}"
    if ended.status not in (0, CRASHED):
        return f"{where}: {wrong_end(ended, CRASHED)}"
    for way in ("--resume", "--overwrite"):
        shutil.rmtree(copy, ignore_errors=True)
        if out.exists():
            shutil.copytree(out, copy)
        flaw = wrong_end(run(pretrain(copy, way), copy), 0)
        if flaw is None and weights(copy) != weights(complete("pretrain")):
            flaw = "its weights are others"
        if flaw:
            return f"{where}, {way}: {flaw}"
    return None


# Damaged runs --------------------------------------------------------------------------------------------------------


def mutate_run(random: random.Random, seed: int, folder: Path) -> str | None:
    action = ("resume", "evaluate", "export", "finetune", "resume", "compare")[seed % 6]
    target, result = folder / "target", folder / "result"
    half = action == "resume" and random.random() < 0.8
    if action == "compare":
        shutil.copytree(compared(), target)
    elif half:
        shutil.copytree(unfinished("pretrain"), target)
    else:
        shutil.copytree(complete("finetune" if action == "evaluate" else "pretrain"), target)
    # Pictures and texts that are only looked at are made anew.
    suffixes = (".ckpt", ".yaml", ".json", ".safetensors", ".csv", ".npz", "", ".formulavision")
    files = sorted(path for path in target.rglob("*") if path.is_file() and path.suffix in suffixes)
    state = "unfinished" if half else "complete"
    what = f"{action}, {state}: {damage(random, target, random.choice(files))}"
    calls: dict[str, Callable[[], None]] = {
        "resume": pretrain(target, "--resume", "--set", "checkpoint_minutes=0"),
        "evaluate": cli("evaluate", "--checkpoint", target, "--downstream", "digits", "--out", result),
        "export": cli("export", target, "--out", result),
        "finetune": finetune(result, checkpoint=target),
        "compare": cli("compare", target.parent / "comparison.yaml", "--out", target),
    }
    (folder / "comparison.yaml").write_text(COMPARISON)
    ended = run(calls[action], result)
    # A comparison ends with 1 where a stage failed, which its table says.
    flaw = wrong_end(ended, 0, 2, *([1] if action == "compare" else []))
    if flaw is None and ended.status == 0 and (flaw := wrong_result(action, target, result)):
        flaw = f"succeeds, and {flaw}"
    return flaw and f"{what}: {flaw}"


def wrong_result(action: str, target: Path, result: Path) -> str | None:
    """What is wrong with the outcome of a command that succeeded on a damaged run."""
    if action == "compare":
        same = figures(target) == figures(compared())
    elif action == "evaluate":
        same = evaluation(result) == evaluation(evaluated())
    elif action == "export":
        same = same_tensors(result / "model.safetensors", complete("pretrain") / "model.safetensors")
    elif action == "finetune":
        same = weights(result) == weights(complete("finetune"))
    else:
        same = weights(target) == weights(complete("pretrain"))
    return None if same else "its figures or weights are others"


def evaluated() -> Path:
    def make(folder: Path) -> None:
        whole = complete("finetune")
        cli("evaluate", "--checkpoint", whole, "--downstream", "digits", "--out", folder / "result")()

    return kept("evaluated", make) / "result"


def evaluation(folder: Path) -> dict[str, Any]:
    """The figures of an evaluation, without what names the run's folder and times."""
    content = json.loads((folder / "evaluation.json").read_text())
    return {key: value for key, value in content.items() if isinstance(value, int | float) and "second" not in key}


def same_tensors(a: Path, b: Path) -> bool:
    import torch
    from safetensors.torch import load_file

    first, second = load_file(a), load_file(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# Checkpoints ---------------------------------------------------------------------------------------------------------

CONTAINERS = ("state_dict", "model", "net", "model_state_dict", "weights", "params", "ema", "network", "backbone")
PREFIXES = ("module.", "model.", "backbone.", "_orig_mod.", "encoder.", "net.", "student.", "a.b.c.")


class Malice:
    """Unpickled, it leaves a file behind."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


def checkpoints(random: random.Random, seed: int, folder: Path) -> str | None:
    canary = folder / "executed"
    path = folder / "weights"
    what = folder / "what"
    ended = run(lambda: load_odd(random, path, canary, what), folder, timeout=60)
    flaw = wrong_end(ended, 0, 2)
    if canary.exists():
        flaw = "code from the file was executed"
    told = what.read_text() if what.exists() else ""
    if flaw is None and ended.status == 2 and told.startswith("sound"):
        flaw = f"is refused: {tail(ended)}"
    return flaw and f"{told}: {flaw}"


def load_odd(random: random.Random, path: Path, canary: Path, what: Path) -> int:
    """Write an odd checkpoint and load it into a model; what is loaded must be what was written."""
    import timm
    import torch
    from safetensors.torch import save_file

    from formulavision import load_checkpoint
    from formulavision.util.errors import CheckpointError

    torch.manual_seed(random.randrange(2**31))
    source = timm.create_model("test_resnet", num_classes=7)
    for parameter in source.parameters():
        torch.nn.init.uniform_(parameter, -1, 1)
    state: dict[str, Any] = dict(source.state_dict())
    original = dict(state)
    story, sound = [], True
    kind = random.choice(["sound", "sound", "tensors", "tensors", "bytes", "bytes", "malice"])
    for _ in range(random.choice([0, 1, 1]) if kind == "sound" else 0):
        prefix = random.choice(PREFIXES)
        state = {prefix + name: tensor for name, tensor in state.items()}
        story.append(f"prefix {prefix}")
    if kind == "tensors":
        sound = False
        for name in random.sample(list(state), random.choice([1, 1, 3, 40])):
            tensor = state[name]
            change = random.choice(["missing", "half", "nan", "inf", "shape", "double", "int", "none", "text", "empty"])
            story.append(f"{name} {change}")
            if change == "missing":
                del state[name]
            else:
                state[name] = {
                    "half": lambda t: t.half(), "nan": lambda t: torch.full_like(t.float(), float("nan")),
                    "inf": lambda t: torch.full_like(t.float(), float("inf")), "shape": lambda t: t.reshape(-1)[:-1],
                    "double": lambda t: t.double(), "int": lambda t: t.int(), "none": lambda t: None,
                    "text": lambda t: "x", "empty": lambda t: t.reshape(-1)[:0],
                }[change](tensor)  # fmt: skip
    if kind == "malice":
        sound = False
        state[random.choice(["fc.weight", "extra", "optimizer"])] = Malice(canary)
    content: Any = state
    for _ in range(random.choice([0, 1, 1, 2])):
        name = random.choice(CONTAINERS)
        content = {name: content}
        if random.random() < 0.5:
            content |= {"epoch": 3, "acc": 93.1, "arch": "resnet"}
        story.append(f"in {name}")
    flat = content is state and all(isinstance(value, torch.Tensor) and value.numel() for value in state.values())
    if flat and random.random() < 0.5:
        path = path.with_suffix(".safetensors")
        save_file({name: tensor.clone().contiguous() for name, tensor in state.items()}, path)
    elif kind == "malice" and random.random() < 0.5:
        path = path.with_suffix(".pth")
        path.write_bytes(pickle.dumps(content, protocol=random.choice([0, 2, 4])))
    else:
        path = path.with_suffix(random.choice([".pth", ".pt", ".ckpt", ".bin"]))
        torch.save(content, path, _use_new_zipfile_serialization=random.random() < 0.8)
    if kind == "bytes":
        sound = False
        path.write_bytes(change_bytes(random, path.read_bytes()))
        story.append("bytes changed")
    what.write_text(f"{'sound' if sound else kind} {path.suffix}: {', '.join(story)[:200]}")
    model = timm.create_model("test_resnet", num_classes=3)
    try:
        load_checkpoint(path).load_into(model)
    except CheckpointError as error:
        print(f"error: {' '.join(str(error).split())}")
        return 2
    if kind == "bytes" and not zipfile.is_zipfile(path):
        return 0  # safetensors and torch's first format hold no checksums: a changed number cannot be told
    changed = {entry.split()[0]: entry.split()[1] for entry in story if kind == "tensors" and " " in entry}
    for name, tensor in model.state_dict().items():
        if name.startswith("fc.") or name.endswith("num_batches_tracked"):
            continue
        assert torch.isfinite(tensor).all(), f"{name} is not finite"
        # Half precision is what the file holds; of a tensor that was cut or removed, nothing can be said.
        if changed.get(name) in (None, "half", "double"):
            assert torch.allclose(tensor, original[name], atol=1e-3), f"{name} is loaded otherwise than it was written"
        else:
            assert changed[name] in ("missing", "none", "text"), f"{name} was {changed[name]}, and is loaded"
    return 0


TRIALS = [
    Trial("kill-training", "pretrain, finetune and compare killed at random moments, and resumed", 100, kill_training),
    Trial(
        "crash-training",
        "pretrain killed before every file operation, new, resumed, overwriting",
        lambda: len(STATES) * max(map(operations, STATES)),
        crash_training,
    ),
    Trial("mutate-run", "a file of a run changed: resume, evaluate, export, finetune", 300, mutate_run, short=1),
    Trial("checkpoints", "odd, damaged and malicious files of weights", 300, checkpoints, short=2),
]
