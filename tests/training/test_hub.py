"""push and pull, through huggingface_hub, with a stand-in for the Hub on the loopback address."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml
from hub_stand_in import HubStandIn
from huggingface_hub import constants
from typer.testing import CliRunner

import formulavision as fv
from formulavision.cli import app
from formulavision.storage import redrawing
from formulavision.storage.generation import generate
from formulavision.training.hub import pull, push
from formulavision.util.errors import ConfigError, FolderError, RemoteError, StoreError

RECIPE = {"generator": {"name": "perlin", "grid": 2}, "categories": 3, "instances": 2, "canvas": {"size": 16}}

# huggingface_hub's own use of its HTTP client.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> fv.Store:
    return generate(RECIPE, tmp_path_factory.mktemp("stores") / "store")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubStandIn]:
    server = HubStandIn()
    huggingface_hub.HfFileSystem.clear_instance_cache()  # has the address of an earlier test's
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.partition("/{repo_id}")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "".join(template[1:]))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(redrawing, "run_in_new_process", lambda generators, comparison: comparison.run())
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    yield server
    server.shutdown()
    server.server_close()


def test_a_store_is_pushed_with_a_contact_sheet_and_pulled_again(
    hub: HubStandIn, store: fv.Store, tmp_path: Path
) -> None:
    assert push(store, "hf://user/perlin") == f"{hub.url}/datasets/user/perlin"
    there = hub.files["datasets/user/perlin"]
    piece = store.pieces[0].path
    assert there[piece] == (store.path / piece).read_bytes() and any(r.startswith("PUT /blob/") for r in hub.requests)
    assert "![some of the images](contact-sheet.png)" in there["README.md"].decode()
    assert there["contact-sheet.png"].startswith(b"\x89PNG") and not any("lock" in name for name in there)
    out = pull("hf://user/perlin", tmp_path / "pulled")
    assert fv.verify(out).problems == [] and not (tmp_path / "pulled.partial").exists()
    assert generate(RECIPE, out).manifest == store.manifest  # known as the store of this recipe
    with pytest.raises(FolderError, match="is not empty"):
        pull("hf://user/perlin", out)


@pytest.mark.slow
def test_a_second_push_replaces_the_store_and_keeps_an_edited_card(
    hub: HubStandIn, store: fv.Store, tmp_path: Path
) -> None:
    other = generate({**RECIPE, "seed": 2}, tmp_path / "other")
    push(store, "hf://datasets/user/perlin")
    there = hub.files["datasets/user/perlin"]
    first = there["README.md"]
    push(other, "hf://datasets/user/perlin")
    assert there["README.md"] != first
    there["README.md"] = edited = there["README.md"].replace(b"license: unknown", b"license: mit")
    there["data/stale.parquet"] = b"of an earlier store"
    push(store, "hf://datasets/user/perlin")
    assert there["README.md"] == edited and "data/stale.parquet" not in there
    assert there["manifest.json"] == (store.path / "manifest.json").read_bytes()


def test_a_recipe_is_pushed_and_drawn_by_its_url(
    hub: HubStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORMULAVISION_CACHE", str(tmp_path / "cache"))
    push(RECIPE, "hf://user/recipe")
    there = hub.files["datasets/user/recipe"]
    assert {"recipe.yaml", "README.md", "contact-sheet.png"} <= there.keys() and b"configs:" not in there["README.md"]
    assert fv.Recipe.load("hf://user/recipe").id == fv.Recipe.from_dict(RECIPE).id
    assert fv.Recipe.load("hf://user/recipe", ["seed=2"]).seed == 2


def test_a_store_is_read_where_it_was_pushed(hub: HubStandIn, store: fv.Store) -> None:
    push(store, "hf://user/perlin")
    there = fv.Store("hf://user/perlin")
    assert (there.read(4) == store.read(4)).all() and fv.verify(there, sample=1).problems == []
    assert fv.Recipe.load("hf://user/perlin").id == store.manifest.recipe_id


@pytest.mark.slow
def test_a_run_is_pushed_as_a_model(hub: HubStandIn, pretrained: Any, tmp_path: Path) -> None:
    assert push(pretrained.folder, "hf://user/model") == f"{hub.url}/user/model"
    there = hub.files["models/user/model"]
    assert {"model.safetensors", "config.json", "README.md"} <= there.keys()
    out = pull("hf://user/model", tmp_path / "model")
    assert (out / "model.safetensors").read_bytes() == there["model.safetensors"]


def test_bad_input_is_one_line_and_nothing_is_sent(
    hub: HubStandIn, store: fv.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    damaged, unfinished = tmp_path / "damaged", tmp_path / "unfinished"
    shutil.copytree(store.path, damaged)
    piece = damaged / store.pieces[0].path
    piece.write_bytes(piece.read_bytes()[:-1] + b"x")
    shutil.copytree(store.path, unfinished)
    (unfinished / "manifest.json").unlink()
    (unfinished / ".incomplete").mkdir()
    (tmp_path / "empty").mkdir()
    cases: list[Any] = [
        (damaged, "hf://user/x", StoreError, "the store is damaged: .*checksum"),
        (unfinished, "hf://user/x", StoreError, "is not complete"),
        (tmp_path / "empty", "hf://user/x", ConfigError, "is no store, no run and no recipe$"),
        (store, "hf://models/user/x", ConfigError, "datasets are pushed to hf://datasets/user/x$"),
        (store, "user/x", ConfigError, "write hf://USER/NAME$"),
        (store, "hf://x", ConfigError, "write hf://USER/NAME$"),
    ]
    for source, url, kind, message in cases:
        with pytest.raises(kind, match=message):
            push(source, url)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(ConfigError, match="there is no token for the Hub"):
        push(store, "hf://user/x")
    assert hub.requests == []


def test_a_push_of_another_kind_or_format_leaves_no_file_of_the_earlier_one(
    hub: HubStandIn, store: fv.Store, tmp_path: Path
) -> None:
    images = generate({**RECIPE, "seed": 2}, tmp_path / "images", format="imagefolder")
    sources: dict[str, Any] = {"parquet": store, "images": images, "recipe": RECIPE}
    there = {}
    for name, source in sources.items():
        push(source, f"hf://user/{name}")
        there[name] = hub.files[f"datasets/user/{name}"].copy()
    mine = {"notes.md": b"mine", "data/mine.csv": b"mine", f"{images.layout.category_names[0]}/mine.txt": b"mine"}
    hub.files["datasets/user/all"] = mixed = {".gitattributes": b"", **mine}
    for name in ("images", "parquet", "recipe", "images"):
        push(sources[name], "hf://user/all")
        assert mixed.keys() == there[name].keys() | mine.keys(), name
    push(RECIPE, "hf://user/all")
    assert (pull("hf://user/all", tmp_path / "pulled") / "recipe.yaml").read_bytes() == there["recipe"]["recipe.yaml"]


def test_a_push_over_a_damaged_marker_is_one_line(hub: HubStandIn) -> None:
    hub.files["datasets/user/recipe"] = {".formulavision": b"{}"}
    with pytest.raises(RemoteError, match=r"^hf://user/recipe: its file \.formulavision is damaged, or .*: remove it"):
        push(RECIPE, "hf://user/recipe")


def test_a_model_card_that_was_edited_on_the_hub_is_kept(hub: HubStandIn, pretrained: Any) -> None:
    push(pretrained, "hf://user/model")
    there = hub.files["models/user/model"]
    card = there["README.md"]
    assert "class_map.txt" in there
    named = dataclasses.replace(pretrained, classes=["a\nb", *pretrained.classes[1:]])
    push(named, "hf://user/model")
    assert there["README.md"] != card and "class_map.txt" not in there
    there["README.md"] = edited = card.replace(b"tags:", b"license: mit\ntags:")
    there["notes.md"] = b"mine"
    push(pretrained, "hf://user/model")
    assert there["README.md"] == edited and there["notes.md"] == b"mine" and "class_map.txt" in there


@pytest.mark.parametrize("damaged", [False, True])
def test_a_folder_that_pull_did_not_make_is_refused_and_stays(
    hub: HubStandIn, store: fv.Store, tmp_path: Path, damaged: bool
) -> None:
    push(store, "hf://user/perlin")
    if damaged:
        hub.files["datasets/user/perlin"][store.pieces[0].path] = b"x"
    partial = tmp_path / "out.partial"
    partial.mkdir()
    (partial / "thesis.txt").write_text("mine")
    with pytest.raises(FolderError, match=r"out\.partial: is not of this download: remove it$"):
        pull("hf://user/perlin", tmp_path / "out")
    assert [file.name for file in partial.iterdir()] == ["thesis.txt"] and not (tmp_path / "out").exists()


def interrupt(url: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin a download, which ends after README.md."""

    def download(api: Any, *arguments: Any, **options: Any) -> None:
        huggingface_hub.snapshot_download(*arguments, **options | {"allow_patterns": ["README.md"]})
        raise ConnectionError("cut off")

    with monkeypatch.context() as patched, pytest.raises(RemoteError, match="cut off"):
        patched.setattr(huggingface_hub.HfApi, "snapshot_download", download)
        pull(url, out)


