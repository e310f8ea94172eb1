from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file

from formulavision.errors import CheckpointError
from formulavision.training import Run, load_checkpoint


def model_of(name: str = "test_resnet", **arguments: Any) -> torch.nn.Module:
    model: torch.nn.Module = timm.create_model(name, num_classes=3, **arguments)
    return model


def same_backbone(model: torch.nn.Module, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, state[n]) for n, tensor in model.state_dict().items() if not n.startswith("fc."))


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "backbone.", "module.model."])
@pytest.mark.parametrize("container", [None, "state_dict", "model"])
def test_weights_load_out_of_their_wrappers_and_the_head_stays(
    tmp_path: Path, prefix: str, container: str | None
) -> None:
    state = timm.create_model("test_resnet", num_classes=7).state_dict()
    content: Any = {f"{prefix}{name}": tensor for name, tensor in state.items()}
    torch.save({container: content, "epoch": 3} if container else content, tmp_path / "weights.pth")
    model = model_of()
    head = model.fc.weight.clone()  # type: ignore[union-attr,operator]
    loaded = load_checkpoint(tmp_path / "weights.pth").load_into(model)
    assert same_backbone(model, state)
    assert torch.equal(model.fc.weight, head)  # type: ignore[union-attr,arg-type]
    assert (sorted(loaded.skipped), loaded.missing, loaded.reshaped) == (["fc.bias", "fc.weight"], [], [])


def test_torchvision_weights_give_torchvisions_outputs(tmp_path: Path) -> None:
    reference = torchvision.models.resnet18(weights=None, num_classes=3).eval()
    save_file(reference.state_dict(), tmp_path / "tv.safetensors")
    model = model_of("resnet18").eval()
    loaded = load_checkpoint(tmp_path / "tv.safetensors").load_into(model, head=True)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model(images), reference(images), rtol=1e-4, atol=1e-4)
    assert loaded.describe() == "122 tensors loaded"


def test_position_embeddings_are_resampled_for_another_image_size(tmp_path: Path) -> None:
    source = model_of("test_vit", img_size=64)
    save_file(source.state_dict(), tmp_path / "vit.safetensors")
    model = model_of("test_vit", img_size=96)
    loaded = load_checkpoint(tmp_path / "vit.safetensors").load_into(model)
    assert loaded.reshaped == ["pos_embed"] and "1 reshaped (pos_embed)" in loaded.describe()
    expected = timm.layers.resample_abs_pos_embed(source.pos_embed, [6, 6], [4, 4])  # type: ignore[arg-type]
    torch.testing.assert_close(model.pos_embed, expected)


def test_a_runs_folder_gives_its_weights_and_its_models_name(pretrained: Run) -> None:
    checkpoint = load_checkpoint(pretrained.folder)
    assert checkpoint.model == "test_resnet"
    model = model_of()
    checkpoint.load_into(model)
    assert same_backbone(model, load_file(pretrained.folder / "model.safetensors"))


def test_a_lightning_checkpoint_of_a_run_loads_too(pretrained: Run) -> None:
    model = model_of()
    load_checkpoint(pretrained.folder / "checkpoints" / "last.ckpt").load_into(model)
    assert same_backbone(model, load_file(pretrained.folder / "model.safetensors"))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("resnet18", "resnet34"), ("resnet34", "resnet18"), ("resnet18", "test_vit"), ("test_resnet", "resnet18")],
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
        ("a.txt", b"text", r"must end in .safetensors, .pth, .pt, .ckpt"),
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
