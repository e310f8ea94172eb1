"""Torch datasets, loading, drawing on the device where a model trains, and downstream datasets."""
