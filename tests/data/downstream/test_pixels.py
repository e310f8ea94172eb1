"""Other people's image files, as 8-bit RGB: against what PIL, tifffile and numpy say that they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from formulavision.data.downstream import open_downstream
from formulavision.data.downstream.pixels import to_rgb
from formulavision.util.errors import DownstreamError

RAMP = np.linspace(0, 65535, 40 * 30).round().astype(np.uint16).reshape(30, 40)


def rgb(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(to_rgb(image))


def gray(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[:, :, None].astype(np.uint8), 3, axis=2)


def test_16_bit_gray_is_scaled_by_its_range(tmp_path: Path) -> None:
    expected = gray((RAMP.astype(np.int64) + 128) // 257)
    assert np.unique(expected).size == 256
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    Image.fromarray(RAMP).save(tmp_path / "a.tif")
    Image.fromarray(RAMP).save(tmp_path / "a.jp2", irreversible=False)
    tifffile.imwrite(tmp_path / "big.tif", RAMP, byteorder=">")
    tifffile.imwrite(tmp_path / "zip.tif", RAMP, compression="zlib", predictor=True)
    tifffile.imwrite(tmp_path / "inverted.tif", 65535 - RAMP, photometric="miniswhite")
    (tmp_path / "a.pgm").write_bytes(b"P5 40 30 65535\n" + RAMP.astype(">u2").tobytes())
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_array_equal(rgb(path), expected, err_msg=path.name)


def test_a_pgm_of_fewer_bits_is_scaled_by_its_largest_value(tmp_path: Path) -> None:
    values = (RAMP // 16).astype(">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 40 30 4095\n" + values.tobytes())
    found = rgb(tmp_path / "a.pgm").astype(int)
    assert np.abs(found - gray(np.rint(values / 4095 * 255))).max() <= 1


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (RAMP.astype(np.float32), "floating-point"),
        (RAMP.astype(np.float32) / 65535, "floating-point"),
        (RAMP.astype(np.uint32), "signed or 32-bit integers"),
        (RAMP.astype(np.int32), "signed or 32-bit integers"),
        ((RAMP // 2).astype(np.int16), "signed or 32-bit integers"),
        ((RAMP // 512).astype(np.int8), "signed or 32-bit integers"),
        (np.zeros((8, 8, 3), np.float32), "is not an image that can be read"),
    ],
    ids=lambda value: f"{value.dtype}-{value.ndim}" if isinstance(value, np.ndarray) else "",
)
def test_what_has_no_black_and_white_is_refused_before_anything_is_done(
    tmp_path: Path, values: np.ndarray, told: str
) -> None:
    for side in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / side / name).mkdir(parents=True)
            Image.new("L", (8, 8)).save(tmp_path / side / name / "0.png")
    photometric = "rgb" if values.ndim == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "train" / "dog" / "1.tif", values, photometric=photometric)
    with pytest.raises(DownstreamError, match=rf"train/dog/1.tif: .*{told}"):
        open_downstream(str(tmp_path))


def test_palettes_gray_alpha_and_cmyk_are_read_as_pil_converts_them(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    pixels = Image.fromarray(chance.integers(0, 256, (30, 40, 4), dtype=np.uint8), "RGBA")
    opaque = pixels.convert("RGB")
    files = {
        "rgba.png": pixels,
        "la.png": pixels.convert("LA"),
        "cmyk.jpg": opaque.convert("CMYK"),
        "cmyk.tif": opaque.convert("CMYK"),
        "palette.png": opaque.quantize(64),
        "palette.gif": opaque.quantize(64),
        "one.png": opaque.convert("1"),
    }
    for name, image in files.items():
        image.save(tmp_path / name)
        with Image.open(tmp_path / name) as again:
            np.testing.assert_array_equal(rgb(tmp_path / name), np.asarray(again.convert("RGB")), err_msg=name)
    np.testing.assert_array_equal(rgb(tmp_path / "rgba.png"), np.asarray(pixels)[:, :, :3])


@pytest.mark.parametrize("transparency", [7, bytes(range(0, 256, 4))])
def test_a_palette_with_transparency_keeps_the_palettes_colours(tmp_path: Path, transparency: int | bytes) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (64, 3), dtype=np.uint8)
    indices = np.arange(64, dtype=np.uint8).reshape(8, 8)
    image = Image.fromarray(indices, "P")
    image.putpalette(colours.tobytes())
    image.save(tmp_path / "a.png", transparency=transparency)
    np.testing.assert_array_equal(rgb(tmp_path / "a.png"), colours[indices])


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_of_an_animation_the_first_frame_is_read(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (9, 7), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    lossless: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **lossless)
    assert rgb(tmp_path / f"a.{suffix}")[3, 3].tolist() == [250, 0, 0]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_read_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:8, :12], pixels[8:, :12], pixels[8:, 12:] = 250, 120, 60
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path, exif=exif)
    with Image.open(path) as image:
        image.load()
        np.testing.assert_array_equal(rgb(path), np.asarray(ImageOps.exif_transpose(image).convert("RGB")))
    assert rgb(path).shape == ((24, 16, 3) if orientation > 4 else (16, 24, 3))
    corners = pixels[[0, 0, -1, -1, 0, -1, -1, 0], [0, -1, -1, 0, 0, 0, -1, -1], 0]
    assert abs(int(rgb(path)[0, 0, 0]) - int(corners[orientation - 1])) <= 12


def test_damaged_exif_is_as_none(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (9, 7), (1, 2, 3)).save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert rgb(path).shape == (7, 9, 3)


def test_16_bit_gray_of_a_photograph_is_turned_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RAMP).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(rgb(tmp_path / "a.png"), np.rot90(gray(np.rint(RAMP / 257)), -1))
