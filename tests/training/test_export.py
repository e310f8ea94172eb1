"""What is exported loads with timm or torchvision alone and answers as the run's model does."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
import yaml
from cases import slow
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from formulavision import Recipe, export_model
from formulavision.cli import app
from formulavision.training import Run, export, finetune, load_checkpoint, pretrain
from formulavision.training.export import write_card
from formulavision.training.models import build_model
from formulavision.training.runs import read_result, write_result, write_settings
from formulavision.training.settings import PREPROCESSING, TrainSettings
from formulavision.util.errors import CheckpointError, ConfigError

RECIPE = Recipe.from_dict({"generator": "perlin", "categories": 4, "instances": 6, "canvas": {"size": 32}})
DIGITS = {"kind": "digits", "train_per_class": 4, "test_per_class": 3}


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory, small: dict[str, Any]) -> Run:
    """A ResNet-18, pre-trained on a formula."""
    settings = {**small, "model": "resnet18", "epochs": 1}
    return pretrain(RECIPE, out=tmp_path_factory.mktemp("runs") / "pre", settings=settings, show_progress=False)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, resnet: Run, small: dict[str, Any]) -> Run:
    """That ResNet-18, fine-tuned on handwritten digits."""
    from formulavision.data.downstream import DownstreamSettings

    return finetune(
        resnet.folder,
        DownstreamSettings.model_validate(DIGITS),
        out=tmp_path_factory.mktemp("runs") / "tuned",
        settings={**{name: value for name, value in small.items() if name != "model"}, "epochs": 1},
        show_progress=False,
    )


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory, stripes: Any, small: dict[str, Any]) -> Run:
    settings = {**small, "model": "test_vit", "epochs": 1, "learning_rate": 0.01}
    return pretrain(stripes(), out=tmp_path_factory.mktemp("runs") / "vit", settings=settings, show_progress=False)


def answers(model: torch.nn.Module) -> torch.Tensor:
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        output: torch.Tensor = model.eval()(images)
    return output


def answers_of(run: Run) -> torch.Tensor:
    model = build_model(TrainSettings.model_validate(run.settings["settings"]), len(run.classes))
    model.load_state_dict(load_file(run.folder / "model.safetensors"))
    return answers(model)


def card(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def header(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(card(folder).split("---\n")[1])
    return content


def code(folder: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", card(folder), re.DOTALL)


# Weights -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tuned", *slow("resnet", "transformer")])
@pytest.mark.slow
def test_timm_alone_gives_the_runs_outputs(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    run = request.getfixturevalue(kind)
    assert export_model(run, tmp_path / "export") == tmp_path / "export"
    model = timm.create_model(f"local-dir:{tmp_path / 'export'}", pretrained=True)
    assert torch.equal(answers(model), answers_of(run))
    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == [
        ".formulavision",
        "README.md",
        "class_map.txt",
        "config.json",
        "model.safetensors",
    ]


@pytest.mark.parametrize("kind", ["resnet", *slow("tuned")])
def test_torchvision_alone_gives_the_runs_outputs(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    run = request.getfixturevalue(kind)
    export_model(run.folder, tmp_path, layout="torchvision")
    model = torchvision.models.resnet18(num_classes=len(run.classes))
    model.load_state_dict(torch.load(tmp_path / "model.pth", weights_only=True), strict=True)
    torch.testing.assert_close(answers(model), answers_of(run), rtol=1e-5, atol=1e-5)
    assert json.loads((tmp_path / "classes.json").read_text()) == run.classes
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *(".formulavision", "README.md", "classes.json", "model.pth")
    ]


@pytest.mark.parametrize("layout", ["timm", "torchvision"])
def test_what_is_exported_is_a_checkpoint_again(resnet: Run, tmp_path: Path, layout: Any) -> None:
    export_model(resnet, tmp_path, layout=layout)
    checkpoint = load_checkpoint(tmp_path if layout == "timm" else tmp_path / "model.pth")
    assert checkpoint.model == ("resnet18" if layout == "timm" else None)
    model = timm.create_model("resnet18", num_classes=4)
    checkpoint.load_into(model, head=True)
    assert torch.equal(answers(model), answers_of(resnet))


# The wide one repeats what the other one states, with three times as many weights.
@pytest.mark.parametrize("name", ["resnext50_32x4d", pytest.param("wide_resnet50_2", marks=pytest.mark.slow)])
def test_every_kind_of_torchvisions_resnets_is_known(tmp_path: Path, resnet: Run, name: str) -> None:
    export_model(as_if(resnet, tmp_path / "run", name), tmp_path / "export", layout="torchvision")
    model = torchvision.models.get_model(name, num_classes=4)
    model.load_state_dict(torch.load(tmp_path / "export" / "model.pth", weights_only=True), strict=True)


@pytest.mark.parametrize("name", ["test_resnet", "resnet18d", "resnet26", "convnext_atto", "densenet121"])
def test_other_models_than_torchvisions_resnets_are_refused(tmp_path: Path, resnet: Run, name: str) -> None:
    run = as_if(resnet, tmp_path / "run", name)
    with pytest.raises(ConfigError, match=f"layout: torchvision has no model with the weights .* a '{name}': .*timm$"):
        export_model(run, tmp_path / "export", layout="torchvision")
    assert not (tmp_path / "export").exists()


def as_if(run: Run, folder: Path, name: str) -> Run:
    """A run of the same settings whose model is another one, untrained."""
    from safetensors.torch import save_file

    shutil.copytree(run.folder, folder)
    settings = yaml.safe_load((folder / "settings.yaml").read_text())
    settings["settings"]["model"] = name
    write_settings(folder, settings, run.classes)
    state = timm.create_model(name, num_classes=len(run.classes)).state_dict()
    save_file(state, folder / "model.safetensors")
    write_result(folder, read_result(folder))
    return Run.load(folder)


# The model card ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["timm", "torchvision"])
def test_the_cards_code_runs_as_it_stands_and_gives_the_runs_outputs(
    resnet: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: Any
) -> None:
    export_model(resnet, tmp_path, layout=layout)
    monkeypatch.chdir(tmp_path)
    snippets = code(tmp_path, "python")
    assert [("import timm" in text, "import torchvision" in text) for text in snippets] == [
        (True, False),
        (False, True),
    ]
    for snippet in snippets:
        names: dict[str, Any] = {}
        exec(snippet, names)
        torch.testing.assert_close(answers(names["model"]), answers_of(resnet), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", ["timm", "torchvision"])
def test_the_cards_command_names_options_that_there_are(resnet: Run, tmp_path: Path, layout: Any) -> None:
    export_model(resnet, tmp_path, layout=layout)
    (command,) = code(tmp_path, "sh")
    assert command.split()[:4] == ["formulavision", "finetune", "--checkpoint", {"timm": "."}.get(layout, "model.pth")]
    options = [word for word in command.split() if word.startswith("--")]
    shown = CliRunner().invoke(app, ["finetune", "--help"], env={"COLUMNS": "200"}).stdout
    assert all(option in shown for option in options)


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Image folders of the classes 1 to 12, each of one brightness, and of images that are not square."""
    root = tmp_path_factory.mktemp("numbered")
    for side, images in (("train", 3), ("test", 2)):
        for number in range(1, 13):
            (root / side / str(number)).mkdir(parents=True)
            for i in range(images):
                noise = np.random.default_rng(i).integers(0, 8, (20 + 9 * i, 48, 3))
                picture = Image.fromarray((noise + 20 * number).astype(np.uint8))
                picture.save(root / side / str(number) / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def of_numbers(tmp_path_factory: pytest.TempPathFactory, numbered: Path, small: dict[str, Any]) -> Run:
    settings = {**small, "epochs": 50, "milestones": [], "learning_rate": 0.05, "batch_size": 12}
    out = tmp_path_factory.mktemp("runs") / "numbers"
    return finetune(None, f"folder:{numbered}", out=out, settings=settings, show_progress=False)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # timm leaves the images' files open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_timms_folder_reader_counts_as_we_do_with_the_exported_class_list(
    of_numbers: Run, numbered: Path, tmp_path: Path
) -> None:
    from formulavision import evaluate

    export_model(of_numbers, tmp_path)
    model: Any = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    names = list(model.pretrained_cfg["label_names"])
    assert names == of_numbers.classes == sorted(map(str, range(1, 13)))
    assert torchvision.datasets.ImageFolder(numbered / "test").classes == names
    transform: Any = timm.data.create_transform(**timm.data.resolve_model_data_config(model))

    def right(class_map: Any) -> float:
        root = str(numbered / "test")
        images = timm.data.create_dataset("", root=root, class_map=class_map, transform=transform)
        inputs, labels = zip(*images, strict=True)
        with torch.inference_mode():
            answers = model.eval()(torch.stack(inputs)).argmax(1)
        return float((answers == torch.tensor(labels)).float().mean())

    ours = evaluate(of_numbers.folder, f"folder:{numbered}", show_progress=False).score
    assert ours > 0.5
    assert right(str(tmp_path / "class_map.txt")) == right({name: i for i, name in enumerate(names)})
    assert right(str(tmp_path / "class_map.txt")) == pytest.approx(ours)
    assert right(None) < ours / 2, "the natural order of timm"
    assert "--class-map class_map.txt" in card(tmp_path)


