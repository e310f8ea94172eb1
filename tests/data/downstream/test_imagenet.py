from __future__ import annotations

import hashlib
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import ImageFolder

from formulavision.data.downstream import DownstreamSettings, open_downstream
from formulavision.util.errors import DownstreamError

TENCH, CRANE, CRANE_2 = "n01440764", "n02012849", "n03126707"
WORDS = {TENCH: ("tench", "Tinca tinca"), CRANE: ("crane",), CRANE_2: ("crane",)}


def photo(file: Path, value: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 15), (value, value, value)).save(file, format="JPEG")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """As the dataset lies on disk: ``train/<wnid>/<wnid>_<n>.JPEG`` and ``val/<wnid>/ILSVRC2012_val_<n>.JPEG``."""
    for label, wnid in enumerate(WORDS):
        for i in range(4):
            photo(tmp_path / "imagenet" / "train" / wnid / f"{wnid}_{i * 97}.JPEG", 60 * label + i)
        for i in range(2):
            photo(tmp_path / "imagenet" / "val" / wnid / f"ILSVRC2012_val_{10 * i + label:08d}.JPEG", 60 * label + i)
    return tmp_path / "imagenet"


def test_torchvision_reads_the_same_images_and_labels(root: Path) -> None:
    ours = open_downstream(f"imagenet:{root}")
    for side, theirs in ((ours.train, ImageFolder(str(root / "train"))), (ours.test, ImageFolder(str(root / "val")))):
        assert (side.classes, len(side)) == (theirs.classes, len(theirs))
        for (image, label), (reference, expected) in zip(side, theirs, strict=True):
            assert label == expected
            np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), np.asarray(reference))


def test_classes_have_the_words_of_their_synset_where_torchvision_has_left_them(root: Path) -> None:
    torch.save((WORDS, []), root / "meta.bin")
    assert open_downstream(f"imagenet:{root}").classes == ["tench", "crane (n02012849)", "crane (n03126707)"]


def test_it_is_the_same_dataset_whatever_its_classes_are_called(root: Path) -> None:
    subset = DownstreamSettings(kind="imagenet", root=root, classes=(CRANE_2, TENCH))
    by_wnid = [open_downstream(settings).train.digest() for settings in (f"imagenet:{root}", subset)]
    torch.save((WORDS, []), root / "meta.bin")
    assert [open_downstream(settings).train.digest() for settings in (f"imagenet:{root}", subset)] == by_wnid
    assert by_wnid[0] != by_wnid[1]


@pytest.mark.parametrize("listed", [[CRANE_2, TENCH], ["crane (n03126707)", "tench"]])
def test_a_subset_is_listed_by_wnid_or_by_name_and_labelled_in_its_order(root: Path, listed: list[str]) -> None:
    torch.save((WORDS, []), root / "meta.bin")
    data = open_downstream(DownstreamSettings(kind="imagenet", root=root, classes=tuple(listed)))
    assert data.classes == ["crane (n03126707)", "tench"]
    assert (len(data.train), len(data.test)) == (8, 4)
    assert {label: round(image.float().mean().item() / 60) for image, label in data.test} == {0: 2, 1: 0}


@pytest.mark.parametrize("left", [TENCH, "tench"])
def test_classes_are_left_out_by_wnid_or_by_name(root: Path, left: str) -> None:
    torch.save((WORDS, []), root / "meta.bin")
    settings = DownstreamSettings(kind="imagenet", root=root, exclude=(left,))
    assert open_downstream(settings).classes == ["crane (n02012849)", "crane (n03126707)"]
    with pytest.raises(DownstreamError, match=f"has no class '{left}s' .did you mean"):
        open_downstream(settings.model_copy(update={"exclude": (f"{left}s",)}))


def test_a_file_that_is_not_torchvisions_names_nothing(root: Path) -> None:
    (root / "meta.bin").write_bytes(b"no words")
    with pytest.raises(DownstreamError, match=r"meta.bin: is not torchvision's .*: remove it"):
        open_downstream(f"imagenet:{root}")


