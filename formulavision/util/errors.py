"""What goes wrong, in one line that names what to change. The command line prints it and exits with status 2."""

from __future__ import annotations


class FormulaVisionError(Exception):
    """Base of every error that the user can mend; its message is one line for the terminal."""


class ConfigError(FormulaVisionError, ValueError):
    """A recipe, a configuration or an option is wrong.

    Args:
        problems: one line each, "path: what is wrong", the path in dots (``generator.fill_rate``); ": what is wrong"
            where it is about the whole.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("; ".join(problem.removeprefix(": ") for problem in problems))

    def under(self, prefix: str) -> ConfigError:
        """The same problems with ``prefix.`` before each path."""
        return ConfigError(*(prefix + ("" if problem.startswith(":") else ".") + problem for problem in self.problems))


class PluginError(FormulaVisionError):
    """A plugin failed: to import, to register or to draw. The message names the plugin and its package."""


class StoreError(FormulaVisionError):
    """A store is missing, incomplete, damaged, or in the way of another."""


class DamagedStoreError(StoreError):
    """A store's manifest is damaged, so the rest of the store cannot be checked or read."""


class FolderError(ConfigError, StoreError):
    """An output folder holds something else, or another process writes there. Another ``out`` mends it."""


class DownstreamError(FormulaVisionError):
    """A downstream dataset cannot be used as it is."""


class CheckpointError(FormulaVisionError):
    """A checkpoint is missing, is not one, or does not fit the model."""


def one_line(error: BaseException) -> str:
    """The message of somebody else's exception, without its line breaks."""
    return " ".join(str(error).split())
