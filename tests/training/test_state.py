"""A run whose files were damaged is resumed exactly or refused in one line; it needs no more than its folder."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from cases import slow
from pydantic import Field
from safetensors.torch import load_file
from typer.testing import CliRunner
from woven_images import Weave

from formulavision import FormulaDataset, Params, Recipe, Store, StoredDataset, generate, register
from formulavision.cli import app
from formulavision.data.labels import LabelSettings
from formulavision.training import Run, TrainSettings, finetune, load_checkpoint, pretrain
from formulavision.training.recorder import Recorder
from formulavision.training.runs import find_checkpoint
from formulavision.util.errors import CheckpointError, ConfigError
from formulavision.util.folders import MARKER, Marker

RECIPE = Recipe.from_dict(
    {"generator": {"name": "perlin", "grid": 2}, "categories": 4, "instances": 12, "canvas": {"size": 36, "padding": 0}}
)
Damage = Callable[[bytes], bytes]


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGE: dict[str, Damage] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: min(1000, len(content) - 3)],
    "garbage": lambda content: random.Random(1).randbytes(2000),
    "{": lambda content: b"{",
    "flipped": flipped,
}
damaged = pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())


def damage_file(path: Path, damage: Damage) -> None:
    path.write_bytes(damage(path.read_bytes()))


def same(a: Run, b: Run) -> bool:
    one, two = (load_file(run.folder / "model.safetensors") for run in (a, b))
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def stop_after(steps: int, train: Callable[[], Any]) -> None:
    """Run a training that dies after so many steps, each of which leaves a checkpoint."""
    done, whole = 0, Recorder.on_train_batch_end

    def dying(self: Any, *arguments: Any) -> None:
        nonlocal done
        done += 1
        if done > steps:
            raise RuntimeError("killed")
        whole(self, *arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(Recorder, "on_train_batch_end", dying)
        train()


@pytest.fixture(scope="module")
def unfinished(stripes: Any, small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unfinished") / "run"
    settings = {**small, "checkpoint_minutes": 0}
    stop_after(2, lambda: pretrain(stripes(), out=out, settings=settings, show_progress=False))
    return out


@pytest.fixture
def run(unfinished: Path, tmp_path: Path) -> Path:
    """A copy of a run that was killed after its second checkpoint."""
    return Path(shutil.copytree(unfinished, tmp_path / "run"))


def resumed(out: Path, stripes: Any) -> Run:
    return pretrain(stripes(), out=out, resume=True)


# Killed while it was overwritten --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "left",
    [{"settings.yaml"}, {"settings.yaml", "classes.json"}, {"settings.yaml", "checkpoints"}, {"classes.json"},
     {"checkpoints", "classes.json"}],
)  # fmt: skip
def test_what_a_killed_overwrite_has_left_is_not_resumed_from(
    stripes: Any, small: Any, pretrained: Run, run: Path, left: set[str]
) -> None:
    """Each order of removal must do: it depends on the file system."""
    marker = Marker.read(run)
    assert marker is not None
    (run / MARKER).write_text(replace(marker, discarded=True).text())
    for path in run.iterdir():
        if path.name not in left | {MARKER}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert same(pretrain(stripes(), out=run, settings=small, resume=True), pretrained)


# Checkpoints ----------------------------------------------------------------------------------------------------------


def test_the_last_two_checkpoints_are_kept(run: Path) -> None:
    steps = [torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)["global_step"]
             for name in ("previous", "last")]  # fmt: skip
    assert steps == [1, 2]


@damaged
def test_a_run_whose_last_checkpoint_is_damaged_goes_back_to_the_one_before_it(
    stripes: Any, run: Path, pretrained: Run, damage: Damage, capsys: pytest.CaptureFixture[str]
) -> None:
    damage_file(run / "checkpoints" / "last.ckpt", damage)
    again = resumed(run, stripes)
    assert (
        "last.ckpt: is damaged: the run goes back to the checkpoint before it, previous.ckpt" in capsys.readouterr().out
    )
    assert same(again, pretrained)
    assert find_checkpoint(run, pytest.fail) == run / "checkpoints" / "last.ckpt"


def test_a_run_killed_while_checkpoints_changed_names_goes_on(stripes: Any, run: Path, pretrained: Run) -> None:
    (run / "checkpoints" / "last.ckpt").replace(run / "checkpoints" / "previous.ckpt")
    assert same(resumed(run, stripes), pretrained)


@damaged
def test_a_run_none_of_whose_checkpoints_can_be_read_is_refused(stripes: Any, run: Path, damage: Damage) -> None:
    for name in ("last", "previous"):
        damage_file(run / "checkpoints" / f"{name}.ckpt", damage)
    with pytest.raises(ConfigError, match=r"last\.ckpt: is damaged: and so is previous\.ckpt; .* --overwrite"):
        resumed(run, stripes)
    (run / "checkpoints" / "previous.ckpt").unlink()
    with pytest.raises(ConfigError, match=r"last\.ckpt: is damaged: .* start over with --overwrite"):
        resumed(run, stripes)


def test_somebody_elses_file_in_place_of_a_checkpoint_is_damage(stripes: Any, run: Path, pretrained: Run) -> None:
    torch.save({"state_dict": {}}, run / "checkpoints" / "last.ckpt")
    assert same(resumed(run, stripes), pretrained)


@pytest.mark.parametrize("seed", [7, pytest.param(8, marks=pytest.mark.slow)])  # other bits
@pytest.mark.slow
def test_every_flipped_bit_of_a_checkpoint_is_found_or_changes_nothing(run: Path, seed: int) -> None:
    last = run / "checkpoints" / "last.ckpt"
    whole = last.read_bytes()
    weights = torch.load(last, weights_only=True)
    draw = random.Random(seed)
    places = [draw.randrange(len(whole)) for _ in range(20)] + [-draw.randrange(1, 9000) for _ in range(20)]
    for place in places:
        content = bytearray(whole)
        content[place] ^= 1 << draw.randrange(8)
        last.write_bytes(content)
        told: list[str] = []
        if find_checkpoint(run, told.append) == last:
            again = torch.load(last, weights_only=True)
            assert repr(again) == repr(weights)
            assert all(torch.equal(again["state_dict"][n], v) for n, v in weights["state_dict"].items())
        else:
            assert told


# Settings, classes and results ----------------------------------------------------------------------------------------


@damaged
@pytest.mark.parametrize("name", ["settings.yaml", "classes.json"])
def test_damaged_settings_are_refused_by_name(stripes: Any, run: Path, name: str, damage: Damage) -> None:
    damage_file(run / name, damage)
    for data in (stripes(), None):
        with pytest.raises(ConfigError, match=rf"{name}: is damaged: .*--overwrite"):
            pretrain(data, out=run, resume=True, show_progress=False)


def test_a_run_that_lost_its_settings_is_not_resumed_with_others(stripes: Any, small: Any, run: Path) -> None:
    (run / "settings.yaml").unlink()
    with pytest.raises(ConfigError, match=r"settings\.yaml: is missing"):
        pretrain(stripes(), out=run, settings={**small, "learning_rate": 0.5}, resume=True, show_progress=False)


@damaged
@pytest.mark.parametrize("name", ["run.json", "model.safetensors"])
@pytest.mark.slow
def test_damaged_results_are_refused_and_written_again(
    stripes: Any, small: Any, pretrained: Run, tmp_path: Path, name: str, damage: Damage
) -> None:
    out = Path(shutil.copytree(pretrained.folder, tmp_path / "run"))
    damage_file(out / name, damage)
    with pytest.raises(CheckpointError, match=rf"{name}: is .*"):
        load_checkpoint(out)
    again = pretrain(stripes(), out=out, resume=True, show_progress=False)
    assert same(again, pretrained)
    assert again.history == pretrained.history


def test_a_store_in_place_of_a_run_is_called_a_store(tmp_path: Path) -> None:
    generate(RECIPE, tmp_path / "store")
    with pytest.raises(CheckpointError, match=r"store: is not a run's folder: holds a store$"):
        load_checkpoint(tmp_path / "store")


def test_a_damaged_table_is_written_again(stripes: Any, run: Path, pretrained: Run) -> None:
    (run / "metrics.csv").write_bytes(b"\xff{")
    resumed(run, stripes)
    assert (run / "metrics.csv").read_text().startswith("epoch,")


def test_a_run_of_version_0_1_is_read(pretrained: Run, tmp_path: Path) -> None:
    out = Path(shutil.copytree(pretrained.folder, tmp_path / "run"))
    (out / ".formulavision").unlink()
    settings = (out / "settings.yaml").read_text().splitlines(keepends=True)
    (out / "settings.yaml").write_text("".join(line for line in settings if not line.startswith("#")))
    result = json.loads((out / "run.json").read_text())
    del result["sha256"], result["weights_sha256"]
    (out / "run.json").write_text(json.dumps(result))
    assert Run.load(out).history == pretrained.history


# The folder knows ---------------------------------------------------------------------------------------------------


def on_command_line(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.parametrize("stored", [False, *slow(True)])
@pytest.mark.slow
def test_a_run_is_resumed_by_its_folder_alone(small: Any, tmp_path: Path, stored: bool) -> None:
    data: Any = RECIPE
    if stored:
        data = tmp_path / "store"
        generate(RECIPE, data)
    settings = {**small, "checkpoint_minutes": 0, "held_out": 2}
    arguments: dict[str, Any] = {"labels": {"noise": 0.3}, "settings": settings, "show_progress": False}
    whole = pretrain(data, out=tmp_path / "whole", **arguments)
    for name in ("python", "cli"):
        stop_after(2, lambda name=name: pretrain(data, out=tmp_path / name, **arguments))  # type: ignore[misc]
    assert same(pretrain(out=tmp_path / "python", resume=True, show_progress=False), whole)
    status, printed = on_command_line("pretrain", "--out", tmp_path / "cli", "--resume")
    assert status == 0, printed
    assert same(Run.load(tmp_path / "cli"), whole)
    status, printed = on_command_line("pretrain", "--out", tmp_path / "cli", "--resume")
    assert (status, "the run is complete already" in printed) == (0, True)


def test_fine_tuning_is_resumed_by_its_folder_alone_without_its_checkpoint(
    small: Any, pretrained: Run, tmp_path: Path
) -> None:
    from formulavision.data.downstream import DownstreamSettings

    digits = DownstreamSettings.model_validate({"kind": "digits", "train_per_class": 4, "test_per_class": 2})
    source = Path(shutil.copytree(pretrained.folder, tmp_path / "source"))
    settings = {"epochs": 1, "milestones": [], "batch_size": 16, "resize": 36, "crop": 32, "device": "cpu"}
    arguments: dict[str, Any] = {"freeze": "conv1", "settings": {**settings, "checkpoint_minutes": 0}}
    whole = finetune(source, digits, out=tmp_path / "whole", show_progress=False, **arguments)
    stop_after(2, lambda: finetune(source, digits, out=tmp_path / "run", show_progress=False, **arguments))
    shutil.rmtree(source)
    status, printed = on_command_line("finetune", "--out", tmp_path / "run", "--resume")
    assert status == 0, printed
    run = Run.load(tmp_path / "run")
    assert same(run, whole)
    assert run.frozen == whole.frozen and run.settings["checkpoint"] == whole.settings["checkpoint"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--learning-rate", "0.5"], "resume: settings.learning_rate is 0.5 and was 0.05 in the run"),
        (["--set", "crop=24"], "resume: settings.crop is 24 and was 32 in the run"),
        (["--epochs", "1"], "epochs: is 1 and was 2 in the run: it can be raised, not lowered"),
        (["--preset", "vit"], "resume: settings.preset is vit and was resnet in the run"),
        (["--set", "wieght_decay=0"], "did you mean 'weight_decay'?"),
        (["--plugin", "perlin"], "resume: data.classes is"),
        ([], "data: is missing: the run was started on a dataset of a Python program: give it again"),
    ],
)
def test_an_option_that_differs_is_named(run: Path, options: list[str], told: str) -> None:
    status, printed = on_command_line("pretrain", "--out", run, "--resume", *options)
    assert (status, told in printed) == (2, True), printed


def test_other_labels_than_the_runs_are_refused(stripes: Any, run: Path) -> None:
    with pytest.raises(ConfigError, match=r"resume: data\.labels\.noise is 0\.5 and was absent in the run"):
        pretrain(stripes(), out=run, labels={"noise": 0.5}, resume=True, show_progress=False)


def test_another_command_than_the_runs_is_refused(run: Path) -> None:
    status, printed = on_command_line("finetune", "--out", run, "--resume")
    assert (status, "was started by pretrain" in printed) == (2, True), printed


def test_a_store_that_was_moved_is_named_and_given_anew(small: Any, tmp_path: Path) -> None:
    generate(RECIPE, tmp_path / "store")
    settings = {**small, "checkpoint_minutes": 0}
    stop_after(1, lambda: pretrain(tmp_path / "store", out=tmp_path / "run", settings=settings, show_progress=False))
    (tmp_path / "store").rename(tmp_path / "moved")
    with pytest.raises(ConfigError, match=r"store: does not exist: the run was started on this store: give its path"):
        pretrain(out=tmp_path / "run", resume=True, show_progress=False)
    assert pretrain(tmp_path / "moved", out=tmp_path / "run", resume=True, show_progress=False).history


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(RECIPE, tmp_path_factory.mktemp("state") / "store").path


def test_a_run_on_a_stored_dataset_reads_its_store_again(small: Any, store: Path, tmp_path: Path) -> None:
    settings = {**small, "checkpoint_minutes": 0}
    whole = pretrain(store, out=tmp_path / "whole", settings=settings, show_progress=False)
    stop_after(2, lambda: pretrain(StoredDataset(store), out=tmp_path / "run", settings=settings, show_progress=False))
    moved = shutil.copytree(store, tmp_path / "moved")
    copied = shutil.copytree(tmp_path / "run", tmp_path / "copied")
    run = pretrain(out=tmp_path / "run", resume=True, show_progress=False)
    assert same(run, whole) and run.settings == whole.settings
    for data in (StoredDataset(moved), Store(moved), moved):
        assert same(pretrain(data, out=copied, resume=True, show_progress=False), whole)


@pytest.mark.parametrize("given", [False, True], ids=["recipe", "store"])
def test_a_run_on_a_recipe_does_not_go_on_with_a_store_nor_the_reverse(
    small: Any, store: Path, tmp_path: Path, given: bool
) -> None:
    before, now = [(store, StoredDataset(store)), (RECIPE, FormulaDataset(RECIPE))][:: -1 if given else 1]
    settings = {**small, "checkpoint_minutes": 0}
    stop_after(1, lambda: pretrain(before[0], out=tmp_path / "run", settings=settings, show_progress=False))
    told = (
        f"resume: data.store is {store} and was absent in the run, whose images are not read from a store"
        if given
        else f"resume: data.store is absent and was {store} in the run, whose images are read from this store"
    )
    for data in now:
        with pytest.raises(ConfigError) as caught:
            pretrain(data, out=tmp_path / "run", resume=True, show_progress=False)
        assert str(caught.value) == told
    option = ("--data", store) if given else ("--plugin", "perlin")
    status, printed = on_command_line("pretrain", "--out", tmp_path / "run", "--resume", *option)
    assert (status, told.rpartition("data.store is")[0] in printed) == (2, True), printed


class Inverted(StoredDataset):
    def __getitems__(self, indices: Any) -> list[Any]:
        return [(255 - image, label) for image, label in super().__getitems__(indices)]


class Wrapped:
    """A dataset of a program, which has a recipe's images in another form."""

    def __init__(self, dataset: StoredDataset) -> None:
        self.dataset, self.recipe, self.classes = dataset, dataset.recipe, dataset.classes
        self.num_classes = dataset.num_classes

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        image, label = self.dataset[index]
        return 255 - image, label


