"""Stores: a recipe rendered to disk, in one of several formats, with a manifest that proves it right.

``generation.py`` writes stores, ``store.py`` reads them, ``verification.py`` verifies them, ``manifest.py`` describes
them, ``exporting.py`` turns them into other layouts; ``formats/`` has a file per format, and ``png.py`` encodes images.
"""

from formulavision.storage.exporting import export_data
from formulavision.storage.formats import FORMATS
from formulavision.storage.store import Store
from formulavision.storage.verification import Verification, verify

__all__ = ["FORMATS", "Store", "Verification", "export_data", "verify"]
