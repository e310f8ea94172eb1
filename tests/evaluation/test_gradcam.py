from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import ImageDraw

from formulavision.data.downstream import Downstream
from formulavision.evaluation import grad_cam, grad_cam_sheet
from formulavision.evaluation.gradcam import class_activation
from formulavision.util.errors import CheckpointError, ConfigError


class Toy(torch.nn.Module):
    """Two feature maps: the red channel, and the green one squared in the head; the classes weigh their means."""

    output_fmt = "NCHW"

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :2].clone().requires_grad_()

    def forward_head(self, x: torch.Tensor) -> torch.Tensor:
        red, green = x[:, 0].mean((1, 2)), x[:, 1].square().mean((1, 2))
        return torch.stack([2 * red - green, green], 1)


def noise(n: int, side: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


def depth(model: Any) -> int:
    return len(getattr(model, "blocks", [None]))


def test_a_case_by_hand() -> None:
    images = torch.zeros(1, 3, 2, 2)
    images[0, 0] = torch.tensor([[1.0, 0.0], [3.0, 1.0]])
    images[0, 1] = torch.tensor([[2.0, 1.0], [2.0, 3.0]])
    # Class 0: d/d red = 2/4 everywhere; d/d green = -2 green / 4, whose mean is -(2 + 1 + 2 + 3) / 8 = -1.
    maps, logits = class_activation(Toy(), images, torch.tensor([0]))
    expected = torch.tensor([[0.5 * 1 - 2, 0.5 * 0 - 1], [0.5 * 3 - 2, 0.5 * 1 - 3]]).relu()
    torch.testing.assert_close(maps, expected[None])
    torch.testing.assert_close(logits, torch.tensor([[2 * 5 / 4 - 18 / 4, 18 / 4]]))
    # Class 1: the mean gradient of green is +1; it is the likelier one, too.
    maps, _ = class_activation(Toy(), images, torch.tensor([1]))
    torch.testing.assert_close(maps, images[:, 1])
    torch.testing.assert_close(class_activation(Toy(), images)[0], maps)


@pytest.mark.parametrize("name", ["test_resnet", "resnet18", "test_convnext", "test_efficientnet"])
def test_with_a_linear_head_on_the_mean_it_is_the_class_activation_map(name: str) -> None:
    # Zhou et al., "Learning Deep Features for Discriminative Localization" (CVPR 2016), equation 2.
    torch.manual_seed(0)
    model: Any = timm.create_model(name, num_classes=4).eval()
    if name == "test_convnext":
        model.head.norm = torch.nn.Identity()  # of the mean: not linear
    images, labels = noise(3, 128), torch.tensor([0, 3, 2])
    with torch.no_grad():
        features, head = model.forward_features(images), model.get_classifier()
        logits = model(images)
        size = features.shape[2] * features.shape[3]
        expected = torch.einsum("nchw,nc->nhw", features, head.weight[labels]).relu() / size
    maps, said = class_activation(model, images, labels)
    assert maps.any()
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(said, logits)


@pytest.mark.parametrize(
    ("name", "side", "layer", "cells"),
    [
        ("resnet18", 32, "layer2", 4),
        ("resnet18", 48, "layer2", 6),
        ("resnet18", 49, "layer3", 4),
        ("resnet18", 96, "layer3", 6),
        ("resnet18", 97, "layer4", 4),
        ("resnet10t", 16, "layer1", 4),
        ("test_efficientnet", 32, "blocks.2", 4),
        ("test_convnext", 32, "stages.1", 4),
    ],
)
def test_of_small_images_it_is_the_last_map_that_has_4_x_4_cells(name: str, side: int, layer: str, cells: int) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=4).eval()
    images, labels = noise(3, side), torch.tensor([0, 3, 2])
    kept: list[torch.Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda module, given, output: kept.append(output))
    logits = model(images)
    handle.remove()
    (gradients,) = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), kept[0])
    expected = torch.einsum("nchw,nc->nhw", kept[0], gradients.mean((2, 3))).relu()
    maps, said = class_activation(model, images, labels)
    assert maps.shape == (3, cells, cells)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(said, logits)
    assert not any(module._forward_hooks for module in model.modules())


