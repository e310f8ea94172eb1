"""Bad input ends in one clear line and exit status 2: no traceback, nothing half-written, nothing overwritten."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from formulavision.cli import app

Refused = Callable[..., str]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Run a command that must be refused; returns the one line on standard error."""
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments: object) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 2, result.output
        lines = [line for line in result.stderr.splitlines() if line.strip() and "━" not in line]
        assert len(lines) == 1, result.stderr
        assert lines[0].startswith("error: ")
        return lines[0]

    return run


def folder(root: Path, classes: dict[str, list[tuple[int, int]]], *parts: str) -> Path:
    """An image folder with random images of the given sizes."""
    for part in parts or ("train", "test"):
        for name, sizes in classes.items():
            (root / part / name).mkdir(parents=True, exist_ok=True)
            for i, size in enumerate(sizes):
                pixels = np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{i}.png")
    return root


# Drawing


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--plugin", "ifz"], "there is no generator 'ifz' (did you mean 'ifs'?)"),
        (["--plugin", "ifs", "--set", "generator.dot=5000"], "generator.dot: there is no such setting (did you mean"),
        (["--plugin", "ifs", "--categories", "0"], "categories.count: 0 is not allowed"),
        (["--plugin", "ifs", "--instances", "-3"], "instances: -3 is not allowed"),
        (["--plugin", "ifs", "--categories", "999999999999"], "categories.count: 999999999999 is not allowed"),
        (["--plugin", "ifs", "--size", "3"], "canvas.size: 3 is not allowed: must be greater than or equal to 8"),
        (["--plugin", "ifs", "--format", "imagefold"], "there is no such format (did you mean 'imagefolder'?)"),
        (["--plugin", "ifs", "--png", "compat"], "--png compat: there is no such encoding (did you mean 'compact'?)"),
        (["--plugin", "ifs", "--workers", "-1"], "--workers -1: must be 0 (one per core) or more"),
        (["--plugin", "ifs", "--categories-from", "/absent"], "categories.folder: /absent: no such folder"),
        (["/absent/recipe.yaml"], "/absent/recipe.yaml: No such file or directory"),
        (["--plugin", "ifs", "--device", "gpu"], "device: 'gpu' is not allowed: must be cpu or cuda"),
        (["--plugin", "ifs", "--device", "cuda:99"], "device: 'cuda:99' is not available on this machine"),
        ([], "give one recipe: the name of a generator"),
    ],
)
def test_generate_refuses(refused: Refused, tmp_path: Path, arguments: list[str], told: str) -> None:
    assert told in refused("generate", *arguments, "--out", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_recipe_with_a_wrong_type_is_refused_with_file_and_path(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("generator: {name: ifs, dots: plenty}\ninstances: 2.5\n")
    line = refused("generate", tmp_path / "recipe.yaml", "--out", tmp_path / "store")
    assert f"{tmp_path}/recipe.yaml: generator.dots: 'plenty' is not allowed: must be a valid integer" in line
    assert "instances: 2.5 is not allowed: must be a valid integer" in line


def test_a_folder_of_somebody_elses_is_refused(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    for overwrite in ([], ["--overwrite"]):
        line = refused("generate", "--plugin", "perlin", "--out", tmp_path, *overwrite)
        assert line.startswith(f"error: {tmp_path}: is not empty, and has no file .formulavision that says ")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_that_cannot_be_written_is_refused(refused: Refused) -> None:
    line = refused("generate", "--plugin", "perlin", "--out", "/proc/store")
    assert line.startswith("error: /proc/store")


def test_a_full_disk_is_told_in_one_line(refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "store"))

    monkeypatch.setattr("formulavision.storage.destinations.LocalDestination.finish", full)
    line = refused("generate", "--plugin", "perlin", "--categories", "1", "--instances", "1", "--workers", "1",
                   "--out", tmp_path / "store")  # fmt: skip
    assert "No space left on device; what was written so far is kept: run the same command again" in line


def test_a_picture_in_the_way_of_a_preview_stays(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "sheet.png").write_bytes(b"mine")
    assert "--overwrite" in refused("preview", "--plugin", "perlin", "--out", tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes() == b"mine"


@pytest.mark.parametrize("device", ["tpu", "cuda:99"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_done(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    from formulavision.data import bench
    from formulavision.recipes import drawing
    from formulavision.storage import generation

    for module in (bench, drawing, generation):
        monkeypatch.setattr(module, "Category" if module is bench else "find_categories", None)
    for command in ("generate", "preview"):
        told = refused(command, "--plugin", "ifs", "--device", device, "--out", tmp_path / "new" / "out")
        assert f"device: '{device}' is not" in told
    for named in (["--plugin", "ifs"], []):
        assert f"device: '{device}' is not" in refused("bench", *named, "--device", device)
    assert list(tmp_path.iterdir()) == []


def test_categories_in_the_way_stay(refused: Refused, tmp_path: Path) -> None:
    """Somebody's own are never overwritten; those that were written here, when that is asked for."""
    (tmp_path / "00000.csv").write_text("1,2\n")
    for overwrite in ([], ["--overwrite"]):
        told = refused("categories", "--plugin", "perlin", "--out", tmp_path, *overwrite)
        assert "is not empty, and has no file .formulavision" in told
    assert (tmp_path / "00000.csv").read_text() == "1,2\n"

    own = tmp_path / "own"
    command = ["categories", "--plugin", "perlin", "--out", str(own)]
    assert CliRunner().invoke(app, command).exit_code == 0
    (own / "mine.csv").write_text("1,2\n")
    assert "holds categories already; give another --out, or --overwrite" in refused(*command)
    assert CliRunner().invoke(app, [*command, "--categories", "2", "--overwrite"]).exit_code == 0
    assert {file.name for file in own.iterdir()} == {".formulavision", "00000.csv", "00001.csv", "mine.csv"}


@pytest.mark.parametrize("what", ["absent", "empty"])
def test_verify_refuses_what_is_no_store(refused: Refused, tmp_path: Path, what: str) -> None:
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / what) in refused("verify", tmp_path / what)


def test_verify_names_a_truncated_shard_and_exits_with_1(tmp_path: Path) -> None:
    store = ["generate", "--plugin", "perlin", "--categories", "2", "--instances", "3", "--format", "webdataset"]
    assert CliRunner().invoke(app, [*store, "--workers", "1", "--out", str(tmp_path / "s")]).exit_code == 0
    shard = tmp_path / "s" / "shard-000000.tar"
    shard.write_bytes(shard.read_bytes()[:5000])
    result = CliRunner().invoke(app, ["verify", str(tmp_path / "s")])
    assert result.exit_code == 1
    assert "shard-000000.tar: holds 5000 bytes, not" in result.stdout.replace("\n", "")


# Training

PRETRAIN = ["--model", "test_resnet", "--epochs", "1", "--crop", "32"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--plugin", "perlin", "--epochs", "0"], "epochs: 0 is not allowed"),
        (["--plugin", "perlin", "--learning-rate", "-1"], "learning_rate: -1.0 is not allowed"),
        (["--plugin", "perlin", "--set", "wieght_decay=0"], "did you mean 'weight_decay'?"),
        (["--plugin", "perlin", "--set", "generator.gird=4"], "did you mean 'grid'?"),
        (["--plugin", "perlin", "--set", "recipe.seed=-1"], "seed: -1 is not allowed"),
        (["--plugin", "perlin", "--set", "recipe.canvas.size=3"], "canvas.size: 3 is not allowed"),
        (["--plugin", "perlin", "--set", "recipe=1"], "recipe: there is no such setting"),
        (["--plugin", "perlin", "--size", "3"], "canvas.size: 3 is not allowed"),
        (["--plugin", "perlin", "--categories-from", "12"], "categories.folder: "),
        (["--data", "store", "--size", "32"], "--size: a store's images are drawn already"),
        (["--data", "store", "--set", "canvas.size=32"], "--set: a store's images are drawn already"),
        (["--plugin", "perlin", "--model", "resnet81"], "resnet81"),
        (["--data", "/absent"], "/absent: no such folder"),
        ([], "give one of --data STORE, --recipe NAME or FILE, and --plugin NAME"),
        (["--plugin", "perlin", "--data", "/absent"], "give one of"),
    ],
)
def test_pretrain_refuses(refused: Refused, tmp_path: Path, arguments: list[str], told: str) -> None:
    assert told in refused("pretrain", *arguments, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut short"])
def test_what_is_no_checkpoint_is_refused(refused: Refused, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    line = refused("finetune", "--checkpoint", tmp_path / "weights.pth", "--downstream", "digits", *PRETRAIN,
                   "--out", tmp_path / "run")  # fmt: skip
    assert "weights.pth" in line
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_architecture_is_refused(refused: Refused, tmp_path: Path) -> None:
    import timm
    import torch

    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "vit.pth")
    line = refused("finetune", "--checkpoint", tmp_path / "vit.pth", "--downstream", "digits", *PRETRAIN,
                   "--out", tmp_path / "run")  # fmt: skip
    assert "vit.pth" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("classes", "parts", "told"),
    [
        ({}, (), "holds no classes"),
        ({"cat": [(8, 8)]}, (), "it must have a subfolder a class, at least two"),
        ({"cat": [(8, 8)], "dog": [(8, 8)]}, ("train",), "test"),
        ({"cat": [(8, 8)], "dog": []}, (), "dog"),
    ],
)
def test_a_downstream_folder_that_cannot_be_used_is_refused(
    refused: Refused, tmp_path: Path, classes: dict[str, list[tuple[int, int]]], parts: tuple[str, ...], told: str
) -> None:
    (tmp_path / "data").mkdir()
    folder(tmp_path / "data", classes, *parts)
    line = refused("finetune", "--downstream", f"folder:{tmp_path / 'data'}", *PRETRAIN, "--out", tmp_path / "run")
    assert told in line
    assert str(tmp_path / "data") in line


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n but no more"])
def test_an_unreadable_image_is_named(refused: Refused, tmp_path: Path, content: bytes) -> None:
    folder(tmp_path, {"cat": [(8, 8), (9, 9)], "dog": [(8, 8), (30, 7)]})
    (tmp_path / "train" / "dog" / "1.png").write_bytes(content)
    line = refused("finetune", "--downstream", f"folder:{tmp_path}", *PRETRAIN, "--out", tmp_path / "run")
    assert str(tmp_path / "train" / "dog" / "1.png") in line


def test_frozen_layers_that_there_are_none_of_are_refused(refused: Refused, tmp_path: Path) -> None:
    line = refused("finetune", "--downstream", "digits", "--freeze", "conv1-9", *PRETRAIN, "--out", tmp_path / "run")
    assert "conv1-9" in line
    assert "conv1-5" in line


def test_an_unknown_downstream_is_refused(refused: Refused, tmp_path: Path) -> None:
    line = refused("finetune", "--downstream", "cifar11", *PRETRAIN, "--out", tmp_path / "run")
    assert "did you mean 'cifar10'?" in line


def test_a_comparison_without_its_downstreams_folder_says_what_to_set(refused: Refused, tmp_path: Path) -> None:
    config = Path(__file__).parents[2] / "configs" / "compare-cifar10.yaml"
    line = refused("compare", config, "--out", tmp_path / "run")
    assert "--set downstreams.cifar10.root=/path" in line


# Looking


def test_the_list_of_generators_says_which_draw_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from discs import Discs

    from formulavision import Generator
    from formulavision.generators.registry import Registered, plugins

    class Plain(Generator):
        name = "plain"

    generators = {"discs": Registered(Discs, "discs", "1"), "plain": Registered(Plain, "plain", "1")}
    monkeypatch.setattr(plugins(), "generators", generators)
    shown = {name: CliRunner().invoke(app, ["plugins", "show", name]).stdout for name in generators}
    assert "draws on the CPU, and on a GPU (--device cuda)" in shown["discs"]
    assert "draws on the CPU only" in shown["plain"]
    rows = [line.split()[:3] for line in CliRunner().invoke(app, ["plugins"]).stdout.splitlines()]
    assert ["discs", "1", "yes"] in rows
    assert ["plain", "1", "no"] in rows


# Start-up


@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"], ["plugins"], ["plugins", "show", "ifs"]])
def test_looking_imports_neither_torch_nor_numba(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from formulavision.cli import app\n"
        f"app({arguments!r}, standalone_mode=False)\n"
        "heavy = {'torch', 'numba', 'lightning', 'timm', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "command",
    [
        *("generate", "categories", "preview", "verify", "export-data", "pretrain", "finetune"),
        *("evaluate", "probe", "filters", "grad-cam", "per-class", "score"),
    ],
)
def test_help_explains_every_option_and_shows_an_example(command: str) -> None:
    from typer.main import get_command

    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert [p.name for p in commands[command].params if not getattr(p, "help", None)] == []
    assert f"formulavision {command}" in commands[command].help


@pytest.mark.parametrize("command", ["verify", "report", "export"])
def test_a_file_in_place_of_a_folder_is_called_a_file(command: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("generator: perlin\n")
    result = CliRunner().invoke(
        app, [command, str(recipe), *(["--out", str(tmp_path / "x")] if command == "export" else [])]
    )
    assert (result.exit_code, result.stderr.strip()) == (2, f"error: {recipe}: is a file, not a folder")