@pytest.mark.parametrize("make", [Inverted, lambda store: Wrapped(StoredDataset(store))], ids=["subclass", "wrapper"])
def test_a_dataset_that_changes_a_stores_images_is_to_be_given_again(
    small: Any, store: Path, tmp_path: Path, make: Any
) -> None:
    settings = {**small, "checkpoint_minutes": 0}
    stop_after(1, lambda: pretrain(make(store), out=tmp_path / "run", settings=settings, show_progress=False))
    with pytest.raises(ConfigError, match="the run was started on a dataset of a Python program: give it again"):
        pretrain(out=tmp_path / "run", resume=True, show_progress=False)
    for other in (store, RECIPE):
        with pytest.raises(ConfigError, match=r"resume: data\..* in the run"):
            pretrain(other, out=tmp_path / "run", resume=True, show_progress=False)
    assert pretrain(make(store), out=tmp_path / "run", resume=True, show_progress=False).history


# Options that came later ----------------------------------------------------------------------------------------------


class FirstParams(Params):
    step: int = Field(37, description="levels of gray between two instances")


class LaterParams(FirstParams):
    tilt: int = Field(5, description="tilt of the slopes", json_schema_extra={"neutral": 0})


def define(params: type[Params]) -> None:
    """Register a generator with these parameters, in place of the one that was defined here before."""

    @register
    class Grown(Weave):
        name = "training-test-grown"
        Params: ClassVar[type[Params]] = params  # type: ignore[assignment]

        def device_renderer(self, categories: Any, device: torch.device) -> Any:
            return None


