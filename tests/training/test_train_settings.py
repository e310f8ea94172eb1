from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from formulavision.training import TrainSettings
from formulavision.util.config import parse
from formulavision.util.errors import ConfigError


def test_the_defaults_are_those_of_the_papers_section_4() -> None:
    settings = TrainSettings()
    assert (settings.model, settings.epochs, settings.batch_size) == ("resnet50", 90, 256)
    assert (settings.learning_rate, settings.momentum, settings.weight_decay) == (0.01, 0.9, 1e-4)
    assert (settings.milestones, settings.gamma) == ((30, 60), 0.1)
    assert (settings.resize, settings.crop) == (256, 224)


def test_every_setting_has_a_description() -> None:
    assert all(field.description for field in TrainSettings.model_fields.values())


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"crop": 300, "resize": 256}, "crop 300 is larger than resize 256"),
        ({"milestones": [60, 30]}, r"milestones \[60, 30\]"),
        ({"std": [0.5, 0.0, 0.5]}, "std"),
        ({"epochs": 0}, "epochs: 0 is not allowed"),
        ({"epochs": None}, "epochs: must be a number where steps is none"),
        ({"preset": "vit", "epochs": None}, "epochs: must be a number where steps is none"),
        ({"learning_rate": -1}, "learning_rate"),
        ({"learning_rat": 1}, "did you mean 'learning_rate'"),
        ({"precision": "fp8"}, "precision: 'fp8'"),
        ({"milestones": [True, 5]}, "^milestones: True is not allowed: must be a valid integer"),
        ({"milestones": ["1", "2"]}, "^milestones: '1' is not allowed: must be a valid integer"),
        ({"mean": [0.5, False, 0.5]}, "^mean: False is not allowed: must be a valid number"),
        ({"random_resized_crop": ["0.1", "1"]}, "^random_resized_crop: '0.1' is not allowed: must be a valid number"),
        ({"random_resized_crop": "0.1"}, "^random_resized_crop: '0.1' is not allowed: must be a valid tuple"),
        ({"preset": ["vit"]}, r"^preset: \['vit'\] is not allowed: must be 'resnet', 'vit'"),
        ({"preset": {"vit": 1}}, r"^preset: {'vit': 1} is not allowed"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse(TrainSettings, settings)


def test_settings_and_entry_points_import_without_torch() -> None:
    code = (
        "import sys; from formulavision.training import TrainSettings, pretrain, finetune; TrainSettings();"
        "import formulavision.evaluation, formulavision.data.downstream;"
        "sys.exit(','.join({'torch', 'lightning', 'timm'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")
