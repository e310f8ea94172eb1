"""Generators that break the contract, each in one way, beside those of ``wayward``. The checks of generators find them.

A line that is at fault ends in ``# here``.
"""

import datetime
import os
import random
import secrets
import sys
import time
import zlib
from pathlib import Path

import numpy as np
from pydantic import Field

from formulavision import ConfigError, Generator, Params, Scene

FAULTS: dict[type[Generator], tuple[str, str]] = {}
"""By class: the words of the check that must fail, and words of the cause."""


def fault(check, cause):
    def add(generator):
        generator.name = generator.__name__.lower()
        FAULTS[generator] = (check, cause)
        return generator

    return add


class SquareParams(Params):
    side: float = Field(0.3, ge=0.1, le=0.5, description="side of the square")


class Squares(Generator):
    """A square at a random place, which keeps the contract: categories differ in its side and gray level."""

    name = "squares"
    Params = SquareParams

    def category(self, index):
        return self.stream(index).uniform([self.params.side, 100], [self.params.side + 0.1, 250])

    def render(self, category, instance):
        image = np.zeros(self.canvas.shape, np.uint8)
        side, gray = category.parameters[0]
        x, y = (self.random(category, instance).uniform(0, 1 - side, 2) * self.canvas.size).astype(int)
        image[y : y + 1 + int(side * self.canvas.size), x : x + 1 + int(side * self.canvas.size)] = int(gray)
        return image


_numbers = np.random.default_rng(0)
_drawn: dict[int, int] = {}


class Stacked(Squares):
    """Keeps the contract: below each square there are bars, by the widths of the categories before its own."""

    name = "stacked"

    def before_drawing(self, categories):
        self.widths = [int(10 * category.parameters[0, 0]) for category in categories]

    def render(self, category, instance):
        image = super().render(category, instance)
        image[-1, : 1 + sum(self.widths[: category.index])] = 99
        return image


@fault("twice, alone", "it depends on the categories behind its own")
class KnowsThoseBehind(Stacked):
    def before_drawing(self, categories):  # here
        self.widths = [len(categories)] * len(categories)


# Chance and time


@fault("no clock", "time.time_ns() is called")
class ReadsTheClock(Squares):
    def render(self, category, instance):
        return super().render(category, instance + time.time_ns() % 7)  # here


@fault("no clock", "datetime.today() is called")
class ReadsTheDay(Squares):
    def category(self, index):
        return super().category(index + datetime.date.today().year)  # here


@fault("no clock", "posix.urandom() is called")
class AsksTheSystem(Squares):
    def render(self, category, instance):
        return super().render(category, instance + secrets.randbelow(5))  # here


@fault("no clock", "posix.urandom() is called")
class DoesNotSeed(Squares):
    def render(self, category, instance):
        return super().render(category, instance + int(np.random.default_rng().integers(5)))  # here


@fault("no clock", "global random numbers are drawn")
class TossesInPython(Squares):
    def render(self, category, instance):
        return super().render(category, instance + random.randrange(5))  # here


@fault("no clock", "global random numbers are drawn")
class SeedsTheGlobalNumbers(Squares):
    """Images are the same each time, and the caller's random numbers are not."""

    def render(self, category, instance):
        np.random.seed(instance % 1000 + 1)  # here # noqa: NPY002
        return super().render(category, instance)


@fault("no clock", "global random numbers are drawn")
class TossesForCategories(Squares):
    def category(self, index):
        return super().category(index + np.random.randint(100))  # here # noqa: NPY002


# State


@fault("twice, alone", "after other images")
class KeepsTheLast(Squares):
    def render(self, category, instance):
        image = super().render(category, instance)
        image[0, 0] = getattr(self, "last", 0)
        self.last = instance % 200 + 1  # here
        return image


@fault("twice, alone", "after other images")
class KeepsInAList(Squares):
    def __init__(self, *settings):
        super().__init__(*settings)
        self.seen = []

    def render(self, category, instance):
        self.seen.append(instance)  # here
        image = super().render(category, instance)
        image[0, 0] = len(self.seen) % 250
        return image


