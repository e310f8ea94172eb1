"""Batches drawn where the model trains are those of the loaders, and so are the weights that training ends in."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from cases import slow
from comparing_runs import comparable, die_after, same
from safetensors.torch import load_file
from woven_images import woven

from formulavision import FormulaDataset
from formulavision.data import device_loading
from formulavision.data.device_loading import DrawnOnDevice, device_drawer, make_device_loader
from formulavision.data.labels import LabelSettings, Relabelled, relabel
from formulavision.data.loading import Prepared, make_loader, random_windows
from formulavision.generators.streams import random_stream
from formulavision.training import Run, data_module, pretrain
from formulavision.training.data_module import TrainingData, draws_on_device
from formulavision.training.module import LightningClassifier
from formulavision.training.settings import TrainSettings

CPU = torch.device("cpu")
TRAINING: dict[str, Any] = {"resize": 36, "crop": 32, "augment": True, "flip": True, "seed": 1, "fresh": True}
BATCHES: dict[str, Any] = {"batch_size": 16, "shuffle": True}


def drawn(source: Any, device: torch.device = CPU, **settings: Any) -> DrawnOnDevice:
    drawer = device_drawer(source, device)
    assert drawer is not None
    return DrawnOnDevice(source, drawer, **{**TRAINING, **settings})


def prepared(source: Any, **settings: Any) -> Prepared:
    return Prepared(source, cache=None, **{**TRAINING, **settings})


def both(source: Any, device: torch.device = CPU, **settings: Any) -> tuple[Any, Any]:
    """A loader that draws on the device, and one that does not."""
    return (
        make_device_loader(drawn(source, device, **settings), **BATCHES),
        make_loader(prepared(source, **settings), workers=0, pin=False, **BATCHES),
    )


def assert_same_batches(one: Any, other: Any) -> None:
    for (images, labels), (expected, expected_labels) in zip(one, other, strict=True):
        assert images.dtype == torch.uint8 and images.is_contiguous()
        # A GPU may round a pixel of a resized image to the next level.
        assert (images.cpu().int() - expected.int()).abs().max() <= (1 if images.is_cuda else 0)
        assert labels.dtype == expected_labels.dtype and torch.equal(labels.cpu(), expected_labels)


# Batches --------------------------------------------------------------------------------------------------------------


def test_windows_are_those_of_each_images_own_stream() -> None:
    keys = [(0, 0), (3, 7), (2**20, 2**40), (5, 1)]
    for key, window in zip(keys, random_windows(keys, 9, seed=2**31 - 1, flip=True).T.tolist(), strict=True):
        down, right, mirror = random_stream(2**31 - 1, 1, *key).random(3)
        assert window == [int(down * 10), int(right * 10), int(mirror < 0.5)]
    assert not random_windows(keys, 9, seed=1, flip=False)[2].any()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"fresh": False},
        {"flip": False},
        {"resize": 32},
        {"resize": 32, "flip": False},
        {"augment": False, "fresh": False},
        {"resize": 48},
        {"resize": 33, "crop": 20},
        {"vertical_flip": True, "repeats": 3},
    ],
    ids=str,
)
def test_batches_are_those_of_a_loader(channels: int, settings: dict[str, Any]) -> None:
    device, host = both(FormulaDataset(woven(channels=channels)), **settings)
    assert len(device) == len(host) == 3
    for device.batches.epoch in (0, 3):
        host.batches.epoch = device.batches.epoch
        assert_same_batches(device, host)


@pytest.mark.parametrize("start", [1, 2, 3])
def test_an_epoch_goes_on_at_any_batch(start: int) -> None:
    device, host = both(FormulaDataset(woven()))
    device.batches.start = host.batches.start = start
    assert_same_batches(device, host)
    device.batches.start = start  # used once
    assert len(list(device)) == 3 - start


def test_held_out_images_are_those_of_a_loader() -> None:
    device, host = both(FormulaDataset(woven()).held_out(5, fresh=True), augment=False, fresh=False)
    assert_same_batches(device, host)


@pytest.mark.parametrize(
    ("target", "objects", "categories", "fresh", "noise"),
    [
        ("semantic", [1, 4], 6, True, 0.5),
        *slow(("semantic", [1, 4], 300, False, None), ("labels", [1, 4], 6, False, 0.5)),
        ("class", 1, 6, True, None),
    ],
)
def test_batches_of_scenes_are_those_of_a_loader(
    device: torch.device, target: str, objects: Any, categories: int, fresh: bool, noise: float | None
) -> None:
    scene = {"objects": objects, "size": [0.3, 0.7], "min_visible": 60}
    recipe = {**woven(categories=categories).to_dict(), "scene": scene, "images": 8, "target": target}
    del recipe["instances"]
    source: Any = FormulaDataset(recipe)
    if noise is not None:
        source = relabel(source, LabelSettings(noise=noise))
    for size in ({"resize": 36}, {"resize": 24, "crop": 20}):
        one, host = both(source, device, fresh=fresh, **size)
        for one.batches.epoch in (0, 1):
            host.batches.epoch = one.batches.epoch
            assert_same_batches(one, host)


@pytest.mark.parametrize("fresh", [True, False])
def test_noisy_labels_are_those_of_a_loader(fresh: bool) -> None:
    source = FormulaDataset(woven())
    device, host = both(Relabelled(source, LabelSettings(noise=0.5)), fresh=fresh)
    assert_same_batches(device, host)
    plain = [labels for _, labels in both(source, fresh=fresh)[0]]
    assert not torch.equal(torch.cat(plain), torch.cat([labels for _, labels in device]))


def test_a_plain_loader_of_a_loader_has_the_images_in_their_order() -> None:
    device, host = both(FormulaDataset(woven()))
    assert_same_batches(device.central(10), host.central(10))
    assert torch.cat([labels for _, labels in device.central(10)]).tolist() == np.repeat(range(4), 12).tolist()


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_the_batches_of_one_process(ranks: int) -> None:
    source = FormulaDataset(woven(instances=13))
    whole = make_device_loader(drawn(source), **BATCHES)
    shares = [make_device_loader(drawn(source), **BATCHES, rank=rank, ranks=ranks) for rank in range(ranks)]
    for (images, labels), *parts in zip(whole, *shares, strict=True):
        for rank, (mine, my_labels) in enumerate(parts):
            assert torch.equal(mine, images[rank::ranks]) and torch.equal(my_labels, labels[rank::ranks])


def test_no_more_than_three_batches_are_alive() -> None:
    loader = make_device_loader(drawn(FormulaDataset(woven(size=8, instances=800)), resize=8, crop=8), **BATCHES)
    with counted() as (alive, numbers):
        for _batch in loader:
            assert len(alive) <= 3
    assert len(numbers) == 200


@contextlib.contextmanager
def counted() -> Iterator[tuple[weakref.WeakSet[torch.Tensor], list[int]]]:
    """The images of batches that somebody still refers to, and how many they were after each drawing."""
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    numbers: list[int] = []
    whole = DrawnOnDevice.__getitems__

    def noting(self: Any, keys: Any) -> Any:
        batch = whole(self, keys)
        alive.add(batch[0])
        numbers.append(len(alive))
        return batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DrawnOnDevice, "__getitems__", noting)
        yield alive, numbers


# Streams, as what they make sure of -----------------------------------------------------------------------------------


class Order:
    """What streams have to run before what, and what the host has waited for."""

    def __init__(self) -> None:
        self.before: dict[str, set[str]] = {}
        self.host: set[str] = set()
        self.waited: dict[str, set[str]] = {}
        self.stream = self.compute = FakeStream(self)

    def run(self, work: str) -> None:
        """Put work on the current stream."""
        self.before[work] = set(self.stream.past)
        self.waited[work] = set(self.host)
        self.stream.past.add(work)

    @contextlib.contextmanager
    def on(self, stream: FakeStream) -> Iterator[None]:
        before, self.stream = self.stream, stream
        yield
        self.stream = before


class FakeStream:
    def __init__(self, order: Order) -> None:
        self.order = order
        self.past: set[str] = set()

    def record_event(self) -> FakeEvent:
        return FakeEvent(self.order, set(self.past))

    def wait_event(self, event: FakeEvent) -> None:
        self.past |= event.past


class FakeEvent:
    def __init__(self, order: Order, past: set[str]) -> None:
        self.order = order
        self.past = past

    def synchronize(self) -> None:
        self.order.host |= self.past


def test_a_batch_is_drawn_while_the_one_before_it_is_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    order = Order()
    side = FakeStream(order)
    loader = make_device_loader(drawn(FormulaDataset(woven(instances=40))), **BATCHES)
    whole = DrawnOnDevice._cut
    drawings = iter(range(100))
    kept: list[Any] = []

    def drawing(*given: Any, **named: Any) -> Any:
        order.run(f"draw {next(drawings)}")
        return whole(*given, **named)

    monkeypatch.setattr(DrawnOnDevice, "_cut", drawing)
    monkeypatch.setattr(torch.cuda, "stream", order.on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: order.stream)
    monkeypatch.setattr(device_loading, "_side_stream", lambda device: side)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: kept.append(stream))
    expected = list(make_loader(prepared(loader.dataset.source), workers=0, pin=False, **BATCHES))
    with counted() as (alive, _):
        for step, (images, labels) in enumerate(loader._ahead()):
            order.run(f"step {step}")
            assert torch.equal(images, expected[step][0]) and torch.equal(labels, expected[step][1])
            assert len(alive) <= 3
    assert kept == [order.compute] * 2 * 10
    for k in range(10):
        assert f"draw {k}" in order.before[f"step {k}"]
        assert k < 2 or f"step {k - 2}" in order.before[f"draw {k}"]
        assert k < 2 or f"step {k - 2}" in order.waited[f"step {k}"]
        assert f"draw {k + 1}" not in order.before[f"step {k}"]
        assert k < 1 or f"step {k - 1}" not in order.before[f"draw {k}"]
        assert k < 1 or f"step {k - 1}" not in order.waited[f"step {k}"]
    loader.batches.start = len(loader)
    assert list(loader._ahead()) == []


# Where images are drawn -----------------------------------------------------------------------------------------------


def test_what_is_not_drawn_or_not_there_needs_loaders(stripes: Any) -> None:
    assert device_drawer(stripes(), CPU) is None
    assert device_drawer(FormulaDataset(woven(native=False)), CPU) is None
    assert device_drawer(Relabelled(stripes(), LabelSettings(noise=0.5)), CPU) is None
    assert device_drawer(FormulaDataset(woven()).held_out(2, fresh=True), CPU) is not None


def test_images_are_drawn_on_the_gpu_where_the_model_trains_unless_the_settings_say_otherwise() -> None:
    assert draws_on_device(TrainSettings(), torch.device("cuda"))
    assert not draws_on_device(TrainSettings(), CPU)
    assert not draws_on_device(TrainSettings(draw_on="cpu"), torch.device("cuda"))


def test_each_process_draws_its_share_on_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []
    monkeypatch.setattr(device_loading, "device_drawer", lambda dataset, device: asked.append(device))
    data = TrainingData(TrainSettings(crop=32, resize=36, batch_size=16, workers=0), FormulaDataset(woven()))
    strategy = SimpleNamespace(root_device=torch.device("cuda:2"))
    data.trainer = SimpleNamespace(strategy=strategy, global_rank=6, world_size=8, num_nodes=2)  # type: ignore[assignment]
    data.setup("fit")
    assert asked == [torch.device("cuda:2")]
    assert (data.train_loader.batches.rank, data.train_loader.batches.ranks) == (6, 8)


# Whole runs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw on the device also where it is the CPU."""
    monkeypatch.setattr(data_module, "draws_on_device", lambda settings, device: settings.draw_on == "auto")


