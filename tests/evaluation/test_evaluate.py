from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, top_k_accuracy_score
from torchvision.transforms.v2 import functional

from formulavision.data.downstream import Downstream, DownstreamSettings, LabelledImages, open_downstream
from formulavision.evaluation import evaluate, probe
from formulavision.evaluation.metrics import PixelCounts, compute_metrics
from formulavision.evaluation.results import FILES, Evaluation, write_results
from formulavision.training import Run, finetune
from formulavision.training.runs import write_settings
from formulavision.util.errors import CheckpointError, ConfigError

SMALL = {
    "model": "test_resnet",
    "epochs": 8,
    "batch_size": 16,
    "learning_rate": 0.02,
    "milestones": [6],
    "resize": 36,
    "crop": 32,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def digits() -> Downstream:
    return open_downstream(DownstreamSettings(kind="digits", train_per_class=20, test_per_class=10))


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory: pytest.TempPathFactory, digits: Downstream) -> Run:
    out = tmp_path_factory.mktemp("runs") / "ft"
    return finetune(None, digits, out=out, settings=SMALL, show_progress=False)


def only(data: Downstream, classes: list[int], names: list[str] | None = None) -> Downstream:
    """The dataset with some of its classes."""

    def side(images: LabelledImages) -> LabelledImages:
        keep = np.isin(images.labels, classes)
        labels = np.searchsorted(classes, images.labels[keep])
        kept = names or [images.classes[c] for c in classes]
        return LabelledImages(images.source, images.indices[keep], labels, kept)

    return Downstream(data.name, data.settings, side(data.train), side(data.test))


def test_it_agrees_with_timm_and_scikit_learn(finetuned: Run, digits: Downstream, tmp_path: Path) -> None:
    evaluation = evaluate(finetuned.folder, digits, out=tmp_path, batch_size=32, show_progress=False)
    model = timm.create_model(f"local-dir:{finetuned.folder}", pretrained=True).eval()
    images = torch.stack([digits.test[i][0] for i in range(len(digits.test))])
    resized = functional.center_crop(functional.resize(images, [36, 36], antialias=True), [32, 32])
    with torch.no_grad():
        logits = model((resized / 255 - 0.2) / 0.5)
    true, predicted, shares = digits.test.labels, logits.argmax(1).numpy(), logits.double().softmax(1).numpy()
    assert evaluation.top1 is not None
    assert 0.3 < evaluation.top1 < 1, "a model that gets some right and some wrong shows more"
    assert evaluation.top1 == accuracy_score(true, predicted)
    assert evaluation.topk == top_k_accuracy_score(true, shares, k=5) and evaluation.k == 5
    assert evaluation.loss == pytest.approx(log_loss(true, shares), rel=1e-3)
    expected = confusion_matrix(true, predicted)
    np.testing.assert_array_equal(evaluation.confusion, expected)
    np.testing.assert_allclose(np.array(evaluation.per_class, float), expected.diagonal() / expected.sum(axis=1))
    assert (evaluation.metric, evaluation.score) == ("top-1 accuracy", evaluation.top1)
    with np.load(tmp_path / "predictions.npz") as arrays:
        assert arrays["label"].dtype == arrays["predicted"].dtype == np.int64
        np.testing.assert_array_equal(arrays["label"], true)
        np.testing.assert_array_equal(arrays["predicted"], predicted)


@pytest.mark.parametrize("batch_size", [16, 7, 100])
def test_it_agrees_with_the_last_epoch_of_the_run(
    finetuned: Run, digits: Downstream, tmp_path: Path, batch_size: int
) -> None:
    evaluation = evaluate(finetuned.folder, digits, out=tmp_path, batch_size=batch_size, show_progress=False)
    assert evaluation.top1 == finetuned.final["validation_accuracy"]
    assert evaluation.loss == pytest.approx(finetuned.final["validation_loss"], rel=1e-5)


