"""Several processes train as one does: each image once an epoch, the same loss within rounding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from formulavision.errors import ConfigError, FormulaVisionError
from formulavision.training import Run, finetune, pretrain
from formulavision.training.distributed import synchronise_batch_norm

TWO = {"devices": 2}


def curve(run: Run) -> list[float]:
    return [value for row in run.history for name, value in row.items() if name.endswith("loss") and value is not None]


@pytest.mark.parametrize("model", ["test_resnet", "test_vit"])
def test_two_processes_give_the_loss_of_one(stripes: Any, small: Any, tmp_path: Path, model: str) -> None:
    # Of 47 images the last batch has 15: 8 for one process and 7 for the other.
    settings = {**small, "model": model, "learning_rate": 0.01}
    one = pretrain(stripes(47), out=tmp_path / "one", settings=settings, show_progress=False)
    two = pretrain(stripes(47), out=tmp_path / "two", settings={**settings, **TWO}, show_progress=False)
    assert curve(two) == pytest.approx(curve(one), rel=1e-4)
    a, b = (load_file(run.folder / "model.safetensors") for run in (one, two))
    assert all(torch.allclose(a[name], b[name], rtol=1e-3, atol=1e-4) for name in a)
    assert [row["learning_rate"] for row in two.history] == [row["learning_rate"] for row in one.history]


def test_two_processes_validate_on_every_test_image_once(small: Any, pretrained: Run, tmp_path: Path) -> None:
    from formulavision.downstream import DownstreamSettings

    digits = DownstreamSettings.model_validate({"kind": "digits", "train_per_class": 5, "test_per_class": 5})
    settings = {name: value for name, value in small.items() if name != "model"} | {"batch_size": 7}
    one = finetune(pretrained.folder, digits, out=tmp_path / "one", settings=settings, show_progress=False)
    two = finetune(pretrained.folder, digits, out=tmp_path / "two", settings={**settings, **TWO}, show_progress=False)
    assert curve(two) == pytest.approx(curve(one), rel=1e-3)


def test_a_run_of_two_processes_is_gone_on_with_by_one(
    stripes: Any, small: Any, tmp_path: Path, pretrained: Run
) -> None:
    whole = pretrain(stripes(), out=tmp_path / "run", settings={**small, **TWO}, show_progress=False)
    (whole.folder / "run.json").unlink()
    run = pretrain(stripes(), out=tmp_path / "run", settings=small, resume=True, show_progress=False)
    assert [row["epoch"] for row in run.history] == [1, 2]


class Broken:
    num_classes = 2
    class_names = ("a", "b")

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index == 31:
            raise FormulaVisionError("image 31: is torn")
        return torch.zeros(1, 36, 36, dtype=torch.uint8), index % 2


def test_what_fails_in_a_process_is_told_in_one_line(small: Any, tmp_path: Path) -> None:
    with pytest.raises(FormulaVisionError, match=r"^image 31: is torn$"):
        pretrain(Broken(), out=tmp_path / "run", settings={**small, **TWO}, show_progress=False)


def test_more_processes_than_images_a_batch_are_refused(stripes: Any, small: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="devices: 20 processes cannot share batches of 16"):
        pretrain(stripes(), out=tmp_path / "run", settings={**small, "devices": 20})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("training", [True, False])
def test_the_synchronised_norm_of_one_process_is_torchs(training: bool) -> None:
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.BatchNorm2d(3)).train(training)
    torch.nn.init.uniform_(plain[0].weight)
    ours = torch.nn.Sequential(torch.nn.BatchNorm2d(3)).train(training)
    ours.load_state_dict(plain.state_dict())
    synchronise_batch_norm(ours).train(training)
    x = torch.randn(4, 3, 5, 5) * 3 + 1
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    for model, images in ((plain, a), (ours, b)):
        (model(images) ** 3).sum().backward()
    assert torch.allclose(a.grad, b.grad, rtol=1e-3, atol=1e-3)  # type: ignore[arg-type]
    assert all(torch.allclose(v, ours.state_dict()[k], atol=1e-5) for k, v in plain.state_dict().items())


def test_torchrun_starts_the_command_line(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "generator: {name: perlin, grid: 2}\ncategories: 4\ninstances: 8\ncanvas: {size: 36, padding: 0}\n"
    )
    arguments = ["pretrain", "--recipe", str(recipe), "--out", str(tmp_path / "run"), "--model", "test_resnet"]
    settings = ["epochs=1", "batch_size=16", "resize=36", "crop=32", "device=cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "formulavision"]
        + arguments
        + [part for setting in settings for part in ("--set", setting)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    run = Run.load(tmp_path / "run")
    assert len(run.history) == 1
    assert done.stdout.count("pre-training test_resnet on 32 images") == 1
