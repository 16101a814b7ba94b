"""What every benchmark shares: command line, settings, resuming, targets, reports, and the scenes and prompts.

See "A new benchmark" in ``benchmarks/README.md``.
"""

from harness.command import Model, parser
from harness.results import Bar, Estimate, bar_lines, save_figure
from harness.study import Progress, Study, environment, seed_of

__all__ = [
    "Bar",
    "Estimate",
    "Model",
    "Progress",
    "Study",
    "bar_lines",
    "environment",
    "parser",
    "save_figure",
    "seed_of",
]
