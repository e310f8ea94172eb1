"""The checks of a generator, one after the other."""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from formulavision.generators.contract import Category, Generator
from formulavision.generators.failures import ask_for_names, ask_for_number, blamed
from formulavision.generators.new_process import GeneratorUnknownThereError, run_in_new_process
from formulavision.recipes.device import current_device
from formulavision.recipes.impurity import AFTER_OTHERS, EACH_TIME, impurity
from formulavision.recipes.parts import GeneratorSettings
from formulavision.recipes.recipe import Recipe
from formulavision.testing import places
from formulavision.testing.digests import compare_digests
from formulavision.testing.ends import Ends, ends_of
from formulavision.testing.subject import CANVASES, Image, Subject, registered
from formulavision.util.config import parse, parse_yaml
from formulavision.util.errors import ConfigError, FormulaVisionError, PluginError

__all__ = ["TITLES", "Check", "check_generator", "run_checks"]

_HERE_ONLY = "no other process can import the generator: put it into a module"


@dataclass
class Check:
    """A check of a generator, and its result.

    Attributes:
        title: the statement that is checked.
        problems: lines that say what is wrong, why, and where.
        notes: lines that say what was not checked, and why.
        skipped: whether nothing was checked.
    """

    title: str
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: bool = False


def check_generator(
    generator: str | type[Generator],
    *,
    params: Mapping[str, Any] | None = None,
    digests: str | PathLike[str] | None = None,
    limit_s: float = 10,
) -> list[str]:
    """Check whether a generator keeps the contract. In a test: ``assert check_generator("rings") == []``.

    Args:
        generator: its name or its class.
        params: parameters that differ from their defaults. Few points or lines make the checks faster.
        digests: the file of digests in the plugin's tests, to compare images with.
        limit_s: longest time to draw with a parameter at an end of its range, in seconds.

    Returns:
        Problems, one line each: the check, what is wrong, the likely cause, and file and line of the generator's code
        where they are known. An empty list if there is none.

    Raises:
        PluginError: there is no generator of this name, or the class cannot be registered.
        ConfigError: the generator refuses the parameters.
    """
    checks = run_checks(generator, params=params, digests=digests, limit_s=limit_s)
    return [f"{check.title}: {problem}" for check in checks for problem in check.problems]


def run_checks(
    generator: str | type[Generator],
    *,
    params: Mapping[str, Any] | None = None,
    digests: str | PathLike[str] | None = None,
    limit_s: float = 10,
    progress: Callable[[str, int, int], None] = lambda title, done, total: None,
) -> Iterator[Check]:
    """The checks of :func:`check_generator`, each when it is done.

    Args:
        progress: called with a check's title, and how many of its steps are done of how many.
    """
    with registered(generator) as found:
        subject = Subject(found.name, dict(params or {}))
        parse(GeneratorSettings, {"name": subject.name, **subject.params}, "generator")
        checker = _Checker(subject, None if digests is None else Path(digests), limit_s)
        for title, run in _CHECKS.items():
            check = Check(title)
            checker.progress = partial(progress, title)
            checker.progress(0, 1)
            try:
                check.problems += run(checker, check.notes)
            except _SkippedError as reason:
                check.skipped = True
                check.notes.append(str(reason))
            except PluginError as error:
                check.problems.append(str(error))
            check.problems = list(dict.fromkeys(check.problems))
            yield check


class _SkippedError(Exception):
    """Nothing can be checked; the message says why."""


@dataclass
class _Drawn:
    """Images that were drawn on a canvas, all instances of a category in one batch.

    Attributes:
        images: by (category, instance).
        scenes: the generator's own, by their numbers: image, object map and categories as bytes.
    """

    recipe: Recipe
    categories: list[Category]
    instances: list[int]
    images: dict[tuple[int, int], Image] = field(default_factory=dict)
    scenes: dict[int, bytes] = field(default_factory=dict)