@pytest.mark.parametrize("names", [["a", " b"], ["a", "b\nc"], ["a", "b\u2028"]])
def test_names_that_no_class_map_can_hold_stay_out_of_it(tmp_path: Path, resnet: Run, names: list[str]) -> None:
    run = dataclasses.replace(resnet, classes=names)
    export_model(run, tmp_path)
    assert not (tmp_path / "class_map.txt").exists() and "--class-map" not in card(tmp_path)


def test_the_cards_command_repeats_the_preprocessing_that_a_state_dict_does_not_hold(
    resnet: Run, tmp_path: Path
) -> None:
    from formulavision.cli.training import train_values

    folder = shutil.copytree(resnet.folder, tmp_path / "run")
    settings = yaml.safe_load((folder / "settings.yaml").read_text())
    changes = {"resize_mode": "center", "mean": [0.1, 0.2, 0.3]}
    settings["settings"] |= changes
    write_settings(Path(folder), settings, resnet.classes)
    export_model(folder, tmp_path / "export", layout="torchvision")
    (command,) = code(tmp_path / "export", "sh")
    words = shlex.split(command)
    given = TrainSettings.model_validate(
        train_values([words[i + 1] for i, word in enumerate(words) if word == "--set"])
    )
    trained = TrainSettings.model_validate(settings["settings"])
    assert all(getattr(given, name) == getattr(trained, name) for name in PREPROCESSING)
    assert "the shorter side is 36" in card(tmp_path / "export")


