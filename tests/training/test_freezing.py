from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

from formulavision.training import freeze
from formulavision.training.freezing import head_prefixes, is_head
from formulavision.util.errors import ConfigError

RESNET_PARTS = (("conv1.", "bn1."), ("layer1.",), ("layer2.",), ("layer3.",), ("layer4.",))


def model_of(name: str = "test_resnet", **arguments: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    model: torch.nn.Module = timm.create_model(name, num_classes=5, **arguments)
    return model


def step(model: torch.nn.Module, size: int = 64) -> None:
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    loss = torch.nn.functional.cross_entropy(model(torch.randn(4, 3, size, size)), torch.tensor([0, 1, 2, 3]))
    loss.backward()
    optimizer.step()


@pytest.mark.parametrize("last", [1, 2, 3, 4, 5])
def test_conv_words_freeze_the_stem_and_the_layers_of_the_papers_table_8(last: int) -> None:
    model = model_of()
    frozen = freeze(model, "conv1" if last == 1 else f"conv1-{last}")
    expected = tuple(prefix for part in RESNET_PARTS[:last] for prefix in part)
    assert frozen == [name for name, _ in model.named_parameters() if name.startswith(expected)]


@pytest.mark.parametrize("last", [1, 2, 3, 4, 5])
def test_on_resnets_stages_are_the_conv_words(last: int) -> None:
    suffix = "" if last == 1 else f"-{last}"
    assert freeze(model_of("resnet18"), f"stage1{suffix}") == freeze(model_of("resnet18"), f"conv1{suffix}")


@pytest.mark.parametrize(("name", "spec"), [("test_resnet", "conv1-3"), ("test_efficientnet", "stage1-3")])
def test_a_step_changes_everything_but_what_is_frozen(name: str, spec: str) -> None:
    model = model_of(name)
    for parameter in model.parameters():
        # timm starts the last norm of each block at zero, which keeps gradients out of the block.
        torch.nn.init.normal_(parameter, std=0.5)
    frozen = set(freeze(model, spec))
    frozen_modules = {n.rpartition(".")[0] for n in frozen}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    step(model)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)}
    parameters = dict(model.named_parameters())
    still = {n for n in before if n in frozen or (n not in parameters and n.rpartition(".")[0] in frozen_modules)}
    assert frozen and any("running_mean" in n for n in still)
    assert {n for n, p in parameters.items() if p.grad is None} == frozen
    assert changed == set(before) - still


def test_none_freezes_nothing() -> None:
    model = model_of()
    assert freeze(model, "none") == []
    step(model)
    assert all(p.grad is not None for p in model.parameters())


def test_frozen_layers_compute_as_in_evaluation_after_train_is_called() -> None:
    model = model_of()
    freeze(model, "conv1")
    images = torch.randn(4, 3, 32, 32)
    stem = torch.nn.Sequential(model.conv1, model.bn1)  # type: ignore[arg-type]
    expected = stem.eval()(images)
    model.train()
    torch.testing.assert_close(stem(images), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet", "test_resnet", "test_mambaout"])
def test_the_head_never_freezes_and_the_last_stage_leaves_only_it(name: str) -> None:
    model = model_of(name)
    heads = head_prefixes(model)
    error = None
    frozen: list[str] = []
    for last in range(2, 100):
        try:
            frozen = freeze(model, f"stage1-{last}")
        except ConfigError as e:
            error = e
            break
    assert error is not None and f"stage1-{last - 1}" in str(error)
    assert frozen and not any(is_head(n, heads) for n in frozen)
    rest = [n for n, p in model.named_parameters() if p.requires_grad]
    # ConvNeXt and its like have a norm in their head, which trains with it.
    assert {n.split(".")[0] for n in rest} == {h.split(".")[0] for h in heads}


@pytest.mark.parametrize("spec", ["conv2", "conv1-6", "conv1-1-2", "stage2", "stage1-", "all", ""])
def test_an_unknown_word_is_refused_with_what_is_allowed(spec: str) -> None:
    with pytest.raises(ConfigError, match=r"freeze: .*conv1-2 to conv1-5.*stage1"):
        freeze(model_of(), spec)


def test_conv_words_are_refused_where_the_model_is_no_resnet() -> None:
    with pytest.raises(ConfigError, match="stage1 to stage1-7"):
        freeze(model_of("test_vit"), "conv1")
