from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import Omniglot

from formulavision.data.downstream import DownstreamSettings, LabelledImages, open_downstream
from formulavision.util.errors import DownstreamError


def write_alphabets(folder: Path, *alphabets: str) -> Path:
    """Two characters an alphabet, each drawn by 20 people: ``<alphabet>/<character>/<number>_<drawer>.png``, 1 bit."""
    for number, character in enumerate((a, c) for a in alphabets for c in ("character01", "character02")):
        (folder / "/".join(character)).mkdir(parents=True)
        for drawer in range(1, 21):
            image = np.ones((21, 21), dtype=bool)
            image[number, :drawer] = False
            file = folder / "/".join(character) / f"{number + 1:04d}_{drawer:02d}.png"
            Image.fromarray(image).save(file)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_alphabets(tmp_path / "images_background_small1", "Greek", "Korean").parent


def drawers(side: LabelledImages) -> Counter[int]:
    return Counter(int((image[0] == 0).sum()) for image, _ in side)


def test_the_drawers_of_training_are_others_than_those_of_the_test(root: Path) -> None:
    data = open_downstream(f"omniglot:{root}")
    names = ["Greek/character01", "Greek/character02", "Korean/character01", "Korean/character02"]
    assert data.classes == names
    assert drawers(data.train) == dict.fromkeys(range(1, 16), 4)
    assert drawers(data.test) == dict.fromkeys(range(16, 21), 4)
    assert np.bincount(data.train.labels).tolist() == [15] * 4


def test_strokes_are_black_on_white(root: Path) -> None:
    image, label = open_downstream(f"omniglot:{root}").test[-1]
    assert label == 3 and image.shape == (3, 21, 21)
    assert image[:, 3, :20].max() == 0 and image[:, 3, 20].min() == 255 and image[:, 4].min() == 255


def test_the_alphabets_may_be_the_root_and_both_sets_are_one(tmp_path: Path) -> None:
    write_alphabets(tmp_path / "images_background", "Greek", "Korean")
    write_alphabets(tmp_path / "images_evaluation", "Tengwar", "Atlantean")
    assert open_downstream(f"omniglot:{tmp_path / 'images_background'}").num_classes == 4
    both = open_downstream(f"omniglot:{tmp_path}")
    assert (both.num_classes, len(both.train), len(both.test)) == (8, 120, 40)
    assert len({bytes(image.numpy().tobytes()) for image, _ in both.test}) == 20


def test_it_is_the_same_dataset_in_every_layout(tmp_path: Path) -> None:
    write_alphabets(tmp_path / "unpacked" / "images_background", "Greek", "Korean")
    write_alphabets(tmp_path / "unpacked" / "images_evaluation", "Tengwar")
    shutil.copytree(tmp_path / "unpacked", tmp_path / "downloaded" / "omniglot-py")
    for part in ("images_background", "images_evaluation"):
        shutil.copytree(tmp_path / "unpacked" / part, tmp_path / "alphabets", dirs_exist_ok=True)
    layouts = [open_downstream(f"omniglot:{root}") for root in sorted(tmp_path.iterdir())]
    assert len({data.train.digest() for data in layouts}) == 1
    assert len({data.test.digest() for data in layouts}) == 1


def test_torchvisions_own_download_is_read_as_torchvision_reads_it(
    tmp_path: Path, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = served
    digests = {}
    for name, alphabets in (("images_background", ("Greek", "Korean")), ("images_evaluation", ("Tengwar",))):
        write_alphabets(folder / name, *alphabets)
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            for file in sorted(folder.glob(f"{name}/*/*/*.png")):
                archive.write(file, file.relative_to(folder))
        digests[name] = hashlib.md5((folder / f"{name}.zip").read_bytes()).hexdigest()
    monkeypatch.setattr(Omniglot, "zips_md5", digests)
    monkeypatch.setattr(Omniglot, "download_url_prefix", address.rstrip("/"))
    ours = open_downstream(DownstreamSettings(kind="omniglot", root=tmp_path / "kept"))
    theirs = [Omniglot(str(tmp_path / "kept"), background=background) for background in (True, False)]
    # By name, because torchvision numbers the characters as the file system lists them.
    expected = {(np.asarray(image).tobytes(), data._characters[label]) for data in theirs for image, label in data}
    sides = (ours.train, ours.test)
    found = [(image[0].numpy().tobytes(), ours.classes[label]) for side in sides for image, label in side]
    assert len(found) == 120 and set(found) == expected


def test_what_is_wrong_with_a_layout_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DownstreamError, match=r"must hold <alphabet>/<character>/\*_<drawer>.png, or images_background/"
    ):
        open_downstream(DownstreamSettings(kind="omniglot", root=tmp_path / "nowhere", download=False))
    character = root / "images_background_small1" / "Greek" / "character01"
    (character / "0001_03.png").rename(character / "0001_21.png")
    with pytest.raises(DownstreamError, match=r"0001_21.png: is not named after its drawer, 1 to 20"):
        open_downstream(f"omniglot:{root}")
    (character / "0001_21.png").unlink()
    for drawer in range(16, 21):
        (character / f"0001_{drawer}.png").unlink()
    with pytest.raises(DownstreamError, match="character01: holds 14 images: it must hold those of 20 drawers"):
        open_downstream(f"omniglot:{root}")


def test_the_real_small_set(shared_data: Path, tmp_path: Path) -> None:
    archive = shared_data / "omniglot-background-small1.zip"
    if not archive.is_file():
        pytest.skip(f"no {archive.name}")
    zipfile.ZipFile(archive).extractall(tmp_path)
    data = open_downstream(DownstreamSettings(kind="omniglot", root=tmp_path, train_per_class=5))
    assert (data.num_classes, len(data.train), len(data.test)) == (136, 136 * 5, 136 * 5)
    assert len({name.split("/")[0] for name in data.classes}) == 5
    image, _ = data.train[0]
    assert image.shape == (3, 105, 105) and image.unique().tolist() == [0, 255]
    ink = torch.stack([image[0] == 0 for image, _ in data.test]).float().mean()
    assert 0.02 < ink < 0.1
