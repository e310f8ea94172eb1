"""Exceptions with a message of one line, which names what to change. The command line prints it and exits with 2."""

from __future__ import annotations


class FormulaVisionError(Exception):
    """Base class of all errors that the user can correct. The message is one line."""


class ConfigError(FormulaVisionError, ValueError):
    """A recipe, a configuration or an option is wrong.

    Args:
        problems: one line each, "path: problem", with a dotted path (``generator.fill_rate``); ": problem" if it
            concerns the whole.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("; ".join(problem.removeprefix(": ") for problem in problems))

    def under(self, prefix: str) -> ConfigError:
        """The same problems with ``prefix.`` before each path."""
        return ConfigError(*(prefix + ("" if problem.startswith(":") else ".") + problem for problem in self.problems))


class PluginError(FormulaVisionError):
    """A plugin failed to import, to register or to draw. The message names the plugin and its package."""


class StoreError(FormulaVisionError):
    """A store is missing, incomplete or damaged, or stands where another store is to be written."""


class DamagedStoreError(StoreError):
    """A store's manifest is damaged, so the rest of the store cannot be checked or read."""


class RemoteError(StoreError):
    """A file system that a URL names is not installed, does not answer, or refuses."""


class FolderError(ConfigError, StoreError):
    """An output path is taken by something else, or another process writes there. Another ``out`` helps."""


class ClusterError(ConfigError):
    """A cluster does not answer, does not fit, or has lost too much."""


class DownstreamError(FormulaVisionError):
    """A downstream dataset is missing or cannot be used."""


class CheckpointError(FormulaVisionError):
    """A checkpoint is missing, unreadable, or does not fit the model."""


class SmallFiltersError(CheckpointError):
    """The filters of a model's first layer are smaller than is asked for."""


def one_line(error: BaseException) -> str:
    """The message of a library's exception, without line breaks; empty where the exception cannot be printed."""
    try:
        return " ".join(str(error).split())
    except (Exception, SystemExit):  # a plugin's own exception class
        return ""