@dataclass
class _Checker:
    subject: Subject
    digests: Path | None
    limit_s: float
    drawn: dict[str, _Drawn] = field(default_factory=dict)
    """By the name of the canvas."""
    impure: bool = False
    progress: Callable[[int, int], None] = lambda done, total: None

    @property
    def generator(self) -> type[Generator]:
        return self.subject.generator

    def some(self, count: int = 2) -> list[_Drawn]:
        """What was drawn on the first canvases."""
        if not self.drawn:
            raise _SkippedError("nothing could be drawn")
        return list(self.drawn.values())[:count]

    # The checks: each yields problems, and adds to notes

    def images(self, notes: list[str]) -> Iterator[str]:
        if not (self.subject.draws_images or self.subject.has_scenes):
            place = places.line_of_method(self.generator)
            raise PluginError(f"it implements neither render() nor render_batch(), nor scene(){place}")
        for number, (name, canvas) in enumerate(CANVASES.items()):
            self.progress(number, len(CANVASES))
            try:
                recipe = self.subject.recipe(canvas)
            except ConfigError as error:
                notes.append(f"not in {name}: {error}")
                continue
            try:
                with warnings.catch_warnings(record=True) as warned, np.errstate(invalid="warn"):
                    warnings.simplefilter("always")
                    self.drawn[name] = self._draw(recipe)
            except PluginError as error:
                place = (
                    "" if ", line " in str(error) else places.line_of_method(self.generator, "render", "render_batch")
                )
                yield f"{name}: {error}{place}"
                continue
            for warning in warned:
                if "in cast" in str(warning.message):
                    yield (
                        f"{name}: a number is NaN or too large for a pixel: {warning.message} ({warning.filename}, "
                        f"line {warning.lineno})"
                    )
            values = [image[..., : recipe.canvas.channels] for image in self.drawn[name].images.values()]
            if values and max(image.max() for image in values) == 1:
                place = places.line_of_method(self.generator, "render", "render_batch")
                yield f"{name}: all values are 0 or 1: pixels are from 0 to 255{place}"
        if not self.drawn and len(notes) == len(CANVASES):
            yield f"the generator refuses all canvases that were tried: {notes[0]}"

    def _draw(self, recipe: Recipe) -> _Drawn:
        subject = self.subject
        drawn = _Drawn(recipe, subject.categories(recipe), [])
        if subject.draws_images:
            drawn.instances, generator = subject.instances(recipe), subject.build(recipe, drawn.categories)
            for c, category in enumerate(drawn.categories):
                batch = subject.draw(generator, category, drawn.instances)
                drawn.images |= {(c, i): image for i, image in zip(drawn.instances, batch, strict=True)}
        if subject.has_scenes:
            most = ask_for_number(recipe.build(), "max_scenes") or 2**33
            numbers = dict.fromkeys([*range(min(3, most)), most - 1])
            drawn.scenes = {number: self._scene(drawn, [number]) for number in numbers}
        return drawn

    def _scene(self, drawn: _Drawn, numbers: Iterable[int]) -> bytes:
        """The last of the scenes, drawn one after the other by a new generator."""
        generator = self.subject.build(drawn.recipe, drawn.categories)
        scenes = [self.subject.draw_scene(generator, drawn.categories, number) for number in numbers]
        return b"".join(array.tobytes() for array in scenes[-1])

    def recipe(self, notes: list[str]) -> Iterator[str]:
        for drawn in self.some(1):
            recipe = drawn.recipe
            try:
                read = Recipe.from_dict(parse_yaml(recipe.to_yaml()))
            except ConfigError as error:
                yield f"the recipe is refused when it is read again: {error}{self._line_of_params()}"
            else:
                params = (one.all_parts[0].generator.params.model_dump() for one in (read, recipe))
                if read.id != recipe.id or next(params) != next(params):
                    yield f"the recipe changes when it is written and read again{self._line_of_params()}"
            if self.subject.draws_images:
                most = ask_for_number(recipe.build(), "max_instances") or 1000
                ask_for_names(recipe.build(), min(most, 1000))

    def _line_of_params(self) -> str:
        return places.line_of_method(self.generator, "Params") or places.line_with(self.generator, "Params")

    def categories(self, notes: list[str]) -> Iterator[str]:
        generator, place = self.generator, places.line_of_method(self.generator, "category", "categories")
        for drawn in self.some(len(CANVASES)):
            expected = [category.parameters for category in drawn.categories]
            first = self.some(1)[0].categories
            if not _same_tables(expected, [category.parameters for category in first]):
                yield (
                    "categories depend on the canvas: they must follow from the seed and the index alone"
                    f"{places.line_with(generator, 'canvas') or place}"
                )
            for count in range(1, len(expected)):
                found = [category.parameters for category in self.subject.categories(drawn.recipe, count)]
                if not _same_tables(found, expected[:count]):
                    yield f"the first {count} of {len(expected)} categories differ from {count} categories{place}"
                    break
            again = [category.parameters for category in self.subject.categories(drawn.recipe)]
            if not _same_tables(again, expected):
                yield f"categories are found otherwise each time{self._line_of_a_change(drawn) or place}"
            built = drawn.recipe.build()
            if built.categories_are_independent() and generator.category is not Generator.category:
                with blamed(generator.name, "while finding categories from the last to the first"):
                    found = [np.atleast_2d(np.array(built.category(i))) for i in reversed(range(len(expected)))]
                if not _same_tables(found[::-1], expected):
                    yield f"a category depends on those that were found before it{place}"

    def same(self, notes: list[str]) -> Iterator[str]:
        drawings = self.some(len(CANVASES))
        for number, drawn in enumerate(drawings):
            self.progress(number, len(drawings))
            yield from self._different_images(drawn)
            yield from self._different_among_fewer(drawn)
            yield from self._different_scenes(drawn)

    def _different_images(self, drawn: _Drawn) -> Iterator[str]:
        pairs = list(drawn.images)
        generator, alone = (self.subject.build(drawn.recipe, drawn.categories) for _ in range(2))
        seen: dict[tuple[int, int], list[Image]] = {pair: [] for pair in pairs}
        for c, category in reversed(list(enumerate(drawn.categories))):
            for batch in (drawn.instances[::-1], drawn.instances[1:3], drawn.instances, [*drawn.instances[:2]] * 2):
                for i, image in zip(batch, self.subject.draw(generator, category, batch) if batch else (), strict=True):
                    seen[c, i].append(image)
        for c, i in np.random.Generator(np.random.PCG64(0)).permutation(pairs).tolist():
            seen[c, i].append(self.subject.draw(alone, drawn.categories[c], [i])[0])
        for index, (pair, images) in enumerate(seen.items()):
            if any(not np.array_equal(image, drawn.images[pair]) for image in images):

                def draw(numbers: Iterable[int]) -> bytes:
                    some = (pairs[number] for number in numbers)
                    return self.subject.draw_one_by_one(drawn.recipe, drawn.categories, some).tobytes()

                yield self._explain(drawn, _name(*pair), draw, index, len(pairs))
                return

    def _different_among_fewer(self, drawn: _Drawn) -> Iterator[str]:
        if self.generator.before_drawing is Generator.before_drawing:
            return
        for (c, i), image in drawn.images.items():
            few = self.subject.build(drawn.recipe, drawn.categories[: c + 1])
            if not np.array_equal(self.subject.draw(few, drawn.categories[c], [i])[0], image):
                place = places.line_of_method(self.generator, "before_drawing")
                yield f"{_name(c, i)}: it depends on the categories behind its own, not on those before it alone{place}"
                return

    def _different_scenes(self, drawn: _Drawn) -> Iterator[str]:
        numbers = list(drawn.scenes)
        for index, number in enumerate(numbers):
            again = (self._scene(drawn, [*before, number]) for before in ([], [*numbers, number]))
            if any(scene != drawn.scenes[number] for scene in again):

                def draw(some: Iterable[int]) -> bytes:
                    return self._scene(drawn, [numbers[place] for place in some])

                yield self._explain(drawn, f"scene {number}", draw, index, len(numbers))
                return

    def _explain(
        self, drawn: _Drawn, where: str, draw: Callable[[Iterable[int]], bytes], index: int, count: int
    ) -> str:
        """A line about an image that is not always the same."""
        self.impure = True
        cause, _ = impurity(draw, index, [i for i in range(count) if i != index], bytes.__ne__)
        if cause == EACH_TIME:
            return f"{where}: {cause}{self._line_of_chance(drawn) or self._line_of_a_change(drawn)}"
        if cause == AFTER_OTHERS:
            return f"{where}: {cause}{self._line_of_a_change(drawn)}"
        place = places.line_of_method(self.generator, "render_batch", "render", "scene")
        return f"{where}: it differs in a batch: an image must not depend on the others of its batch{place}"

    def _line_of_chance(self, drawn: _Drawn) -> str:
        """Where a clock is read or a global random number is drawn."""
        work = partial(self._draw, drawn.recipe)
        clocks = places.clock_reads(self.generator, work)
        return next(iter(clocks.values()), "") or places.line_of_global_random_numbers(self.generator, work)

    def _line_of_a_change(self, drawn: _Drawn) -> str:
        """Where something is kept that may change later images."""
        generator, categories = self.subject.build(drawn.recipe, drawn.categories), drawn.categories
        self._use(generator, categories[:1], 0)
        state = partial(places.state_of, generator)
        return places.line_that_changes(self.generator, state, partial(self._use, generator, categories, 1))

    def _use(self, generator: Generator, categories: list[Category], number: int) -> None:
        if self.subject.draws_images:
            for category in categories:
                self.subject.draw(generator, category, [number])
        if self.subject.has_scenes:
            self.subject.draw_scene(generator, categories, number)

    def process(self, notes: list[str]) -> Iterator[str]:
        drawings = self.some(len(CANVASES))
        if self.impure:
            raise _SkippedError("images differ in this process already")
        work = _Elsewhere(
            self.subject, [(drawn.recipe.to_dict(), drawn.instances, list(drawn.scenes)) for drawn in drawings]
        )
        expected = [digest for drawn in drawings for digest in _digests(drawn)]
        with tempfile.TemporaryDirectory() as folder:
            try:
                for done, (digest, wanted) in enumerate(
                    zip(run_in_new_process([self.generator], work, folder=Path(folder)), expected, strict=True)
                ):
                    self.progress(done, len(expected))
                    if digest != wanted:
                        place = places.line_with(
                            self.generator, "hash", "id", "environ", "getenv", "getpid", "gethostname", "getcwd", "cwd"
                        )
                        yield (
                            f"{wanted[0]}: it differs in another process: by hash() of a text, id(), the order of a "
                            "set, the environment, or a file in the working folder"
                            f"{place or places.line_of_method(self.generator, 'render', 'render_batch', 'scene')}"
                        )
                        return
            except GeneratorUnknownThereError:
                raise _SkippedError(_HERE_ONLY) from None

    def chance(self, notes: list[str]) -> Iterator[str]:
        for drawn in self.some(1):
            work = partial(self._draw, drawn.recipe)
            work()  # what is imported or compiled now is not the generator's own
            for function, place in places.clock_reads(self.generator, work).items():
                yield f"{function}() is called: images follow from the recipe and their index alone{place}"
            with places.other_random_numbers():
                before = places.global_random_state()
                work()
                changed = places.global_random_state() != before
            if changed:
                place = places.line_of_global_random_numbers(self.generator, work)
                yield (
                    "global random numbers are drawn: use self.random(category, instance) and self.stream(index)"
                    f"{place}"
                )

    def arguments(self, notes: list[str]) -> Iterator[str]:
        self.some()
        yield from self.subject.misdeeds.values()

    def differ(self, notes: list[str]) -> Iterator[str]:
        for drawn in self.some(1):
            place = places.line_of_method(self.generator, "render", "render_batch", "scene")
            for c in range(len(drawn.categories)):
                own = [drawn.images[c, i].tobytes() for i in drawn.instances]
                if len(set(own)) <= len(own) * 3 // 4 and len(own) > 1:
                    yield (
                        f"category {c}: {len(set(own))} of {len(own)} instances differ: draw random numbers from "
                        f"self.random(category, instance){place}"
                    )
            if len(drawn.scenes) > 1 and len(set(drawn.scenes.values())) == 1:
                scene = places.line_of_method(self.generator, "scene")
                yield f"all scenes are the same: draw random numbers from self.stream(index, ...){scene}"
            for c in range(1, len(drawn.categories)):
                before, category = drawn.categories[c - 1], drawn.categories[c]
                if _same_tables([before.parameters], [category.parameters]):
                    found = places.line_of_method(self.generator, "category", "categories")
                    yield (
                        f"categories {c - 1} and {c} have the same parameters: draw random numbers from "
                        f"self.stream(index){found}"
                    )
                elif drawn.instances and all(
                    np.array_equal(drawn.images[c - 1, i], drawn.images[c, i]) for i in drawn.instances
                ):
                    yield f"categories {c - 1} and {c} have the same images: use category.parameters{place}"
            if drawn.images and len(drawn.categories) > 1 and self._parameters_change_nothing(drawn):
                yield f"images stay the same with the parameters of another category: use category.parameters{place}"
            if self._seed_changes_nothing(drawn):
                told = "the recipe's seed changes nothing"
                if self.subject.params:  # as of some published sets
                    notes.append(told)
                else:
                    yield f"{told}: draw random numbers from self.stream and self.random{place}"

    def _parameters_change_nothing(self, drawn: _Drawn) -> bool:
        """Whether categories with the parameters of the next one have their own images, drawn by the same numbers."""
        generator = self.subject.build(drawn.recipe, drawn.categories)
        for c, (own, other) in enumerate(pairwise(drawn.categories)):
            try:
                exchanged = Category(own.index, own.name, other.parameters)
                images = self.subject.draw(generator, exchanged, drawn.instances)
            except FormulaVisionError:  # a published set knows its own categories only
                return False
            pairs = zip(images, drawn.instances, strict=True)
            if not all(np.array_equal(image, drawn.images[c, i]) for image, i in pairs):
                return False
        return True

    def _seed_changes_nothing(self, drawn: _Drawn) -> bool:
        other = self._draw(Recipe.from_dict({**drawn.recipe.to_dict(), "seed": drawn.recipe.seed + 1}))
        tables = [[category.parameters for category in each.categories] for each in (drawn, other)]
        images = all(np.array_equal(image, other.images[pair]) for pair, image in drawn.images.items())
        return images and drawn.scenes == other.scenes and _same_tables(*tables)

    def objects(self, notes: list[str]) -> Iterator[str]:
        place = places.line_of_method(self.generator, "render", "render_batch", "scene")
        if not self.subject.draws_images:
            raise _SkippedError("the generator has scenes of its own only")
        covered, empty, masked = [], [], self.generator.draws_masks
        for drawn in self.some():
            background, channels = drawn.recipe.build().background, drawn.recipe.canvas.channels
            for pair, image in drawn.images.items():
                mask = image[..., -1] != 0 if masked else np.any(image[..., :channels] != background, axis=-1)
                covered.append(mask.all())
                empty += [] if mask.any() else [_name(*pair)]
        if empty:
            why = "the mask is empty" if masked else f"all pixels have the background's value, {background}"
            yield f"{empty[0]} and {len(empty) - 1} other images: {why}{place}"
        if all(covered) and not self.generator.fills_canvas:
            what = (
                "every mask is the whole image: a mask is of the object's own pixels"
                if masked
                else "no image has a pixel of the background's value: set 'background' to its gray level"
            )
            yield f"{what}, or fills_canvas = True where there is no background{place}"

    def scenes(self, notes: list[str]) -> Iterator[str]:
        if not self.subject.has_scenes:
            raise _SkippedError("the generator has no scenes of its own")
        for drawn in self.some():
            generator = self.subject.build(drawn.recipe, drawn.categories)
            scenes = [self.subject.draw_scene(generator, drawn.categories, number) for number in drawn.scenes]
            if not any(scene.object_map.any() for scene in scenes):
                yield f"no object is in the object maps{places.line_of_method(self.generator, 'scene')}"

    def device(self, notes: list[str]) -> Iterator[str]:
        generator = self.generator
        if (generator.device_renderer, generator.device_scenes) == (Generator.device_renderer, Generator.device_scenes):
            raise _SkippedError("the generator draws on the CPU only")
        import torch

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        drawings = self.some()
        native = 0
        for number, drawn in enumerate(drawings):
            self.progress(number, len(drawings))
            with np.errstate(all="ignore"), current_device(device):  # Triton's interpreter computes with numpy
                for what, found, expected in _draw_on(device, self.subject, drawn):
                    native += 1
                    if found != expected:
                        place = places.line_of_method(generator, "device_renderer", "device_scenes")
                        yield f"{what}: it differs on {device.type} from the CPU{place}"
                        break
        if not native:
            raise _SkippedError(
                "there is no GPU here, and kernels in Triton need one, or TRITON_INTERPRET=1 in the environment"
                if device.type == "cpu"
                else "the generator draws these settings on the CPU"
            )
        notes.append(f"drawn on {device.type}")

    def ends(self, notes: list[str]) -> Iterator[str]:
        self.some()
        values = list(ends_of(self.generator.Params))
        notes += [f"{name} has no limit" for name, value in values if value is None]
        waiting = [(name, value) for name, value in values if value is not None]
        total = len(waiting)
        while waiting:
            results = run_in_new_process([self.generator], Ends(self.subject, waiting), limit_s=self.limit_s)
            try:
                next(results)  # it has begun
            except GeneratorUnknownThereError:
                raise _SkippedError(_HERE_ONLY) from None
            try:
                for problem, refused in results:
                    (name, value), waiting = waiting[0], waiting[1:]
                    self.progress(total - len(waiting), total)
                    if problem:
                        yield f"{name}={value}: {problem}"
                    if refused:
                        notes.append(f"not drawn: {name}={value}: {refused}")
            except TimeoutError:
                notes.append(f"not drawn: {waiting[0][0]}={waiting[0][1]}: takes over {self.limit_s:g} s")
                waiting = waiting[1:]
            except PluginError as error:
                yield f"{waiting[0][0]}={waiting[0][1]}: {error}"
                waiting = waiting[1:]

    def version(self, notes: list[str]) -> Iterator[str]:
        if self.digests is None:
            raise _SkippedError("no file of digests is given")
        self.some()
        yield from compare_digests(self.subject, self.digests)