def test_maps_of_swin_transformers_have_their_channels_last() -> None:
    torch.manual_seed(0)
    small: dict[str, Any] = {"window_size": 4, "embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}
    model: Any = timm.create_model("swin_tiny_patch4_window7_224", num_classes=4, img_size=128, **small).eval()
    images, labels = noise(2, 128), torch.tensor([1, 2])
    with torch.no_grad():
        features, head = model.forward_features(images), model.get_classifier()
        expected = torch.einsum("nhwc,nc->nhw", features, head.weight[labels]).relu() / 16
    torch.testing.assert_close(class_activation(model, images, labels)[0], expected, rtol=1e-4, atol=1e-6)


def test_tokens_of_a_vision_transformer_become_a_grid() -> None:
    torch.manual_seed(0)
    model: Any = timm.create_model("test_vit", num_classes=4, img_size=(32, 64)).eval()
    assert model.num_prefix_tokens == 1 and model.patch_embed.grid_size == (2, 4)
    images, labels = torch.rand(2, 3, 32, 64), torch.tensor([1, 2])
    # The tokens that the last attention takes, as a leaf: what follows from them is written out.
    x = model.norm_pre(model._pos_embed(model.patch_embed(images)))
    for block in model.blocks[:-1]:
        x = block(x)
    last = model.blocks[-1]
    tokens = last.norm1(x).detach().requires_grad_()
    y = x.detach() + last.ls1(last.attn(tokens))
    y = y + last.ls2(last.mlp(last.norm2(y)))
    model.forward_head(model.norm(y)).gather(1, labels[:, None]).sum().backward()
    assert tokens.grad is not None
    weights = tokens.grad[:, 1:].mean(1)
    expected = torch.einsum("ntc,nc->nt", tokens.detach()[:, 1:], weights).relu().view(2, 2, 4)
    maps, _ = class_activation(model, images, labels)
    assert maps.any()
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-7)
    assert not last.norm1._forward_hooks


