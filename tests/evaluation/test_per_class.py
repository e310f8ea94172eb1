from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import slow
from scipy.stats import binomtest

from formulavision.evaluation import per_class_difference
from formulavision.evaluation.metrics import Predictions, compute_metrics
from formulavision.evaluation.per_class import mcnemar
from formulavision.evaluation.results import Evaluation, read_predictions, write_results
from formulavision.util.errors import ConfigError

NAMES = ["ant", "bee", "cat"]
LABELS = np.repeat([0, 1, 2], [10, 4, 6])
IDENTITY = {"name": "folder:/a", "kind": "folder", "test_per_class": None, "subset_seed": 0, "train_images": 5}


def evaluated(folder: Path, wrong: list[int], *, labels: Any = LABELS, names: Any = NAMES, **identity: Any) -> Any:
    """The evaluation of a model that gets all images right but some."""
    predicted = labels.copy()
    predicted[wrong] = (predicted[wrong] + 1) % len(names)
    return write(folder, labels, np.eye(len(names), dtype=np.float32)[predicted], names, identity)


def write(folder: Path, labels: Any, scores: Any, names: list[str], identity: dict[str, Any]) -> Evaluation:
    predictions = Predictions(torch.from_numpy(labels), torch.from_numpy(scores))
    metrics = vars(compute_metrics(predictions))
    evaluation = Evaluation(**metrics, images=len(labels), classes=names, seconds=1.0, folder=folder)
    write_results(evaluation, predictions, {"downstream": {**IDENTITY, **identity}})
    return evaluation


def test_classes_come_by_falling_difference(tmp_path: Path) -> None:
    # Ants: 9 of 10 against 4 of 10; bees: 2 of 4 against 3 of 4; cats: all against all.
    first, second = evaluated(tmp_path / "1", [0, 10, 11]), evaluated(tmp_path / "2", [0, 1, 2, 3, 4, 5, 10])
    found = per_class_difference(first, second)
    assert [row.name for row in found] == ["ant", "cat", "bee"]
    ant, cat, bee = found
    assert (ant.images, ant.first, ant.second, ant.difference) == (10, 0.9, 0.4, 0.5)
    # Five ants that the first alone gets right, none that the second alone does: 2 * (1/2)^5.
    assert ant.p == pytest.approx(1 / 16) == binomtest(5, 5).pvalue
    assert (bee.first, bee.second, bee.difference, bee.p) == (0.5, 0.75, -0.25, 1.0)
    assert (cat.difference, cat.p) == (0.0, 1.0)


def test_folders_stand_for_their_evaluations(tmp_path: Path) -> None:
    first, second = evaluated(tmp_path / "1", [0, 11]), evaluated(tmp_path / "2", [1, 2, 12])
    assert per_class_difference(tmp_path / "1", str(tmp_path / "2")) == per_class_difference(first, second)


def test_the_other_way_round_all_signs_change(tmp_path: Path) -> None:
    first, second = evaluated(tmp_path / "1", [0, 11]), evaluated(tmp_path / "2", [1, 2, 3, 12, 13])
    there = {row.name: row for row in per_class_difference(first, second)}
    back = {row.name: row for row in per_class_difference(second, first)}
    assert {name: (-row.difference, row.p) for name, row in back.items()} == {
        name: (row.difference, row.p) for name, row in there.items()
    }


def test_without_predictions_there_is_no_test(tmp_path: Path) -> None:
    first, second = evaluated(tmp_path / "1", [0]), evaluated(tmp_path / "2", [1, 2])
    (tmp_path / "2" / "predictions.npz").unlink()
    found = per_class_difference(first, second)
    assert found[0].difference == pytest.approx(0.1) and all(row.p is None for row in found)


def test_a_class_without_test_images_is_left_out(tmp_path: Path) -> None:
    first, second = (evaluated(tmp_path / name, [], labels=LABELS[:14]) for name in ("1", "2"))
    assert [row.name for row in per_class_difference(first, second)] == ["ant", "bee"]


def test_with_several_labels_it_is_of_average_precisions(tmp_path: Path) -> None:
    labels = np.array([[1, 0], [0, 1], [1, -1]], np.int8)
    good = write(tmp_path / "1", labels, labels.astype(np.float32), ["a", "b"], {})
    bad = write(tmp_path / "2", labels, -labels.astype(np.float32), ["a", "b"], {})
    a, b = sorted(per_class_difference(good, bad), key=lambda row: row.name)
    assert (a.images, a.first, a.p) == (2, 1.0, None)
    assert a.second == pytest.approx(2 / 3) and b.second == pytest.approx(1 / 2)


