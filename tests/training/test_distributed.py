"""Several processes train as one does: each image once an epoch, the same loss within rounding.

Most tests train in one pair of processes, with the variables that torchrun sets; one has ``devices: 2`` start them.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from pair import Pair
from safetensors.torch import load_file
from striped_images import SeveralLabels, Squares, Stripes, TornStripes, write_squares

from formulavision.data.loading import EpochBatches, Prepared, make_batches
from formulavision.training import Run, TrainSettings, finetune, pretrain
from formulavision.training.distributed import synchronise_batch_norm
from formulavision.training.ranks import train_in_processes
from formulavision.training.recorder import Recorder
from formulavision.training.runs import LAST_CHECKPOINT
from formulavision.training.tasks import ClassTask
from formulavision.util.errors import ConfigError, FormulaVisionError

TWO = {"devices": 2}


def curve(run: Run) -> list[float]:
    return [value for row in run.history for name, value in row.items() if name.endswith("loss") and value is not None]


@pytest.mark.parametrize("model", ["test_resnet", "test_vit"])
def test_two_processes_give_the_loss_of_one(pair: Pair, stripes: Any, small: Any, tmp_path: Path, model: str) -> None:
    # Of 47 images the last batch has 15: 8 for one process and 7 for the other.
    # In channels-last, sums of 8 and of 16 images round differently, which grows to a hundredth at this learning rate.
    # Other sums do so, too: the losses differ by 1.2e-4 and weights by 3e-4 on processors without AVX-512.
    settings = {**small, "model": model, "learning_rate": 0.01, "channels_last": False}
    one = pretrain(stripes(47), out=tmp_path / "one", settings=settings, show_progress=False)
    two = pair(pretrain, stripes(47), out=tmp_path / "two", settings=settings, show_progress=False)
    assert curve(two) == pytest.approx(curve(one), rel=3e-4)
    a, b = (load_file(run.folder / "model.safetensors") for run in (one, two))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-3)
    assert [row["learning_rate"] for row in two.history] == [row["learning_rate"] for row in one.history]


@pytest.mark.slow
def test_two_processes_validate_on_every_test_image_once(
    pair: Pair, small: Any, pretrained: Run, tmp_path: Path
) -> None:
    from formulavision.data.downstream import DownstreamSettings

    digits = DownstreamSettings.model_validate({"kind": "digits", "train_per_class": 5, "test_per_class": 5})
    settings = {name: value for name, value in small.items() if name != "model"}
    settings |= {"batch_size": 7, "learning_rate": 0.005}  # where rounding stays rounding
    one = finetune(pretrained.folder, digits, out=tmp_path / "one", settings=settings, show_progress=False)
    two = pair(finetune, pretrained.folder, digits, out=tmp_path / "two", settings=settings, show_progress=False)
    assert curve(two) == pytest.approx(curve(one), rel=1e-3)


def test_frozen_layers_stay_as_they_are_in_several_processes(
    pair: Pair, small: Any, pretrained: Run, tmp_path: Path
) -> None:
    from formulavision.data.downstream import DownstreamSettings

    digits = DownstreamSettings.model_validate({"kind": "digits", "train_per_class": 5, "test_per_class": 2})
    settings = {name: value for name, value in small.items() if name != "model"}
    arguments: dict[str, Any] = {"freeze": "conv1-3", "settings": settings, "show_progress": False}
    runs = [
        finetune(pretrained.folder, digits, out=tmp_path / "one", **arguments),
        pair(finetune, pretrained.folder, digits, out=tmp_path / "two", **arguments),
    ]
    before, one, two = (load_file(run.folder / "model.safetensors") for run in (pretrained, *runs))
    frozen = [name for name in before if name.startswith(("conv1.", "bn1.", "layer1.", "layer2."))]
    assert any("running_mean" in name for name in frozen)
    assert all(torch.equal(two[name], before[name]) and torch.equal(one[name], before[name]) for name in frozen)
    assert curve(runs[1]) == pytest.approx(curve(runs[0]), rel=1e-3)


@pytest.mark.parametrize(
    "images",
    [SeveralLabels(), pytest.param(Squares(23), marks=pytest.mark.slow)],
    ids=lambda images: type(images).__name__,
)
def test_what_does_not_count_weighs_alike_in_several_processes(
    pair: Pair, small: Any, tmp_path: Path, images: Any
) -> None:
    settings = {**small, "batch_size": 8, "epochs": 1, "milestones": [], "learning_rate": 0.01}
    if isinstance(images, Squares):
        settings["decoder"] = "upernet"  # without dropout, whose random numbers differ between processes
    one = pretrain(images, out=tmp_path / "one", settings=settings, show_progress=False)
    two = pair(pretrain, images, out=tmp_path / "two", settings=settings, show_progress=False)
    assert curve(two) == pytest.approx(curve(one), rel=1e-4)


def test_two_processes_measure_the_metrics_of_one(pair: Pair, small: Any, tmp_path: Path) -> None:
    # Without training, so that the metrics are equal, not nearly so. Of 7 test images the last batch has 3.
    write_squares(tmp_path / "data", 16, 7)
    settings = {**small, "epochs": 1, "milestones": [], "learning_rate": 1e-30, "momentum": 0, "weight_decay": 0}
    arguments: dict[str, Any] = {"settings": {**settings, "batch_size": 4}, "show_progress": False, "freeze": "conv1-5"}
    one = finetune(None, tmp_path / "data", out=tmp_path / "one", **arguments)
    two = pair(finetune, None, tmp_path / "data", out=tmp_path / "two", **arguments)
    for name in ("validation_miou", "validation_pixel_accuracy"):
        assert two.final[name] == one.final[name] is not None


@pytest.mark.slow
@pytest.mark.parametrize("resumed_by", [None, "others", "devices: 2"])
def test_what_fails_in_a_process_is_told_in_one_line_and_its_run_is_resumed(
    pair: Pair, small: Any, tmp_path: Path, resumed_by: str | None
) -> None:
    settings = {**small, "checkpoint_minutes": 0}
    # An image of the third and last batch of the first epoch.
    torn = list(EpochBatches(48, 16, seed=1, shuffle=True))[2][5][1]
    with pytest.raises(FormulaVisionError, match=rf"^image {torn}: is torn$"):
        pretrain(TornStripes(torn), out=tmp_path / "run", settings={**settings, **TWO}, show_progress=False)
    log = tmp_path / "run" / "logs" / "log.txt"
    text = log.read_text()
    assert text.count("versions:") == 1
    assert "Traceback (most recent call last)" in text and "striped_images.py" in text
    assert f"FormulaVisionError: image {torn}: is torn" in text
    if resumed_by is None:
        return
    arguments: dict[str, Any] = {"out": tmp_path / "run", "resume": True, "show_progress": False}
    if resumed_by == "others":  # processes that somebody else started
        run = pair(pretrain, Stripes(), settings=settings, **arguments)
    else:
        run = pretrain(Stripes(), settings={**settings, **TWO}, **arguments)
    assert log.read_text().startswith(text) and log.read_text().count("versions:") == 2
    whole = pair(pretrain, Stripes(), out=tmp_path / "whole", settings=settings, show_progress=False)
    assert curve(run) == pytest.approx(curve(whole), rel=1e-6)
    a, b = (load_file(one.folder / "model.safetensors") for one in (run, whole))
    assert all(torch.allclose(a[name], b[name]) for name in a)


@pytest.mark.slow  # The next test states the same, of the function that the processes call.
def test_processes_whose_number_would_change_the_steps_of_an_epoch_do_not_resume(small: Any, tmp_path: Path) -> None:
    # The last batch has 2 of 18 images, which 3 processes cannot share.
    run = pretrain(Stripes(18), out=tmp_path / "run", settings=small, show_progress=False)
    (run.folder / "run.json").unlink()
    with pytest.raises(FormulaVisionError, match="has 2 steps an epoch, and 1 with 3 processes"):
        pretrain(Stripes(18), out=tmp_path / "run", settings={**small, "devices": 3}, resume=True, show_progress=False)


def test_a_run_whose_steps_an_epoch_would_change_is_not_resumed(small: Any, tmp_path: Path) -> None:
    run = pretrain(Stripes(18), out=tmp_path / "run", settings=small, show_progress=False)
    checkpoint = torch.load(run.folder / LAST_CHECKPOINT, weights_only=True)
    images = Prepared(Stripes(18), **TrainSettings(**small).resizing(), augment=True, flip=True, seed=1, cache=None)
    for processes, steps in ((1, 2), (2, 2), (3, 1)):
        trainer: Any = SimpleNamespace(world_size=processes)
        data: Any = None  # the batches are set below
        recorder = Recorder(
            run.folder,
            data,
            ClassTask(4),
            settings=TrainSettings(),
            resumed_from=None,
            tell=lambda line: None,
            described={},
        )  # fmt: skip
        for rank in range(processes):
            recorder.batches = make_batches(images, batch_size=16, shuffle=True, rank=rank, ranks=processes)
            assert len(recorder.batches) == steps
            refusal: Any = pytest.raises(FormulaVisionError, match="has 2 steps an epoch, and 1 with 3 processes")
            with refusal if steps == 1 else nullcontext():
                recorder.on_load_checkpoint(trainer, None, checkpoint)  # type: ignore[arg-type]


def test_a_variable_that_others_set_too_is_no_sign_of_several_processes(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="is not empty, and has no file"):
        pretrain(Stripes(), out=tmp_path, settings=small, show_progress=False)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_task_of_slurm_that_trains_by_itself_writes_its_logs(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning.pytorch.utilities import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1)  # what Lightning takes from these when it is imported
    for given in ("PROCID=1", "LOCALID=1", "NODEID=0", "NTASKS=2", "JOB_ID=7", "JOB_NAME=x"):
        monkeypatch.setenv(*f"SLURM_{given}".split("="))
    pretrain(Stripes(), out=tmp_path / "run", settings=small, logger="csv", show_progress=False)
    assert len((tmp_path / "run" / "logs" / "csv" / "metrics.csv").read_text().splitlines()) == 1 + small["epochs"]
    assert vars(rank_zero_only)["rank"] == 1


def end_the_second() -> None:
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def test_a_process_that_is_killed_is_told_in_one_line() -> None:
    with pytest.raises(FormulaVisionError, match=r"ended from outside \(SIGKILL\).*--resume goes on"):
        train_in_processes(end_the_second, 2)


@pytest.mark.parametrize("what", ["training images: 2", "images to validate on: 2"])
def test_fewer_images_than_processes_are_refused(small: Any, tmp_path: Path, what: str) -> None:
    from formulavision.data.downstream import Downstream, DownstreamSettings

    train, test = (2, 8) if what.startswith("training") else (8, 2)
    few = Downstream("few", DownstreamSettings(kind="digits"), Stripes(train), Stripes(test))  # type: ignore[arg-type]
    from rich.console import Console

    from formulavision.training.fit import Plan, fit, new_model
    from formulavision.training.settings import TrainSettings

    settings = TrainSettings.model_validate({**small, "devices": 3})
    with pytest.raises(ConfigError, match=f"devices: 3 processes cannot share {what}"):
        fit(
            Plan(tmp_path / "run", {}, settings, new_model(settings, 4), few.train, few.test),
            console=Console(quiet=True),
        )
    assert not (tmp_path / "run").exists()


def test_more_processes_than_images_a_batch_are_refused(stripes: Any, small: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="devices: 20 processes cannot share batches of 16"):
        pretrain(stripes(), out=tmp_path / "run", settings={**small, "devices": 20})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("training", [True, False])
def test_the_synchronised_norm_of_one_process_is_torchs(training: bool, momentum: float | None) -> None:
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.BatchNorm2d(3, momentum=momentum)).train(training)
    torch.nn.init.uniform_(next(plain.parameters()))
    ours = torch.nn.Sequential(torch.nn.BatchNorm2d(3, momentum=momentum))
    ours.load_state_dict(plain.state_dict())
    synchronise_batch_norm(ours, torch.device("cpu"))
    ours.train(training)
    for offset in (3, 2, 1):
        x = torch.randn(4, 3, 5, 5) * 3 + offset
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        for model, images in ((plain, a), (ours, b)):
            (model(images) ** 3).sum().backward()
    assert torch.allclose(a.grad, b.grad, rtol=1e-3, atol=1e-3)  # type: ignore[arg-type]
    assert all(torch.allclose(v, ours.state_dict()[k], atol=1e-5) for k, v in plain.state_dict().items())


def test_the_synchronised_norm_takes_numbers_of_16_bits_as_torchs_does() -> None:
    torch.manual_seed(0)
    plain, ours = torch.nn.Sequential(torch.nn.BatchNorm2d(3)), torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    synchronise_batch_norm(ours, torch.device("cpu"))
    x = (torch.randn(4, 3, 5, 5) * 3 + 1).bfloat16()
    theirs, own = plain(x), ours(x)
    assert own.dtype == theirs.dtype == torch.bfloat16
    torch.testing.assert_close(own, theirs)
    assert all(torch.allclose(v, ours.state_dict()[k], atol=1e-5) for k, v in plain.state_dict().items())


def test_the_synchronised_norm_of_a_bright_image_is_exact() -> None:
    norm = torch.nn.Sequential(torch.nn.BatchNorm2d(1, eps=0))
    synchronise_batch_norm(norm, torch.device("cpu"))
    x = 1000 + torch.linspace(-0.1, 0.1, 64).view(1, 1, 8, 8)
    assert norm(x).detach().std(unbiased=False) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_layers_that_hold_an_activation_keep_it(device: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_efficientnet", num_classes=4)
    x = torch.randn(2, 3, 32, 32)
    before = model.eval()(x)
    synchronise_batch_norm(model.train(), torch.device(device))
    assert torch.allclose(model.eval()(x), before, atol=1e-5)


@pytest.mark.slow  # It starts three interpreters. The pair of the tests above has the variables that torchrun sets.
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
    )
    assert done.returncode == 0, done.stderr
    run = Run.load(tmp_path / "run")
    assert len(run.history) == 1
    assert done.stdout.count("pre-training test_resnet on 32 images") == 1


@pytest.mark.slow  # It starts five interpreters.
def test_two_machines_train_one_run_and_one_process_resumes_it(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "generator: {name: perlin, grid: 2}\ncategories: 4\ninstances: 8\ncanvas: {size: 36, padding: 0}\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def command(out: str, epochs: int) -> list[str]:
        settings = [f"epochs={epochs}", "batch_size=16", "resize=36", "crop=32", "device=cpu", "precision=32-true"]
        options = [part for setting in [*settings, "milestones=[]"] for part in ("--set", setting)]
        return ["-m", "formulavision", "pretrain", "--out", str(tmp_path / out), "--model", "test_resnet", *options]

    nodes = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={rank}", "--nproc-per-node=1",
             "--master-addr=127.0.0.1", f"--master-port={port}", *command("nodes", 1), "--recipe", str(recipe)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    ended = [node.communicate(timeout=300) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], ended
    assert [output.count("pre-training test_resnet on 32 images") for output, _ in ended] == [1, 0]
    subprocess.run([sys.executable, *command("nodes", 2), "--resume"], check=True)
    subprocess.run([sys.executable, *command("alone", 2), "--recipe", str(recipe)], check=True)
    losses = [[row["train_loss"] for row in Run.load(tmp_path / name).history] for name in ("nodes", "alone")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
