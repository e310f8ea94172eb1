from __future__ import annotations

import argparse
import datetime
import pickle
import re
import shutil
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from cases import slow
from safetensors.torch import load_file, save_file

from formulavision.training import Checkpoint, Run, TrainSettings, finetune, load_checkpoint
from formulavision.util.errors import CheckpointError


def model_of(name: str = "test_resnet", **arguments: Any) -> Any:
    return timm.create_model(name, num_classes=3, **arguments)


def same_backbone(model: torch.nn.Module, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, state[n]) for n, tensor in model.state_dict().items() if not n.startswith("fc."))


# Files ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "backbone.", "module.model.", "_orig_mod.module."])
@pytest.mark.parametrize("container", [None, "state_dict", "model", "state_dict_ema"])
def test_weights_load_out_of_their_wrappers_and_the_head_stays(
    tmp_path: Path, prefix: str, container: str | None
) -> None:
    state = timm.create_model("test_resnet", num_classes=7).state_dict()
    content: Any = {f"{prefix}{name}": tensor for name, tensor in state.items()}
    torch.save({container: content, "epoch": 3} if container else content, tmp_path / "weights.pth")
    model = model_of()
    head = model.fc.weight.clone()
    loaded = load_checkpoint(tmp_path / "weights.pth").load_into(model)
    assert same_backbone(model, state)
    assert torch.equal(model.fc.weight, head)
    assert (sorted(loaded.skipped), loaded.missing, loaded.reshaped) == (["fc.bias", "fc.weight"], [], [])


def test_moving_averages_are_preferred_as_timm_prefers_them(tmp_path: Path) -> None:
    last, average = model_of().state_dict(), model_of().state_dict()
    # As timm's training script writes it, options and all.
    content = {"arch": "test_resnet", "args": argparse.Namespace(lr=0.1), "state_dict": last, "state_dict_ema": average}
    torch.save(content, tmp_path / "checkpoint-1.pth.tar")
    model = model_of()
    load_checkpoint(tmp_path / "checkpoint-1.pth.tar").load_into(model)
    assert same_backbone(model, average)