def test_the_card_tells_recipe_settings_figures_and_limits(resnet: Run, tmp_path: Path) -> None:
    export_model(resnet, tmp_path)
    assert header(tmp_path) == {
        "library_name": "timm",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["formula-driven-supervised-learning", "formulavision", "perlin"],
    }
    inputs, recipe, settings = (yaml.safe_load(text) for text in code(tmp_path, "yaml"))
    assert inputs == {"data": {"images": 24, "classes": 4}, "precision": resnet.settings["precision"]}
    assert Recipe.from_dict(recipe) == RECIPE
    assert settings == resnet.settings["settings"]
    text = card(tmp_path)
    assert f"(id `{RECIPE.id}`)" in text
    assert f"| accuracy on training images, as trained | {resnet.final['train_accuracy']:.2%} |" in text
    assert "nothing was held out" in text and "No licence was chosen" in text


def test_a_fine_tuned_models_card_tells_where_it_comes_from_and_how_well_it_does(tuned: Run, tmp_path: Path) -> None:
    run = Run.load(shutil.copytree(tuned.folder, tmp_path / "run"))
    result = {
        "downstream": {"name": "digits"},
        "images": 30,
        "top_1": 0.5,
        "top_5": 0.9,
        "top_5_counts": 5,
        "loss": 1.5,
    }
    (run.folder / "evaluation.json").write_text(json.dumps(result))
    export_model(run, tmp_path / "export")
    assert header(tmp_path / "export")["pipeline_tag"] == "image-classification"
    assert "perlin" in header(tmp_path / "export")["tags"]
    _, recipe, _ = (yaml.safe_load(text) for text in code(tmp_path / "export", "yaml"))
    assert Recipe.from_dict(recipe) == RECIPE
    text = card(tmp_path / "export")
    assert f"| accuracy on test images | {tuned.final['validation_accuracy']:.2%} |" in text
    assert "on the 30 test images of digits" in text
    assert "| top-1 accuracy | 50.00% |\n| top-5 accuracy | 90.00% |\n| loss | 1.5000 |" in text


