"""Every file under configs/ says what it does, and is valid."""

from __future__ import annotations

from pathlib import Path

import pytest
from shipped_configs import CONFIGS, FOLDER, RECIPES, load

from formulavision import Recipe
from formulavision.comparison import ComparisonSettings
from formulavision.util.config import load_yaml

PAPER = sorted((FOLDER / "paper").glob("*.yaml"))
FIELD = sorted((FOLDER / "field").glob("*.yaml"))
AT_SIZES = [
    pytest.param(path, size, id=f"{path.stem}-{size}")
    for path in CONFIGS
    if path not in RECIPES
    for size in ("full", *load_yaml(path).get("sizes", {}))
]
EXPERIMENTS = {
    *("figure-1b", "figure-4", "figure-5", "figure-6"),
    *(f"table-{number}" for number in range(1, 11)),
    "gray-and-color",
}
ON_TWO_CORES = {f"table-{n}" for n in (1, 2, 8, 9, 10)} | {f"figure-{n}" for n in ("1b", "4", "5", "6")}


def header(path: Path) -> str:
    return path.read_text().split("\n\n")[0]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_opens_with_what_it_is_and_the_command(path: Path) -> None:
    assert header(path).startswith("# ")
    assert "#   formulavision " in header(path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_valid(path: Path) -> None:
    assert len(Recipe.load(path)) > 0


@pytest.mark.parametrize(("path", "size"), AT_SIZES)
def test_a_comparison_is_valid_at_each_size(path: Path, size: str, tmp_path: Path) -> None:
    assert load(path, size, tmp_path).size == size


@pytest.mark.parametrize(
    ("name", "images"),
    [
        ("fractaldb-1k", 1_000_000),
        ("bezier-1024", 1_024_000),
        ("perlin-1296", 1_296_000),
        ("rcdb-1k", 1_000_000),
        ("visualatom-1k", 1_000_000),
        ("mv-fractaldb", 1_740_000),
        ("exfractaldb-1k", 1_000_000),
        ("segrcdb", 20_000),
        ("ofdb-1k", 1_000),
        ("1p-frac", 1_000),
    ],
)
def test_the_papers_datasets_have_the_papers_sizes(name: str, images: int) -> None:
    assert len(Recipe.load(FOLDER / f"{name}.yaml")) == images


# The paper's experiments ---------------------------------------------------------------------------------------------


def test_every_experiment_of_the_paper_has_a_file() -> None:
    assert {path.stem for path in PAPER} == EXPERIMENTS


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_an_experiment_has_the_sizes_that_its_header_explains(path: Path) -> None:
    sizes = {"full", *load_yaml(path)["sizes"]}
    assert sizes == {"full", "gpu", "smoke"} | ({"cpu"} if path.stem in ON_TWO_CORES else set())
    explained = [size for size in ("full", "gpu", "cpu", "smoke") if f"\n# {size}: " in header(path)]
    assert set(explained) == sizes
    for size in sizes:
        assert f"configs/paper/{path.stem}.yaml --size {size} " in header(path)


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_an_experiment_at_full_size_trains_as_the_paper_says(path: Path, tmp_path: Path) -> None:
    settings = load(path, "full", tmp_path)
    training = settings.finetune_settings(next(iter(settings.variants)), seed=0)
    assert (settings.model, training.epochs, training.batch_size, training.learning_rate) == ("resnet50", 90, 256, 0.01)
    assert (training.momentum, training.milestones, training.gamma) == (0.9, (30, 60), 0.1)
    assert (training.resize, training.crop) == (256, 224)


@pytest.mark.parametrize("path", [*PAPER, *FIELD], ids=lambda path: path.stem)
def test_the_smoke_size_downloads_nothing(path: Path) -> None:
    settings = ComparisonSettings.load(path, size="smoke")
    datasets = [*settings.downstreams.values(), *(v.arm.images for v in settings.variants.values())]
    assert {dataset.kind for dataset in datasets if dataset is not None} == {"digits"}
    assert all(variant.arm.checkpoint is None for variant in settings.variants.values())


def test_on_two_cores_experiments_share_fractaldb_and_its_fine_tuning(tmp_path: Path) -> None:
    """The same recipe and training in each of them: with --runs it is computed once."""
    found = set()
    for name in sorted(ON_TWO_CORES - {"figure-5"}):  # which replaces the labels
        settings = load(FOLDER / "paper" / f"{name}.yaml", "cpu", tmp_path)
        cifar10 = settings.downstreams["cifar10"].model_dump_json()
        plain = {
            (
                variant.arm.recipe.id,
                settings.pretrain_settings(key, 0).model_dump_json(),
                settings.finetune_settings(key, 0).model_dump_json(),
                cifar10,
            )
            for key, variant in settings.variants.items()
            if variant.arm.recipe is not None and variant.arm.recipe.all_parts[0].generator.name == "ifs"
        }
        found.add(frozenset(plain))
    assert len(frozenset.intersection(*found)) == 1


# The papers after it -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FIELD, ids=lambda path: path.stem)
def test_a_table_of_the_field_explains_its_sizes_and_has_a_row_in_the_page(path: Path) -> None:
    sizes = ("full", *load_yaml(path)["sizes"])
    known = ("full", "gpu", "cpu", "cpu-vit", "smoke")
    assert [size for size in known if f"\n# {size}: " in header(path)] == list(sizes)
    assert f"configs/field/{path.stem}.yaml --size smoke " in header(path)
    page = (FOLDER.parent / "docs" / "reproducing-the-field.md").read_text()
    (row,) = [line for line in page.splitlines() if f"[{path.stem}](../configs/field/{path.name})" in line]
    assert f"| {', '.join(sizes)} |" in row


@pytest.mark.parametrize(
    ("name", "model", "pretraining", "tuning"),
    [
        ("rcdb", "deit_tiny_patch16_224", (300, None, 256), (1_000, None, 768)),
        ("visual-atoms", "deit_tiny_patch16_224", (300, None, 256), (1_000, None, 768)),
        ("ofdb", "deit_tiny_patch16_224", (None, 320_000, 256), (1_000, None, 768)),
        ("1p-frac", "deit_tiny_patch16_224", (None, 320_000, 256), (1_000, None, 768)),
        ("segrcdb", "swin_base_patch4_window7_224", (300, None, 32), (None, 160_000, 16)),
        ("imagenet-1k", "vit_base_patch16_224", (None, 304_760, 1_024), (300, None, 1_024)),
    ],
)
def test_a_table_of_the_field_at_full_size_trains_as_its_program(
    name: str, model: str, pretraining: tuple[int | None, ...], tuning: tuple[int | None, ...], tmp_path: Path
) -> None:
    settings = load(FOLDER / "field" / f"{name}.yaml", "full", tmp_path)
    *_, arm = [each for each, variant in settings.variants.items() if variant.arm.recipe is not None]
    runs = settings.pretrain_settings(arm, seed=0), settings.finetune_settings(arm, seed=0)
    assert settings.model == model
    assert [(run.epochs, run.steps, run.batch_size) for run in runs] == [pretraining, tuning]


def test_tables_of_the_field_share_fractaldb_and_its_pre_training(tmp_path: Path) -> None:
    """The same recipe and settings in each of them: with --runs it is computed once."""
    found = set()
    for name in ("rcdb", "visual-atoms", "ofdb", "1p-frac"):
        settings = load(FOLDER / "field" / f"{name}.yaml", "full", tmp_path)
        recipe = settings.arms["fractaldb"].recipe
        assert recipe is not None
        found.add((recipe.id, settings.pretrain_settings("fractaldb", 0).model_dump_json()))
    assert len(found) == 1