@fault("twice, alone", "each time")
class KeepsInItsModule(Squares):
    def render(self, category, instance):
        _drawn[len(_drawn)] = instance  # here
        image = super().render(category, instance)
        image[0, 0] = len(_drawn) % 250
        return image


@fault("twice, alone", "each time")
class KeepsInItsClass(Squares):
    count = 0

    def render(self, category, instance):
        type(self).count += 1  # here
        image = super().render(category, instance)
        image[0, 0] = self.count % 250
        return image


@fault("twice, alone", "each time")
class HasAStreamInItsModule(Squares):
    def render(self, category, instance):
        image = super().render(category, instance)
        image[0, 0] = _numbers.integers(255)
        return image


@fault("twice, alone", "in a batch")
class DependsOnTheBatch(Squares):
    def render_batch(self, category, instances, out):  # here
        for image, instance in zip(out, instances, strict=True):
            image[:] = self.render(category, int(instance))
            image[0, 0] = len(instances)


@fault("twice, alone", "in a batch")
class StartsWithTheSmallest(Squares):
    def render_batch(self, category, instances, out):  # here
        random = self.random(category, int(instances.min()))
        for image in out:
            image[:] = random.integers(0, 255, image.shape)


# Categories


@fault("first k of N", "differ from 2 categories")
class SpreadsItsCategories(Squares):
    def categories_are_independent(self):
        return False

    def categories(self, count):
        return ([0.1 + 0.5 * i / count, 200] for i in range(count))

    category = Generator.category


@fault("first k of N", "depend on the canvas")
class LooksAtTheCanvas(Squares):
    def category(self, index):
        return [0.2 + index / 100, 100 + self.canvas.size]  # here


@fault("first k of N", "those that were found before")
class CountsItsCategories(Squares):
    def category(self, index):  # here
        self.found = getattr(self, "found", 0) + 1
        return [0.2 + self.found / 100, 200]


@fault("images are uint8", "read-only: copy it")
class ChangesTheCategory(Squares):
    def render(self, category, instance):
        category.parameters[0, 0] += 0.01  # here
        return super().render(category, instance)


@fault("arguments stay", "the category's parameters were changed: copy them")
class ForcesTheCategory(Squares):
    def render(self, category, instance):
        category.parameters.setflags(write=True)  # here
        image = super().render(category, instance)
        category.parameters[0, 0] = min(category.parameters[0, 0] + 0.001, 0.5)
        return image


@fault("arguments stay", "'instances' was changed")
class SortsItsInstances(Squares):
    def render_batch(self, category, instances, out):
        order = np.argsort(instances)
        instances.sort()  # here
        for place, instance in zip(order, instances, strict=True):
            out[place] = self.render(category, int(instance))


@fault("images are uint8", "must be finite")
class GivesNaN(Squares):
    def category(self, index):
        return [0.2, float("nan")]


@fault("categories differ", "have the same parameters")
class HasOneCategory(Squares):
    def category(self, index):  # here
        return [0.2, 200]


@fault("categories differ", "have the same images")
class IgnoresTheCategory(Squares):
    def render(self, category, instance):  # here
        image = np.zeros(self.canvas.shape, np.uint8)
        image[self.stream(instance).integers(0, self.canvas.size, 3)] = 200
        return image


@fault("categories differ", "stay the same with the parameters of another category: use category.parameters")
class IgnoresTheParameters(Squares):
    def render(self, category, instance):  # here
        image = np.zeros(self.canvas.shape, np.uint8)
        image[self.random(category, instance).integers(0, self.canvas.size, 3)] = 200
        return image