_CHECKS: dict[str, Callable[[_Checker, list[str]], Iterable[str]]] = {
    "images are uint8 of the canvas, in gray, in colour and of odd sizes": _Checker.images,
    "the recipe is read as it was written, and instances have names": _Checker.recipe,
    "the first k of N categories are the same, in any order and on any canvas": _Checker.categories,
    "an image is the same twice, alone, in a batch and in any order": _Checker.same,
    "no clock and no global random numbers are used": _Checker.chance,
    "arguments stay as they are, and nothing is written outside of images": _Checker.arguments,
    "instances differ, and categories differ": _Checker.differ,
    "every image has an object, and masks are right": _Checker.objects,
    "scenes of its own have objects": _Checker.scenes,
    "a device draws what the CPU draws": _Checker.device,
    "an image is the same in another process": _Checker.process,
    "every parameter can be drawn at the ends of its range": _Checker.ends,
    "the version is raised when pixels change": _Checker.version,
}
"""By the statement that is checked. Later checks need what the first one drew."""
TITLES = tuple(_CHECKS)


# Helpers -------------------------------------------------------------------------------------------------------------


@dataclass
class _Elsewhere:
    """Draws the same in another process: images alone, from the last to the first."""

    subject: Subject
    canvases: list[tuple[dict[str, Any], list[int], list[int]]]

    def run(self) -> Iterator[list[str]]:
        for data, instances, scenes in self.canvases:
            recipe = Recipe.from_dict(data)
            drawn = _Drawn(recipe, self.subject.categories(recipe), instances)
            generator = self.subject.build(recipe, drawn.categories)
            for c, category in reversed(list(enumerate(drawn.categories))):
                for i in instances[::-1]:
                    drawn.images[c, i] = self.subject.draw(generator, category, [i])[0]
            for number in scenes:
                scene = self.subject.draw_scene(generator, drawn.categories, number)
                drawn.scenes[number] = b"".join(array.tobytes() for array in scene)
            yield from _digests(drawn)