def trained(out: Path, settings: dict[str, Any], *, data: Any = None, **arguments: Any) -> Run:
    return pretrain(data or woven(size=40), out=out, settings=settings, show_progress=False, **arguments)


@pytest.mark.parametrize("fresh", [True, False])
def test_a_run_ends_in_the_weights_of_one_with_loaders(
    small: Any, tmp_path: Path, on_device: None, fresh: bool
) -> None:
    settings = {**small, "held_out": 3, "fresh": fresh}
    device = trained(tmp_path / "device", settings)
    host = trained(tmp_path / "host", {**settings, "draw_on": "cpu", "workers": 0})
    assert same(device.folder, host.folder)
    assert comparable(device) == comparable(host)


@pytest.mark.slow
def test_a_run_keeps_no_batch(small: Any, tmp_path: Path, on_device: None) -> None:
    with counted() as (_, numbers):
        trained(tmp_path / "run", {**small, "held_out": 4, "batch_size": 4}, data=woven(instances=100))
    assert len(numbers) == 2 * (100 + 4) and max(numbers) <= 3


def test_a_run_says_where_its_images_are_drawn(
    stripes: Any, small: Any, tmp_path: Path, on_device: None, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {**small, "epochs": 1, "milestones": []}
    for name, data, given in (
        ("device", woven(), {}),
        ("host", woven(), {"draw_on": "cpu", "workers": 1}),
        ("read", stripes(), {}),
    ):
        pretrain(data, out=tmp_path / name, settings={**settings, **given})
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("images: ")]
    assert [line[8:].partition(";")[0] for line in lines] == ["drawn on cpu", "1 loader", "0 loaders"]
    drawn_on = [json.loads((tmp_path / run / "run.json").read_text())["drawn_on"] for run in ("device", "host", "read")]
    assert drawn_on == ["cpu", "cpu", None]


