"""Arms x downstreams x frozen layers x seeds: one run, one table, one report."""

from formulavision.comparison.arms import Arm
from formulavision.comparison.results import Comparison, Findings, Result
from formulavision.comparison.run import compare, sweep
from formulavision.comparison.settings import ComparisonSettings

__all__ = ["Arm", "Comparison", "ComparisonSettings", "Findings", "Result", "compare", "sweep"]
