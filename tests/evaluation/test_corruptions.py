"""Corrupted test images in their published layouts: errors, mean corruption error, calibration error; bad input."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.calibration import calibration_curve
from torchvision.transforms.v2 import functional
from typer.testing import CliRunner

import formulavision as fv
from formulavision.cli import app
from formulavision.data.downstream import DownstreamSettings
from formulavision.data.downstream.opening import open_corrupted
from formulavision.evaluation import corruptions
from formulavision.evaluation.corruptions import ALEXNET, CorruptionEvaluation

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
COUNT = 20
"""Images of a severity in the arrays."""


def noise(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """CIFAR-10-C with 20 images instead of 10,000: two of the benchmark's corruptions and another one."""
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    np.save(folder / "labels.npy", np.tile(np.arange(COUNT) % 10, 5).astype(np.uint8))
    for seed, name in enumerate(("fog", "snow", "spatter")):
        np.save(folder / f"{name}.npy", noise(seed, 5 * COUNT))
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """ImageNet-C with two images of three classes."""
    folder = tmp_path / "ImageNet-C"
    for corruption in ("fog", "snow"):
        for severity in range(1, 6):
            for wnid in ("n01", "n02", "n03"):
                place = folder / corruption / str(severity) / wnid
                place.mkdir(parents=True)
                for k in range(2):
                    Image.fromarray(noise(severity + k, 1)[0]).save(place / f"{k}.JPEG")
    (folder / "README.txt").write_text("of the download")
    return folder