def _digests(drawn: _Drawn) -> Iterator[list[str]]:
    """What is drawn, and its digest: each category, image and scene."""

    def digest(content: bytes) -> str:
        return hashlib.sha256(content).hexdigest()

    yield from ([f"category {c.index}", digest(c.parameters.tobytes())] for c in drawn.categories)
    yield from ([_name(c, i), digest(image.tobytes())] for (c, i), image in sorted(drawn.images.items()))
    yield from ([f"scene {number}", digest(scene)] for number, scene in drawn.scenes.items())


def _draw_on(device: Any, subject: Subject, drawn: _Drawn) -> Iterator[tuple[str, bytes, bytes]]:
    """What is drawn, from a device and from the CPU."""
    import torch

    generator = subject.build(drawn.recipe, drawn.categories)
    shape = drawn.recipe.canvas.shape
    pairs = list(drawn.images)[:: max(1, len(drawn.images) // 6)]
    name = generator.name
    renderer: Any = None
    if pairs:
        with blamed(name, f"while preparing to draw on {device}"):
            renderer = generator.device_renderer(drawn.categories, device)
    for batch, content in [(pairs, 255), (pairs[::-1], 0), (pairs[1:2], 99)] if renderer is not None else ():
        labels, instances = np.array(batch, np.int64).reshape(-1, 2).T.copy()
        out = torch.full((len(batch), *shape), content, dtype=torch.uint8, device=device)
        masks = torch.zeros(out.shape[:3], dtype=torch.uint8, device=device)
        with blamed(name, f"while drawing on {device}"):
            renderer(labels, instances, out, *((masks,) if generator.draws_masks else ()))
        images = torch.cat([out, masks[..., None]], dim=-1) if generator.draws_masks else out
        for (c, i), image in zip(batch, images.cpu().numpy(), strict=True):
            yield _name(c, i), image.tobytes(), drawn.images[c, i].tobytes()
    scenes: Any = None
    if drawn.scenes:
        with blamed(name, f"while preparing to draw on {device}"):
            scenes = generator.device_scenes(drawn.categories, device)
    if scenes is not None:
        numbers = np.array(list(drawn.scenes), np.int64)
        images = torch.full((len(numbers), *shape), 99, dtype=torch.uint8, device=device)
        maps = torch.full(images.shape[:3], 99, dtype=torch.int32, device=device)
        with blamed(name, f"while drawing scenes on {device}"):
            labels = scenes(numbers, images, maps)
        for number, image, object_map, own in zip(numbers.tolist(), images, maps, labels, strict=True):
            arrays = (image.cpu().numpy(), object_map.cpu().numpy().astype(np.uint16), np.asarray(own, np.int64))
            yield f"scene {number}", b"".join(array.tobytes() for array in arrays), drawn.scenes[number]


def _name(category: int, instance: int) -> str:
    return f"category {category}, instance {instance}"


def _same_tables(some: list[Any], others: list[Any]) -> bool:
    return len(some) == len(others) and all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))
