"""Shared by all rooms: config parsing, atomic files, processes, progress bars, errors."""
