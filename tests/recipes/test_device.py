"""Drawing on a device: the pixels of the CPU, by the generator where it can, and whose fault it is where it fails.

The device is the CPU here: what is drawn there is plain torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from discs import Discs
from hypothesis import given, settings
from hypothesis import strategies as st

from formulavision import Category, ConfigError, Drawer, Generator, Recipe, register
from formulavision.generators.contract import DeviceRenderer
from formulavision.recipes.device import device_name, find_device
from formulavision.recipes.drawing import DeviceDrawer
from formulavision.util.errors import PluginError

CPU = torch.device("cpu")


@register
class CpuOnly(Generator):
    name = "device-test-cpu-only"

    def category(self, index: int) -> float:
        return 10.0 * index

    def render(self, category: Category, instance: int) -> np.ndarray:
        return np.full(self.canvas.shape, category.parameters[0, 0] + instance, np.uint8)


@register
class Sometimes(CpuOnly):
    """Draws on a device where it is told to."""

    name = "device-test-sometimes"
    renderer: DeviceRenderer | None = None

    def device_renderer(self, categories: Sequence[Category], device: torch.device) -> DeviceRenderer | None:
        return self.renderer


def recipe(generator: type[Generator] = Discs, **settings: object) -> Recipe:
    register(Discs)
    canvas = {"size": 24, "padding": 0}
    return Recipe.from_dict(
        {"generator": generator.name, "categories": 3, "instances": 9, "canvas": canvas, **settings}
    )


# Which device


@pytest.mark.parametrize("name", ["gpu", "tpu", "mps", "cuda:", "cuda:x", "cuda:-1", "cuda:01", "cpu:0", "CUDA", ""])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^device: '{name}' is not allowed: must be cpu or cuda"):
        find_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_a_machine_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=f"^device: '{name}' is not available on this machine: must be cpu$"):
        find_device(name)


def test_a_machine_with_two_gpus_has_no_third(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [find_device(name) for name in ("cpu", "cuda", "cuda:1")] == [
        CPU,
        torch.device("cuda"),
        torch.device("cuda", 1),
    ]
    with pytest.raises(ConfigError, match=r"^device: 'cuda:2' is not available on this machine: its last is cuda:1$"):
        find_device("cuda:2")


def test_the_cpu_has_a_name() -> None:
    assert device_name(CPU) == "cpu"


# Drawing there


@pytest.mark.parametrize("generator", [Discs, CpuOnly])
def test_instances_that_a_finite_set_lacks_are_refused(
    generator: type[Generator], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "max_instances", lambda self: 12)
    alone = Drawer(recipe(generator))
    parts = [{"generator": name, "categories": 2, "instances": 9} for name in ("bezier", generator.name)]
    beside_others = Drawer(Recipe.from_dict({"parts": parts, "canvas": {"size": 24, "padding": 0}}))
    told = f"instance 12: '{generator.name}' has 12 different images a category here"
    for drawer in (alone, DeviceDrawer(alone, CPU), beside_others, DeviceDrawer(beside_others, CPU)):
        assert len(drawer.draw_instances(np.array([2, 2]), np.array([11, 0]))) == 2
        with pytest.raises(IndexError, match=told):
            drawer.draw_instances(np.array([1, 2, 2]), np.array([3, 12, 40]))
        with pytest.raises(IndexError, match="instance -1: instances count from 0"):
            drawer.draw_instances(np.array([2, 1]), np.array([0, -1]))
    assert len(beside_others.draw_instances(np.array([1, 2]), np.array([40, 11]))) == 2


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("generator", [Discs, CpuOnly])
def test_the_pixels_are_those_of_the_cpu(generator: type[Generator], channels: int) -> None:
    drawer = Drawer(recipe(generator, canvas={"size": 24, "channels": channels}))
    on_device = DeviceDrawer(drawer, CPU)
    labels, instances = np.array([2, 0, 2, 1]), np.array([3, 8, 0, 1234])
    drawn = on_device.draw_instances(labels, instances)
    on_device.wait()
    assert on_device.native == (generator is Discs)
    assert (drawn.dtype, tuple(drawn.shape), drawn.device) == (torch.uint8, (4, 24, 24, channels), CPU)
    assert np.array_equal(drawn.numpy(), drawer.draw_instances(labels, instances))


@pytest.mark.parametrize("generator", [Discs, CpuOnly])
def test_no_images_are_drawn_as_well(generator: type[Generator]) -> None:
    nothing = np.array([], np.int64)
    drawn = DeviceDrawer(Drawer(recipe(generator)), CPU).draw_instances(nothing, nothing)
    assert (drawn.dtype, tuple(drawn.shape)) == (torch.uint8, (0, 24, 24, 1))


def test_the_generator_meets_a_batch_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def draw(labels: np.ndarray, instances: np.ndarray, out: torch.Tensor) -> None:
        seen.append((labels.tolist(), instances.tolist(), tuple(out.shape), out.dtype, out.is_contiguous()))
        out.fill_(7)

    monkeypatch.setattr(Sometimes, "renderer", staticmethod(draw))
    drawn = DeviceDrawer(Drawer(recipe(Sometimes)), CPU).draw_instances(np.array([1, 0, 1]), np.array([5, 4, 3]))
    assert seen == [([1, 0, 1], [5, 4, 3], (3, 24, 24, 1), torch.uint8, True)]
    assert bool((drawn == 7).all())


@pytest.mark.parametrize("when", ["preparing to draw", "drawing"])
def test_a_generator_that_fails_there_is_named(monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("no such picture")

    patched = {"preparing to draw": "device_renderer", "drawing": "renderer"}[when]
    monkeypatch.setattr(Sometimes, patched, staticmethod(fail))
    with pytest.raises(PluginError, match=rf"'{Sometimes.name}' .* failed while {when}.* on cpu: ZeroDiv"):
        DeviceDrawer(Drawer(recipe(Sometimes)), CPU).draw_instances(np.array([0]), np.array([0]))


# Drawers


@pytest.mark.usefixtures("cuda_is_the_cpu")
def test_a_drawer_brings_images_to_the_cpu_and_into_given_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = Drawer(recipe()).draw_batch(range(26, -1, -1))
    drawer = Drawer(recipe(), device="cuda")
    monkeypatch.setattr(Discs, "render", None)
    memory = np.full((30, 24, 24, 1), 99, np.uint8)
    drawn, seen = drawer.draw_batch(range(26, -1, -1), memory[:27])
    assert np.shares_memory(drawn, memory)
    assert np.array_equal(drawn, images)
    assert np.array_equal(seen, labels)
    assert (memory[27:] == 99).all()
    assert np.array_equal(drawer.draw(5)[0], images[21])


@pytest.mark.usefixtures("cuda_is_the_cpu")
@pytest.mark.parametrize(
    ("generator", "told"),
    [
        (CpuOnly, [f"{CpuOnly.name} draws on the CPU only"]),
        (Sometimes, [f"{Sometimes.name} draws on the CPU only with these settings"]),
        (Discs, []),
    ],
)
def test_where_the_generator_cannot_draw_the_cpu_does_and_it_is_told(
    generator: type[Generator], told: list[str]
) -> None:
    notes: list[str] = []
    drawer = Drawer(recipe(generator), device="cuda", note=notes.append)
    assert notes == told
    assert (drawer.device_drawer is None) == bool(told)
    assert np.array_equal(drawer.draw(10)[0], Drawer(recipe(generator)).draw(10)[0])


def test_an_absent_device_is_refused_before_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(Discs, "categories", None)
    with pytest.raises(ConfigError, match="device: 'cuda' is not available"):
        Drawer(recipe(), device="cuda")


# Random numbers


@settings(max_examples=50)
@given(st.data(), st.integers(0, 2**63 - 1), st.lists(st.integers(0, 9), max_size=5))
def test_uniforms_are_the_first_numbers_of_each_stream(data: st.DataObject, seed: int, counts: list[int]) -> None:
    numbers = st.lists(st.integers(0, 2**40), min_size=len(counts), max_size=len(counts))
    categories, instances = (np.array(data.draw(numbers), np.int64) for _ in range(2))
    generator = recipe(seed=seed).build()
    streams = [
        generator.random(Category(int(category), "", np.zeros((1, 1))), int(instance)).random(count)
        for category, instance, count in zip(categories, instances, counts, strict=True)
    ]
    assert np.array_equal(generator.uniforms(categories, instances, counts), np.concatenate([*streams, []]))


def test_uniforms_take_one_count_for_all() -> None:
    generator = recipe().build()
    drawn = generator.uniforms(np.array([4, 1]), np.array([0, 7]), 6)
    assert np.array_equal(drawn, generator.uniforms(np.array([4, 1]), np.array([0, 7]), [6, 6]))