@pytest.mark.parametrize("classes", [10_000, *slow(1000)])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("zipped", [True, False])
def test_files_as_the_published_fractaldb_has_them_load(
    tmp_path: Path, classes: int, prefix: str, zipped: bool
) -> None:
    published = torchvision.models.resnet18(weights=None, num_classes=classes).state_dict()
    file = tmp_path / "FractalDB-1000_resnet18_epoch90.pth"
    content = {f"{prefix}{name}": tensor for name, tensor in published.items()}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    model = model_of("resnet18")
    loaded = load_checkpoint(file).load_into(model)
    assert same_backbone(model, published)
    assert loaded.describe() == "120 tensors loaded, 2 skipped (fc.weight, fc.bias)"


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "densenet121", "regnet_y_400mf"])
def test_torchvision_weights_give_torchvisions_outputs(tmp_path: Path, name: str) -> None:
    reference = torchvision.models.get_model(name, weights=None, num_classes=3).eval()
    save_file(reference.state_dict(), tmp_path / "tv.safetensors")
    model = model_of({"regnet_y_400mf": "regnety_004"}.get(name, name)).eval()
    loaded = load_checkpoint(tmp_path / "tv.safetensors").load_into(model, head=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(model(images), reference(images), rtol=1e-4, atol=1e-4)
    assert loaded.describe() == f"{len(reference.state_dict())} tensors loaded"


@pytest.mark.parametrize(("theirs", "ours"), [("vit_b_16", "vit_base_patch16_224"), ("convnext_tiny", "convnext_tiny")])
def test_torchvision_weights_that_timm_cannot_convert_are_refused(tmp_path: Path, theirs: str, ours: str) -> None:
    with torch.device("meta"):
        state = torchvision.models.get_model(theirs, weights=None).state_dict()
        model = model_of(ours)
    checkpoint = Checkpoint(f"torchvision:{theirs}", dict(state), "")
    with pytest.raises(CheckpointError, match=rf"torchvision:{theirs}: does not fit .* cannot convert") as caught:
        checkpoint.load_into(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("channels", [1, 4])
def test_weights_for_other_input_channels_are_adapted_and_told(tmp_path: Path, channels: int) -> None:
    source = model_of("resnet18", in_chans=channels).eval()
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    model = model_of("resnet18").eval()
    loaded = load_checkpoint(tmp_path / "weights.safetensors").load_into(model, head=True)
    assert loaded.reshaped == ["conv1.weight"] and "1 reshaped (conv1.weight)" in loaded.describe()
    weight = source.conv1.weight
    expected = weight.expand(-1, 3, -1, -1) / 3 if channels == 1 else weight[:, :3] * 4 / 3
    torch.testing.assert_close(model.conv1.weight, expected)
    if channels == 1:  # a gray image as three equal channels gives what it gave
        gray = torch.randn(2, 1, 64, 64)
        with torch.inference_mode():
            torch.testing.assert_close(model(gray.expand(-1, 3, -1, -1)), source(gray), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 4])
def test_rgb_weights_are_adapted_as_timm_adapts_them(tmp_path: Path, channels: int) -> None:
    source = model_of("test_vit")
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    model = model_of("test_vit", in_chans=channels)
    loaded = load_checkpoint(tmp_path / "weights.safetensors").load_into(model)
    expected = timm.models.adapt_input_conv(channels, source.patch_embed.proj.weight)
    torch.testing.assert_close(model.patch_embed.proj.weight, expected)
    assert loaded.reshaped == ["patch_embed.proj.weight"]


def test_position_embeddings_are_resampled_for_another_image_size(tmp_path: Path) -> None:
    source = model_of("test_vit", img_size=64)
    save_file(source.state_dict(), tmp_path / "vit.safetensors")
    model = model_of("test_vit", img_size=96)
    loaded = load_checkpoint(tmp_path / "vit.safetensors").load_into(model)
    assert loaded.reshaped == ["pos_embed"] and "1 reshaped (pos_embed)" in loaded.describe()
    expected = timm.layers.resample_abs_pos_embed(source.pos_embed, [6, 6], [4, 4])
    torch.testing.assert_close(model.pos_embed, expected)


def test_a_swin_transformers_tables_are_resampled_by_timms_own_rule(tmp_path: Path) -> None:
    save_file(model_of("swin_tiny_patch4_window7_224").state_dict(), tmp_path / "swin.safetensors")
    model = model_of("swin_tiny_patch4_window7_224", img_size=128, window_size=4)
    loaded = load_checkpoint(tmp_path / "swin.safetensors").load_into(model)
    assert len(loaded.reshaped) == 12 and all(n.endswith("relative_position_bias_table") for n in loaded.reshaped)
    assert loaded.missing == []


# Files of the field's programs --------------------------------------------------------------------------------------


def saved_by_timm_0_4(state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The layout of CheckpointSaver of timm 0.4.12, of RCDB, ExFractalDB and Visual Atoms."""
    return {
        "epoch": 89, "arch": "deit_tiny_patch16_224", "state_dict": state, "version": 2, "metric": 2.3,
        "optimizer": {"state": {0: {"step": 9, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3}]},
        "args": argparse.Namespace(model="deit_tiny_patch16_224", scale=[0.08, 1.0], log_wandb=True),
        "amp_scaler": {"scale": 65536.0, "growth_factor": 2.0, "growth_interval": 2000},
    }  # fmt: skip


def saved_by_hydra(state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The layout of the programs of Nakashima et al., OFDB and 1p-frac."""
    return {
        "model": state, "epoch": 300, "scaler": {"scale": 65536.0},
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3}]},
        "lr_scheduler": {"param_group_field": "lr", "base_values": [1e-3], "metric": None, "t_in_epochs": True},
    }  # fmt: skip