def test_the_files_say_the_same(finetuned: Run, digits: Downstream) -> None:
    evaluation = evaluate(finetuned.folder, digits, show_progress=False)
    assert evaluation.folder == finetuned.folder
    content = json.loads((finetuned.folder / "evaluation.json").read_text())
    assert (content["top_1"], content["top_5"], content["loss"]) == (evaluation.top1, evaluation.topk, evaluation.loss)
    assert (content["metric"], content["score"]) == (evaluation.metric, evaluation.score)
    assert content["images"] == 100 and content["top_5_counts"] == 5 and "note" not in content
    with (finetuned.folder / "per_class.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["class"] for row in rows] == digits.classes
    assert [float(row["accuracy"]) for row in rows] == evaluation.per_class
    with (finetuned.folder / "confusion_matrix.csv").open() as stream:
        table = list(csv.reader(stream))
    assert table[0][1:] == digits.classes
    assert evaluation.confusion is not None
    assert [[int(cell) for cell in row[1:]] for row in table[1:]] == evaluation.confusion.tolist()


def test_top_5_of_three_classes_is_top_3_and_says_so(digits: Downstream, tmp_path: Path) -> None:
    three = only(digits, [0, 4, 7])
    run = finetune(None, three, out=tmp_path / "ft", settings={**SMALL, "epochs": 1}, show_progress=False)
    evaluation = evaluate(run.folder, three, show_progress=False)
    assert (evaluation.k, evaluation.topk) == (3, 1.0)
    content = json.loads((run.folder / "evaluation.json").read_text())
    assert content["top_5_counts"] == 3 and "first 3" in content["note"]


def test_an_evaluation_goes_with_the_weights_that_it_is_of(digits: Downstream, tmp_path: Path) -> None:
    out = tmp_path / "ft"
    short = {**SMALL, "epochs": 1, "schedule": "step"}
    run = finetune(None, digits, out=out, settings=short, show_progress=False)
    evaluate(out, digits, show_progress=False)
    written = {path.name for path in out.iterdir()}
    finetune(None, digits, out=out, settings=short, resume=True, show_progress=False)
    assert {path.name for path in out.iterdir()} == written, "the same weights"
    longer = finetune(None, digits, out=out, settings={"epochs": 2}, resume=True, show_progress=False)
    assert longer.final != run.final
    assert written - {path.name for path in out.iterdir()} == set(FILES)
    assert "formulavision evaluate" not in (out / "README.md").read_text()


def test_an_evaluation_on_other_images_is_not_replaced_unasked(
    finetuned: Run, digits: Downstream, tmp_path: Path
) -> None:
    run = shutil.copytree(finetuned.folder, tmp_path / "run")
    evaluate(run, digits, show_progress=False)
    before = (run / "evaluation.json").read_bytes()
    few = Downstream(digits.name, digits.settings, digits.train, digits.test.part(np.arange(50)))
    with pytest.raises(ConfigError, match=r"out: .*run holds an evaluation of another downstream: give another --out"):
        evaluate(run, few, show_progress=False)
    assert (run / "evaluation.json").read_bytes() == before
    assert evaluate(run, few, out=tmp_path / "few", show_progress=False).images == 50
    moved = Downstream("folder:/elsewhere", digits.settings, digits.train, digits.test)
    assert evaluate(run, moved, show_progress=False).images == 100, "the same images in another place"
    assert evaluate(run, digits, show_progress=False).images == 100
    (run / "evaluation.json").write_text("{")
    assert evaluate(run, few, show_progress=False).images == 50, "what is damaged is written again"
    assert evaluate(run, digits, out=run, show_progress=False).images == 100, "asked for"


@pytest.mark.parametrize("name", ["predictions.npz", "per_class.csv", "evaluation.json"])
def test_files_of_somebody_else_are_not_replaced(finetuned: Run, digits: Downstream, tmp_path: Path, name: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("thesis")
    for run in (evaluate, probe):
        with pytest.raises(ConfigError, match=f"out: .*mine/{name}: is there, without an evaluation: give another"):
            run(finetuned.folder, digits, out=tmp_path / "mine", show_progress=False)
    assert [file.read_text() for file in (tmp_path / "mine").iterdir()] == ["thesis"]
    (tmp_path / "mine" / name).rename(tmp_path / "mine" / "notes.txt")
    for _ in range(2):
        evaluate(finetuned.folder, digits, out=tmp_path / "mine", show_progress=False)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "thesis"


def test_what_numbers_depend_on_is_written_beside_them(
    finetuned: Run, digits: Downstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fast, precision in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr("formulavision.training.fit.has_fast_bfloat16", lambda fast=fast: fast)
        evaluate(finetuned.folder, digits, out=tmp_path / precision, show_progress=False)
        probe(finetuned.folder, digits, method="knn", out=tmp_path / "p" / precision, show_progress=False)
        for folder in (tmp_path / precision, tmp_path / "p" / precision):
            content = json.loads((folder / "evaluation.json").read_text())
            assert (content["precision"], content["device"], content["threads"]) == (precision, "cpu", 1)
            assert content["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert content["settings"]["precision"] == "32-true"


def test_files_of_another_kind_of_evaluation_do_not_stay(finetuned: Run, digits: Downstream, tmp_path: Path) -> None:
    found = evaluate(finetuned.folder, digits, out=tmp_path, show_progress=False)
    assert (tmp_path / "predictions.npz").is_file() and (tmp_path / "confusion_matrix.csv").is_file()
    counts = PixelCounts(10)
    counts.add(torch.eye(10).view(1, 10, 2, 5), torch.zeros(1, 2, 5, dtype=torch.uint8))
    masks = Evaluation(**vars(compute_metrics(counts)), images=1, classes=found.classes, seconds=1.0, folder=tmp_path)
    written = write_results(masks, counts, {"downstream": {}})
    assert written == ["evaluation.json", "per_class.csv", "confusion_matrix.csv"]
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == {*written}


def test_a_class_without_test_images_has_no_accuracy(finetuned: Run, digits: Downstream, tmp_path: Path) -> None:
    keep = digits.test.labels != 3
    test = LabelledImages(digits.test.source, digits.test.indices[keep], digits.test.labels[keep], digits.classes)
    data = Downstream(digits.name, digits.settings, digits.train, test)
    evaluation = evaluate(finetuned.folder, data, out=tmp_path, show_progress=False)
    assert evaluation.per_class[3] is None and evaluation.per_class.count(None) == 1
    assert json.loads((tmp_path / "evaluation.json").read_text())["per_class"]["3"] is None


def test_other_classes_are_refused(finetuned: Run, digits: Downstream, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has 10 classes, digits has 2"):
        evaluate(finetuned.folder, only(digits, [0, 1]), out=tmp_path)
    renamed = only(digits, list(range(10)), [f"digit {i}" for i in range(10)])
    with pytest.raises(CheckpointError, match="'0' where that has 'digit 0'"):
        evaluate(finetuned.folder, renamed, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_no_finetuned_run_is_refused(finetuned: Run, digits: Downstream, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a file of weights"):
        evaluate(finetuned.folder / "model.safetensors", digits)
    with pytest.raises(CheckpointError, match="is not a run's folder"):
        evaluate(tmp_path, digits)
    with pytest.raises(ConfigError, match="batch_size: 0"):
        evaluate(finetuned.folder, digits, batch_size=0)


def test_what_a_gpu_trained_in_half_precision_is_evaluated_on_a_cpu(
    finetuned: Run, digits: Downstream, tmp_path: Path
) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA, where half precision is at home")
    copy = tmp_path / "run"
    shutil.copytree(finetuned.folder, copy)
    settings = finetuned.settings["settings"]
    write_settings(copy, {**finetuned.settings, "settings": {**settings, "precision": "16-mixed"}}, finetuned.classes)
    assert evaluate(copy, digits, show_progress=False).loss == evaluate(finetuned.folder, digits).loss