@pytest.mark.parametrize("given", [True, *slow(False)])
def test_a_run_is_resumed_after_its_generator_has_gained_a_parameter(small: Any, tmp_path: Path, given: bool) -> None:
    define(FirstParams)
    content = {
        "generator": "training-test-grown",
        "categories": 4,
        "instances": 12,
        "canvas": {"size": 36, "padding": 0},
    }
    recipe = Recipe.from_dict(content)
    arguments: dict[str, Any] = {"settings": {**small, "checkpoint_minutes": 0}, "show_progress": False}
    whole = pretrain(recipe, out=tmp_path / "whole", **arguments)
    stop_after(2, lambda: pretrain(recipe, out=tmp_path / "run", **arguments))
    define(LaterParams)
    later = Recipe.from_dict(recipe.to_dict())
    assert later.id == recipe.id and later.to_dict() != recipe.to_dict()
    run = pretrain(later if given else None, out=tmp_path / "run", resume=True, show_progress=False)
    assert same(run, whole)
    tilted = Recipe.from_dict(content)
    with pytest.raises(ConfigError, match=r"resume: data\.recipe\.generator\.tilt is 5 and was absent in the run"):
        pretrain(tilted, out=tmp_path / "run", resume=True, show_progress=False)


@pytest.mark.slow
def test_a_run_is_resumed_after_its_folder_of_categories_was_moved(small: Any, tmp_path: Path) -> None:
    generate(RECIPE, tmp_path / "store")

    def recipe() -> Recipe:
        folder = next(path for path in (tmp_path / "store", tmp_path / "moved") if path.is_dir())
        return Recipe.from_dict({**RECIPE.to_dict(), "categories": {"folder": str(folder)}})

    arguments: dict[str, Any] = {"settings": {**small, "checkpoint_minutes": 0}, "show_progress": False}
    stop_after(2, lambda: pretrain(recipe(), out=tmp_path / "run", **arguments))
    (tmp_path / "store").rename(tmp_path / "moved")
    run = pretrain(recipe(), out=tmp_path / "run", resume=True, show_progress=False)
    assert same(run, pretrain(recipe(), out=tmp_path / "whole", **arguments))