def test_a_card_of_several_labels_an_image_tells_the_mean_average_precision(tuned: Run, tmp_path: Path) -> None:
    run = Run.load(shutil.copytree(tuned.folder, tmp_path / "run"))
    result = {"downstream": {"name": "voc2012:/data"}, "images": 30, "metric": "mean average precision", "score": 0.25}
    (run.folder / "evaluation.json").write_text(json.dumps({**result, "top_1": None, "top_5": None, "loss": 0.5}))
    write_card(run)
    assert "| mean average precision | 25.00% |\n| loss | 0.5000 |" in card(run.folder)


def test_a_card_of_masks_tells_miou_and_pixel_accuracy(tuned: Run, tmp_path: Path) -> None:
    run = Run.load(shutil.copytree(tuned.folder, tmp_path / "run"))
    result = {"downstream": {"name": "masks:/data"}, "images": 30, "metric": "mIoU", "score": 0.25, "top_1": None}
    (run.folder / "evaluation.json").write_text(json.dumps({**result, "pixel_accuracy": 0.5, "loss": 0.5}))
    write_card(run)
    assert "| mIoU | 25.00% |\n| pixel accuracy | 50.00% |\n| loss | 0.5000 |" in card(run.folder)


@pytest.mark.parametrize(
    "names", [["\N{GRINNING FACE}", "\N{CJK UNIFIED IDEOGRAPH-20000}"], ["n" * 150 + str(i) for i in range(8000)]]
)
def test_a_card_is_written_whatever_the_classes_are_called(tuned: Run, tmp_path: Path, names: list[str]) -> None:
    run = Run.load(shutil.copytree(tuned.folder, tmp_path / "run"))
    result = {"downstream": {"name": "x"}, "images": 30, "metric": "top-1 accuracy", "score": 0.25, "top_1": 0.25}
    file = run.folder / "evaluation.json"
    file.write_text(json.dumps({**result, "per_class": dict.fromkeys(names, 0.5)}))
    write_card(run)
    assert "| top-1 accuracy | 25.00% |" in card(run.folder)
    file.write_text("{")
    with pytest.raises(ConfigError, match=r"evaluation.json: cannot be read .*: evaluate again"):
        write_card(run)


def test_addresses_stay_whole_in_a_card() -> None:
    given = {"store": "s3://bucket/fractals", "recipe": "hf://me/x", "root": "folder:/home/me/data", "name": "a:b"}
    told = {**given, "root": "folder:data"}
    assert export._without_folders([given]) == [told]


def test_no_path_of_this_machine_is_in_a_card(tuned: Run, resnet: Run, tmp_path: Path) -> None:
    export_model(tuned, tmp_path / "export")
    assert str(resnet.folder) in str(tuned.settings["checkpoint"])
    assert str(resnet.folder.parent) not in card(tmp_path / "export")
    assert tuned.settings["checkpoint"]["sha256"] in card(tmp_path / "export")


def test_a_dataset_of_an_odd_name_is_shown_and_not_obeyed_in_a_card(tuned: Run, tmp_path: Path) -> None:
    run = Run.load(shutil.copytree(tuned.folder, tmp_path / "run"))
    settings = yaml.safe_load((run.folder / "settings.yaml").read_text())
    settings["downstream"]["name"] = "<script>x</script> [y](javascript:1)\n# z"
    write_settings(run.folder, settings, run.classes)
    write_card(run.folder)
    title = next(line for line in card(run.folder).splitlines() if line.startswith("# "))
    assert title.endswith("&lt;script>x&lt;/script> \\[y](javascript:1) # z")


def test_the_recipe_is_left_out_where_the_pretraining_run_is_gone(tuned: Run, resnet: Run, tmp_path: Path) -> None:
    run = Run.load(shutil.copytree(tuned.folder, tmp_path / "run"))
    settings = yaml.safe_load((run.folder / "settings.yaml").read_text())
    settings["checkpoint"] = {"name": str(tmp_path / "gone"), "sha256": settings["checkpoint"]["sha256"]}
    write_settings(run.folder, settings, run.classes)
    write_card(run.folder)
    assert "this recipe" not in card(run.folder)
    # Another run in its place is none of this one's origins.
    settings["checkpoint"] = {"name": str(resnet.folder), "sha256": "0" * 64}
    write_settings(run.folder, settings, run.classes)
    write_card(run.folder)
    assert "this recipe" not in card(run.folder)


