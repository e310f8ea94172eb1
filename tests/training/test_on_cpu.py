"""Faster steps on a CPU: matrix products in place of convolutions, attention, fused AdamW, and the precision."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from comparing_runs import die_after

from formulavision.training import pretrain
from formulavision.training.fit import resolve_precision
from formulavision.training.on_cpu import MatrixConv2d, attention, has_fast_bfloat16, use_matrix_products
from formulavision.training.runs import read_settings, write_settings
from formulavision.util.errors import ConfigError

EVERY_STEP = {"checkpoint_minutes": 0}


def swapped(layer: torch.nn.Module) -> torch.nn.Module:
    copied = copy.deepcopy(layer)
    use_matrix_products(copied)
    return copied


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "padding", "bias"),
    [
        (1, 3, 1, 1, True),
        (2, 3, 1, 1, False),
        (2, 3, 2, 1, False),
        (4, 3, 2, 1, True),
        ((2, 1), 3, 1, 1, True),
        (2, (1, 3), 1, (0, 1), True),
        (7, 7, 1, 0, True),
        (1, 7, 2, 3, False),
        (1, 1, 1, 0, True),
        (1, 1, 5, 1, True),  # sees the padding alone
        (2, 2, 2, 2, True),
        (16, 4, 4, 0, True),  # patches
        (9, 4, 4, 0, False),  # patches, and a rest
        (12, 3, 1, 1, True),  # a map of many pixels: torch's own convolution
    ],
)
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_a_product_of_matrices_is_torchs_convolution(
    side: Any, kernel: Any, stride: Any, padding: Any, bias: bool, memory: torch.memory_format
) -> None:
    layer = torch.nn.Conv2d(5, 7, kernel, stride, padding, bias=bias).double().to(memory_format=memory)
    other = swapped(layer)
    assert type(other) is MatrixConv2d
    height, width = (side, side) if isinstance(side, int) else side
    images = torch.randn(3, 5, height, width, dtype=torch.float64).contiguous(memory_format=memory)
    found = []
    for each in (layer, other):
        own = images.clone().requires_grad_()
        logits = each(own)
        (logits * torch.linspace(-1, 1, logits.numel(), dtype=torch.float64).view(logits.shape)).sum().backward()
        found.append([logits, own.grad, *(parameter.grad for parameter in each.parameters())])
    assert all(torch.allclose(one, two, atol=1e-12) for one, two in zip(*found, strict=True))


def test_images_without_a_batch_and_too_small_ones_are_as_ever() -> None:
    other = swapped(torch.nn.Conv2d(2, 3, 3, padding=1))
    assert other(torch.ones(2, 1, 1)).shape == (3, 1, 1)
    for layer in (torch.nn.Conv2d(2, 3, 5), torch.nn.Conv2d(2, 3, 5, 5)):
        with pytest.raises(RuntimeError, match="Kernel size can't be greater than actual input size"):
            swapped(layer)(torch.ones(1, 2, 3, 3))


def test_other_convolutions_stay() -> None:
    layers = [
        torch.nn.Conv2d(4, 4, 3, groups=2),
        torch.nn.Conv2d(4, 4, 3, dilation=2),
        torch.nn.Conv2d(4, 4, 3, padding="same"),
        torch.nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        torch.nn.Conv1d(4, 4, 3),
    ]
    assert [type(swapped(layer)) for layer in layers] == [type(layer) for layer in layers]


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "convnext_atto"])
def test_models_of_small_images_give_the_same_logits_and_tensors(name: str) -> None:
    size: dict[str, Any] = {"img_size": 32} if "vit" in name else {}
    model = timm.create_model(name, num_classes=4, **size).eval()
    other = swapped(model)
    images = torch.rand(2, 3, 32, 32)
    assert any(type(module) is MatrixConv2d for module in other.modules())
    assert torch.allclose(model(images), other(images), atol=1e-5)
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in other.state_dict().items()}


def test_few_tokens_have_plain_attention_in_bfloat16_alone() -> None:
    def flash(size: int, precision: str) -> bool:
        model = timm.create_model("vit_tiny_patch16_224", img_size=size, depth=1)
        with attention(model, precision):
            return torch.backends.cuda.flash_sdp_enabled()

    assert (flash(64, "bf16-mixed"), flash(64, "32-true"), flash(224, "bf16-mixed")) == (False, True, True)
    assert torch.backends.cuda.flash_sdp_enabled()
    with attention(torch.nn.Linear(1, 1), "bf16-mixed"):
        assert torch.backends.cuda.flash_sdp_enabled()


@pytest.mark.parametrize(
    ("amx", "avx512", "processor", "fast"),
    [
        (True, True, "Intel(R) Xeon(R) Platinum 8480+", True),
        (False, True, "Intel(R) Xeon(R) Gold 6348H", False),
        (False, True, "AMD EPYC 9654", True),
        (False, False, "AMD EPYC 7742", False),
    ],
)
def test_bfloat16_is_chosen_where_a_processor_multiplies_it_faster(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512: bool, processor: str, fast: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr("formulavision.training.on_cpu.processor", lambda: processor)
    assert has_fast_bfloat16() is fast
    cpu = torch.device("cpu")
    assert resolve_precision("auto", cpu) == ("bf16-mixed" if fast else "32-true")
    assert resolve_precision("32-true", cpu) == "32-true"
    assert resolve_precision("auto", torch.device("mps")) == "32-true"


def test_a_run_keeps_the_precision_that_it_was_started_in(
    stripes: Any, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**small, **EVERY_STEP, "precision": "auto"}
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        die_after(1, patch)
        pretrain(stripes(), out=tmp_path / "run", settings=settings, show_progress=False)
    whole = pretrain(stripes(), out=tmp_path / "whole", settings=settings, show_progress=False)
    # Another machine.
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    run = pretrain(stripes(), out=tmp_path / "run", settings=settings, resume=True, show_progress=False)
    assert run.settings["precision"] == "bf16-mixed"
    assert json.loads((run.folder / "run.json").read_text())["precision"] == "bf16-mixed"
    assert run.weights_sha256 == whole.weights_sha256
    again = pretrain(stripes(), out=tmp_path / "again", settings=settings, show_progress=False)
    assert again.weights_sha256 != whole.weights_sha256
    assert again.settings["precision"] == "32-true" and again.settings["settings"]["precision"] == "auto"


def test_a_run_of_an_earlier_version_goes_on_in_32_bits(
    stripes: Any, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**small, **EVERY_STEP, "precision": "auto"}
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        die_after(1, patch)
        pretrain(stripes(), out=tmp_path / "run", settings=settings, show_progress=False)
    recorded, names = read_settings(tmp_path / "run")
    del recorded["precision"]
    write_settings(tmp_path / "run", recorded, names)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    run = pretrain(stripes(), out=tmp_path / "run", settings=settings, resume=True, show_progress=False)
    assert json.loads((run.folder / "run.json").read_text())["precision"] == "32-true"


def test_another_precision_is_refused_when_a_run_is_resumed(stripes: Any, small: Any, tmp_path: Path) -> None:
    run = pretrain(stripes(), out=tmp_path / "run", settings={**small, "epochs": 1}, show_progress=False)
    with pytest.raises(ConfigError, match=r"resume: settings\.precision is bf16-mixed and was 32-true"):
        pretrain(out=run.folder, settings={"precision": "bf16-mixed"}, resume=True, show_progress=False)


@pytest.mark.parametrize("clip_grad", [0.0, 1.0])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_gradients_are_clipped_in_bfloat16_too(
    stripes: Any, small: Any, tmp_path: Path, optimizer: str, clip_grad: float
) -> None:
    settings = {**small, "precision": "bf16-mixed", "optimizer": optimizer, "clip_grad": clip_grad, "epochs": 1}
    run = pretrain(stripes(), out=tmp_path, settings=settings, show_progress=False)
    assert run.final["train_loss"] is not None
