"""What the author of a generator reads.

``contract.py``: the class to subclass. ``hookspecs.py``: the hook to implement. ``registry.py``: how plugins are found.
``streams.py``: random numbers. ``walked_streams.py``: the random streams of published sets. ``failures.py``: how errors
in a plugin are reported. A tutorial is in docs/writing-a-generator.md.
"""