def test_a_runs_own_folder_gets_a_card_and_stays_a_run(resnet: Run, tmp_path: Path) -> None:
    run = Run.load(shutil.copytree(resnet.folder, tmp_path / "run"))
    assert write_card(run) == run.folder / "README.md"
    assert Run.load(run.folder) == run
    assert 'timm.create_model("local-dir:.", pretrained=True)' in card(run.folder)


def test_a_transformers_card_says_that_torchvision_does_not_have_it(transformer: Run, tmp_path: Path) -> None:
    export_model(transformer, tmp_path)
    assert "torchvision has no `test_vit` with these weights" in card(tmp_path)
    assert len(code(tmp_path, "python")) == 1


# Refusals ------------------------------------------------------------------------------------------------------------


def test_what_is_no_complete_run_is_refused(resnet: Run, tmp_path: Path) -> None:
    run = shutil.copytree(resnet.folder, tmp_path / "run")
    (run / "run.json").unlink()
    for source, told in ((run, "the run is unfinished"), (tmp_path / "absent", "no such folder")):
        with pytest.raises(ConfigError, match=told):
            export_model(source, tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_a_run_whose_weights_are_damaged_is_refused(resnet: Run, tmp_path: Path) -> None:
    run = shutil.copytree(resnet.folder, tmp_path / "run")
    (run / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        export_model(run, tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_an_export_is_replaced_only_when_asked(resnet: Run, tmp_path: Path) -> None:
    export_model(resnet, tmp_path)
    with pytest.raises(ConfigError, match="holds an export already: give another --out, or --overwrite"):
        export_model(resnet, tmp_path, layout="torchvision")
    assert (tmp_path / "model.safetensors").is_file()
    export_model(resnet, tmp_path, layout="torchvision", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *(".formulavision", "README.md", "classes.json", "model.pth")
    ]


def test_somebody_elses_files_and_the_run_itself_are_never_touched(resnet: Run, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="is not empty, and has no file"):
            export_model(resnet, tmp_path, overwrite=overwrite)
        with pytest.raises(ConfigError, match="is the run's own folder"):
            export_model(resnet, resnet.folder, overwrite=overwrite)
        with pytest.raises(ConfigError, match="is a file"):
            export_model(resnet, tmp_path / "thesis.tex", overwrite=overwrite)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/README.md").write_text("years of work")
    with pytest.raises(ConfigError, match="is not empty, and has no file"):
        export_model(resnet, tmp_path / "theirs", overwrite=True)
    assert (tmp_path / "theirs/README.md").read_text() == "years of work"
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_an_unknown_layout_and_a_folder_that_cannot_be_written_are_refused(resnet: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"layout: there is no 'torchvison' \(did you mean 'torchvision'\?\)"):
        export_model(resnet, tmp_path / "export", layout="torchvison")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"/proc/export.*cannot be written"):
        export_model(resnet, "/proc/export")


# The command ---------------------------------------------------------------------------------------------------------


def test_the_command_exports_and_says_what_it_wrote(resnet: Run, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["export", str(resnet.folder), "--out", str(tmp_path / "e"), "--layout", "torchvision"]
    )
    assert result.exit_code == 0, result.output
    assert "README.md, classes.json, model.pth" in result.stdout


def test_the_command_refuses_in_one_line(transformer: Run, tmp_path: Path) -> None:
    for arguments, told in (
        ([str(transformer.folder), "--layout", "torchvision"], "error: layout: torchvision has no model"),
        ([str(tmp_path), "--layout", "timm"], "error: "),
    ):
        result = CliRunner().invoke(app, ["export", *arguments, "--out", str(tmp_path / "export")])
        assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
        assert result.stderr.startswith(told)


def test_the_help_of_export_imports_no_torch() -> None:
    code = "import sys; from typer.testing import CliRunner; from formulavision.cli import app\n"
    code += "assert CliRunner().invoke(app, ['export', '--help']).exit_code == 0; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
