"""Diagnose faults of maps and of the generated sound, as named findings with numbers. No model is needed."""

from attnviz.diagnosis.diagnosing import diagnose
from attnviz.diagnosis.finding import Diagnosis, Finding
from attnviz.diagnosis.thresholds import THRESHOLDS, Threshold

__all__ = ["THRESHOLDS", "Diagnosis", "Finding", "Threshold", "diagnose"]