def test_where_the_dataset_lies_and_what_was_trained_on_does_not_matter(tmp_path: Path) -> None:
    first = evaluated(tmp_path / "1", [0])
    second = evaluated(tmp_path / "2", [1], name="folder:/b", train_images=7, subset_seed=3)
    assert len(per_class_difference(first, second)) == 3


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"names": ["ant", "bee", "cow"]}, "of other classes \\('cat' is in one only\\)"),
        ({"names": ["bee", "ant", "cat"]}, "of other classes, or in another order"),
        ({"labels": LABELS[::-1].copy()}, "on other test images \\(their labels differ\\)"),
        ({"test_per_class": 3}, "on other test images .*test_per_class is None and 3"),
    ],
)
def test_other_classes_and_other_images_are_refused(tmp_path: Path, other: dict[str, Any], told: str) -> None:
    first, second = evaluated(tmp_path / "1", [0]), evaluated(tmp_path / "2", [1], **other)
    with pytest.raises(ConfigError, match=told):
        per_class_difference(first, second)


def test_a_subset_by_another_seed_is_refused(tmp_path: Path) -> None:
    first = evaluated(tmp_path / "1", [0], test_per_class=3)
    second = evaluated(tmp_path / "2", [1], test_per_class=3, subset_seed=1)
    with pytest.raises(ConfigError, match="subset_seed is 0 and 1"):
        per_class_difference(first, second)


def test_what_is_no_evaluation_is_refused(tmp_path: Path) -> None:
    first = evaluated(tmp_path / "1", [0])
    with pytest.raises(ConfigError, match=r"evaluation\.json: No such file.*: the folder must be one that evaluate"):
        per_class_difference(first, tmp_path / "absent")
    content = json.loads((tmp_path / "1" / "evaluation.json").read_text())
    del content["metric"]
    (tmp_path / "1" / "evaluation.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"damaged or of an older version .*metric.*: evaluate again"):
        per_class_difference(first, first)


@pytest.mark.parametrize("file", ["evaluation.json", "per_class.csv", "predictions.npz"])
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"\xff" + data])
def test_damaged_files_are_refused_in_one_line(tmp_path: Path, file: str, damage: Any) -> None:
    first = evaluated(tmp_path / "1", [0])
    (tmp_path / "1" / file).write_bytes(damage((tmp_path / "1" / file).read_bytes()))
    with pytest.raises(ConfigError, match="damaged") as refused:
        per_class_difference(first, first)
    assert "\n" not in str(refused.value)


def test_mcnemar_is_exact() -> None:
    # 9 images that one of the two models alone gets right: 8 and 1.
    first = [True] * 8 + [False] + [True] * 30 + [False] * 30
    second = [False] * 8 + [True] + [True] * 30 + [False] * 30
    expected = 2 * (math.comb(9, 0) + math.comb(9, 1)) / 2**9
    assert expected == pytest.approx(binomtest(8, 9).pvalue)
    assert mcnemar(first, second) == pytest.approx(expected)
    assert mcnemar(second, first) == pytest.approx(expected)


def test_models_that_agree_on_every_image_do_not_differ() -> None:
    assert mcnemar([True, False], [True, False]) == 1.0


def test_mcnemar_needs_the_same_images() -> None:
    with pytest.raises(ValueError, match="2 images and 3"):
        mcnemar([True, False], [True, False, True])


def test_class_names_that_a_spreadsheet_would_run_are_text_in_the_files_and_read_back(tmp_path: Path) -> None:
    names = ["=HYPERLINK(1)", "@sum", "-x"]
    first, second = (evaluated(tmp_path / str(i), [i], names=names) for i in (1, 2))
    for file in ("per_class.csv", "confusion_matrix.csv"):
        cells = [cell for line in (first.folder / file).read_text().splitlines() for cell in line.split(",")]
        assert {cell for cell in cells if cell.lstrip("'")[:1] in "=@-"} - {""} == {f"'{name}" for name in names}
    assert sorted(row.name for row in per_class_difference(tmp_path / "1", tmp_path / "2")) == sorted(names)
    assert second.classes == names


@pytest.mark.parametrize("step", [13, *slow(3)])
def test_every_changed_bit_of_predictions_is_found_or_changes_nothing(tmp_path: Path, step: int) -> None:
    file = tmp_path / "predictions.npz"
    np.savez(file, label=np.arange(5), predicted=np.array([0, 1, 2, 0, 0]))
    whole = file.read_bytes()
    for bit in range(0, 8 * len(whole), step):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        file.write_bytes(changed)
        try:
            labels, correct = read_predictions(tmp_path)
        except ConfigError as error:
            assert str(error).startswith(f"{file}: is damaged: evaluate again")
        else:
            assert labels is not None and labels.tolist() == [0, 1, 2, 3, 4]
            assert correct is not None and correct.tolist() == [True, True, True, False, False]


@pytest.mark.parametrize("content", [b"", b"PK", b"result: 3", b"\x93NUMPY", b"\x80\x04N."])
def test_what_are_no_predictions_is_told_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "predictions.npz").write_bytes(content)
    with pytest.raises(ConfigError, match=r"predictions\.npz: is damaged: evaluate again"):
        read_predictions(tmp_path)
