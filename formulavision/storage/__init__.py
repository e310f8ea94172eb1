"""Stores: a recipe materialised on disk, one file a format."""

from formulavision.storage.formats import FORMATS, Format, Piece, Sample, find_format
from formulavision.storage.store import Store
from formulavision.storage.verification import Verification, verify

__all__ = ["FORMATS", "Format", "Piece", "Sample", "Store", "Verification", "find_format", "verify"]