@pytest.mark.parametrize("name", ["resnet18", "test_vit", "test_convnext"])
def test_it_is_what_pytorch_grad_cam_computes(name: str) -> None:
    reference = pytest.importorskip("pytorch_grad_cam", reason="pytorch_grad_cam (pip install grad-cam) is not there")
    from pytorch_grad_cam.utils.image import scale_cam_image
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    torch.manual_seed(0)
    size: dict[str, Any] = {"img_size": 64} if name == "test_vit" else {}
    model = timm.create_model(name, num_classes=5, **size).eval()
    layer = {"resnet18": "layer4", "test_vit": f"blocks.{depth(model) - 1}.norm1", "test_convnext": "stages"}[name]
    side = 64 if name == "test_vit" else 128
    images, labels = noise(3, side), [0, 4, 2]
    as_grid = None if name != "test_vit" else lambda tokens: tokens[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    with reference.GradCAM(model, [model.get_submodule(layer)], reshape_transform=as_grid) as cam:
        expected = cam(images, [ClassifierOutputTarget(label) for label in labels])
    maps, _ = class_activation(model, images, torch.tensor(labels))
    # It takes the lowest value for 0, where we divide by the highest alone; before it enlarges a map, and after.
    np.testing.assert_allclose(scale_cam_image(scale_cam_image(maps.numpy(), (side, side))), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_maps_are_as_large_as_what_the_model_sees_and_reach_1(
    name: str, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", ["a", "b", "c"], model=name)
    images = (noise(70, 50) * 255).byte()
    maps = grad_cam(run, images, torch.arange(70) % 3)
    assert maps.shape == (70, 32, 32) and maps.dtype == torch.float32 and not maps.requires_grad
    assert maps.min() >= 0
    highest = maps.amax((1, 2))
    assert ((highest == 1) | (highest == 0)).all() and (highest == 1).any()
    alone = grad_cam(run, images[66:67], torch.tensor([0]))
    torch.testing.assert_close(alone[0], maps[66], rtol=1e-3, atol=1e-4)


def test_without_labels_it_looks_for_what_the_model_takes_the_image_for(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", ["a", "b", "c"])
    images = (noise(6, 40) * 255).byte()
    maps = [grad_cam(run, images, torch.full((6,), label)) for label in range(3)]
    found = grad_cam(run, images)
    same = [[torch.equal(found[i], each[i]) for each in maps] for i in range(6)]
    assert all(any(row) for row in same)
    gray = images[:, :1]
    torch.testing.assert_close(grad_cam(run, gray), grad_cam(run, gray.expand(-1, 3, -1, -1)))


def test_a_bright_spot_is_what_a_model_of_brightness_looks_at(make_run: Callable[..., Path], tmp_path: Path) -> None:
    model: Any = timm.create_model("resnet18", num_classes=2)
    with torch.no_grad():
        # Only the shortcuts are left: each block passes on what it gets, and the stem sees brightness.
        model.conv1.weight.fill_(1 / 147)
        for name, parameter in model.named_parameters():
            if name.startswith("layer") and "bn2" in name:
                parameter.zero_()
            if "downsample.0" in name:
                parameter.fill_(1 / parameter.shape[1])
        model.fc.weight[0] = 1
        model.fc.weight[1] = -1
    run = make_run(tmp_path / "run", ["bright", "dark"], model, model="resnet18", resize=128, crop=128)
    images = torch.zeros(1, 3, 128, 128, dtype=torch.uint8)
    images[:, :, 32:64, 64:96] = 255
    (bright,), (dark,) = (grad_cam(run, images, torch.tensor([label])) for label in (0, 1))
    row, column = np.unravel_index(int(bright.argmax()), (128, 128))
    assert 32 <= row < 64 and 64 <= column < 96
    assert not dark.any(), "what speaks against a class does not show"


def test_a_sheet_has_a_row_an_image_and_a_column_an_arm(
    make_run: Callable[..., Path], colours: Downstream, tmp_path: Path
) -> None:
    names = colours.classes
    runs = {"one": make_run(tmp_path / "one", names), "other": make_run(tmp_path / "other", names, model="test_vit")}
    sheet = grad_cam_sheet(runs, colours, count=4)
    # Margins of 16, a line of 23 above and below each picture of 160, and gaps of 8.
    assert sheet.size == (32 + 3 * 168 - 8, 32 + 23 + 4 * 191 - 8)
    pixels = np.asarray(sheet)
    shown = pixels[39:199, 16:176]
    assert shown.std() > 10 and not np.array_equal(shown, pixels[39:199, 184:344])
    fewer = np.asarray(grad_cam_sheet(runs, colours, count=2))
    np.testing.assert_array_equal(pixels[:400], fewer[:400])
    swapped = np.asarray(grad_cam_sheet({"other": runs["other"], "one": runs["one"]}, colours, count=2))
    np.testing.assert_array_equal(swapped[39:199, 184:344], fewer[39:199, 352:512])
    assert grad_cam_sheet(runs, colours, count=4) == sheet
    assert grad_cam_sheet(runs, colours, count=4, seed=1) != sheet
    assert grad_cam_sheet(runs, colours, count=100).height == 32 + 23 + 15 * 191 - 8


def test_a_blank_map_is_marked(
    make_run: Callable[..., Path], colours: Downstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = timm.create_model("resnet18", num_classes=len(colours.classes))
    with torch.no_grad():  # every feature lowers the logit of every class
        model.fc.weight.fill_(-1)
    written: list[str] = []
    plain = ImageDraw.ImageDraw.text

    def text(pen: ImageDraw.ImageDraw, place: Any, line: str, **look: Any) -> None:
        written.append(line)
        plain(pen, place, line, **look)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    usual = make_run(tmp_path / "usual", colours.classes, model="resnet18")
    grad_cam_sheet({"blank": make_run(tmp_path / "run", colours.classes, model, model="resnet18")}, colours, count=3)
    assert sum(line.endswith("%, blank") for line in written) == 3
    written.clear()
    grad_cam_sheet({"usual": usual}, colours, count=3)
    assert sum(line.endswith("%, blank") for line in written) < 3


def test_a_sheet_of_several_labels_looks_for_one_that_is_there(
    make_run: Callable[..., Path], mixtures: Downstream, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", mixtures.classes)
    showing = int((mixtures.test.labels == 1).any(axis=1).sum())
    assert showing < len(mixtures.test)
    assert grad_cam_sheet({"run": run}, mixtures, count=100).height == 32 + 23 + showing * 191 - 8


def test_what_cannot_be_looked_at_is_refused(
    make_run: Callable[..., Path], colours: Downstream, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", colours.classes)
    images = torch.zeros(2, 3, 40, 40, dtype=torch.uint8)
    with pytest.raises(CheckpointError, match="is a file of weights"):
        grad_cam(run / "model.safetensors", images)
    for wrong in (images.float(), images[0], images[:, :2], images[:0]):
        with pytest.raises(ConfigError, match="images: must be uint8"):
            grad_cam(run, wrong)
    for labels in ([0], [0, 3], [-1, 0], [0.0, 1.0], [[0], [1]], [True, False]):
        given: Any
        for given in (labels, torch.tensor(labels), np.array(labels)):
            with pytest.raises(ConfigError, match="labels: must be 2 whole numbers from 0 to 2"):
                grad_cam(run, images, given)
    maps = grad_cam(run, images, torch.tensor([2, 0]))
    assert torch.equal(grad_cam(run, images.numpy(), [2, 0]), maps)
    mixer = timm.create_model("mixer_s32_224", num_classes=3, img_size=32)
    with pytest.raises(CheckpointError, match="MlpMixer has neither a feature map nor a grid of tokens"):
        class_activation(mixer, torch.zeros(1, 3, 32, 32))
    with pytest.raises(ConfigError, match="checkpoints: give at least one"):
        grad_cam_sheet({}, colours)
    with pytest.raises(ConfigError, match="count: 0"):
        grad_cam_sheet({"run": run}, colours, count=0)
    with pytest.raises(CheckpointError, match="fine-tune on it first"):
        grad_cam_sheet({"run": make_run(tmp_path / "two", ["a", "b"])}, colours)