def test_a_segmentation_model_of_mmsegmentation_is_refused(tmp_path: Path) -> None:
    layer = {"attn.w_msa.qkv.weight": torch.ones(288, 96), "ffn.layers.1.bias": torch.ones(96)}
    state = {f"backbone.stages.{i}.blocks.{j}.{n}": t for i in range(4) for j in range(2) for n, t in layer.items()}
    state |= {
        "backbone.patch_embed.projection.weight": torch.ones(96, 3, 4, 4),
        "decode_head.conv_seg.bias": torch.ones(3),
    }
    torch.save({"meta": {"epoch": 3}, "state_dict": state, "optimizer": {}}, tmp_path / "upernet.pth")
    with pytest.raises(CheckpointError, match=r"does not fit the model, a SwinTransformer: has 0 of its \d+ tensors"):
        load_checkpoint(tmp_path / "upernet.pth").load_into(model_of("swin_tiny_patch4_window7_224"))


@pytest.mark.parametrize("save", [saved_by_timm_0_4, saved_by_hydra])
@pytest.mark.parametrize("classes", [1000, 21_000])
@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_the_fields_transformers_load_at_another_image_size(
    tmp_path: Path, save: Any, classes: int, zipped: bool
) -> None:
    source = timm.create_model("test_vit", num_classes=classes, img_size=64)
    torch.save(save(source.state_dict()), tmp_path / "last.pth.tar", _use_new_zipfile_serialization=zipped)
    model = model_of("test_vit", img_size=96)
    head = model.head.weight.clone()
    loaded = load_checkpoint(tmp_path / "last.pth.tar").load_into(model)
    assert sorted(loaded.skipped) == ["head.bias", "head.weight"] and loaded.missing == []
    assert loaded.reshaped == ["pos_embed"] and torch.equal(model.head.weight, head)
    assert torch.equal(model.cls_token, source.state_dict()["cls_token"])


