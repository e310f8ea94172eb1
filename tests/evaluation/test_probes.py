from __future__ import annotations

import csv
import functools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from rich.console import Console
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from formulavision.data.downstream import Downstream, DownstreamSettings, LabelledImages, open_downstream
from formulavision.evaluation import per_class_difference, probe
from formulavision.evaluation.inference import Features, extract_features, over_dataset, without_augmentation
from formulavision.evaluation.metrics import Predictions, average_precision, compute_metrics
from formulavision.evaluation.probes import classify_by_neighbours, classify_linearly, feature_settings
from formulavision.training import Checkpoint, load_checkpoint
from formulavision.training.checkpoints import load_preprocessing
from formulavision.training.settings import TrainSettings
from formulavision.util.errors import CheckpointError, ConfigError, DownstreamError


def blobs(images: int, classes: int, *, distance: float, seed: int, dimensions: int = 12) -> Features:
    """Features that scatter by 1 about the centre of their class."""
    labels = np.arange(images) % classes
    centres = np.random.default_rng(9).normal(size=(classes, dimensions)) * distance
    values = centres[labels] + np.random.default_rng(seed).normal(size=(images, dimensions))
    return Features(torch.from_numpy(values.astype(np.float32)), torch.from_numpy(labels))


def score(predictions: Predictions) -> float:
    return compute_metrics(predictions).score


def among_the_first(predictions: Predictions) -> float | None:
    return compute_metrics(predictions).topk


# Features


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_features_are_what_timm_gives_its_head(name: str, colours: Downstream) -> None:
    torch.manual_seed(0)
    size: dict[str, Any] = {"img_size": 32} if name == "test_vit" else {}
    model: Any = timm.create_model(name, num_classes=3, **size).eval()
    settings = TrainSettings(model=name, resize=36, crop=32, device="cpu")
    features = extract_features(model, colours.test, settings, console=Console(quiet=True))
    prepared = without_augmentation(colours.test, settings)
    with torch.no_grad():
        for i in range(len(colours.test)):
            image = (prepared[(0, i)][0] / 255 - 0.2) / 0.5
            expected = model.forward_head(model.forward_features(image), pre_logits=True)[0]
            torch.testing.assert_close(features.values[i], expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(model.get_classifier()(features.values[i : i + 1]), model(image))
    assert features.labels.tolist() == colours.test.labels.tolist()


# Nearest neighbours


def test_neighbours_vote_as_scikit_learns_do() -> None:
    train, test = blobs(300, 7, distance=0.6, seed=1), blobs(100, 7, distance=0.6, seed=2)
    reference = KNeighborsClassifier(20, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07))
    reference.fit(train.values.numpy(), train.labels.numpy())
    found = classify_by_neighbours(train, test, 7)
    np.testing.assert_array_equal(found.predicted, reference.predict(test.values.numpy()))
    shares = reference.predict_proba(test.values.numpy())
    best = np.argsort(-shares, axis=1)[:, :5]
    voted = np.take_along_axis(shares, test.labels.numpy()[:, None], 1)[:, 0] > 0
    assert among_the_first(found) == ((best == test.labels.numpy()[:, None]).any(1) & voted).mean()
    assert 0.4 < score(found) < 0.95, "some right and some wrong show more"


def test_a_class_without_a_vote_is_not_among_the_first_five() -> None:
    train = blobs(30, 6, distance=50, seed=1)
    test = Features(train.values[:6], (train.labels[:6] + 1) % 6)  # all of another class than their neighbours
    few = Features(train.values[:6].repeat_interleave(20, 0), train.labels[:6].repeat_interleave(20))
    found = classify_by_neighbours(few, test, 6)
    assert score(found) == 0 and among_the_first(found) == 0


def test_there_may_be_fewer_training_images_than_neighbours() -> None:
    train = blobs(6, 3, distance=20, seed=1)
    assert score(classify_by_neighbours(train, blobs(30, 3, distance=20, seed=2), 3)) == 1


