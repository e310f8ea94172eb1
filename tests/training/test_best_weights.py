"""Where a run validates, the weights of its best epoch are kept beside the last ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import timm
import torch
from cases import slow
from comparing_runs import die_after, same
from pair import Pair
from safetensors.torch import load_file
from typer.testing import CliRunner

import formulavision as fv
from formulavision.cli import app
from formulavision.training import Run, finetune, load_checkpoint
from formulavision.util.errors import CheckpointError, ConfigError

DIGITS: Any = {"kind": "digits", "train_per_class": 6, "test_per_class": 4}
BEST = "model_best.safetensors"


class Wrecker(lightning.Callback):
    """From the third epoch on, the model knows nothing."""

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.current_epoch >= 2:
            with torch.no_grad():
                for parameter in pl_module.parameters():
                    parameter.zero_()


def tuned(out: Path, small: Any, source: Run, **more: Any) -> Run:
    settings = {**small, "epochs": 4, "milestones": [], "learning_rate": 0.02, "batch_size": 30}
    settings["checkpoint_minutes"] = 0
    arguments: dict[str, Any] = {"callbacks": Wrecker(), "show_progress": False, **more}
    return finetune(source.folder, DIGITS, out=out, settings=settings, **arguments)


@pytest.fixture(scope="module")
def run(small: Any, pretrained: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tuned(tmp_path_factory.mktemp("best") / "run", small, pretrained)


@pytest.fixture
def copied(run: Run, tmp_path: Path) -> Run:
    return Run.load(shutil.copytree(run.folder, tmp_path / "run"))


def best_of(run: Run) -> int:
    accuracies = [row["validation_accuracy"] or 0.0 for row in run.history]
    return 1 + accuracies.index(max(accuracies))


def test_the_best_epochs_weights_are_kept_beside_the_last(run: Run) -> None:
    assert run.best_epoch == best_of(run) <= 2
    assert run.final["epoch"] == 4 and not any(load_file(run.folder / "model.safetensors")["fc.weight"].flatten())
    assert any(load_file(run.folder / BEST)["fc.weight"].flatten())
    last: Any
    best: Any
    last, best = timm.create_model("test_resnet", num_classes=10), timm.create_model("test_resnet", num_classes=10)
    run.load_into(last)
    run.load_into(best, best=True)
    assert not any(last.fc.weight.flatten()) and any(best.fc.weight.flatten())
    assert BEST in json.loads((run.folder / ".formulavision").read_text())["ours"]
    timms: Any = timm.create_model(f"local-dir:{run.folder}", pretrained=True)
    assert not any(timms.fc.weight.flatten()), "timm reads the last weights"


@pytest.mark.parametrize("stops", [[3, 2], *slow([2], [4], [5])], ids=str)
def test_best_weights_resume_exactly(run: Run, small: Any, pretrained: Run, tmp_path: Path, stops: list[int]) -> None:
    for i, step in enumerate(stops):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
            die_after(step, patch)
            tuned(tmp_path / "run", small, pretrained, resume=i > 0)
    again = tuned(tmp_path / "run", small, pretrained, resume=True)
    assert same(again.folder, run.folder)
    assert (again.best_epoch, again.best_sha256) == (run.best_epoch, run.best_sha256)
    assert (again.folder / BEST).read_bytes() == (run.folder / BEST).read_bytes()


def test_a_run_killed_before_the_checkpoint_of_its_best_epoch_keeps_them(
    run: Run, small: Any, pretrained: Run, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="killed"):

        def kill(self: Any, trainer: Any, epoch: int, batch: int) -> None:
            if (epoch, batch) == (run.best_epoch, 0):
                raise RuntimeError("killed")
            whole(self, trainer, epoch, batch)

        from formulavision.training.recorder import Recorder

        whole = Recorder._save
        patch.setattr(Recorder, "_save", kill)
        tuned(tmp_path / "run", small, pretrained)
    again = tuned(tmp_path / "run", small, pretrained, resume=True)
    assert (again.best_epoch, again.best_sha256) == (run.best_epoch, run.best_sha256)


@pytest.mark.slow
def test_two_processes_keep_them_once(pair: Pair, run: Run, small: Any, pretrained: Run, tmp_path: Path) -> None:
    two = pair(tuned, tmp_path / "two", small, pretrained)
    assert two.best_epoch is not None and (two.folder / BEST).is_file()


def test_a_run_without_validation_has_none(pretrained: Run) -> None:
    assert pretrained.best_epoch is None and not (pretrained.folder / BEST).exists()
    for call in (
        lambda: pretrained.load_into(timm.create_model("test_resnet", num_classes=4), best=True),
        lambda: fv.export_model(pretrained, pretrained.folder.parent / "export", best=True),
    ):
        with pytest.raises(ConfigError, match="has no best weights: none of its epochs was validated"):
            call()


# Using them -----------------------------------------------------------------------------------------------------------


def test_they_are_evaluated_probed_fine_tuned_and_exported(copied: Run, small: Any, tmp_path: Path) -> None:
    best = copied.folder / BEST
    accuracy = copied.history[(copied.best_epoch or 0) - 1]["validation_accuracy"]
    result = fv.evaluate(best, DIGITS, show_progress=False)
    assert result.top1 == pytest.approx(accuracy) and result.folder == copied.folder / "evaluation-best"
    assert fv.evaluate(copied.folder, DIGITS, show_progress=False).top1 == pytest.approx(0.1)
    assert fv.probe(best, DIGITS, method="knn", show_progress=False).folder.name == "knn-digits-best"
    checkpoint = load_checkpoint(best)
    assert (checkpoint.model, checkpoint.preprocessing["crop"]) == ("test_resnet", 32)
    settings = {"epochs": 1, "milestones": [], "learning_rate": 1e-9, "batch_size": 16, "device": "cpu"}
    again = finetune(best, DIGITS, out=tmp_path / "again", settings=settings, show_progress=False)
    tuned_again, source = load_file(again.folder / "model.safetensors"), load_file(best)
    assert torch.allclose(tuned_again["conv1.0.weight"], source["conv1.0.weight"], atol=1e-6)

    status = CliRunner().invoke(app, ["export", str(copied.folder), "--best", "--out", str(tmp_path / "export")])
    assert status.exit_code == 0, status.output
    assert (tmp_path / "export" / "model.safetensors").read_bytes() == best.read_bytes()
    card = (tmp_path / "export" / "README.md").read_text()
    assert f"After epoch {copied.best_epoch} of 4" in card and f"{accuracy:.2%}" in card and "optimistic" in card


def test_damaged_ones_are_refused(copied: Run, small: Any, pretrained: Run) -> None:
    best = copied.folder / BEST
    content = bytearray(best.read_bytes())
    content[-1] ^= 1
    best.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model_best\.safetensors: is damaged"):
        load_checkpoint(best)
    with pytest.raises(ConfigError, match=r"model_best\.safetensors: is damaged"):
        copied.load_into(timm.create_model("test_resnet", num_classes=10), best=True)
    assert load_checkpoint(copied.folder).run is not None
    # A run that goes on without the file says that it has none.
    (copied.folder / "run.json").unlink()
    assert tuned(copied.folder, small, pretrained, resume=True).best_epoch is None
