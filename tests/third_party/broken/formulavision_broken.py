"""Plugins that are wrong, each in its own way."""

from formulavision import Generator, hookimpl


class FromTheFuture(Generator):
    name = "future"
    contract = 99


class Impostor(Generator):
    name = "ifs"


class RaisesWhileDrawing(Generator):
    name = "raising"

    def category(self, index):
        return [index]

    def render(self, category, instance):
        raise ZeroDivisionError("no such picture")


class Newer:
    @hookimpl
    @staticmethod
    def register_generators(register):
        register(FromTheFuture)


class Taken:
    @hookimpl
    @staticmethod
    def register_generators(register):
        register(Impostor)


class Raising:
    @hookimpl
    @staticmethod
    def register_generators(register):
        register(RaisesWhileDrawing)
