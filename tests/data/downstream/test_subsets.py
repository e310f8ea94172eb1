from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from formulavision.data.downstream import DownstreamSettings, LabelledImages, open_downstream
from formulavision.data.downstream.files import ImageFiles
from formulavision.data.downstream.images import Sides
from formulavision.data.downstream.opening import _labels_of
from formulavision.util.errors import DownstreamError


def sides(*names: str) -> Sides:
    digits = open_downstream("digits")
    train, test = (
        LabelledImages(side.source, side.indices, side.labels, names) for side in (digits.train, digits.test)
    )
    return Sides(train, test)


def test_a_subset_has_n_images_a_class_chosen_by_its_seed() -> None:
    def chosen(**given: int) -> list[int]:
        data = open_downstream(DownstreamSettings(kind="digits", **given))
        return data.train.indices.tolist()

    some = DownstreamSettings(kind="digits", train_per_class=7, test_per_class=3)
    data = open_downstream(some)
    assert Counter(data.train.labels.tolist()) == dict.fromkeys(range(10), 7)
    assert Counter(data.test.labels.tolist()) == dict.fromkeys(range(10), 3)
    assert chosen(train_per_class=7) == data.train.indices.tolist()
    assert chosen(train_per_class=7, subset_seed=1) != chosen(train_per_class=7)
    assert set(chosen(train_per_class=7)) < set(chosen(train_per_class=9))


def test_more_images_than_there_are_is_refused() -> None:
    with pytest.raises(DownstreamError, match=r"train_per_class is 500: class '\d' has only \d+ images"):
        open_downstream(DownstreamSettings(kind="digits", train_per_class=500))


def test_classes_are_kept_in_the_order_in_which_they_are_listed() -> None:
    whole = open_downstream("digits")
    data = open_downstream(DownstreamSettings(kind="digits", classes=("7", "1", "3")))
    assert data.classes == ["7", "1", "3"] and data.train.num_classes == 3
    for side in ("train", "test"):
        kept, everything = getattr(data, side), getattr(whole, side)
        true = dict(zip(everything.indices.tolist(), everything.labels.tolist(), strict=True))
        assert [(7, 1, 3)[label] for label in kept.labels] == [true[i] for i in kept.indices.tolist()]
        assert len(kept) == np.isin(everything.labels, (7, 1, 3)).sum()


def test_which_images_a_class_keeps_does_not_depend_on_the_other_classes() -> None:
    def of_seven(**given: object) -> set[int]:
        data = open_downstream(DownstreamSettings(kind="digits", train_per_class=4, **given))
        return set(data.train.indices[data.train.labels == data.classes.index("7")].tolist())

    assert len(of_seven()) == 4
    assert of_seven(classes=("3", "7")) == of_seven() == of_seven(classes=("7", "0", "9"))


def test_which_images_a_class_of_a_folder_keeps_does_not_depend_on_the_folders_that_are_left_out(
    tmp_path: Path, make_folder: Callable[..., Path]
) -> None:
    def of_dog(**given: object) -> set[str]:
        settings = {"kind": "folder", "root": str(tmp_path), "train_per_class": 4, **given}
        data = open_downstream(DownstreamSettings.model_validate(settings))
        images, source = data.train, cast(ImageFiles, data.train.source)
        return {source.path(int(i)) for i in images.indices[images.labels == data.classes.index("dog")]}

    make_folder(tmp_path, classes=("cat", "cow", "dog"), images=20)
    assert len(of_dog()) == 4
    assert of_dog(classes=["dog", "cow"]) == of_dog(exclude=["cat"]) == of_dog(exclude=["cow"]) == of_dog()


def test_a_class_that_there_is_not_is_refused_with_a_hint() -> None:
    with pytest.raises(DownstreamError, match=r"has no class 'automobil' \(did you mean 'automobile'\?\), and 1 more"):
        _labels_of(
            DownstreamSettings(kind="digits", classes=("automobil", "cat", "ship")),
            sides("automobile", "cat"),
            "folder:x",
        )


def test_a_class_under_two_names_is_refused() -> None:
    whole = Sides(sides("a", "b").train, sides("a", "b").test, {"n01": 0})
    with pytest.raises(DownstreamError, match="classes names 'a' more than once, by 'n01' too"):
        _labels_of(DownstreamSettings(kind="digits", classes=("a", "b", "n01")), whole, "imagenet:x")


def test_the_identity_says_which_images_were_kept() -> None:
    def identity(**given: object) -> dict[str, object]:
        return open_downstream(DownstreamSettings(kind="digits", **given)).identity()

    all_of_them, some, others = identity(), identity(train_per_class=9), identity(train_per_class=9, subset_seed=1)
    assert len({str(found["train_digest"]) for found in (all_of_them, some, others)}) == 3
    assert len({str(found["test_digest"]) for found in (all_of_them, some, others)}) == 1
    assert identity(classes=("1", "2"))["classes"] == ["1", "2"]
    assert identity(classes=("1", "2"))["test_digest"] != identity(classes=("2", "1"))["test_digest"]
