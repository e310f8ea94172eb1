"""Object maps as PNG: lossless, 8-bit gray up to 255 objects and 16-bit gray above, as other programs read them."""

from __future__ import annotations

import functools
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from formulavision.storage.png import decode_object_map, encode_object_map, encode_png


@functools.cache
def draw_map(size: int, objects: int, seed: int = 0) -> np.ndarray:
    """Overlapping rectangles; the last one is the whole of the last pixel."""
    random = np.random.default_rng(seed)
    object_map = np.zeros((size, size), np.uint16)
    bounds = np.sort(random.integers(0, size + 1, (objects, 2, 2)), axis=2).tolist()
    for k, ((top, bottom), (left, right)) in enumerate(bounds, start=1):
        object_map[top:bottom, left:right] = k
    object_map[-1, -1] = objects
    object_map.flags.writeable = False
    return object_map


MAPS = {
    f"{size} pixels, {objects} objects": (size, objects)
    for size in (8, 61, 256)
    for objects in (1, 2, 254, 255, 256, 257, 5000, 65535)
}


@pytest.mark.parametrize("name", MAPS)
def test_pillow_reads_the_numbers_of_the_objects(name: str) -> None:
    size, objects = MAPS[name]
    object_map = draw_map(size, objects)
    png = encode_object_map(object_map, objects)
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.mode == ("L" if objects <= 255 else "I;16")
        assert np.array_equal(np.asarray(picture), object_map)
    decoded = decode_object_map(png)
    assert decoded.dtype == np.uint16
    assert np.array_equal(decoded, object_map)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", MAPS)
def test_imageio_opencv_and_torchvision_read_them_too(name: str) -> None:
    import cv2
    import imageio.v3
    import torch
    from torchvision.io import decode_image

    size, objects = MAPS[name]
    object_map = draw_map(size, objects)
    png = encode_object_map(object_map, objects)
    assert np.array_equal(imageio.v3.imread(png, extension=".png"), object_map)
    read = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert read is not None and np.array_equal(read, object_map)
    assert np.array_equal(decode_image(torch.frombuffer(bytearray(png), dtype=torch.uint8))[0].numpy(), object_map)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 50), st.integers(1, 50), st.sampled_from([1, 3, 255, 256, 65535]), st.integers(0, 2**32))
def test_any_map_is_read_as_it_was(height: int, width: int, objects: int, seed: int) -> None:
    object_map = np.random.default_rng(seed).integers(0, objects + 1, (height, width)).astype(np.uint16)
    assert np.array_equal(decode_object_map(encode_object_map(object_map, objects)), object_map)


def test_the_number_of_objects_decides_the_depth_and_not_which_of_them_are_visible() -> None:
    object_map = np.ones((16, 16), np.uint16)
    assert [encode_object_map(object_map, objects)[24] for objects in (1, 255, 256, 300)] == [8, 8, 16, 16]


@pytest.mark.parametrize("objects", [3, 300])
def test_maps_that_other_programs_wrote_are_read(objects: int) -> None:
    object_map = draw_map(40, objects)
    file = io.BytesIO()
    Image.fromarray(object_map if objects > 255 else object_map.astype(np.uint8)).save(file, "PNG", optimize=True)
    assert np.array_equal(decode_object_map(file.getvalue()), object_map)


def test_what_is_no_object_map_is_refused() -> None:
    png = encode_object_map(draw_map(40, 300), 300)
    for data in (encode_png(np.zeros((4, 4, 3), np.uint8)), png[:-20], png[:60] + b"x" + png[61:], b"", b"GIF89a"):
        with pytest.raises(OSError):
            decode_object_map(data)
    palette = io.BytesIO()
    Image.new("P", (4, 4)).save(palette, "PNG")
    with pytest.raises(OSError, match="not gray of 8 or 16 bits"):
        decode_object_map(palette.getvalue())
