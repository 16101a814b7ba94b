"""What is wrong with maps, or with the sound they are of: named findings with numbers. Never touches a model."""

from attnviz.diagnosis.diagnosing import diagnose
from attnviz.diagnosis.finding import Diagnosis, Finding
from attnviz.diagnosis.thresholds import THRESHOLDS, Threshold

__all__ = ["THRESHOLDS", "Diagnosis", "Finding", "Threshold", "diagnose"]