@pytest.fixture
def run(make_run: Callable[..., Path], tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", CIFAR10, seed=1)


def test_each_severity_is_its_part_of_the_arrays(arrays: Path) -> None:
    found = open_corrupted(fv.DownstreamSettings.from_text(f"corrupted:{arrays}"))
    assert list(found) == [(name, severity) for name in ("fog", "snow", "spatter") for severity in range(1, 6)]
    for (name, severity), images in found.items():
        stored = np.load(arrays / f"{name}.npy")[(severity - 1) * COUNT : severity * COUNT]
        np.testing.assert_array_equal([image.permute(1, 2, 0) for image, _ in images], stored)
        assert [label for _, label in images] == [i % 10 for i in range(COUNT)] and images.classes == CIFAR10


def test_errors_and_calibration_are_those_of_the_logits(arrays: Path, run: Path, tmp_path: Path) -> None:
    result = fv.evaluate_corrupted(run, f"corrupted:{arrays}", out=tmp_path / "out", show_progress=False)
    model = fv.load_checkpoint(run)
    network = timm.create_model("test_resnet", num_classes=10)
    model.load_into(network, head=True)
    network.eval()
    labels = torch.arange(COUNT) % 10
    for name in ("fog", "snow", "spatter"):
        pixels = torch.from_numpy(np.load(arrays / f"{name}.npy")).permute(0, 3, 1, 2)
        inputs = functional.center_crop(functional.resize(pixels, [36, 36], antialias=True), [32, 32])
        with torch.no_grad():
            shares = network((inputs / 255 - 0.2) / 0.5).softmax(1).view(5, COUNT, 10)
        for severity in range(5):
            confidence, predicted = shares[severity].max(1)
            correct = (predicted == labels).numpy()
            assert result.errors[name][severity] == pytest.approx(1 - correct.mean())
            # scikit-learn gives accuracy and confidence of the bins that hold images, numpy their sizes.
            accuracies, confidences = calibration_curve(correct, confidence.numpy(), n_bins=15)
            sizes = np.histogram(confidence.numpy(), np.linspace(0, 1, 16))[0]
            expected = (np.abs(accuracies - confidences) * sizes[sizes > 0]).sum() / COUNT
            assert result.calibration_errors[name][severity] == pytest.approx(expected, abs=1e-5)
    again = shutil.copytree(run, tmp_path / "again")
    for _ in range(2):
        fv.evaluate_corrupted(again, f"corrupted:{arrays}", show_progress=False)
    assert json.loads((again / "corruptions.json").read_text())["precision"] in ("32-true", "bf16-mixed")
    few = DownstreamSettings(kind="corrupted", root=arrays, test_per_class=1)
    with pytest.raises(fv.ConfigError, match="holds an evaluation of another downstream"):
        fv.evaluate_corrupted(again, few, show_progress=False)
    benchmark = ["fog", "snow"]  # spatter is for choosing settings
    assert result.counted == benchmark and not result.relative and result.images == COUNT
    assert result.mean_corruption_error == pytest.approx(np.mean([result.errors[name] for name in benchmark]))
    with (tmp_path / "out" / "corruptions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["corruption"], row["severity"]) for row in rows[4:6]] == [("fog", "5"), ("snow", "1")]
    assert float(rows[4]["error"]) == result.errors["fog"][4]
    content = json.loads((tmp_path / "out" / "corruptions.json").read_text())
    assert content["mean_corruption_error"] == result.mean_corruption_error


def test_confidences_of_1_are_in_the_last_bin(
    arrays: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In one bin, the errors of the image of confidence 1, which is wrong, and of the others, which are right, cancel.
    logits, labels = torch.zeros(10, 10), torch.arange(10)
    logits[torch.arange(10), labels] = 5.0
    logits[0] = torch.tensor([0.0, *[0.0] * 8, 99.0])
    monkeypatch.setattr(corruptions, "over_dataset", lambda *a, **k: (logits, labels))
    found = fv.evaluate_corrupted(run, f"corrupted:{arrays}", out=tmp_path / "out", show_progress=False)
    confidence, predicted = logits.softmax(1).max(1)
    correct = (predicted == labels).numpy()
    accuracies, confidences = calibration_curve(correct, confidence.numpy(), n_bins=15)
    sizes = np.histogram(confidence.numpy(), np.linspace(0, 1, 16))[0]
    expected = (np.abs(accuracies - confidences) * sizes[sizes > 0]).sum() / 10
    assert float(confidence.max()) == 1 and found.calibration_errors["fog"][0] == pytest.approx(expected, abs=1e-5)


def test_imagenets_mean_is_relative_to_alexnet(tmp_path: Path) -> None:
    errors = {name: [value] * 5 for name, value in ALEXNET.items()}
    made = CorruptionEvaluation(errors, errors, list(ALEXNET), True, 50_000, 1.0, tmp_path)
    assert made.mean_corruption_error == pytest.approx(1), "AlexNet's own"
    errors["fog"] = [value / 2 for value in errors["fog"]]
    assert made.mean_corruption_error == pytest.approx(1 - 0.5 / 15)
    assert "relative to AlexNet's" in repr(made) and "15 of the benchmark's 15" in repr(made)


def test_folders_are_read_and_classes_chosen(folders: Path, make_run: Callable[..., Path], tmp_path: Path) -> None:
    settings = fv.DownstreamSettings(kind="corrupted", root=folders)
    found = open_corrupted(settings)
    assert list(found) == [(name, severity) for name in ("fog", "snow") for severity in range(1, 6)]
    assert all(images.classes == ["n01", "n02", "n03"] and len(images) == 6 for images in found.values())
    assert found["snow", 3].source.path(1).endswith("snow/3/n01/1.JPEG")  # type: ignore[attr-defined]
    run = make_run(tmp_path / "two", ["n01", "n03"], seed=1)
    two = settings.model_copy(update={"classes": ("n01", "n03"), "test_per_class": 1})
    result = fv.evaluate_corrupted(run, two, show_progress=False)
    assert result.images == 2 and not result.relative and (run / "corruptions.csv").is_file()


def test_classes_are_left_out_in_both_layouts(folders: Path, arrays: Path) -> None:
    for root, left, wrong in ((folders, "n02", "n2"), (arrays, "cat", "cats")):
        settings = fv.DownstreamSettings(kind="corrupted", root=root, exclude=(left,))
        whole = next(iter(open_corrupted(settings.model_copy(update={"exclude": ()})).values())).classes
        found = open_corrupted(settings)
        assert all(images.classes == [name for name in whole if name != left] for images in found.values())
        with pytest.raises(fv.DownstreamError, match=f"has no class '{wrong}' .did you mean '{left}'"):
            open_corrupted(settings.model_copy(update={"exclude": (wrong,)}))


def test_some_images_of_each_class_are_the_same_at_each_severity(arrays: Path) -> None:
    settings = fv.DownstreamSettings(kind="corrupted", root=arrays, test_per_class=1)
    indices = [images.indices % COUNT for images in open_corrupted(settings).values()]
    assert len(indices[0]) == 10 and all((each == indices[0]).all() for each in indices)


def test_other_arrays_need_names_of_classes(arrays: Path, make_run: Callable[..., Path], tmp_path: Path) -> None:
    np.save(arrays / "labels.npy", np.tile(np.arange(COUNT) % 4, 5))
    with pytest.raises(fv.DownstreamError, match=r"has 4 classes and no names for them: downstream.classes must"):
        open_corrupted(fv.DownstreamSettings(kind="corrupted", root=arrays))
    named = fv.DownstreamSettings(kind="corrupted", root=arrays, classes=("d", "c", "b", "a"))
    run = make_run(tmp_path / "four", ["d", "c", "b", "a"], seed=1)
    assert fv.evaluate_corrupted(run, named, show_progress=False).images == COUNT
    with pytest.raises(fv.CheckpointError, match=r"has other classes than corrupted:.* \('d' where that has 'a'\)"):
        fv.evaluate_corrupted(run, named.model_copy(update={"classes": ("a", "b", "c", "d")}), show_progress=False)


Change = Callable[[Path], object]


def rewrite(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda folder: np.save(folder / name, change(np.load(folder / name)))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            rewrite("fog.npy", lambda a: a[:-1]),
            "fog.npy: has 99 images, and labels.npy has 100 labels: both must hold 5",
        ),
        (rewrite("fog.npy", lambda a: a[: 4 * COUNT]), "fog.npy: has 80 images, and labels.npy has 100 labels"),
        (rewrite("labels.npy", lambda a: a[: 4 * COUNT + 4]), "labels.npy: its 84 labels are not .*a severity missing"),
        (rewrite("labels.npy", lambda a: a[: 4 * COUNT + 5]), "labels.npy: its 85 labels are not .*a severity missing"),
        (rewrite("labels.npy", lambda a: a.astype(float)), r"labels.npy: is float64 \[100\]: must be whole numbers"),
        (rewrite("snow.npy", lambda a: a.astype(np.float32)), r"snow.npy: is float32 .*: must be uint8 \[n, h, w, 3\]"),
        (rewrite("snow.npy", lambda a: a[..., 0]), r"snow.npy: is uint8 \[100, 32, 32\]: must be uint8"),
        (
            lambda folder: (folder / "snow.npy").write_bytes(b"no array"),
            "snow.npy: is not an array of numpy, or damaged",
        ),
        (lambda folder: (folder / "snow.npy").write_bytes(b""), "snow.npy: is not an array of numpy, or damaged"),
        (lambda folder: [file.unlink() for file in folder.glob("[fs]*")], "holds labels.npy, and no CORRUPTION.npy"),
        (lambda folder: (folder / "labels.npy").unlink(), "must hold labels.npy and CORRUPTION.npy"),
        (shutil.rmtree, "no such folder"),
    ],
)
def test_wrong_arrays_are_refused_in_one_line(change: Change, told: str, arrays: Path, run: Path) -> None:
    change(arrays)
    with pytest.raises(fv.DownstreamError, match=told) as error:
        fv.evaluate_corrupted(run, f"corrupted:{arrays}", show_progress=False)
    assert "\n" not in str(error.value) and not (run / "corruptions.csv").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda folder: shutil.rmtree(folder / "snow/3"),
            "snow: has no severity 3: must hold the folders 1, 2, 3, 4, 5",
        ),
        (lambda folder: (folder / "fog/1").rename(folder / "fog/one"), "fog: has no severity 1"),
        (lambda folder: (folder / "fog/6").mkdir(), "fog/6: is no severity: must be 1, 2, 3, 4 or 5"),
        (lambda folder: shutil.rmtree(folder / "snow/2/n02"), "snow/2: class 'n02' is missing, other than in fog/1"),
        (
            lambda folder: shutil.copytree(folder / "fog/1/n01", folder / "snow/5/n09"),
            "class 'n09' is there, other than",
        ),
        (lambda folder: (folder / "snow/4/n03/1.JPEG").unlink(), "snow/4: class 'n03' has 1 image, and in fog/1 2"),
        (lambda folder: (folder / "snow/4/n03/1.JPEG").write_bytes(b""), "is empty"),
    ],
)
def test_wrong_folders_are_refused_in_one_line(change: Change, told: str, folders: Path) -> None:
    change(folders)
    with pytest.raises(fv.DownstreamError, match=told) as error:
        open_corrupted(fv.DownstreamSettings(kind="corrupted", root=folders))
    assert "\n" not in str(error.value)


def command(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def test_evaluate_takes_them_on_the_command_line_and_others_refuse_them(arrays: Path, run: Path) -> None:
    named = ["--downstream", f"corrupted:{arrays}"]
    code, output = command("evaluate", "--checkpoint", run, *named, "--set", "downstream.test_per_class=1")
    assert (
        code == 0 and "mean corruption error" in output and "2 of the benchmark's 15 corruptions, 10 images" in output
    )
    for words in (["finetune", "--out", run / "ft"], ["probe", "--checkpoint", run], ["evaluate", "--checkpoint", run]):
        wrong = named if words[0] != "evaluate" else ["--downstream", "corrupted"]
        code, output = command(*words, *wrong)
        assert code == 2 and ("has test images only, for evaluate" in output or "root: is missing" in output), output
    code, output = command("evaluate", "--checkpoint", run, *named, "--set", "downstream.train_per_class=1")
    assert code == 2 and "train_per_class: corrupted has test images only" in output
    assert not (run / "ft").exists()