@pytest.mark.parametrize("steps", [[2, 2], *slow([1], [4])], ids=str)
def test_a_run_killed_after_any_step_resumes_exactly(
    small: Any, tmp_path: Path, on_device: None, steps: list[int]
) -> None:
    settings = {**small, "checkpoint_minutes": 0, "held_out": 2}
    whole = trained(tmp_path / "whole", settings)
    for i, step in enumerate(steps):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
            die_after(step, patch)
            trained(tmp_path / "run", settings, resume=i > 0)
    run = trained(tmp_path / "run", settings, resume=True)
    assert same(run.folder, whole.folder)
    assert comparable(run) == comparable(whole)


def test_a_run_begun_with_loaders_goes_on_without(small: Any, tmp_path: Path, on_device: None) -> None:
    settings = {**small, "checkpoint_minutes": 0}
    whole = trained(tmp_path / "whole", settings)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        die_after(2, patch)
        trained(tmp_path / "run", {**settings, "draw_on": "cpu"})
    assert same(trained(tmp_path / "run", settings, resume=True).folder, whole.folder)


def test_clusters_are_of_features_of_images_drawn_on_the_device(small: Any, tmp_path: Path, on_device: None) -> None:
    arguments = {"labels": {"clusters": 5}}
    device = trained(tmp_path / "device", small, **arguments)
    host = trained(tmp_path / "host", {**small, "draw_on": "cpu", "workers": 0}, **arguments)
    assert same(device.folder, host.folder)
    assert comparable(device) == comparable(host)


