"""The data module and the Lightning module work in a plain script with a Trainer of its own."""

from __future__ import annotations

import runpy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import timm
import torch
from cases import slow
from lightning.pytorch.callbacks import ModelCheckpoint

import formulavision as fv
from formulavision.data.loading import Prepared, make_loader
from formulavision.training import TrainSettings
from formulavision.util.errors import ConfigError

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
RECIPE = {"generator": "perlin", "categories": 4, "instances": 6, "canvas": {"size": 36}}
SETTINGS = {"batch_size": 10, "resize": 36, "crop": 32, "held_out": 2, "device": "cpu", "mean": [0.1, 0.2, 0.3]}
QUIET: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False,
                         "accelerator": "cpu", "devices": 1, "num_sanity_val_steps": 0}  # fmt: skip


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")  # Lightning's advice
        yield


@pytest.mark.parametrize("name", ["lightning_own_module.py", "lightning_classifier.py"])
@pytest.mark.slow
def test_the_examples_of_the_documents_train(name: str, tmp_path: Path) -> None:
    text = (EXAMPLES / name).read_text()
    assert f"```python\n{text}```" in (EXAMPLES.parent / "training.md").read_text()
    assert len(text.splitlines()) <= 25
    runpy.run_path(str(EXAMPLES / name))
    assert list(tmp_path.rglob("*.ckpt"))


class Watching(lightning.LightningModule):
    """Keeps all batches."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 4)
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.validated: list[tuple[torch.Tensor, torch.Tensor]] = []

    def training_step(self, batch: Any, step: int) -> torch.Tensor:
        self.seen.append(batch)
        return torch.nn.functional.cross_entropy(self.layer(batch[0].mean((2, 3))), batch[1])

    def validation_step(self, batch: Any, step: int) -> None:
        self.validated.append(batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def test_the_batches_are_those_of_pretrain(tmp_path: Path) -> None:
    data = fv.FormulaDataModule(RECIPE, SETTINGS)
    assert repr(data) == "FormulaDataModule(24 images of 4 classes, 8 held out, batches of 10, 32 pixels)"
    assert (data.num_classes, len(data.classes)) == (4, 4)
    module = Watching()
    lightning.Trainer(max_epochs=2, enable_checkpointing=False, **QUIET).fit(module, data)
    settings = TrainSettings.model_validate(SETTINGS)
    prepared = Prepared(fv.FormulaDataset(RECIPE), **settings.resizing(), augment=True, flip=True, seed=1, cache=None,
                        fresh=True)  # fmt: skip
    loader = make_loader(prepared, batch_size=10, shuffle=True, workers=0, pin=False)
    expected = []
    for loader.batches.epoch in range(2):
        expected += list(loader)
    assert len(module.seen) == len(expected) == 6 and len(module.validated) == 2
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (settings.mean, settings.std))
    for (images, labels), (pixels, theirs) in zip(module.seen, expected, strict=True):
        assert images.dtype == torch.float32 and images.shape[1:] == (3, 32, 32)
        assert torch.allclose(images, (pixels / 255 - mean) / std, atol=1e-5)
        assert torch.equal(labels, theirs)


@pytest.mark.parametrize(("step", "workers"), [(2, 0), (3, 1), *slow((2, 1), (3, 0), (5, 0), (5, 1))])
def test_a_trainer_that_is_resumed_goes_on_with_the_next_batch(tmp_path: Path, step: int, workers: int) -> None:
    settings = {**SETTINGS, "held_out": 0, "workers": workers}
    whole, first, second = Watching(), Watching(), Watching()
    lightning.Trainer(max_epochs=3, enable_checkpointing=False, **QUIET).fit(
        whole, fv.FormulaDataModule(RECIPE, settings)
    )
    keeper = ModelCheckpoint(tmp_path, every_n_train_steps=1, filename="kept")
    lightning.Trainer(max_steps=step, callbacks=[keeper], **QUIET).fit(first, fv.FormulaDataModule(RECIPE, settings))
    lightning.Trainer(max_epochs=3, enable_checkpointing=False, **QUIET).fit(
        second, fv.FormulaDataModule(RECIPE, settings), ckpt_path=str(tmp_path / "kept.ckpt"), weights_only=False
    )
    epochs = [whole.seen[3 * epoch][0] for epoch in range(3)]
    assert not any(torch.equal(epochs[i], epochs[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    seen = first.seen + second.seen
    assert len(seen) == len(whole.seen) == 9
    assert all(torch.equal(a[0], b[0]) for a, b in zip(seen, whole.seen, strict=True))


def test_a_transform_and_other_data_are_taken(stripes: Any) -> None:
    data = fv.FormulaDataModule(stripes(), {**SETTINGS, "held_out": 0}, transform=lambda image: image.fill_(0))
    module = Watching()
    lightning.Trainer(max_epochs=1, enable_checkpointing=False, **QUIET).fit(module, data)
    assert all(images.unique().numel() <= 3 for images, _ in module.seen)
    with pytest.raises(ConfigError, match="held_out: is 2"):
        fv.FormulaDataModule(stripes(), SETTINGS)
    with pytest.raises(ConfigError, match="batch_sise: there is no such setting"):
        fv.FormulaDataModule(RECIPE, {"batch_sise": 3})


def test_the_classifier_logs_its_metrics_and_takes_bytes_and_floats(tmp_path: Path) -> None:
    settings = {**SETTINGS, "epochs": 2, "learning_rate": 0.01}
    module = fv.LightningClassifier(timm.create_model("test_resnet", num_classes=4), settings, 4)
    trainer = lightning.Trainer(max_epochs=2, enable_checkpointing=False, **QUIET)
    trainer.fit(module, fv.FormulaDataModule(RECIPE, settings))
    assert set(trainer.callback_metrics) == {
        "train_loss", "train_accuracy", "validation_loss", "validation_accuracy"
    }  # fmt: skip
    pixels = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (module.settings.mean, module.settings.std))
    module.eval()
    assert torch.allclose(module(pixels), module((pixels / 255 - mean) / std), atol=1e-5)