class LaterSettings(TrainSettings):
    later: int = Field(2, description="an option that did not exist", json_schema_extra={"neutral": 0})


class LaterLabels(LabelSettings):
    later: int = Field(2, description="an option that did not exist", json_schema_extra={"neutral": 0})


def test_a_run_is_resumed_after_settings_and_labels_have_gained_options(
    stripes: Any, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**small, "checkpoint_minutes": 0}
    arguments: dict[str, Any] = {"labels": {"noise": 0.3}, "show_progress": False}
    whole = pretrain(stripes(), out=tmp_path / "whole", settings=settings, **arguments)
    stop_after(2, lambda: pretrain(stripes(), out=tmp_path / "run", settings=settings, **arguments))
    for name in ("train", "runs"):
        monkeypatch.setattr(f"formulavision.training.{name}.TrainSettings", LaterSettings)
    monkeypatch.setattr("formulavision.training.train.LabelSettings", LaterLabels)
    with pytest.raises(ConfigError, match=r"resume: settings\.later is 1 and was 0 in the run"):
        pretrain(stripes(), out=tmp_path / "run", settings={"later": 1}, resume=True, show_progress=False)
    assert same(pretrain(stripes(), out=tmp_path / "run", resume=True, show_progress=False), whole)


# More epochs --------------------------------------------------------------------------------------------------------

