"""`Diagnosis`: what was looked at, with numbers, and what of it is a fault."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from attnviz.diagnosis.thresholds import THRESHOLDS, Threshold


@dataclass(frozen=True)
class Finding:
    """One sign that was looked at.

    Attributes
    ----------
    name : str
        A key of `THRESHOLDS`.
    value : float
        What was measured; NaN where it could not be.
    detail : str
        Where: the words or layers that it concerns.
    unjudged : str
        Why it could not be measured; empty where it was.
    """

    name: str
    value: float = float("nan")
    detail: str = ""
    unjudged: str = ""

    @property
    def threshold(self) -> Threshold:
        """Its limit."""
        return THRESHOLDS[self.name]

    @property
    def found(self) -> bool:
        """Whether it is a fault. What could not be judged is none."""
        return not self.unjudged and self.threshold.passed(self.value)

    def sentence(self) -> str:
        """Say in one line what was measured."""
        if self.unjudged:
            return f"{self.name}: not judged, {self.unjudged}"
        limit = self.threshold
        verdict = "FOUND" if self.found else "not found"
        where = f" ({self.detail})" if self.detail else ""
        measured = f"{limit.quantity}: {self.value:.4g}{where}"
        return f"{self.name}: {verdict}; {measured}, a fault {limit.sign} {limit.value:g}"


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """What `attnviz.diagnose` looked at.

    Attributes
    ----------
    findings : tuple of Finding
        Every sign, found or not, in a fixed order.
    prompt : str
        The prompt.
    """

    findings: tuple[Finding, ...]
    prompt: str

    @property
    def found(self) -> list[str]:
        """Names of the faults; empty where there is none."""
        return [finding.name for finding in self.findings if finding.found]

    @property
    def table(self) -> pd.DataFrame:
        """One row a sign.

        ``finding``, ``found`` (bool; missing where it could not be judged), ``value`` (NaN there), ``fault``
        (``">"`` or ``"<"``), ``threshold``, ``quantity``, ``detail`` (which words or layers), ``unjudged`` (why),
        ``meaning`` and ``source`` (of the threshold).
        """
        rows = [
            {
                "finding": one.name,
                "found": pd.NA if one.unjudged else one.found,
                "value": one.value,
                "fault": one.threshold.sign,
                "threshold": one.threshold.value,
                "quantity": one.threshold.quantity,
                "detail": one.detail,
                "unjudged": one.unjudged,
                "meaning": one.threshold.meaning,
                "source": one.threshold.source,
            }
            for one in self.findings
        ]
        return pd.DataFrame(rows).astype({"found": "boolean", "value": np.float64, "threshold": np.float64})

    def summary(self) -> str:
        """Return the diagnosis as text: what was found and what it means, then every number."""
        found = [one for one in self.findings if one.found]
        opening = f"{len(found)} of {len(self.findings)} signs found in the maps of {self.prompt!r}"
        meanings = [f"- {one.name.upper()}: {one.threshold.meaning}" for one in found]
        return "\n".join([f"{opening}.", *meanings, "", *(one.sentence() for one in self.findings)])

    def __repr__(self) -> str:
        return f"<Diagnosis: {', '.join(self.found) or 'nothing found'}>"
