from __future__ import annotations

import contextlib
import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from formulavision import Drawer, Recipe
from formulavision.storage.png import LEVEL, decode_image, encode_png

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GRAY, RGB, PALETTE = 0, 2, 3


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, depth: int, color: int, lines: bytes, *, palette: bytes = b"", interlaced: int = 0,
    other: bytes = b"", pieces: int = 1,
) -> bytes:  # fmt: skip
    """A PNG of filtered lines, with its data in so many chunks, and other chunks."""
    data = zlib.compress(lines)
    cut = [data[len(data) * i // pieces : len(data) * (i + 1) // pieces] for i in range(pieces)]
    return b"".join(
        (
            SIGNATURE,
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)),
            chunk(b"PLTE", palette) if palette else b"",
            other,
            *(chunk(b"IDAT", piece) for piece in cut),
            chunk(b"IEND", b""),
        )
    )


def filtered(image: np.ndarray, filters: Iterable[int]) -> bytes:
    """Lines behind filters, each as the PNG specification, section 9, words it."""
    step = image.shape[2]
    rows = image.reshape(len(image), -1).astype(int)
    lines = []
    for y, (row, kind) in enumerate(zip(rows, filters, strict=True)):
        lines.append(kind)
        for x, value in enumerate(row):
            left = row[x - step] if x >= step else 0
            above = rows[y - 1, x] if y > 0 else 0
            corner = rows[y - 1, x - step] if x >= step and y > 0 else 0
            closest = min((left, above, corner), key=lambda n: abs(left + above - corner - n))
            lines.append((value - (0, left, above, (left + above) // 2, closest)[kind]) % 256)
    return bytes(map(int, lines))


def raw_lines(data: bytes) -> bytes:
    """The filtered lines in a PNG of one data chunk."""
    start = data.index(b"IDAT")
    return zlib.decompress(data[start + 4 : start + 4 + int.from_bytes(data[start - 4 : start], "big")])


def with_pillow(data: bytes, channels: int) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        pixels = np.asarray(picture.convert("RGB" if channels == 3 else "L"))
    return pixels.reshape(*pixels.shape[:2], channels)


def saved(picture: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, options.pop("format", "PNG"), **options)
    return buffer.getvalue()


def noise(*shape: int, values: int = 256, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, values, shape, dtype=np.uint8)


def reads_as(data: bytes, image: np.ndarray) -> None:
    """Here and in Pillow."""
    assert np.array_equal(decode_image(data, image.shape[2]), image)
    assert np.array_equal(with_pillow(data, image.shape[2]), image)


@st.composite
def images(draw: st.DrawFn) -> np.ndarray:
    """Images of few and of many values, in any layout in memory."""
    shape = (draw(st.integers(1, 40)), draw(st.integers(1, 70)), draw(st.sampled_from([1, 3])))
    values = draw(st.lists(st.integers(0, 255), min_size=1, max_size=4))
    elements = st.sampled_from(values) if draw(st.booleans()) else st.integers(0, 255)
    image = draw(hnp.arrays(np.uint8, shape, elements=elements, fill=elements))
    steps = [draw(st.sampled_from([1, -1, 2, -3])) for _ in range(2)]
    return image[:: steps[0], :: steps[1]].swapaxes(0, draw(st.integers(0, 1)))


# Written


@settings(deadline=None)
@given(images())
def test_any_image_comes_back_as_it_was(image: np.ndarray) -> None:
    data = encode_png(image)
    reads_as(data, image)
    assert encode_png(image.copy()) == data


@settings(deadline=None)
@given(
    hnp.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 70), st.just(1))),
    st.tuples(*[st.integers(0, 255)] * 2),
)
@example(np.eye(9, dtype=bool)[:, :, None], (0, 255))
def test_an_image_of_two_values_is_one_bit_a_pixel(lit: np.ndarray, values: tuple[int, int]) -> None:
    image = np.array(values, np.uint8)[lit.astype(int)]
    data = encode_png(image)
    reads_as(data, image)
    assert data[24:26] == bytes((1, PALETTE)), "bit depth 1, colour type palette"
    assert with_pillow(data, 3).tobytes() == np.repeat(image, 3, axis=2).tobytes()


