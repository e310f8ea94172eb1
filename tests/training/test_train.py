from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from formulavision import __version__, evaluate
from formulavision.training import Run, finetune, pretrain
from formulavision.training.recorder import columns
from formulavision.training.runs import read_settings, write_settings
from formulavision.training.tasks import ClassTask
from formulavision.util.errors import CheckpointError, ConfigError, FormulaVisionError


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


CHOICES: list[dict[str, Any]] = [{}, {"overwrite": True}, {"resume": True}]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def comparable(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in {"seconds", "images_per_second"}} for row in history]


def interrupted(stripes: Any, out: Path, settings: dict[str, Any], *, epochs: int, monkeypatch: Any) -> None:
    """A run that was killed while it began the epoch after ``epochs`` whole ones."""
    source = stripes()
    fetched = 0
    whole = type(source).__getitem__

    def dying(self: Any, index: int) -> Any:
        nonlocal fetched
        fetched += 1
        if fetched > epochs * len(source) + 10:
            raise RuntimeError("killed")
        return whole(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(type(source), "__getitem__", dying)
        patch.setattr("formulavision.data.downstream.datasets.refuse_random", lambda source: None)
        patch.setattr("formulavision.training.data_module.image_cache", lambda *a, **k: None)
        with pytest.raises(RuntimeError, match="killed"):
            pretrain(source, out=out, settings=settings, show_progress=False)


# What a run leaves ---------------------------------------------------------------------------------------------------


def test_a_small_model_learns_the_stripes(pretrained: Run, small: Any) -> None:
    assert pretrained.history[-1]["train_loss"] < pretrained.history[0]["train_loss"]  # type: ignore[operator]
    assert [row["learning_rate"] for row in pretrained.history] == pytest.approx([0.05, 0.005])
    assert pretrained.final == pretrained.history[-1]
    assert pretrained.final["validation_accuracy"] is None
    assert (pretrained.kind, pretrained.frozen) == ("pretrain", [])


@pytest.mark.parametrize(("patch", "told"), [("point", 1), ("random", 0)])
def test_a_finite_set_has_the_same_images_in_every_epoch_and_a_line_says_so(
    patch: str, told: int, small: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    formula = {"name": "ifs", "weights": "table", "patch": patch, "dots": 1000}
    recipe = {"generator": formula, "categories": 2, "instances": 4, "canvas": {"size": 32}}
    pretrain(recipe, out=tmp_path / "run", settings=small | {"workers": 0, "epochs": 1, "milestones": []})
    printed = "".join(capfd.readouterr())
    assert printed.count("a finite set, so every epoch has the same images") == told


def test_the_folder_explains_itself(pretrained: Run, small: Any) -> None:
    folder = pretrained.folder
    settings = yaml.safe_load((folder / "settings.yaml").read_text())
    assert {name: settings["settings"][name] for name in small} == small
    assert settings["data"] == {"images": 48, "classes": 4}
    assert json.loads((folder / "classes.json").read_text()) == ["left", "inner left", "inner right", "right"]
    with (folder / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == columns(ClassTask(4)) and [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["train_loss"]) == pretrained.final["train_loss"]
    result = json.loads((folder / "run.json").read_text())
    assert result["complete"] is True and result["formulavision"] == __version__
    assert result["parameters"] == sum(p.numel() for p in timm.create_model("test_resnet", num_classes=4).parameters())
    assert not list(folder.rglob("*.partial"))
    assert Run.load(folder) == pretrained


def test_tensorboard_reads_the_metrics(pretrained: Run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(pretrained.folder / "logs" / "tensorboard"))
    board.Reload()
    events = board.Scalars("train_loss")
    assert [e.step for e in events] == [1, 2]
    assert [e.value for e in events] == pytest.approx([row["train_loss"] for row in pretrained.history])


def test_timm_alone_loads_the_model(pretrained: Run) -> None:
    model: Any = timm.create_model(f"local-dir:{pretrained.folder}", pretrained=True)
    assert same(dict(model.state_dict()), weights(pretrained.folder))
    data = timm.data.resolve_data_config(model=model)
    assert (list(data["mean"]), list(data["std"])) == ([0.2] * 3, [0.5] * 3)
    assert tuple(data["input_size"]) == (3, 32, 32)
    assert (model.num_classes, model.pretrained_cfg["architecture"]) == (4, "test_resnet")


def test_timm_alone_loads_a_transformer_of_another_image_size(stripes: Any, small: Any, tmp_path: Path) -> None:
    settings = {**small, "model": "test_vit", "epochs": 1, "learning_rate": 0.01}
    run = pretrain(stripes(), out=tmp_path / "vit", settings=settings, show_progress=False)
    model = timm.create_model(f"local-dir:{run.folder}", pretrained=True)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 4)
    assert same(dict(model.state_dict()), weights(run.folder))


def test_the_resumable_checkpoint_holds_no_python_objects(pretrained: Run) -> None:
    content = torch.load(pretrained.folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["epoch"] == 1 and content["optimizer_states"]


# The same run whatever happens ----------------------------------------------------------------------------------------


def test_workers_do_not_change_the_run(stripes: Any, small: Any, pretrained: Run, tmp_path: Path) -> None:
    other = pretrain(stripes(), out=tmp_path / "run", settings={**small, "workers": 2}, show_progress=False)
    assert same(weights(other.folder), weights(pretrained.folder))
    assert comparable(other.history) == comparable(pretrained.history)


def test_another_seed_changes_the_run(stripes: Any, small: Any, pretrained: Run, tmp_path: Path) -> None:
    other = pretrain(stripes(), out=tmp_path / "run", settings={**small, "seed": 2}, show_progress=False)
    assert not same(weights(other.folder), weights(pretrained.folder))


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_killed_run_resumes_to_the_same_weights(
    stripes: Any, small: Any, pretrained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int
) -> None:
    out = tmp_path / "run"
    interrupted(stripes, out, small, epochs=epochs, monkeypatch=monkeypatch)
    with pytest.raises(ConfigError, match="unfinished"):
        Run.load(out)
    with pytest.raises(ConfigError, match="unfinished run: go on with it by --resume"):
        pretrain(stripes(), out=out, settings=small, show_progress=False)
    run = pretrain(stripes(), out=out, settings=small, resume=True, show_progress=False)
    assert same(weights(out), weights(pretrained.folder))
    assert comparable(run.history) == comparable(pretrained.history)


def test_resuming_with_dropout_repeats_it(stripes: Any, small: Any, tmp_path: Path, monkeypatch: Any) -> None:
    from formulavision.training import fit

    def with_dropout(settings: Any, num_classes: int) -> Any:
        return timm.create_model(settings.model, num_classes=num_classes, drop_rate=0.5)

    monkeypatch.setattr(fit, "build_model", with_dropout)
    whole = pretrain(stripes(), out=tmp_path / "whole", settings=small, show_progress=False)
    interrupted(stripes, tmp_path / "run", small, epochs=1, monkeypatch=monkeypatch)
    torch.rand(7)
    run = pretrain(stripes(), out=tmp_path / "run", settings=small, resume=True, show_progress=False)
    assert same(weights(run.folder), weights(whole.folder))


def test_resuming_with_other_settings_names_the_difference(
    stripes: Any, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(stripes, tmp_path / "run", small, epochs=1, monkeypatch=monkeypatch)
    with pytest.raises(ConfigError, match=r"resume: settings.learning_rate is 0.1 and was 0.05"):
        pretrain(stripes(), out=tmp_path / "run", settings={**small, "learning_rate": 0.1}, resume=True)
    with pytest.raises(ConfigError, match=r"resume: data.images is 44 and was 48"):
        pretrain(stripes(images=44), out=tmp_path / "run", settings=small, resume=True)


def test_ctrl_c_leaves_a_run_to_resume(
    stripes: Any, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = stripes()
    fetched = 0
    whole = type(source).__getitem__

    def interrupting(self: Any, index: int) -> Any:
        nonlocal fetched
        fetched += 1
        if fetched == len(source) + 10:
            signal.raise_signal(signal.SIGINT)
        return whole(self, index)

    monkeypatch.setattr(type(source), "__getitem__", interrupting)
    monkeypatch.setattr("formulavision.data.downstream.datasets.refuse_random", lambda source: None)
    monkeypatch.setattr("formulavision.training.data_module.image_cache", lambda *a, **k: None)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        pretrain(source, out=tmp_path / "run", settings=small)
    assert signal.getsignal(signal.SIGINT) is handler
    printed = capsys.readouterr().out
    assert "stopped after 1 of 2 epochs and 1 of 3 steps of the next; resuming continues from there" in printed
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
    assert not (tmp_path / "run" / "run.json").exists()


# Folders and settings -------------------------------------------------------------------------------------------------


def test_a_complete_run_is_overwritten_only_when_asked(
    stripes: Any, small: Any, pretrained: Run, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(pretrained.folder, out)
    with pytest.raises(ConfigError, match="holds a complete run"):
        pretrain(stripes(), out=out, settings=small)
    assert same(weights(out), weights(pretrained.folder))
    assert pretrain(stripes(), out=out, settings=small, resume=True, show_progress=False).history == pretrained.history
    theirs = [out / "thesis.tex", out / "checkpoints" / "thesis.tex", out / "tensorboard" / "thesis.tex"]
    for path in theirs:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    run = pretrain(stripes(), out=out, settings={**small, "epochs": 1}, overwrite=True, show_progress=False)
    assert len(run.history) == 1
    assert [path.read_text() for path in theirs] == ["mine"] * 3


@pytest.mark.skipif(os.name == "nt", reason="has no permissions of this kind")
def test_a_runs_files_can_be_read_by_whom_the_umask_lets(pretrained: Run) -> None:
    umask = os.umask(0)
    os.umask(umask)
    modes = {path: path.stat().st_mode & 0o777 for path in pretrained.folder.rglob("*") if path.is_file()}
    assert {path.name for path in modes} >= {"model.safetensors", "run.json", "last.ckpt", ".formulavision"}
    assert {path.name: mode for path, mode in modes.items() if mode != 0o666 & ~umask} == {}


@pytest.mark.parametrize("theirs", ["settings.yaml", "run.json", "classes.json"])
def test_a_foreign_folder_with_a_file_of_our_names_is_never_touched(
    stripes: Any, small: Any, tmp_path: Path, theirs: str
) -> None:
    (tmp_path / theirs).write_text("{}")
    for choice in CHOICES:
        with pytest.raises(ConfigError, match=r"has no file \.formulavision .*: give another --out$"):
            pretrain(stripes(), out=tmp_path, settings=small, **choice)
    assert [path.name for path in tmp_path.iterdir()] == [theirs]


def test_a_folder_of_other_files_is_never_touched(stripes: Any, small: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for choice in CHOICES:
        with pytest.raises(ConfigError, match="is not empty, and has no file"):
            pretrain(stripes(), out=tmp_path, settings=small, **choice)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"model": "resnet81"}, r"timm has no model 'resnet81' \(did you mean 'resnet\d+'\?\)"),
        ({"model": "test_vit", "crop": 10, "resize": 10}, "takes no 10-pixel images"),
        ({"device": "cuda"}, "device: 'cuda' is not available"),
        ({"precision": "16-mixed"}, "'16-mixed' is not supported on the CPU"),
    ],
)
def test_a_wrong_setting_leaves_no_folder(
    stripes: Any, small: Any, tmp_path: Path, settings: dict[str, Any], named: str
) -> None:
    if settings.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ConfigError, match=named):
        pretrain(stripes(), out=tmp_path / "run", settings={**small, **settings})
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_ends_the_run_with_advice(stripes: Any, small: Any, tmp_path: Path) -> None:
    with pytest.raises(FormulaVisionError, match=r"the loss became nan in epoch \d: lower learning_rate"):
        pretrain(
            stripes(),
            out=tmp_path / "run",
            settings={**small, "learning_rate": 100, "momentum": 0.99, "weight_decay": 1, "epochs": 9},
            show_progress=False,
        )


def test_a_validation_loss_that_is_no_number_ends_the_run_too(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from formulavision.training.module import LightningClassifier

    def broken(self: Any, batch: Any, step: int) -> None:
        self.validation_sums.add(torch.tensor(float("nan")), torch.zeros(len(batch[1]), 10), batch[1])

    monkeypatch.setattr(LightningClassifier, "validation_step", broken)
    with pytest.raises(FormulaVisionError, match="the loss became nan in epoch 1: lower learning_rate"):
        finetune(None, "digits", out=tmp_path / "run", settings={**small, "epochs": 1}, show_progress=False)


# Fine-tuning ---------------------------------------------------------------------------------------------------------

DIGITS = {"kind": "digits", "train_per_class": 6, "test_per_class": 4}


def test_finetuning_takes_the_weights_and_the_model_of_a_run(
    small: Any, pretrained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from formulavision.data.downstream import DownstreamSettings

    settings = {name: value for name, value in small.items() if name != "model"}
    run = finetune(
        pretrained.folder,
        DownstreamSettings.model_validate(DIGITS),
        out=tmp_path / "ft",
        freeze="conv1-5",
        settings=settings,
    )
    printed = capsys.readouterr().out
    assert "2 skipped (fc.bias, fc.weight)" in printed and "conv1.0.weight to layer4" in printed
    before, after = weights(pretrained.folder), weights(tmp_path / "ft")
    assert all(torch.equal(before[n], after[n]) for n in before if not n.startswith("fc."))
    assert after["fc.weight"].shape[0] == 10 and run.classes == [str(i) for i in range(10)]
    assert run.settings["settings"]["model"] == "test_resnet"
    assert len(run.frozen) == len(dict(timm.create_model("test_resnet").named_parameters())) - 2
    assert all(0 <= row["validation_accuracy"] <= 1 for row in run.history)  # type: ignore[operator]


def test_files_that_are_left_out_of_a_dataset_are_told_in_training_and_in_evaluation(
    small: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in ("cat", "dog"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(6):
            Image.new("L", (40, 40), 20 * i).save(tmp_path / "data" / label / f"{i}.png")
        (tmp_path / "data" / label / "notes.txt").write_text("x")
    finetune(None, tmp_path / "data", out=tmp_path / "run", settings=small)
    assert "2 files skipped" in capsys.readouterr().out
    evaluate(tmp_path / "run", tmp_path / "data")
    assert "2 files skipped" in capsys.readouterr().out


def test_another_model_than_the_runs_is_refused(small: Any, pretrained: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model: is 'resnet18', but .* is a 'test_resnet'"):
        finetune(pretrained.folder, "digits", out=tmp_path / "ft", settings={**small, "model": "resnet18"})
    assert not (tmp_path / "ft").exists()


def test_a_checkpoint_of_another_architecture_leaves_no_folder(small: Any, pretrained: Run, tmp_path: Path) -> None:
    # Beside its run's files it would say which model it is of.
    weights = shutil.copy(pretrained.folder / "model.safetensors", tmp_path)
    with pytest.raises(CheckpointError, match=r"another architecture|does not fit"):
        finetune(
            weights,
            "digits",
            out=tmp_path / "ft",
            settings={**small, "model": "test_convnext"},
        )
    assert not (tmp_path / "ft").exists()


def test_an_unknown_freeze_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    for freeze in ("conv9", 3):
        with pytest.raises(ConfigError, match=f"freeze: {freeze!r} is not allowed"):
            finetune(tmp_path / "not there", "folder:/not/there", out=tmp_path / "ft", freeze=freeze)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="settings: a str is not allowed"):
        finetune(None, "folder:/not/there", out=tmp_path / "ft", settings="epochs=3")  # type: ignore[arg-type]


def test_fine_tuning_takes_no_held_out_images_but_resumes_a_run_that_names_some(small: Any, tmp_path: Path) -> None:
    ten = {"kind": "digits", "train_per_class": 2, "test_per_class": 2}
    settings = {**small, "epochs": 1, "milestones": []}
    out = tmp_path / "run"
    with pytest.raises(ConfigError, match=r"^held_out: is for pre-training alone"):
        finetune(None, ten, out=out, settings={**settings, "held_out": 5}, show_progress=False)
    assert not out.exists()
    finetune(None, ten, out=out, settings=settings, show_progress=False)
    with pytest.raises(ConfigError, match=r"^held_out: is for pre-training alone"):
        finetune(out=out, settings={"held_out": 5}, resume=True, show_progress=False)
    recorded, names = read_settings(out)
    recorded["settings"]["held_out"] = 5  # as earlier versions allowed
    write_settings(out, recorded, names)
    for given in ({}, {"held_out": 5}, {"held_out": 0}):
        assert finetune(out=out, settings=given, resume=True, show_progress=False).kind == "finetune"


def test_the_checkpoints_own_folder_is_not_overwritten(small: Any, pretrained: Run) -> None:
    with pytest.raises(ConfigError, match="holds the checkpoint itself"):
        finetune(pretrained.folder, "digits", out=pretrained.folder, settings=small, overwrite=True)
    assert Run.load(pretrained.folder) == pretrained
