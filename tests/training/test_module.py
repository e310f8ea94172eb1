"""What happens in a step: losses, mixed images, averages, learning rates."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import pytest
import timm
import torch
from cases import slow
from PIL import Image
from safetensors.torch import load_file
from striped_images import SeveralLabels
from timm.scheduler import CosineLRScheduler
from torch.utils.data import DataLoader, Subset, TensorDataset

from formulavision.training import TrainSettings, finetune, pretrain
from formulavision.training.module import LightningClassifier
from formulavision.training.optimization import learning_rate_factor, make_optimizer
from formulavision.training.tasks import ClassTask, LabelsTask
from formulavision.util.config import parse
from formulavision.util.errors import ConfigError, FormulaVisionError


def test_several_labels_an_image_are_told_one_by_one_and_what_is_not_counted_is_not() -> None:
    logits = torch.tensor([[2.0, -1.0, 5.0], [0.5, 0.5, -9.0]])
    labels = torch.tensor([[1, 0, -1], [0, 1, -1]], dtype=torch.int8)
    told = torch.stack([logits[0, 0], -logits[0, 1], -logits[1, 0], logits[1, 1]])
    expected = -torch.nn.functional.logsigmoid(told).mean()
    task = LabelsTask(3)
    assert torch.isclose(task.loss(logits, labels), expected)
    other = logits.clone()
    other[:, 2] = 77
    assert torch.equal(task.loss(other, labels), task.loss(logits, labels))
    assert float(task.counts(logits, labels)) == 1 + 0.5


def test_smoothing_is_torchs() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    expected = torch.nn.CrossEntropyLoss(label_smoothing=0.1)(logits, labels)
    assert torch.equal(ClassTask(4).loss(logits, labels, 0.1), expected)


def test_the_module_trains_under_a_trainer_and_a_loader_of_a_users_program(tmp_path: Path) -> None:
    images, labels = torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8), torch.arange(20) % 4
    loader = DataLoader(TensorDataset(images, labels), batch_size=8)
    settings = parse(TrainSettings, {"model": "test_resnet", "epochs": 2, "schedule": "cosine", "ema": 0.5})
    module = LightningClassifier(timm.create_model("test_resnet", num_classes=4), settings, num_classes=4)
    before = {name: tensor.clone() for name, tensor in module.model.named_parameters()}
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(
        accelerator="cpu", devices=1, max_epochs=2, default_root_dir=tmp_path, enable_checkpointing=False, **quiet
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*(does not have many workers|`isinstance)")
        trainer.fit(module, loader, loader)
    assert trainer.global_step == 6 and module.validation_sums.count == 20
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0, "the schedule ends with the Trainer's last step"
    assert not any(torch.equal(before[name], tensor) for name, tensor in module.model.named_parameters())


@pytest.mark.parametrize(
    ("settings", "ends"),
    [
        ({"schedule": "cosine"}, lambda rates: rates == sorted(rates, reverse=True) and 0 < rates[-1] < 0.02),
        ({"milestones": [45], "gamma": 0.5}, lambda rates: rates == [1.0] * 10 + [0.5] * 10),
        (
            {"schedule": "cosine", "warmup_epochs": 45},
            lambda rates: rates[:10] == sorted(rates[:10]) and rates[0] < 0.1,
        ),
        ({"schedule": "cosine", "epochs": 5, "milestones": []}, lambda rates: 0 < rates[-1] < 0.02),
    ],
)
def test_the_schedule_is_that_of_the_trainer_whatever_epochs_the_settings_have(
    settings: dict[str, Any], ends: Any, tmp_path: Path
) -> None:
    """The default of ``epochs`` is 90; the Trainer makes 20 steps in 5."""
    loader = DataLoader(TensorDataset(torch.zeros(8, 3, 8, 8), torch.arange(8) % 2), batch_size=2)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 2))
    module, rates = LightningClassifier(net, {"learning_rate": 1.0, **settings}, 2), []

    class Note(lightning.Callback):
        def on_train_batch_start(self, trainer: lightning.Trainer, *arguments: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lightning.Trainer(
            accelerator="cpu", devices=1, max_epochs=5, default_root_dir=tmp_path, enable_checkpointing=False,
            callbacks=[Note()], **quiet,
        ).fit(module, loader)  # fmt: skip
    assert len(rates) == 20 and ends(rates), rates


def test_a_run_of_several_labels_that_diverges_is_told(small: Any, tmp_path: Path) -> None:
    data: Any = SeveralLabels()
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * small["crop"] ** 2, len(data.classes)))
    settings = {**small, "learning_rate": 100, "epochs": 40, "milestones": [], "batch_size": 2}
    torch.nn.init.constant_(next(net.parameters()), 1e38)
    settings = {name: value for name, value in settings.items() if name != "model"}
    with pytest.raises(FormulaVisionError, match=r"the loss became (nan|inf) in epoch \d: lower learning_rate"):
        finetune(
            None,
            (data, Subset(data, range(4))),
            out=tmp_path / "run",
            model=net,
            settings=settings,
            show_progress=False,
        )


def test_steps_fall_at_the_milestones() -> None:
    factor = learning_rate_factor(parse(TrainSettings, {"epochs": 90}), steps_per_epoch=7)
    assert [factor(step) for step in (0, 209, 210, 419, 420)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_the_cosine_is_timms() -> None:
    settings = parse(TrainSettings, {"epochs": 6, "schedule": "cosine"})
    factor = learning_rate_factor(settings, steps_per_epoch=5)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = CosineLRScheduler(optimizer, t_initial=30, t_in_epochs=False)
    for step in range(30):
        assert factor(step) == pytest.approx(reference._get_lr(step)[0])


def test_warming_up_rises_evenly_to_the_schedule() -> None:
    settings = parse(TrainSettings, {"epochs": 10, "schedule": "cosine", "warmup_epochs": 2})
    factor = learning_rate_factor(settings, steps_per_epoch=4)
    assert [factor(step) for step in range(9)] == pytest.approx([*(k / 9 for k in range(1, 9)), 1.0])


def test_adamw_decays_weights_and_neither_biases_nor_norms_nor_position_embeddings() -> None:
    model = timm.create_model("test_vit")
    groups = make_optimizer(model, parse(TrainSettings, {"preset": "vit"})).param_groups
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        decayed = parameter.ndim > 1 and name not in {"pos_embed", "cls_token"}
        assert decays[id(parameter)] == (0.05 if decayed else 0), name


def test_a_preset_fills_in_what_is_not_set() -> None:
    settings = parse(TrainSettings, {"preset": "vit", "epochs": 30})
    assert (settings.optimizer, settings.mixup, settings.epochs) == ("adamw", 0.8, 30)
    assert parse(TrainSettings, settings.model_dump()) == settings


def test_the_average_of_weights_is_what_a_run_keeps(stripes: Any, small: Any, tmp_path: Path) -> None:
    # One step: the average starts as a copy of the model, so that it is the trained one, whatever its decay.
    settings = {**small, "epochs": 1, "batch_size": 48}
    plain = pretrain(stripes(), out=tmp_path / "plain", settings=settings, show_progress=False)
    first = pretrain(stripes(), out=tmp_path / "first", settings={**settings, "ema": 0.5}, show_progress=False)
    a, b = (load_file(run.folder / "model.safetensors") for run in (plain, first))
    assert all(torch.equal(a[name], b[name]) for name in a)
    # Two: half of each.
    settings = {**settings, "epochs": 2, "milestones": []}
    second = pretrain(stripes(), out=tmp_path / "second", settings={**settings, "ema": 0.5}, show_progress=False)
    last = pretrain(stripes(), out=tmp_path / "last", settings=settings, show_progress=False)
    c, d = (load_file(run.folder / "model.safetensors") for run in (second, last))
    assert torch.allclose(c["fc.weight"], (a["fc.weight"] + d["fc.weight"]) / 2)
    assert not torch.allclose(c["fc.weight"], d["fc.weight"])


@pytest.mark.parametrize("setting", [{"channels_last": True}, *slow({"compile": True})], ids=str)
def test_what_makes_training_faster_leaves_its_result(
    stripes: Any, small: Any, pretrained: Any, tmp_path: Path, setting: dict[str, bool], monkeypatch: Any
) -> None:
    if "compile" in setting:
        # Without a compiler for the machine: what is tested is that the model is compiled and exported as it was.
        torch._dynamo.reset()
        whole = torch.nn.Module.compile
        monkeypatch.setattr(torch.nn.Module, "compile", lambda self: whole(self, backend="aot_eager"))
    run = pretrain(stripes(), out=tmp_path / "run", settings={**small, **setting}, show_progress=False)
    one, two = (load_file(folder / "model.safetensors") for folder in (run.folder, pretrained.folder))
    assert one.keys() == two.keys()
    assert [row["train_loss"] for row in run.history] == pytest.approx(
        [row["train_loss"] for row in pretrained.history], rel=1e-3
    )


def test_clipping_shortens_the_gradient(stripes: Any, small: Any, tmp_path: Path) -> None:
    settings = {**small, "epochs": 1, "batch_size": 48, "momentum": 0.0, "weight_decay": 0.0, "learning_rate": 1.0}
    settings["clip_grad"] = 1e-3
    run = pretrain(stripes(), out=tmp_path / "run", settings=settings, show_progress=False)
    torch.manual_seed(small.get("seed", 1))
    before = timm.create_model("test_resnet", num_classes=4)
    after = load_file(run.folder / "model.safetensors")
    moved = sum(float((after[n] - p.detach()).square().sum()) for n, p in before.named_parameters()) ** 0.5
    assert moved == pytest.approx(1e-3, rel=0.01)


def test_a_model_is_trained_on_several_labels_an_image(small: Any, tmp_path: Path) -> None:
    settings = {**small, "epochs": 6, "milestones": [], "batch_size": 8}
    run = pretrain(SeveralLabels(), out=tmp_path / "run", settings=settings, show_progress=False)
    losses = [row["train_loss"] for row in run.history]
    assert losses[-1] < losses[0]  # type: ignore[operator]
    assert 0 <= run.final["train_accuracy"] <= 1  # type: ignore[operator]


def test_images_of_several_labels_are_not_mixed(small: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mixup: must be 0 for images of several labels each"):
        pretrain(SeveralLabels(), out=tmp_path / "run", settings={**small, "mixup": 0.5}, show_progress=False)


def test_held_out_instances_are_of_a_formula_only(stripes: Any, small: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="held_out: is 3: must be 0: only a recipe can draw more images"):
        pretrain(stripes(), out=tmp_path / "run", settings={**small, "held_out": 3})


class Named:
    """A dataset with classes, of items of any type."""

    num_classes, classes = 2, ("a", "b")

    def __init__(self, item: Any) -> None:
        self.item = item

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Any:
        if index >= len(self):
            raise IndexError(index)
        pixels = np.random.default_rng(index).integers(0, 256, (3, 8, 8), np.uint8)
        return self.item(torch.from_numpy(pixels), index % 2)


def test_images_of_any_usual_type_are_trained_on_alike(small: Any, tmp_path: Path) -> None:
    """Also in a dataset that names its classes as ours do."""
    items = {
        "tensor": lambda image, label: (image, label),
        "float": lambda image, label: (image.float() / 255, label),
        "PIL": lambda image, label: (Image.fromarray(image.permute(1, 2, 0).numpy()), label),
    }
    settings = {**small, "epochs": 1, "milestones": [], "batch_size": 4}
    runs = [
        pretrain(Named(item), out=tmp_path / name, settings=settings, show_progress=False)
        for name, item in items.items()
    ]
    assert len({run.weights_sha256 for run in runs}) == 1


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (lambda image, label: (image, 2 * label), "an item has the label 2: there are 2 classes"),
        (lambda image, label: (image, label - 1), "an item has the label -1: there are 2 classes"),
        (lambda image, label: (image, label * 0.9), "items have labels of torch.float32: must be whole numbers"),
        (
            lambda image, label: (image if label == 0 else image / 255, label),
            "an item has an image of torch.float32: must be a uint8 tensor",
        ),
    ],
)
def test_items_that_cannot_be_trained_on_are_told_in_one_line(
    item: Any, message: str, small: Any, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        pretrain(Named(item), out=tmp_path / "run", settings=small, show_progress=False)
