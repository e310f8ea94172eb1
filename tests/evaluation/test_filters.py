from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from formulavision.evaluation import first_layer_filters
from formulavision.util.errors import CheckpointError, SmallFiltersError


def saved(path: Path, **tensors: torch.Tensor) -> Path:
    torch.save({name.replace("__", "."): tensor for name, tensor in tensors.items()}, path)
    return path


def test_filters_lie_row_by_row_each_in_its_own_range(tmp_path: Path) -> None:
    weights = torch.zeros(5, 3, 7, 7)
    weights[0, 0] = 2.0  # red
    weights[0, 2, 0, 0] = -2.0  # the lowest: the rest is not black but half way
    weights[1] = torch.arange(49).view(7, 7)
    weights[1, 1, 6, 6] = 51  # a step is 5 of 255
    file = saved(tmp_path / "w.pth", conv1__weight=weights, fc__weight=torch.zeros(2, 5))
    picture = np.asarray(first_layer_filters(file))
    # 3 columns and 2 rows of 56 pixels with gaps of 4 between and around.
    assert picture.shape == (124, 184, 3)
    first, second, third = (picture[4:60, 4 + 60 * i : 60 + 60 * i] for i in range(3))
    np.testing.assert_array_equal(first[20, 20], [255, 128, 128])
    np.testing.assert_array_equal(first[7, 7], [255, 128, 0])
    np.testing.assert_array_equal(first[8, 7], [255, 128, 128])
    np.testing.assert_array_equal(second[::8, ::8, 0], 5 * np.arange(49).reshape(7, 7))
    assert second[-1, -1].tolist() == [240, 255, 240]
    np.testing.assert_array_equal(second[7::8, 7::8], second[::8, ::8])
    assert (third == 128).all(), "one whose weights are all the same is gray"
    assert (picture[:4] == 255).all() and (picture[:, 60:64] == 255).all() and (picture[64:120, 124:] == 255).all()


@pytest.mark.parametrize(
    ("model", "filters", "side", "scale"),
    [("resnet18", 64, 7, 8), ("test_vit", 64, 16, 3), ("test_convnext", 24, 4, 14)],
)
def test_any_model_has_them(tmp_path: Path, model: str, filters: int, side: int, scale: int) -> None:
    torch.save(timm.create_model(model).state_dict(), tmp_path / "w.pth")
    picture = first_layer_filters(tmp_path / "w.pth")
    columns = int(np.ceil(filters**0.5))
    rows = -(-filters // columns)
    assert picture.size == (columns * (side * scale + 4) + 4, rows * (side * scale + 4) + 4)


def test_filters_below_the_size_that_is_asked_for_are_refused(tmp_path: Path) -> None:
    file = saved(tmp_path / "w.pth", conv1__weight=torch.rand(4, 3, 5, 3))
    assert first_layer_filters(file, smallest=3).width > 0
    with pytest.raises(SmallFiltersError, match="filters of 5 x 3 pixels are smaller than 5 x 5"):
        first_layer_filters(file, smallest=5)


def test_of_a_run_and_of_its_file_they_are_the_same(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["a", "b"])
    assert first_layer_filters(run) == first_layer_filters(run / "model.safetensors")


def test_a_run_tells_which_of_several_layers_is_the_first(make_run: Callable[..., Path], tmp_path: Path) -> None:
    model = timm.create_model("test_resnet", num_classes=2)
    run = make_run(tmp_path / "run", ["a", "b"], model)
    plain = first_layer_filters(run)
    model.register_parameter("other", torch.nn.Parameter(torch.zeros(4, 3, 2, 2)))
    run = make_run(tmp_path / "more", ["a", "b"], model)
    assert first_layer_filters(run) == plain
    file = (run / "model.safetensors").rename(tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"several layers \(conv1.0.weight, other\)"):
        first_layer_filters(file)


def test_weights_without_filters_are_refused(tmp_path: Path) -> None:
    file = saved(tmp_path / "w.pth", fc__weight=torch.zeros(2, 5), conv__weight=torch.zeros(4, 1, 3, 3))
    with pytest.raises(CheckpointError, match=r"w\.pth: has no layer of filters on three channels"):
        first_layer_filters(file)