LONGER: dict[str, dict[str, Any]] = {
    "plain": {"settings": {}},
    "all that is random": {
        "settings": {"ema": 0.9, "mixup": 0.8, "warmup_epochs": 1.5, "optimizer": "adamw", "learning_rate": 0.001}
    },
    "clusters": {"labels": {"clusters": 5}, "settings": {}},
}


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=name, marks=[] if name != "plain" else pytest.mark.slow) for name, case in LONGER.items()],
)
@pytest.mark.parametrize("finished", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_run_that_is_made_longer_is_the_longer_run(
    stripes: Any, small: Any, tmp_path: Path, case: dict[str, Any], finished: bool
) -> None:
    settings = {**small, "milestones": [1, 3], "checkpoint_minutes": 0, **case["settings"]}
    arguments: dict[str, Any] = {"labels": case.get("labels"), "show_progress": False}
    whole = pretrain(stripes(), out=tmp_path / "whole", settings={**settings, "epochs": 4}, **arguments)
    short: Callable[[], Any] = lambda: pretrain(stripes(), out=tmp_path / "run", settings=settings, **arguments)  # noqa: E731
    short() if finished else stop_after(4, short)
    run = pretrain(stripes(), out=tmp_path / "run", settings={"epochs": 4}, resume=True, show_progress=False)
    assert same(run, whole)
    assert [row["train_loss"] for row in run.history] == [row["train_loss"] for row in whole.history]
    assert run.settings["settings"]["epochs"] == 4


def test_a_longer_run_that_was_killed_at_once_is_as_it_was(stripes: Any, small: Any, tmp_path: Path) -> None:
    run = pretrain(stripes(), out=tmp_path / "run", settings=small, show_progress=False)
    weights = load_file(run.folder / "model.safetensors")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="killed"):

        def kill(*arguments: Any) -> None:
            raise RuntimeError("killed")

        patch.setattr("formulavision.training.runs.write_settings", kill)
        pretrain(stripes(), out=run.folder, settings={"epochs": 4}, resume=True, show_progress=False)
    again = pretrain(stripes(), out=run.folder, resume=True, show_progress=False)
    assert len(again.history) == 2
    assert all(torch.equal(weights[name], value) for name, value in load_file(run.folder / "model.safetensors").items())