def test_neighbours_of_several_labels_share_theirs() -> None:
    values = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    labels = torch.tensor([[1, -1], [0, 1], [0, 0]], dtype=torch.int8)
    found = classify_by_neighbours(Features(values, labels), Features(values[:1], labels[:1]), 2)
    far = np.exp(-1 / 0.07)
    np.testing.assert_allclose(found.scores, [[1 / (2 + far), 1 / (1 + far)]], rtol=1e-5)


# New weights


def test_new_weights_are_probed_as_those_of_a_checkpoint(
    colours: Downstream, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    settings = {"model": "test_resnet", "resize": 36, "crop": 32, "device": "cpu", "seed": 4}
    new = probe(None, colours, settings=settings, out=tmp_path / "new", show_progress=False)
    same = make_run(tmp_path / "run", ["a", "b", "c"], seed=4)
    assert probe(same, colours, out=tmp_path / "old", show_progress=False).loss == new.loss
    other = probe(None, colours, settings={**settings, "seed": 5}, out=tmp_path / "other", show_progress=False)
    assert other.loss != new.loss
    with pytest.raises(ConfigError, match="out: is missing: new weights has no folder"):
        probe(None, colours, settings=settings)


@pytest.mark.parametrize("name", ["batch_size", "learning_rate", "epochs", "mixup", "held_out", "seed", "workers"])
def test_a_setting_that_changes_no_features_is_refused(
    colours: Downstream, make_run: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    run = make_run(tmp_path / "run", ["a", "b", "c"])
    with pytest.raises(ConfigError, match=f"^{name}: is not allowed: a probe depends on crop, device, .* alone"):
        probe(run, colours, settings={"crop": 24, name: 2})
    assert not list(run.glob("linear*"))


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("rows", [1, 20, 33, 99])
def test_neighbours_are_the_same_whatever_fits_on_the_device(
    monkeypatch: pytest.MonkeyPatch, several: bool, rows: int
) -> None:
    sides = [blobs(images, 3, distance=0.5, seed=seed) for images, seed in ((100, 1), (40, 2))]
    if several:
        sides = [Features(s.values, torch.nn.functional.one_hot(s.labels, 3).to(torch.int8)) for s in sides]
    whole = classify_by_neighbours(sides[0], sides[1], 3)
    monkeypatch.setattr("formulavision.evaluation.probes._TRAIN_BYTES", rows * 4 * 12)
    monkeypatch.setattr("formulavision.evaluation.probes._VOTING", 7)
    parts = classify_by_neighbours(sides[0], sides[1], 3)
    torch.testing.assert_close(parts.scores, whole.scores, rtol=1e-5, atol=0)


def test_features_are_the_same_in_batches_of_any_size(monkeypatch: pytest.MonkeyPatch, colours: Downstream) -> None:
    settings = TrainSettings(model="test_resnet", crop=32, device="cpu")
    model: Any = timm.create_model("test_resnet")
    whole = extract_features(model, colours.train, settings, console=Console(quiet=True))
    small = functools.partial(over_dataset, batch_size=5)
    monkeypatch.setattr("formulavision.evaluation.inference.over_dataset", small)
    parts = extract_features(model, colours.train, settings, console=Console(quiet=True))
    torch.testing.assert_close(parts.values, whole.values)
    assert torch.equal(whole.labels, parts.labels)
    assert len(parts) == 36 and not parts.values.is_inference() and not parts.values.requires_grad


def test_what_takes_long_is_told_in_lines_and_memory_too(
    monkeypatch: pytest.MonkeyPatch,
    make_run: Callable[..., Path],
    colours: Downstream,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("formulavision.evaluation.progress._SECONDS_BETWEEN_LINES", 0)
    monkeypatch.setattr("formulavision.evaluation.inference._WORTH_TELLING", 0)
    probe(make_run(tmp_path / "run", ["a", "b"]), colours)
    told = capsys.readouterr().out
    assert re.search(r"^fitting logistic regressions to 36 x \d+ features: 6 of 6 done after \d s$", told, re.MULTILINE)
    assert "features of 36 images: 1 of 1 done" in told
    assert re.search(r"features of 36 images \(\d+ numbers each\) take [\d.]+ k?B of memory", told)


# Linear probe


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_separable_features_are_told_apart(classes: int) -> None:
    train, test = blobs(120, classes, distance=8, seed=1), blobs(60, classes, distance=8, seed=2)
    found, _ = classify_linearly(train, test, classes)
    assert score(found) == 1
    assert among_the_first(found) == 1
    assert score(classify_by_neighbours(train, test, classes)) == 1


@pytest.mark.parametrize("classes", [2, 4])
def test_the_chosen_penalty_gives_scikit_learns_fit(classes: int) -> None:
    train, test = blobs(200, classes, distance=0.4, seed=1), blobs(80, classes, distance=0.4, seed=2)
    found, penalty = classify_linearly(train, test, classes)
    scaler = StandardScaler().fit(train.values.double())
    reference = LogisticRegression(C=1 / (penalty * 200)).fit(scaler.transform(train.values), train.labels)
    shares = reference.predict_proba(scaler.transform(test.values))
    np.testing.assert_array_equal(found.predicted, shares.argmax(1))
    own = np.take_along_axis(shares, test.labels.numpy()[:, None], 1)
    assert compute_metrics(found).loss == pytest.approx(-np.log(own).mean(), rel=1e-3)


def test_held_out_images_choose_the_penalty() -> None:
    # More features than say anything: the stronger the penalty, the better.
    train, test = (blobs(300, 2, distance=0.15, seed=seed, dimensions=200) for seed in (1, 2))
    found, penalty = classify_linearly(train, test, 2)
    scaler = StandardScaler().fit(train.values)
    weak = LogisticRegression(C=1 / (1e-4 * 300)).fit(scaler.transform(train.values), train.labels)
    assert penalty == 1
    assert score(found) > weak.score(scaler.transform(test.values), test.labels)


@pytest.mark.parametrize("several", [False, True])
def test_a_weak_penalty_is_chosen_where_the_difference_of_two_features_matters(several: bool) -> None:
    sides = [blobs(images, 3, distance=0.2, seed=seed) for images, seed in ((400, 1), (200, 2))]
    for side in sides:
        side.values[:, 1] = side.values[:, 0] + 0.1 * side.values[:, 1]  # takes large weights to be told
    if several:
        sides = [Features(s.values, torch.nn.functional.one_hot(s.labels, 3).to(torch.int8)) for s in sides]
    assert classify_linearly(sides[0], sides[1], 3)[1] < 0.01


def test_where_none_can_be_held_out_the_penalty_is_a_fixed_one() -> None:
    assert classify_linearly(blobs(8, 2, distance=8, seed=1), blobs(8, 2, distance=8, seed=2), 2)[1] == 0.1


@pytest.mark.parametrize("rare", ["present", "absent", "uncounted"])
@pytest.mark.parametrize(
    ("images", "step"),
    [(5, 1), (7, 1), (40, 8), pytest.param(40, 1, marks=pytest.mark.slow)],  # the last repeats it for every image
)
def test_the_only_image_with_or_without_a_class_is_fitted_to(rare: str, images: int, step: int) -> None:
    features = blobs(images, 3, distance=3, seed=1)
    common = torch.nn.functional.one_hot(features.labels, 3).to(torch.int8)
    for seed in range(0, images, step):  # whichever image would be held out
        labels = torch.cat([common, torch.zeros(images, 1, dtype=torch.int8)], 1)
        if rare == "absent":
            labels[:, 3] = 1
        if rare == "uncounted":
            labels[:, 3] = -1
            labels[(seed + 1) % images, 3] = 0
        labels[seed, 3] = 0 if rare == "absent" else 1
        train = Features(features.values, labels)
        found, _ = classify_linearly(train, train, 4, seed=seed)
        assert torch.isfinite(found.scores).all()


def test_where_no_image_that_is_held_out_shows_a_class_the_penalty_is_a_fixed_one() -> None:
    features = blobs(10, 2, distance=3, seed=1)
    labels = torch.zeros(10, 2, dtype=torch.int8)
    labels[3, 0] = labels[4, 1] = 1
    assert classify_linearly(Features(features.values, labels), Features(features.values, labels), 2)[1] == 0.1


@pytest.mark.parametrize(("value", "told"), [(0, "with"), (1, "without"), (-1, "with")])
def test_a_class_that_all_or_no_images_show_is_refused(
    make_run: Callable[..., Path], mixtures: Downstream, tmp_path: Path, value: int, told: str
) -> None:
    train = mixtures.train
    labels = train.labels.copy()
    labels[:, 1] = value
    data = Downstream(
        mixtures.name,
        mixtures.settings,
        type(train)(train.source, train.indices, labels, train.classes),
        mixtures.test,
    )
    with pytest.raises(DownstreamError, match=f"has no training image {told} 'green': there is nothing to fit to"):
        probe(make_run(tmp_path / "run", ["a", "b"]), data, show_progress=False)


def test_entries_that_do_not_count_change_nothing() -> None:
    train, test = blobs(90, 3, distance=0.5, seed=1), blobs(40, 3, distance=0.5, seed=2)
    several = [torch.nn.functional.one_hot(f.labels, 3).to(torch.int8) for f in (train, test)]
    found, penalty = classify_linearly(Features(train.values, several[0]), Features(test.values, several[1]), 3)
    without = several[0].clone()
    without[:10, 1] = -1
    other, _ = classify_linearly(Features(train.values, without), Features(test.values, several[1]), 3)
    scaler = StandardScaler().fit(train.values.double())
    reference = LogisticRegression(C=1 / (penalty * 90)).fit(scaler.transform(train.values), train.labels == 0)
    np.testing.assert_allclose(
        found.scores[:, 0], reference.decision_function(scaler.transform(test.values)), rtol=0.02, atol=0.02
    )
    assert not torch.equal(other.scores[:, 1], found.scores[:, 1])
    expected = [average_precision(several[1][:, c].numpy(), found.scores[:, c].numpy()) for c in range(3)]
    assert score(found) == pytest.approx(np.mean(expected))  # type: ignore[arg-type]


# Probes


@pytest.mark.parametrize("method", ["linear", "knn"])
def test_a_probe_of_a_run(method: Any, make_run: Callable[..., Path], colours: Downstream, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["other", "classes"])
    found = probe(run, colours, method=method, show_progress=False)
    assert found.score == found.top1 == 1.0, "colours are told apart even by a model without training"
    assert (found.metric, found.k, found.images, found.train_images) == ("top-1 accuracy", 3, 15, 36)
    assert (found.loss is None) == (found.penalty is None) == (method == "knn")
    assert found.folder == run / f"{method}-digits"
    content = json.loads((found.folder / "evaluation.json").read_text())
    assert (content["method"], content["score"], content["shots"]) == (method, 1.0, None)
    with np.load(found.folder / "predictions.npz") as arrays:
        np.testing.assert_array_equal(arrays["predicted"], colours.test.labels)
    assert (found.folder / "confusion_matrix.csv").is_file()


def test_several_labels(make_run: Callable[..., Path], mixtures: Downstream, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["other", "classes"])
    for method in ("linear", "knn"):
        found = probe(run, mixtures, method=method, show_progress=False)
        assert found.metric == "mean average precision" and found.score > 0.7
        assert (found.top1, found.confusion) == (None, None)


def test_few_shots_are_drawn_five_times(make_run: Callable[..., Path], tmp_path: Path) -> None:
    digits = open_downstream(DownstreamSettings(kind="digits", train_per_class=20, test_per_class=10))
    run = make_run(tmp_path / "run", ["other", "classes"])
    found = probe(run, digits, method="knn", shots=2, show_progress=False)
    assert found.train_images == 20 and len(found.draws) == 5 and len(set(found.draws)) > 1
    assert found.score == found.top1 == pytest.approx(np.mean(found.draws))
    assert found.spread == pytest.approx(np.std(found.draws, ddof=1))
    assert found.confusion is not None and found.confusion.sum() == 500
    np.testing.assert_allclose(found.per_class, found.confusion.diagonal() / 50)  # type: ignore[arg-type]
    assert found.folder == run / "knn-digits-2-shot"
    of_numpy: dict[str, Any] = {"shots": np.int64(2), "seed": np.uint8(0)}
    again = probe(run, digits, method="knn", show_progress=False, **of_numpy)
    wrong: dict[str, Any]
    for wrong in ({"shots": 2.5}, {"shots": True}, {"seed": "1"}):
        with pytest.raises(ConfigError, match="is not allowed: must be a whole number"):
            probe(run, digits, method="knn", show_progress=False, **wrong)
    other = probe(run, digits, method="knn", shots=2, seed=1, out=tmp_path / "other", show_progress=False)
    assert again.draws == found.draws != other.draws
    with (run / "knn-digits-2-shot" / "per_class.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["images"]) for row in rows] == [10] * 10
    assert [float(row["correct"]) / 10 for row in rows] == pytest.approx(found.per_class)
    for difference in per_class_difference(found, other):
        # The predictions that are kept are the first draw's.
        assert difference.images == 10 and difference.p is None


def test_probes_of_two_image_folders_go_to_two_places(
    make_run: Callable[..., Path], colours: Downstream, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", ["other", "classes"])
    for name in ("one", "other"):
        settings = DownstreamSettings(kind="folder", root=tmp_path / name)
        data = Downstream(name, settings, colours.train, colours.test)
        assert probe(run, data, method="knn", show_progress=False).folder == run / f"knn-{name}"


def test_results_of_other_images_settings_or_draws_are_not_replaced_unasked(
    make_run: Callable[..., Path], colours: Downstream, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", ["other", "classes"])
    settings = DownstreamSettings(kind="folder", root=tmp_path / "colours")
    data = Downstream("colours", settings, colours.train, colours.test)
    few = Downstream("colours", settings, colours.train, colours.test.part(np.arange(5)))
    quiet: dict[str, Any] = {"method": "knn", "shots": 1, "show_progress": False}
    first = probe(run, data, **quiet)
    before = (first.folder / "evaluation.json").read_bytes()
    assert probe(run, data, **quiet).folder == first.folder
    for other, more, named in (
        (few, {}, "downstream"),
        (data, {"seed": 3}, "seed"),
        (few, {"settings": {"crop": 16}}, "downstream and another settings"),
    ):
        with pytest.raises(ConfigError, match=f"out: .*knn-colours-1-shot holds a probe of another {named}: give anot"):
            probe(run, other, **quiet, **more)
        assert json.loads((first.folder / "evaluation.json").read_bytes())["draws"] == json.loads(before)["draws"]
    assert probe(run, data, **quiet, seed=3, out=first.folder).draws  # asked for


def test_all_images_as_shots_are_the_probe_of_all(
    make_run: Callable[..., Path], colours: Downstream, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", ["other", "classes"])
    found = probe(run, colours, method="linear", shots=12, show_progress=False)
    assert found.draws == [1.0] * 5 and found.spread == 0 and found.train_images == 36


def test_a_file_of_weights_needs_its_models_name(
    make_run: Callable[..., Path], colours: Downstream, tmp_path: Path
) -> None:
    file = (
        make_run(tmp_path / "run", ["a", "b"]).joinpath("model.safetensors").rename(tmp_path / "run" / "w.safetensors")
    )
    with pytest.raises(ConfigError, match=r"model: is missing: .*does not tell the model of its weights"):
        probe(file, colours)
    settings = {"model": "test_resnet", "resize": 36, "crop": 32, "device": "cpu"}
    found = probe(file, colours, method="knn", settings=settings, show_progress=False)
    assert found.score == 1 and found.folder == tmp_path / "run" / "knn-digits-w"
    with pytest.raises(CheckpointError, match=r"another architecture|does not fit"):
        probe(file, colours, settings={**settings, "model": "test_vit"})


def test_probes_of_two_files_of_weights_go_to_two_places(
    make_run: Callable[..., Path], colours: Downstream, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", ["a", "b"])
    settings = {"model": "test_resnet", "resize": 36, "crop": 32, "device": "cpu"}
    found = []
    for name in ("model.safetensors", "epoch 1.safetensors", "epoch-1.5.safetensors"):
        if name != "model.safetensors":
            shutil.copy(run / "model.safetensors", run / name)
        found.append(probe(run / name, colours, method="knn", settings=settings, show_progress=False).folder.name)
    assert found == ["knn-digits", "knn-digits-epoch 1", "knn-digits-epoch-1.5"]
    assert probe(run, colours, method="knn", show_progress=False).folder.name == "knn-digits"


def test_settings_are_those_given_then_the_checkpoints(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["a", "b"], mean=(0.1, 0.1, 0.1))
    weights = load_checkpoint(run)
    found = feature_settings(weights, run, {"crop": 24})
    assert (found.model, found.resize, found.crop, found.mean) == ("test_resnet", 27, 24, (0.1, 0.1, 0.1))
    assert feature_settings(weights, run, TrainSettings(crop=24)) == found
    with pytest.raises(ConfigError, match=r"model: is 'resnet18', but .* is a 'test_resnet'"):
        feature_settings(weights, run, {"model": "resnet18"})


def test_images_of_published_and_of_exported_models_are_prepared_as_in_their_training(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    seen = load_preprocessing("timm:resnet18.a1_in1k")
    published = Checkpoint("timm:resnet18.a1_in1k", {}, "", model="resnet18", preprocessing=seen)
    found = feature_settings(published, "timm:resnet18", None)
    assert found.mean == (0.485, 0.456, 0.406) and found.std == (0.229, 0.224, 0.225)
    assert (found.crop, found.resize, found.resize_mode, found.interpolation) == (224, 235, "center", "bicubic")
    assert feature_settings(published, "timm:resnet18", {"mean": [0.5, 0.5, 0.5]}).mean == (0.5, 0.5, 0.5)
    run = make_run(tmp_path / "run", ["a", "b"], mean=(0.1, 0.2, 0.3), crop=24)
    for name in ("settings.yaml", "run.json", "classes.json"):
        (run / name).unlink()
    found = feature_settings(load_checkpoint(run), "run", None)
    assert (found.mean, found.std, found.crop, found.resize) == ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5), 24, 36)


def test_what_cannot_be_probed_is_refused(
    make_run: Callable[..., Path], colours: Downstream, mixtures: Downstream, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", ["a", "b"])
    with pytest.raises(ConfigError, match="method: 'svm' is not allowed: must be linear or knn"):
        probe(run, colours, method="svm")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="shots: 0"):
        probe(run, colours, shots=0)
    with pytest.raises(ConfigError, match="workers: -1"):
        probe(run, colours, workers=-1, show_progress=False)
    with pytest.raises(ConfigError, match="out: is missing: timm:resnet18 has no folder"):
        probe("timm:resnet18", colours)
    with pytest.raises(DownstreamError, match="shots is 13: class 'red' has only 12 training images"):
        probe(run, colours, shots=13)
    with pytest.raises(DownstreamError, match="shots: pictures has several labels an image"):
        probe(run, mixtures, shots=1)
    train = colours.train
    two = LabelledImages(train.source, train.indices[train.labels < 2], train.labels[train.labels < 2], train.classes)
    with pytest.raises(DownstreamError, match="has no training image with 'blue'"):
        probe(run, Downstream(colours.name, colours.settings, two, colours.test))