@pytest.mark.parametrize("when", ["preparing", "drawing"])
def test_where_drawing_on_the_device_fails_loaders_draw_and_the_run_says_so(
    small: Any, tmp_path: Path, on_device: None, capsys: pytest.CaptureFixture[str], when: str
) -> None:
    settings = {**small, "epochs": 1, "milestones": [], "workers": 0}
    pretrain(woven(size=40, broken=when), out=tmp_path / "run", settings=settings)
    output = " ".join(capsys.readouterr().out.split())
    what = "preparing to draw on cpu" if when == "preparing" else r"drawing category \d+, instance \d+ on cpu"
    assert re.search(rf"failed while {what}: ValueError: out of yarn \(.*\); loader processes draw instead", output)
    assert "0 loaders" in output
    assert comparable(Run.load(tmp_path / "run")) == comparable(
        trained(tmp_path / "whole", {**settings, "draw_on": "cpu"})
    )


def take_part(rank: int, folder: Path, port: int, settings: dict[str, Any]) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", GROUP_RANK="0",
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="test",
    )  # fmt: skip
    torch.set_num_threads(1)
    trained(folder, settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch does not train in a forked process where there is a GPU")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.slow
def test_two_processes_give_the_loss_of_one(small: Any, tmp_path: Path, on_device: None) -> None:
    settings = {**small, "learning_rate": 0.01, "held_out": 3}
    one = trained(tmp_path / "one", settings)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = (tmp_path / "two", port, settings)
    # Forked: they draw on the device as this process does.
    torch.multiprocessing.start_processes(take_part, arguments, nprocs=2, start_method="fork")
    a, b = (load_file(folder / "model.safetensors") for folder in (one.folder, tmp_path / "two"))
    assert all(torch.allclose(a[name], b[name], rtol=1e-3, atol=1e-4) for name in a)


# On a GPU -------------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
def test_on_a_gpu_no_batch_is_seen_before_it_is_drawn_or_after_it_is_given_back() -> None:
    source = FormulaDataset(woven(size=64, channels=3, instances=200))
    settings = {"resize": 64, "crop": 48}
    loader = make_device_loader(drawn(source, torch.device("cuda:0"), **settings), **BATCHES)
    assert len(loader) == 50
    seen = []
    for images, labels in loader:
        assert images.device == labels.device == torch.device("cuda:0")
        torch.cuda._sleep(20_000_000)  # of the stream that trains
        seen.append((images.clone(), labels.clone()))
        del images, labels
    host = make_loader(prepared(source, **settings), workers=0, pin=False, **BATCHES)
    assert_same_batches([(images.cpu(), labels.cpu()) for images, labels in seen], host)


@pytest.mark.gpu
def test_on_a_gpu_memory_does_not_grow() -> None:
    device = torch.device("cuda:0")
    source = FormulaDataset(woven(size=12, instances=10_000))
    loader = make_device_loader(drawn(source, device, resize=10, crop=8), batch_size=4, shuffle=True)
    assert len(loader) == 10_000
    total = torch.zeros((), device=device)
    for step, (images, _) in enumerate(loader):
        total += images.float().mean()
        if step == 100:
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated(), torch.cuda.max_memory_reserved()
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() <= before[0]
    assert torch.cuda.max_memory_reserved() == before[1]


@pytest.mark.gpu
def test_on_a_gpu_a_run_trains_on_the_tensors_that_were_drawn(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    handed_over: list[int] = []
    trained_on: list[int] = []
    whole, step = device_loading._handed_over, LightningClassifier.training_step

    def noting(batch: Any, *given: Any) -> Any:
        handed_over.append(batch[0].data_ptr())
        return whole(batch, *given)

    def watching(self: Any, batch: Any, number: int) -> Any:
        trained_on.append(batch[0].data_ptr())
        return step(self, batch, number)

    monkeypatch.setattr(device_loading, "_handed_over", noting)
    monkeypatch.setattr(LightningClassifier, "training_step", watching)
    settings = {**small, "device": "cuda", "epochs": 1, "milestones": []}
    pretrain(woven(), out=tmp_path / "run", settings=settings)
    assert "drawn on cuda" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "run.json").read_text())["drawn_on"] == "cuda"
    assert trained_on == handed_over and len(trained_on) == 3