@pytest.mark.parametrize("kind", ["dataset", "model"])
def test_an_interrupted_pull_is_continued_by_the_same_call_alone(
    hub: HubStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    there = hub.files[f"{kind}s/user/a"] = {"README.md": b"a", "only-a.txt": b"a"}
    hub.files[f"{kind}s/user/b"] = {"only-b.txt": b"b"}
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    interrupt("hf://user/a", out, monkeypatch)
    with pytest.raises(FolderError, match=r"out\.partial: is not of this download: remove it$"):
        pull("hf://user/b", out)
    requests = len(hub.requests)
    assert {file.name for file in pull("hf://user/a", out).iterdir()} == there.keys() and not partial.exists()
    assert not any(request.startswith("GET") and "README" in request for request in hub.requests[requests:])

    out = tmp_path / "newer"
    interrupt("hf://user/a", out, monkeypatch)
    there["new.txt"] = there.pop("README.md")
    hub.commits += 1
    assert {file.name for file in pull("hf://user/a", out).iterdir()} == there.keys()


def test_a_gated_dataset_is_told_and_no_model_of_its_name_is_taken(hub: HubStandIn, tmp_path: Path) -> None:
    hub.files["datasets/user/x"] = hub.files["models/user/x"] = {"README.md": b"x"}
    hub.gated.add("datasets/user/x")
    with pytest.raises(RemoteError, match=r"^hf://user/x: is gated: ask for access on its page on the Hub, and log in"):
        pull("hf://user/x", tmp_path / "out")
    assert list(tmp_path.glob("out*")) == []
    hub.gated.clear()
    for url, kind in [("hf://user/x", "dataset"), ("hf://models/user/x", "model")]:
        out = tmp_path / kind
        assert CliRunner().invoke(app, ["pull", url, "--out", str(out)]).stdout == f"{out}: the {kind} {url}\n"


@pytest.mark.slow
def test_what_the_hub_refuses_is_one_line(hub: HubStandIn, store: fv.Store, tmp_path: Path) -> None:
    hub.private.add("datasets/user/x")
    with pytest.raises(RemoteError, match=r"^hf://user/x: your token may not write there"):
        push(store, "hf://user/x")
    with pytest.raises(RemoteError, match=r"^hf://user/none: (your token|there is no such)"):
        pull("hf://user/none", tmp_path / "none")
    push(store, "hf://user/perlin")
    piece = store.pieces[0].path
    hub.files["datasets/user/perlin"][piece] = hub.files["datasets/user/perlin"][piece][:-1] + b"x"
    with pytest.raises(StoreError, match="hf://user/perlin: the store is damaged"):
        pull("hf://user/perlin", tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


@pytest.mark.slow
def test_a_user_shares_from_the_command_line(hub: HubStandIn, tmp_path: Path) -> None:
    # As a user does, with the variables that huggingface_hub documents.
    home = {
        "HF_HOME": str(tmp_path / "home"),
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": "hf_token",
    }

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "formulavision", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env={**os.environ, **home}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    assert f"{hub.url}/datasets/user/recipe" in run("push", "recipe.yaml", "hf://user/recipe")
    run("preview", "hf://user/recipe", "--out", "sheet.png")
    run("generate", "hf://user/recipe", "--out", "store")
    run("push", "store", "hf://user/store", "--private")
    assert "6 images" in run("verify", "hf://datasets/user/store")
    run("pull", "hf://user/store", "--out", "pulled")
    pulled = [file.relative_to(tmp_path / "pulled") for file in (tmp_path / "pulled").rglob("*.parquet")]
    assert pulled and all(
        (tmp_path / "store" / file).read_bytes() == (tmp_path / "pulled" / file).read_bytes() for file in pulled
    )
    assert (tmp_path / "sheet.png").stat().st_size > 0
