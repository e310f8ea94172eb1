"""The version of FormulaVision: manifests, runs and compiled kernels record it."""

__version__ = "0.1.0"
