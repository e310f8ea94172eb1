"""Trials of image folders that users fine-tune on: damaged and odd images are read rightly, or named."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from campaign.trial import Trial, change_bytes, run, tail, wrong_end


def images(random: random.Random, seed: int, folder: Path) -> str | None:
    root = folder / "data"
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for i in range(2):
                Image.frombytes("RGB", (12, 9), random.randbytes(324)).save(root / part / name / f"{i}.png")
    name = random.choice(["train/cat/0", "train/dog/1", "test/cat/0", "test/dog/1"])
    path, told = write_odd_image(random, root / f"{name}.png")
    ended = run(lambda: read_folder(root, path, folder / "pixels"), folder, timeout=60)
    flaw = wrong_end(ended, 0, 2)
    if flaw is None and ended.status == 2 and path.name not in ended.output:
        flaw = f"does not name {path.name}: {tail(ended)}"
    if flaw is None and ended.status == 0:
        flaw = wrong_pixels(told, folder / "pixels")
    return flaw and f"{path.name}, {told['what']}: {flaw}"


def write_odd_image(random: random.Random, path: Path) -> tuple[Path, dict[str, Any]]:
    """Replace an image by an odd or damaged one; returns its path, and what it must be read as, where that is sure."""
    suffix = random.choice([".png", ".png", ".jpg", ".bmp", ".gif", ".tif", ".webp", ".ppm"])
    target = path.with_suffix(suffix)
    path.unlink()
    kind = random.choice(["damaged", "damaged", "damaged", "mode", "mode", "deep", "empty", "suffix", "text", "folder"])
    mode = random.choice(["RGB", "L", "1", "P", "RGBA", "LA", "CMYK"]) if kind == "mode" else "RGB"
    pixels = np.frombuffer(random.randbytes(324), np.uint8).reshape(9, 12, 3)
    picture = Image.fromarray(pixels).convert(mode)
    told: dict[str, Any] = {"what": f"{kind} {mode}"}
    if kind == "deep":
        # 16-bit gray: 0 to 65535, which must become 0 to 255 or be refused.
        deep = np.frombuffer(random.randbytes(216), "<u2").reshape(9, 12)
        target = path.with_suffix(random.choice([".png", ".tif"]))
        Image.fromarray(deep.astype(np.uint16)).save(target)
        return target, {"what": "16-bit gray", "near": (deep / 257.0)[:, :, None].repeat(3, 2).tolist()}
    if kind in ("empty", "text", "folder"):
        target.mkdir() if kind == "folder" else target.write_bytes(b"" if kind == "empty" else b"<html></html>")
        return target, told
    form = {".jpg": "JPEG", ".tif": "TIFF", ".ppm": "PPM"}.get(suffix, suffix[1:].upper())
    if kind == "suffix":
        form = random.choice(["PNG", "JPEG", "GIF", "BMP"])
    try:
        picture.save(target, form)
    except OSError:  # the format has not this mode
        picture = picture.convert("RGB")
        picture.save(target, form)
    if kind == "damaged":
        target.write_bytes(change_bytes(random, target.read_bytes()))
    elif form in ("PNG", "BMP", "TIFF"):  # without loss
        told["exact"] = np.asarray(picture.convert("RGB")).tolist()
    return target, told


def read_folder(root: Path, odd: Path, pixels: Path) -> int:
    """Read all images of a downstream folder; leave those of ``odd`` as an array."""
    from formulavision.data.downstream import open_downstream
    from formulavision.util.errors import DownstreamError

    try:
        opened = open_downstream(f"folder:{root}")
        for side in (opened.train, opened.test):
            for index in range(len(side)):
                image, _ = side[index]
                if side is (opened.train if "train" in odd.parts else opened.test) and index == _index(odd):
                    np.save(pixels.with_suffix(".npy"), np.asarray(image))
    except DownstreamError as error:
        print(f"error: {' '.join(str(error).split())}")
        return 2
    return 0


def _index(odd: Path) -> int:
    return 2 * (odd.parent.name == "dog") + int(odd.stem)


def wrong_pixels(told: dict[str, Any], pixels: Path) -> str | None:
    file = pixels.with_suffix(".npy")
    if not file.is_file() or not ("exact" in told or "near" in told):
        return None
    found = np.load(file).astype(float)
    if found.shape[0] == 3 and found.shape[-1] != 3:
        found = found.transpose(1, 2, 0)
    wanted = np.array(told.get("exact", told.get("near")), float)
    if found.shape != wanted.shape:
        return f"is read as {found.shape}, not {wanted.shape}"
    off = np.abs(found - wanted).max()
    return f"is read wrongly, by up to {off:.0f} gray levels" if off > ("near" in told) else None


TRIALS = [
    Trial("images", "an image of a downstream folder damaged or odd: read rightly, or named", 300, images, short=3)
]
