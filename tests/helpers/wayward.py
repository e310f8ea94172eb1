"""Generators that break their promise: an image depends on more than recipe and index."""

import itertools
import time

import numpy as np

from formulavision import Generator

_calls = itertools.count()


class Wayward(Generator):
    """Gray images whose level comes from what no image may depend on."""

    default_instances = 4

    def category(self, index):
        return [index]

    def default_categories(self):
        return 3

    def render(self, category, instance):
        return np.full(self.canvas.shape, self.level(category, instance) % 256, np.uint8)

    def level(self, category, instance):
        raise NotImplementedError


class Counting(Wayward):
    name = "counting"

    def level(self, category, instance):
        self.drawn = getattr(self, "drawn", 0) + 1
        return self.drawn


class Remembering(Wayward):
    """Takes the first instance that it meets for what all of the category share."""

    name = "remembering"

    def level(self, category, instance):
        self.first = getattr(self, "first", {})
        return 20 * self.first.setdefault(category.index, instance) + instance


class CountingInItsModule(Wayward):
    name = "counting-in-its-module"

    def level(self, category, instance):
        return next(_calls)


class Tossing(Wayward):
    name = "tossing"

    def level(self, category, instance):
        return int(np.random.randint(256))  # noqa: NPY002


class LookingAtTheClock(Wayward):
    name = "looking-at-the-clock"

    def level(self, category, instance):
        return time.perf_counter_ns() >> 4


class Hashing(Wayward):
    """Python hashes text otherwise in every process."""

    name = "hashing"

    def level(self, category, instance):
        print("a plugin that prints")
        return hash(f"{category.index} {instance}")


class Leaving(Wayward):
    name = "leaving"
    leaves = False

    def level(self, category, instance):
        if self.leaves:
            raise SystemExit(0)
        return instance


class LeavingInTheEnd(Leaving):
    leaves = True


WAYWARD = (Counting, Remembering, CountingInItsModule, Tossing, LookingAtTheClock, Hashing)