def test_what_is_wrong_with_the_layout_is_named(root: Path) -> None:
    with pytest.raises(DownstreamError, match="nowhere: no such folder"):
        open_downstream(f"imagenet:{root.parent / 'nowhere'}")
    (root / "train" / f"{TENCH}.tar").touch()
    with pytest.raises(DownstreamError, match="train: was unpacked in part: remove it"):
        open_downstream(f"imagenet:{root}")
    (root / "train" / f"{TENCH}.tar").unlink()
    (root / "val" / "dog").mkdir()
    with pytest.raises(DownstreamError, match=r"val/dog: is no WordNet id \(as n01440764\)"):
        open_downstream(f"imagenet:{root}")
    shutil.rmtree(root / "val")
    with pytest.raises(DownstreamError, match=r"has no val/: it must hold train/<wnid>/\*.JPEG and val/<wnid>/\*.JPEG"):
        open_downstream(f"imagenet:{root}")


def pack(archive: Path, folder: Path, names: list[str]) -> None:
    with tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w") as tar:
        for name in names:
            tar.add(folder / name, name)


@pytest.fixture
def archives(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The three published archives in small; torchvision is told their digests."""
    packed, devkit = tmp_path / "packed", tmp_path / "ILSVRC2012_devkit_t12" / "data"
    packed.mkdir()
    devkit.mkdir(parents=True)
    for wnid in WORDS:
        pack(root / "train" / f"{wnid}.tar", root / "train" / wnid, [p.name for p in (root / "train" / wnid).iterdir()])
    pack(packed / "ILSVRC2012_img_train.tar", root / "train", [f"{wnid}.tar" for wnid in WORDS])
    images = sorted((file.name, file.parent.name) for file in root.glob("val/*/*"))
    for name, wnid in images:
        shutil.copy(root / "val" / wnid / name, tmp_path / name)
    pack(packed / "ILSVRC2012_img_val.tar", tmp_path, [name for name, _ in images])
    fields = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("gloss", object), ("children", object)]
    synsets = [(i + 1, wnid, ", ".join(words), "a gloss", 0) for i, (wnid, words) in enumerate(WORDS.items())]
    savemat(devkit / "meta.mat", {"synsets": np.array(synsets, dtype=fields)})
    numbers = [f"{list(WORDS).index(wnid) + 1}\n" for _, wnid in images]
    (devkit / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(numbers))
    pack(packed / "ILSVRC2012_devkit_t12.tar.gz", tmp_path, ["ILSVRC2012_devkit_t12"])
    files = {"train": "img_train.tar", "val": "img_val.tar", "devkit": "devkit_t12.tar.gz"}
    known = {
        part: (f"ILSVRC2012_{name}", hashlib.md5((packed / f"ILSVRC2012_{name}").read_bytes()).hexdigest())
        for part, name in files.items()
    }
    monkeypatch.setattr("torchvision.datasets.imagenet.ARCHIVE_META", known)
    for wnid in WORDS:
        (root / "train" / f"{wnid}.tar").unlink()
    return packed


def test_the_published_archives_are_unpacked_by_torchvision(root: Path, archives: Path) -> None:
    unpacked, known = open_downstream(f"imagenet:{archives}"), open_downstream(f"imagenet:{root}")
    assert unpacked.classes == ["tench", "crane (n02012849)", "crane (n03126707)"]
    for side in ("train", "test"):
        pairs = zip(getattr(unpacked, side), getattr(known, side), strict=True)
        assert all(torch.equal(a, b) and first == second for (a, first), (b, second) in pairs)


def test_an_archive_without_its_devkit_is_named(archives: Path) -> None:
    (archives / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    with pytest.raises(DownstreamError, match=r"img_train.tar could not be unpacked .*ILSVRC2012_devkit_t12.tar.gz"):
        open_downstream(f"imagenet:{archives}")