def as_swin_of_timm_0_4(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names of timm 0.4.12: a stage ends with its merging of patches, where today the next one begins with it."""
    old = {}
    for name, tensor in state.items():
        stage = re.match(r"layers\.(\d)\.downsample\.", name)
        moved = name if stage is None else f"layers.{int(stage[1]) - 1}{name[stage.end() - len('.downsample.') :]}"
        old[moved.replace("head.fc.", "head.")] = tensor
    for name in [name for name in old if name.endswith("relative_position_bias_table")]:
        old[name.replace("bias_table", "index")] = torch.zeros(49, 49, dtype=torch.int64)
        if ".blocks.1." in name:
            old[name.replace("attn.relative_position_bias_table", "attn_mask")] = torch.zeros(64, 49, 49)
    return old


@pytest.mark.parametrize("prefix", ["module.", pytest.param("", marks=pytest.mark.slow)])
def test_a_swin_transformer_of_timm_0_4_loads(tmp_path: Path, prefix: str) -> None:
    name = "swin_tiny_patch4_window7_224"
    source = timm.create_model(name, num_classes=50)
    state = as_swin_of_timm_0_4(source.state_dict())
    assert "layers.0.downsample.norm.weight" in state and "layers.3.downsample.norm.weight" not in state
    torch.save(saved_by_timm_0_4(under(prefix, state)), tmp_path / "swin.pth.tar")
    model = model_of(name)
    loaded = load_checkpoint(tmp_path / "swin.pth.tar").load_into(model)
    assert loaded.missing == [] and loaded.reshaped == []
    own = source.state_dict()
    assert all(torch.equal(tensor, own[n]) for n, tensor in model.state_dict().items() if not n.startswith("head."))


def test_a_file_that_says_nothing_of_its_images_is_told_to_be_normalised_by_the_defaults(tmp_path: Path) -> None:
    torch.save(model_of().state_dict(), tmp_path / "a.pth")
    weights = load_checkpoint(tmp_path / "a.pth")
    told = weights.describe_preprocessing(TrainSettings(crop=32))
    assert told.endswith(": mean 0.2 0.2 0.2, std 0.5 0.5 0.5, unless mean and std are set")
    assert "a.pth does not say how its images were normalised" in told
    assert weights.describe_preprocessing(TrainSettings(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))) == ""


# Where in a file the weights lie -------------------------------------------------------------------------------------


def load(content: Any, file: Path, name: str = "test_resnet") -> tuple[torch.nn.Module, Any]:
    torch.save(content, file)
    model = model_of(name)
    return model, load_checkpoint(file).load_into(model)


def under(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"net": state, "acc": 93.1},
        lambda state: {"n_averaged": torch.tensor(3), **under("module.", state)},
        lambda state: {"state_dict": {**under("model.", state), "criterion.weight": torch.ones(1000)}},
        lambda state: {"criterion.weight": torch.ones(1000), **state},
        lambda state: under("encoder.", state),
        lambda state: {**under("encoder.", state), **under("projector.", {"0.weight": torch.ones(9, 9)})},
        lambda state: {"epoch": 3, "nets": [{"weights": under("a.b.c.", state)}]},
        lambda state: {"checkpoint": {"backbone": state, "decoder": {"conv1.weight": torch.ones(3)}}},
        lambda state: {name.replace(".", "._orig_mod.", 1): tensor for name, tensor in state.items()},
        lambda state: under("_fsdp_wrapped_module.", state),
        lambda state: {
            "model": state,
            "optimizer": {"state": {i: {"exp_avg": t} for i, t in enumerate(state.values())}},
        },
        lambda state: {"best": np.float64(0.5), "step": np.int64(7), "done": np.bool_(True), "weights": state},
    ],
)
def test_weights_are_found_by_what_fits_the_model(tmp_path: Path, name: str, wrap: Any) -> None:
    state = timm.create_model(name, num_classes=7).state_dict()
    model, loaded = load(wrap(state), tmp_path / "weights.pth", name)
    heads = ("fc.", "head.")
    assert all(torch.equal(t, state[n]) for n, t in model.state_dict().items() if not n.startswith(heads))
    assert (loaded.missing, loaded.reshaped, loaded.equal) == ([], [], [])


def test_what_is_left_over_is_told(tmp_path: Path) -> None:
    state = model_of().state_dict()
    content = {"state_dict": under("model.", state), "loss": {"weight": torch.ones(3)}, "other": torch.ones(1)}
    _, loaded = load(content, tmp_path / "a.ckpt")
    assert loaded.describe() == (
        "90 tensors loaded from 'state_dict.model', 2 skipped (fc.weight, fc.bias), "
        "2 elsewhere in the file not used (loss.weight, other)"
    )
    _, loaded = load({**state, "criterion.weight": torch.ones(3)}, tmp_path / "a.ckpt")
    assert loaded.describe() == "90 tensors loaded, 3 skipped (fc.weight, fc.bias, criterion.weight)"


@pytest.mark.parametrize(
    ("places", "taken"),
    [
        (["student.module.", "teacher."], "teacher"),
        (["model.", "model_ema."], "model_ema"),
        (["teacher.", "ema."], "ema"),
        (["net_a.", "net_b."], "net_a"),
        (["encoder_q.", "encoder_k."], "encoder_q"),
        (["model.", "semantic_model."], "model"),
        (["schema.", "modelEMA2."], "modelEMA2"),
        (["model.", "meanteacher."], "meanteacher"),
    ],
)
def test_of_several_that_fit_as_well_the_one_that_is_taken_is_told(
    tmp_path: Path, places: list[str], taken: str
) -> None:
    states = {place.rstrip("."): model_of().state_dict() for place in places}
    content: dict[str, Any] = {}
    for place, state in states.items():
        content |= under(f"{place}.", state)
    model, loaded = load(content, tmp_path / "a.pth")
    assert same_backbone(model, states[taken])
    (other,) = set(states) - {taken}
    assert loaded.describe().startswith(f"90 tensors loaded from '{taken}' (those of '{other}' fit as well)")


@pytest.mark.parametrize("wrapped", ["_orig_mod.conv1.weight", "conv1._fsdp_wrapped_module.weight"])
def test_different_tensors_of_one_name_are_refused_and_equal_ones_are_read(tmp_path: Path, wrapped: str) -> None:
    state = model_of().state_dict()
    same = {**state, wrapped.replace("conv1", "layer1.0.conv1"): state["layer1.0.conv1.weight"].clone()}
    model, _ = load(same, tmp_path / "same.pth")
    assert same_backbone(model, state)
    for other in (torch.ones(1), state["layer1.0.conv1.weight"] + 1, state["layer1.0.conv1.weight"].double()):
        with pytest.raises(
            CheckpointError, match=r"a\.pth: holds two different tensors .* layer1\.0\.conv1\.weight "
        ) as e:
            load({**same, wrapped.replace("conv1", "layer1.0.conv1"): other}, tmp_path / "a.pth")
        assert "\n" not in str(e.value)


def test_what_fits_best_counts_more_than_a_name(tmp_path: Path) -> None:
    state, other = model_of().state_dict(), model_of("resnet18").state_dict()
    model, loaded = load({"ema": other, "teacher": {"x": torch.ones(2)}, "b": state}, tmp_path / "a.pth")
    assert same_backbone(model, state) and (loaded.place, loaded.equal) == ("b", [])


def test_a_pre_trained_encoder_loads_out_of_an_autoencoder_and_a_larger_model_does_not(tmp_path: Path) -> None:
    state = model_of("test_vit").state_dict()
    decoder = {f"decoder_blocks.{i}.weight": torch.ones(2, 2) for i in range(200)}
    model, loaded = load({"model": {**state, **decoder, "mask_token": torch.ones(1)}}, tmp_path / "mae.pth", "test_vit")
    assert torch.equal(model.cls_token, state["cls_token"]) and len(loaded.skipped) == 203  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=r"has 120 of its 120 tensors.*left over: layer1.2.*: give the name"):
        load(model_of("resnet34").state_dict(), tmp_path / "larger.pth", "resnet18")


def test_another_layout_is_converted_out_of_its_wrapper_too(tmp_path: Path) -> None:
    reference = torchvision.models.densenet121(num_classes=3).state_dict()
    content = {"epoch": 1, "sd": under("module.", reference), "optim": {"0": torch.ones(1)}}
    model, loaded = load(content, tmp_path / "a.pth", "densenet121")
    assert torch.equal(model.features.conv0.weight, reference["features.conv0.weight"])  # type: ignore[union-attr,arg-type]
    assert loaded.missing == []


def test_a_file_that_does_not_fit_is_told_by_what_is_there_missing_and_left_over(tmp_path: Path) -> None:
    state = model_of().state_dict()
    some = {name: tensor for name, tensor in state.items() if not name.startswith("layer2")}
    with pytest.raises(CheckpointError) as caught:
        load({"net": {**some, "extra.weight": torch.ones(1)}}, tmp_path / "a.pth")
    told = str(caught.value)
    assert re.search(r"a.pth: does not fit the model, a ResNet: has \d+ of its \d+ tensors under 'net'", told)
    assert "missing: layer2.0.conv1.weight, " in told and "left over: extra.weight" in told and "\n" not in told


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path, bad: float) -> None:
    from formulavision.evaluation import first_layer_filters

    state = model_of().state_dict()
    state["conv1.0.weight"][0, 0, 0, 0] = bad
    state["layer1.0.conv1.weight"][:] = bad
    with pytest.raises(CheckpointError, match=r"holds NaN or infinite numbers \(1 other tensors do, too\)"):
        load({"net": state}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"conv1.0.weight holds NaN or infinite numbers"):
        first_layer_filters(tmp_path / "a.pth")
    # What is not taken may be anything.
    state = model_of().state_dict()
    state["fc.bias"][:] = bad
    load({"net": state, "best": torch.tensor(bad)}, tmp_path / "a.pth")


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    state = model_of().state_dict()
    state["conv1.0.weight"] = (state["conv1.0.weight"] * 100).to(torch.int8)
    with pytest.raises(CheckpointError, match=r"conv1.0.weight holds int8 and must hold float32"):
        load(state, tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (np.zeros(3), r"numpy[\w.]*_reconstruct"),
        (np.str_("text"), r"numpy\.U4"),
        (Path("a"), r"pathlib[\w.]*PosixPath"),
        (datetime.date(2020, 1, 1), r"datetime\.date"),
    ],
)
def test_python_objects_are_named_and_the_remedy_is(tmp_path: Path, extra: Any, named: str) -> None:
    torch.save({"state_dict": model_of().state_dict(), "extra": extra}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=rf"not unpickled \({named}\).*torch.save\(model.state_dict\(\), FILE\)"):
        load_checkpoint(tmp_path / "a.pth")


def test_a_whole_model_and_a_script_are_refused_with_the_remedy(tmp_path: Path) -> None:
    torch.save(model_of(), tmp_path / "whole.pt")
    with pytest.raises(CheckpointError, match=r"not unpickled \(timm\.models\.resnet\.ResNet\)"):
        load_checkpoint(tmp_path / "whole.pt")


def test_plain_numbers_of_numpy_are_read_as_they_are(tmp_path: Path) -> None:
    from formulavision.training.weight_files import load_content

    values = {"a": np.float64(-93.25), "b": np.int32(-7), "c": np.bool_(True), "d": np.float32(0.5), "e": np.uint8(200)}
    torch.save(values, tmp_path / "a.pth")
    assert load_content(tmp_path / "a.pth") == {"a": -93.25, "b": -7, "c": True, "d": 0.5, "e": 200}


def test_nesting_without_end_is_refused_or_read_once(tmp_path: Path) -> None:
    deep: Any = {}
    for _ in range(200):
        deep = {"a": deep}
    torch.save({"x": deep, "conv": torch.ones(1)}, tmp_path / "deep.pth")
    with pytest.raises(CheckpointError, match="nested deeper"):
        load_checkpoint(tmp_path / "deep.pth")
    layer: Any = [torch.ones(1)]
    for _ in range(40):
        layer = [layer, layer]
    torch.save({"bomb": layer}, tmp_path / "bomb.pth")
    assert len(load_checkpoint(tmp_path / "bomb.pth").state) == 1


# Runs ----------------------------------------------------------------------------------------------------------------


def test_a_runs_folder_gives_its_weights_and_its_models_name(pretrained: Run) -> None:
    checkpoint = load_checkpoint(pretrained.folder)
    assert (checkpoint.model, checkpoint.run, checkpoint.name) == ("test_resnet", pretrained, str(pretrained.folder))
    assert checkpoint.identity() == {"name": str(pretrained.folder.resolve()), "sha256": checkpoint.sha256}
    model = model_of()
    checkpoint.load_into(model)
    assert same_backbone(model, load_file(pretrained.folder / "model.safetensors"))


def test_an_unfinished_run_is_refused(pretrained: Run, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in ("settings.yaml", "config.json", "model.safetensors"):
        shutil.copy(pretrained.folder / name, tmp_path / "run")
    with pytest.raises(CheckpointError, match="the run is unfinished"):
        load_checkpoint(tmp_path / "run")


def test_a_folder_in_timms_layout_gives_its_weights_and_its_models_name(pretrained: Run, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(pretrained.folder / name, tmp_path)
    checkpoint = load_checkpoint(tmp_path)
    assert (checkpoint.model, checkpoint.run) == ("test_resnet", None)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"config.json: is not the configuration of a timm model"):
        load_checkpoint(tmp_path)


def test_a_lightning_checkpoint_of_a_run_loads_too(pretrained: Run) -> None:
    model = model_of()
    load_checkpoint(pretrained.folder / "checkpoints" / "last.ckpt").load_into(model)
    assert same_backbone(model, load_file(pretrained.folder / "model.safetensors"))


# What does not fit, and what is no checkpoint ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("resnet18", "resnet34"),
        ("resnet34", "resnet18"),
        ("resnet18", "test_vit"),
        ("test_resnet", "resnet18"),
        ("resnet18", "test_convnext"),
        ("test_vit", "regnety_002"),
    ],
)
def test_another_architecture_is_refused_and_the_model_stays_as_it_was(tmp_path: Path, theirs: str, ours: str) -> None:
    save_file(model_of(theirs).state_dict(), tmp_path / "weights.safetensors")
    model = model_of(ours)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"another architecture|does not fit") as caught:
        load_checkpoint(tmp_path / "weights.safetensors").load_into(model)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("a.safetensors", b"", "is empty"),
        ("a.safetensors", b"no safetensors at all", "not a checkpoint"),
        ("a.pth", b"no zip at all", "not a checkpoint"),
        ("a.pth", pickle.dumps({"weights": [1.0]}), "not a checkpoint|holds no weights"),
        ("a.txt", b"text", r"must end in .safetensors, .pth, .pth.tar, .pt, .ckpt, .bin"),
    ],
)
def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes, named: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=named) as caught:
        load_checkpoint(tmp_path / name)
    assert "\n" not in str(caught.value) and name in str(caught.value)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    state = model_of().state_dict()
    save_file(state, tmp_path / name) if name.endswith("safetensors") else torch.save(state, tmp_path / name)
    truncated(tmp_path / name)
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        load_checkpoint(tmp_path / name)


@pytest.mark.parametrize("place", [0.3, 0.5, 0.7])
def test_a_changed_byte_in_a_file_of_torch_is_found(tmp_path: Path, place: float) -> None:
    file = tmp_path / "a.pth"
    torch.save(model_of().state_dict(), file)
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged: the checksum of"):
        load_checkpoint(file)


class Payload:
    ran = False

    def __reduce__(self) -> Any:
        return (setattr, (Payload, "ran", True))


def test_nothing_but_tensors_is_unpickled(tmp_path: Path) -> None:
    torch.save({"state_dict": model_of().state_dict(), "extra": Payload()}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="not unpickled"):
        load_checkpoint(tmp_path / "a.pth")
    assert not Payload.ran


@pytest.mark.parametrize(
    ("content", "named"), [({"epoch": 3}, "holds no weights"), ([1, 2], "holds list"), (torch.zeros(3), "holds Tensor")]
)
def test_a_file_without_weights_by_name_is_refused(tmp_path: Path, content: Any, named: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=named):
        load_checkpoint(tmp_path / "a.pt")


def test_a_folder_that_is_no_run_and_a_path_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a run's folder"):
        load_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(tmp_path / "nothing.pth")


# Published models: the functions that timm and torchvision download by are replaced, nothing else --------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[torch.nn.Module], list[Any]]:
    """What timm's and torchvision's downloads give; returns what was asked for."""

    def serve(model: torch.nn.Module) -> list[Any]:
        asked: list[Any] = []

        def download(where: Any, *arguments: Any, **options: Any) -> dict[str, torch.Tensor]:
            assert options["weights_only"] is True
            asked.append(where)
            return {name: tensor.clone() for name, tensor in model.state_dict().items()}

        monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", download)
        monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
        return asked

    return serve


@pytest.mark.parametrize("name", ["resnet18.a1_in1k", "resnet18"])
def test_a_timm_name_is_downloaded_by_timm_and_resolved(hub: Any, name: str) -> None:
    source = timm.create_model("resnet18")
    asked = hub(source)
    random = torch.random.get_rng_state()
    checkpoint = load_checkpoint(f"timm:{name}")
    assert torch.equal(torch.random.get_rng_state(), random)
    assert asked == ["timm/resnet18.a1_in1k"]
    assert (checkpoint.name, checkpoint.model) == ("timm:resnet18.a1_in1k", "resnet18")
    assert (checkpoint.path, checkpoint.run) == (None, None)
    model = model_of("resnet18")
    assert checkpoint.load_into(model).describe() == "120 tensors loaded, 2 skipped (fc.weight, fc.bias)"
    assert same_backbone(model, source.state_dict())


def test_a_timm_transformer_is_resampled_for_another_image_size(hub: Any) -> None:
    hub(timm.create_model("test_vit"))
    model = model_of("test_vit", img_size=64)
    assert load_checkpoint("timm:test_vit").load_into(model).reshaped == ["pos_embed"]


@pytest.mark.parametrize(
    ("name", "weights"), [("resnet18", "IMAGENET1K_V1"), ("resnet50", "IMAGENET1K_V2"), ("resnet50", "IMAGENET1K_V1")]
)
def test_a_torchvision_name_is_downloaded_by_torchvision_and_resolved(hub: Any, name: str, weights: str) -> None:
    source = torchvision.models.get_model(name, weights=None)
    asked = hub(source)
    published = torchvision.models.get_model_weights(name)[weights]
    default = published is torchvision.models.get_model_weights(name).DEFAULT
    checkpoint = load_checkpoint(f"torchvision:{name}" if default else f"torchvision:{name}:{weights}")
    assert asked == [published.url]
    assert (checkpoint.name, checkpoint.model) == (f"torchvision:{name}:{weights}", name)
    model = model_of(name)
    checkpoint.load_into(model)
    assert same_backbone(model, source.state_dict())


def test_a_published_model_is_fine_tuned_on_images_normalised_as_it_knows_them(
    hub: Any, small: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from formulavision.data.downstream import DownstreamSettings

    hub(timm.create_model("test_resnet"))
    digits = DownstreamSettings.model_validate({"kind": "digits", "train_per_class": 3, "test_per_class": 2})
    settings = {name: value for name, value in small.items() if name != "model"} | {"epochs": 1, "milestones": []}
    run = finetune("timm:test_resnet", digits, out=tmp_path / "run", settings=settings)
    assert "checkpoint timm:test_resnet.r160_in1k: " in capsys.readouterr().out
    assert run.settings["checkpoint"]["name"] == "timm:test_resnet.r160_in1k"
    used = run.settings["settings"]
    assert (used["model"], used["mean"]) == ("test_resnet", [*model_of("test_resnet").default_cfg["mean"]])
    ours = {**settings, "mean": [0.4, 0.4, 0.4]}
    other = finetune("timm:test_resnet", digits, out=tmp_path / "other", settings=ours, show_progress=False)
    assert other.settings["settings"]["mean"] == [0.4, 0.4, 0.4]


def test_a_published_models_identity_is_its_name_and_its_tensors(hub: Any) -> None:
    model: Any = timm.create_model("test_resnet")
    hub(model)
    first = load_checkpoint("timm:test_resnet").identity()
    assert first["name"] == "timm:test_resnet.r160_in1k" and load_checkpoint("timm:test_resnet").identity() == first
    with torch.no_grad():
        model.conv1[0].weight[0, 0, 0, 0] += 1
    assert load_checkpoint("timm:test_resnet").identity()["sha256"] != first["sha256"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("timm:resnet_50", "timm has no such model (did you mean 'resnet50'?)"),
        ("timm:", "timm has no such model"),
        ("timm:resnet50.a1_in1", "timm has no such weights (did you mean 'resnet50.a1_in1k'?)"),
        ("timm:resnet18d.", "timm has no such weights"),
        ("timm:vit_giant_patch14_224", "timm has no pre-trained weights of this model"),
        ("torchvision:resnet51", "torchvision has no such model (did you mean 'resnet50'?)"),
        ("torchvision:fcn_resnet50", "torchvision has no such model"),
        ("torchvision:resnet50:V2", "torchvision has no such weights: must be IMAGENET1K_V1 or IMAGENET1K_V2"),
    ],
)
def test_an_unknown_name_is_refused_before_anything_is_asked_for(hub: Any, name: str, told: str) -> None:
    asked = hub(torch.nn.Linear(1, 1))
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(name)
    assert f"{name}: {told}" in str(caught.value) and "\n" not in str(caught.value)
    assert asked == []


@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:resnet18"])
def test_no_network_ends_in_one_line(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise urllib.error.URLError(OSError(-2, "Name or service\nnot known"))

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", fail)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(CheckpointError, match=rf"{name}: cannot be downloaded \(URLError.*check the network") as caught:
        load_checkpoint(name)
    assert "\n" not in str(caught.value)