@pytest.mark.parametrize("width", [*range(8, 18), 362, 4096])
@pytest.mark.parametrize("values", [1, 2, 3, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_size_comes_back(width: int, values: int, channels: int) -> None:
    reads_as(encode_png(image := noise(8, width, channels, values=values)), image)


@pytest.mark.parametrize("pixel", [0, 7, 8, 100])
def test_a_third_value_anywhere_is_seen(pixel: int) -> None:
    image = 6 * noise(11, 11, 1, values=2)
    image.reshape(-1)[[pixel, -1]] = 4, 4
    reads_as(encode_png(image), image)


def test_a_large_image_comes_back() -> None:
    image = noise(4096, 4096, 1, values=2)
    assert np.array_equal(decode_image(encode_png(image), 1), image)
    image[1, 1] = 2
    assert np.array_equal(with_pillow(encode_png(image), 1), image)


def test_flat_areas_are_stored_as_they_are_and_slopes_as_differences() -> None:
    dots = np.where(noise(64, 64, 1, seed=1) < 20, noise(64, 64, 1), np.uint8(0))
    assert raw_lines(encode_png(dots))[0] == 0
    along = np.broadcast_to(np.cumsum(noise(64, 64, 1, values=3), axis=1, dtype=np.uint8), (64, 64, 1))
    assert raw_lines(encode_png(along))[0] == 1
    assert raw_lines(encode_png(along.swapaxes(0, 1)))[0] == 2


@pytest.mark.parametrize("generator", [{"name": "ifs", "dots": 20_000}, {"name": "bezier"}, {"name": "perlin"}])
@pytest.mark.parametrize("channels", [1, 3])
def test_drawn_images_are_not_much_larger_than_as_pillow_writes_them(generator: dict[str, Any], channels: int) -> None:
    recipe = {"generator": generator, "categories": 4, "canvas": {"size": 128, "channels": channels}, "instances": 2}
    drawn, _ = Drawer(Recipe.from_dict(recipe)).draw_batch(range(8))
    for image in drawn:
        reads_as(encode_png(image), image)
    by_pillow = [saved(Image.fromarray(image.squeeze()), compress_level=1) for image in drawn]
    assert sum(len(encode_png(image)) for image in drawn) < 1.25 * sum(map(len, by_pillow))


@pytest.mark.filterwarnings("ignore:.*TorchVision are deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    "image", [7 * noise(9, 21, 1, values=2), noise(9, 9, 1), np.arange(768, dtype=np.uint8).reshape(16, 16, 3)]
)
def test_torchvision_reads_what_is_written(image: np.ndarray) -> None:
    import torch
    from torchvision.io import ImageReadMode, decode_png

    mode = ImageReadMode.RGB if image.shape[2] == 3 else ImageReadMode.GRAY
    data = torch.frombuffer(bytearray(encode_png(image)), dtype=torch.uint8)
    assert np.array_equal(decode_png(data, mode).permute(1, 2, 0).numpy(), image)


@settings(deadline=None)
@given(images(), st.lists(st.integers(0, 4), min_size=70, max_size=70), st.integers(1, 3))
def test_every_filter_is_undone(image: np.ndarray, filters: list[int], pieces: int) -> None:
    height, width, channels = image.shape
    lines = filtered(np.ascontiguousarray(image), filters[:height])
    reads_as(png(width, height, 8, GRAY if channels == 1 else RGB, lines, pieces=pieces), image)


@pytest.mark.parametrize("kind", range(5))
def test_every_filter_is_undone_in_lines_of_bits(kind: int) -> None:
    bits = noise(20, 3, 1)
    image = np.where(np.unpackbits(bits, axis=1), np.uint8(9), np.uint8(200))
    reads_as(png(24, 20, 1, PALETTE, filtered(bits, [kind] * 20), palette=bytes([200] * 3 + [9] * 3)), image)
    black_and_white = np.where(np.unpackbits(bits, axis=1), np.uint8(255), np.uint8(0))
    reads_as(png(24, 20, 1, GRAY, filtered(bits, [kind] * 20)), black_and_white)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
@pytest.mark.parametrize("options", [{}, {"compress_level": 0}, {"optimize": True}, {"format": "TIFF"}])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_others_write_reads_as_pillow_reads_it(mode: str, options: dict[str, Any], channels: int) -> None:
    for pixels in (noise(33, 21, 3), noise(64, 64, 3) // 16 + np.arange(64, dtype=np.uint8)[:, None]):
        picture = Image.fromarray(pixels).convert("L" if mode == "I;16" else mode)
        data = saved(picture.convert("I;16") if mode == "I;16" else picture, **options)
        assert np.array_equal(decode_image(data, channels), with_pillow(data, channels))


def test_other_formats_are_read() -> None:
    data = saved(Image.fromarray(noise(16, 16, 3)), format="JPEG")
    assert np.array_equal(decode_image(data, 3), with_pillow(data, 3))


@pytest.mark.parametrize(
    "palette",
    [bytes([1, 2, 3, 200, 100, 50]), bytes([9] * 3), bytes([9] * 3 + [1, 1, 2]), bytes(range(9)), bytes([7] * 6)],
    ids=["two colours", "one gray", "a gray and a colour", "three", "one gray twice"],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_palette_reads_as_pillow_reads_it(palette: bytes, channels: int) -> None:
    lines = bytes([0, 0b0101_1100, 0]) if len(palette) > 3 else bytes([0, 0, 0])
    data = png(10, 1, 1, PALETTE, lines, palette=palette)
    assert np.array_equal(decode_image(data, channels), with_pillow(data, channels))


def test_transparency_and_other_chunks_are_read_as_pillow_reads_them() -> None:
    image = noise(5, 5, 1, values=4)
    for other in (chunk(b"tRNS", bytes([0, 2])), chunk(b"gAMA", struct.pack(">I", 45455)), chunk(b"tEXt", b"a\0b")):
        data = png(5, 5, 8, GRAY, filtered(image, [0] * 5), other=other)
        assert np.array_equal(decode_image(data, 1), with_pillow(data, 1))


def test_interlaced_images_are_read() -> None:
    image = noise(19, 21, 1)
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [image[y::dy, x::dx] for y, x, dy, dx in passes]
    reads_as(png(21, 19, 8, GRAY, b"".join(filtered(part, [0] * len(part)) for part in parts), interlaced=1), image)


# Damaged

SMALL = [noise(9, 9, 1, values=2), noise(9, 9, 1), noise(9, 9, 3)]


@pytest.mark.parametrize("image", SMALL)
def test_data_that_is_cut_short_is_refused(image: np.ndarray) -> None:
    data = encode_png(image)
    for length in range(len(data)):
        with pytest.raises(OSError):
            decode_image(data[:length], image.shape[2])


@pytest.mark.parametrize("image", SMALL)
def test_any_flipped_bit_is_noticed(image: np.ndarray) -> None:
    data = encode_png(image)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(OSError):
            decode_image(bytes(damaged), image.shape[2])


@pytest.mark.parametrize("channels", [1, 3])
@settings(deadline=None)
@given(lines=st.binary(max_size=80), bits=st.integers(0, 2**16 - 1), width=st.integers(0, 5), height=st.integers(0, 5))
def test_no_content_is_worse_than_refused(channels: int, lines: bytes, bits: int, width: int, height: int) -> None:
    data = png(width, height, *divmod(bits, 256), lines, palette=lines[:6])
    with contextlib.suppress(OSError, SyntaxError, ValueError):
        assert decode_image(data, channels).shape == (height, width, channels)


@pytest.mark.parametrize(
    "lines", [b"", bytes(29), bytes(31), bytes(10**6), bytes([5] * 30)], ids=["no", "short", "long", "bomb", "filter"]
)
def test_lines_that_are_not_the_images_are_refused(lines: bytes) -> None:
    with pytest.raises(OSError):
        decode_image(png(5, 5, 8, GRAY, lines), 1)
    with pytest.raises(OSError):
        decode_image(png(33, 5, 1, GRAY, lines), 1)


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_a_stream_that_does_not_inflate_is_refused(stream: bytes) -> None:
    data = png(5, 5, 8, GRAY, b"").replace(chunk(b"IDAT", zlib.compress(b"")), chunk(b"IDAT", stream))
    with pytest.raises(OSError):
        decode_image(data, 1)


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_what_is_no_image_is_refused(data: bytes) -> None:
    for start in (b"", SIGNATURE):
        with pytest.raises(OSError):
            decode_image(start + data, 1)


def test_all_processes_compress_to_the_same_bytes(tmp_path: Path) -> None:
    """At levels 1 and 2 one process in ten gives other bytes for one of some thousands of streams, depending on where
    its memory happens to lie."""
    random = np.random.default_rng(0)
    waves = np.sin(np.add.outer(random.random((3000, 64)) * 9, np.arange(64) / random.integers(1, 40)))
    steps = np.diff((waves * 127).astype(np.uint8).reshape(3000, -1), axis=1)
    np.save(tmp_path / "streams.npy", steps)
    code = (
        "import hashlib, sys, numpy; from isal import isal_zlib\n"
        "digest = hashlib.sha256()\n"
        "for stream in numpy.load(sys.argv[1]): digest.update(isal_zlib.compress(stream.tobytes(), int(sys.argv[2])))\n"
        "print(digest.hexdigest())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "streams.npy"), str(LEVEL)]
    digests = {subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(10)}
    assert len(digests) == 1