@fault("categories differ", "the recipe's seed changes nothing: draw random numbers from self.stream")
class IgnoresTheSeed(Squares):
    def category(self, index):
        return [0.2 + index / 100, 200 - index]

    def render(self, category, instance):  # here
        image = np.zeros(self.canvas.shape, np.uint8)
        side, gray = category.parameters[0]
        x, y = np.random.default_rng([category.index, instance]).integers(0, self.canvas.size // 2, 2)
        image[y : y + 1 + int(side * self.canvas.size), x : x + 4] = int(gray)
        return image


@fault("categories differ", "instances differ: draw random numbers")
class HasOneInstance(Squares):
    def render(self, category, instance):  # here
        return super().render(category, 0)


@fault("categories differ", "instances differ: draw random numbers")
class RepeatsInstances(Squares):
    def render(self, category, instance):  # here
        return super().render(category, instance // 2)


# Images


@fault("images are uint8", "not uint8")
class DrawsFloats(Squares):
    def render(self, category, instance):  # here
        return super().render(category, instance) / 255


@fault("images are uint8", "the image's height and width")
class HasItsOwnSize(Squares):
    def render(self, category, instance):  # here
        return np.zeros((32, 32), np.uint8)


@fault("images are uint8", "implements neither render() nor render_batch()")
class DrawsNothing(Generator):
    def category(self, index):
        return [index]


@fault("images are uint8", "colour")
class FailsInColour(Squares):
    def render(self, category, instance):
        if self.canvas.channels == 3:
            raise NotImplementedError("only in gray")  # here
        return super().render(category, instance)


@fault("images are uint8", "IndexError")
class FailsAtOddSizes(Squares):
    def render(self, category, instance):
        image = super().render(category, instance)
        image[2 * (self.canvas.size // 2)] *= self.canvas.size % 2  # here
        return image


@fault("images are uint8", "NaN or too large")
class CastsNaN(Squares):
    def render(self, category, instance):
        image = super().render(category, instance) / 1.0
        image[0, 0] = np.nan
        return image.astype(np.uint8)  # here


@fault("images are uint8", "pixels are from 0 to 255")
class DrawsOnes(Squares):
    def render(self, category, instance):  # here
        return np.minimum(super().render(category, instance), 1)


@fault("every image has an object", "all pixels have the background's value, 0")
class OftenDrawsNothing(Squares):
    def render(self, category, instance):  # here
        image = super().render(category, instance)
        return image * np.uint8(instance % 3 > 0)


@fault("every image has an object", "set 'background' to its gray level")
class HasAnotherBackground(Squares):
    def render(self, category, instance):  # here
        return np.maximum(super().render(category, instance), 40)


@fault("images are uint8", "sharing work")
class SharesOtherwise(Squares):
    def shared_work(self, instances):
        return instances[:1]


# Masks


class Masked(Squares):
    draws_masks = True

    def render(self, category, instance):
        image = super().render(category, instance)
        return image, self.mask(image)

    def mask(self, image):
        return image[:, :, 0] > 0


@fault("images are uint8", "returned the mask bool [8, 8]")
class HasALargeMask(Masked):
    def mask(self, image):
        return np.ones((8, 8), bool) if self.canvas.size != 8 else image[:, :, 0] > 0


@fault("every image has an object", "the mask is empty")
class HasEmptyMasks(Masked):
    def mask(self, image):
        return image[:, :, 0] > 255


@fault("every image has an object", "every mask is the whole image")
class MasksEverything(Masked):
    def render(self, category, instance):  # here
        return super().render(category, instance)

    def mask(self, image):
        return np.ones(image.shape[:2], bool)


@fault("images are uint8", "with draws_masks it is (image, mask)")
class ForgetsTheMask(Masked):
    def render(self, category, instance):  # here
        return Squares.render(self, category, instance)


class MaskedBatch(Masked):
    def render_batch(self, category, instances, out, masks=None):
        for i, instance in enumerate(instances.tolist()):
            out[i], mask = self.render(category, instance)
            if masks is not None:
                self.put(masks, i, mask)

    def put(self, masks, i, mask):
        masks[i] = mask


@fault("arguments stay", "a mask has the value 255")
class MarksWith255(MaskedBatch):
    def put(self, masks, i, mask):
        masks[i] = 255 * mask


@fault("arguments stay", "outside of the images")
class WritesBehindTheMasks(MaskedBatch):
    def put(self, masks, i, mask):
        masks[i] = mask
        memory = np.lib.stride_tricks.as_strided(masks, (len(masks) + 1, *masks.shape[1:]), masks.strides)
        memory[i + 1, 0, :3] = 1


@fault("arguments stay", "outside of the images")
class WritesBehindTheImages(Squares):
    def render_batch(self, category, instances, out):  # here
        super().render_batch(category, instances, out)
        memory = np.lib.stride_tricks.as_strided(out, (len(out) + 1, *out.shape[1:]), out.strides)
        memory[len(out), 0, 0] = 9


# Other processes


@fault("another process", "hash() of a text")
class OrdersASet(Squares):
    def category(self, index):
        order = list({f"{index} {number}" for number in range(20)})
        return [0.2, 100 + int(order[0].split()[1]) + index / 100]


@fault("another process", "environment")
class CountsProcesses(Squares):
    def render(self, category, instance):
        image = super().render(category, instance)
        image[0, :2, 0] = os.getppid() % 250, os.getppid() // 250 % 250
        return image


@fault("another process", "working folder")
class ReadsTheWorkingFolder(Squares):
    def render(self, category, instance):
        return super().render(category, instance + zlib.crc32(str(Path.cwd()).encode()))  # here


@fault("another process", "ended abruptly")
class LeavesElsewhere(Squares):
    def render(self, category, instance):
        if any("new_process" in argument for argument in sys.orig_argv):  # workers of pytest have "-c", too
            os._exit(0)
        return super().render(category, instance)


# Parameters


class LargeParams(SquareParams):
    points: int = Field(10, ge=1, le=1000, description="number of points")


@fault("ends of its range", "points=1000: ")
class FailsForManyPoints(Squares):
    Params = LargeParams

    def render(self, category, instance):
        if self.params.points > 500:
            raise RuntimeError("too many")  # here
        return super().render(category, instance)


@fault("ends of its range", "side=0.5: categories change with it, so it belongs to category_params")
class HidesAParameter(Squares):
    category_params = frozenset()


@fault("read as it was written", "the recipe")
class HasATextAsItsKey(Squares):
    class Params(SquareParams):
        tags: dict[object, int] = Field({(1, 2): 2}, description="by pairs")


# Devices


@fault("a device draws", "differs on")
class RoundsOnTheDevice(Squares):
    def device_renderer(self, categories, device):  # here
        import torch

        def draw(labels, instances, out):
            for i, (label, instance) in enumerate(zip(labels, instances, strict=True)):
                out[i] = torch.from_numpy(self.render(categories[label], int(instance))).to(device) // 2 * 2 + 1

        return draw


@fault("a device draws", "differs on")
class ExpectsZeros(Squares):
    def device_renderer(self, categories, device):  # here
        import torch

        def draw(labels, instances, out):
            for i, (label, instance) in enumerate(zip(labels, instances, strict=True)):
                image = torch.from_numpy(self.render(categories[label], int(instance))).to(device)
                out[i] = torch.maximum(out[i], image)

        return draw


# Scenes


class Heap(Squares):
    def scene(self, categories, index):
        random = self.stream(index, 0, 5)
        labels = random.integers(0, len(categories), 3)
        object_map = np.zeros(self.canvas.shape[:2], np.uint16)
        for k in range(3):
            x, y = random.integers(0, self.canvas.size, 2)
            object_map[y : y + 5, x : x + 5] = k + 1
        image = (60 * object_map[..., None] * np.ones(self.canvas.channels)).astype(np.uint8)
        return self.changed(Scene(image, object_map, labels), index)

    def changed(self, scene, index):
        return scene


@fault("images are uint8", "returned object 3 in the map")
class LosesALabel(Heap):
    def changed(self, scene, index):
        return scene._replace(categories=scene.categories[:2])


@fault("twice, alone", "scene 0: it is drawn otherwise after other images")
class KeepsTheLastScene(Heap):
    def changed(self, scene, index):
        scene.image[0, 0] = getattr(self, "last", 0)
        self.last = index % 200 + 1  # here
        return scene


@fault("scenes of its own", "no object is in the object maps")
class MapsNothing(Heap):
    def changed(self, scene, index):
        return scene._replace(object_map=scene.object_map * np.uint16(0))


@fault("instances differ", "all scenes are the same")
class RepeatsScenes(Heap):
    def scene(self, categories, index):  # here
        return super().scene(categories, 1)


class Refusing(Squares):
    """Keeps the contract, and draws in gray only."""

    name = "refusing"

    def __init__(self, params, canvas, seed):
        super().__init__(params, canvas, seed)
        if canvas.channels == 3:
            raise ConfigError("canvas.channels: 3 is not allowed: only in gray")
