"""For authors of generators: checks whether a generator keeps the contract, and writes new plugins.

``checking.py``: the checks, and ``check_generator``. ``subject.py``: the generator under test. ``places.py``: lines of
its code that cause a problem. ``ends.py``: parameters at the ends of their ranges. ``digests.py``: the file of digests.
``writing.py``: ``plugins new``.
"""

from formulavision.testing.checking import TITLES, Check, check_generator, run_checks
from formulavision.testing.digests import write_digests
from formulavision.testing.writing import new_plugin

__all__ = ["TITLES", "Check", "check_generator", "new_plugin", "run_checks", "write_digests"]