def test_a_finished_run_keeps_one_checkpoint(stripes: Any, small: Any, tmp_path: Path) -> None:
    settings = {**small, "checkpoint_minutes": 0}
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="killed"):

        def kill(*arguments: Any) -> None:
            raise RuntimeError("killed")

        patch.setattr("formulavision.training.fit.write_result", kill)
        pretrain(stripes(), out=tmp_path / "run", settings=settings, show_progress=False)
    checkpoints = tmp_path / "run" / "checkpoints"
    assert {path.name for path in checkpoints.iterdir()} == {"last.ckpt", "previous.ckpt"}, "until it is complete"
    (checkpoints / "last.ckpt").unlink()
    run = pretrain(stripes(), out=tmp_path / "run", resume=True, show_progress=False)
    assert same(run, pretrain(stripes(), out=tmp_path / "whole", settings=settings, show_progress=False))
    for folder in ("run", "whole"):
        assert [path.name for path in (tmp_path / folder / "checkpoints").iterdir()] == ["last.ckpt"]


def test_a_cosine_run_cannot_be_made_longer(stripes: Any, small: Any, tmp_path: Path) -> None:
    settings = {**small, "schedule": "cosine", "epochs": 1}
    run = pretrain(stripes(), out=tmp_path / "run", settings=settings, show_progress=False)
    with pytest.raises(ConfigError, match=r"epochs is 4 and was 1 in the run, whose cosine schedule ends with it"):
        pretrain(stripes(), out=run.folder, settings={"epochs": 4}, resume=True, show_progress=False)
    assert Run.load(run.folder) == run
