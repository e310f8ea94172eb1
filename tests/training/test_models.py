"""What a model lacks is named as what it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from formulavision.training import TrainSettings, freeze
from formulavision.training.models import build_model
from formulavision.util.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"model": "vgg11", "drop_path": 0.1}, "drop_path: 'vgg11' has no stochastic depth: must be 0"),
        ({"model": "densenet121", "drop_path": 0.1}, "drop_path: 'densenet121' has no stochastic depth: must be 0"),
        ({"model": "hrnet_w18_small", "drop_path": 0.1}, "drop_path: 'hrnet_w18_small' has no stochastic depth"),
        ({"model": "test_vit", "crop": 33}, "crop: 'test_vit' takes no 33-pixel images"),
    ],
)
def test_the_setting_that_is_wrong_is_named(settings: dict[str, Any], told: str) -> None:
    with torch.device("meta"), pytest.raises(ConfigError) as caught:
        build_model(TrainSettings(**settings), 3)
    assert told in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["caformer_s18", "pit_ti_224"])
def test_a_model_without_stages_is_trained_and_only_not_frozen(name: str) -> None:
    with torch.device("meta"):
        model = build_model(TrainSettings(model=name), 3)
    assert freeze(model, "none") == []
    with pytest.raises(ConfigError, match=r"freeze: timm does not divide a \w+ into stages: must be none"):
        freeze(model, "stage1")
