"""`Diagnosis`: the measured signs and the faults among them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from attnviz.diagnosis.thresholds import THRESHOLDS, Threshold
from attnviz.wording import counted


@dataclass(frozen=True)
class Finding:
    """One measured sign.

    Attributes
    ----------
    name : str
        A key of `THRESHOLDS`.
    value : float
        Measured value; NaN if it could not be measured.
    detail : str
        The words or layers concerned.
    unjudged : str
        Reason why the sign could not be measured; empty if it was.
    """

    name: str
    value: float = float("nan")
    detail: str = ""
    unjudged: str = ""

    @property
    def threshold(self) -> Threshold:
        """Limit of the sign."""
        return THRESHOLDS[self.name]

    @property
    def found(self) -> bool:
        """Whether the sign is a fault; False if it was not judged."""
        return not self.unjudged and self.threshold.passed(self.value)

    def sentence(self) -> str:
        """Return the measurement in one line."""
        if self.unjudged:
            return f"{self.name}: not judged ({self.unjudged})"
        limit = self.threshold
        verdict = "FOUND" if self.found else "not found"
        where = f" ({self.detail})" if self.detail else ""
        side = "above" if limit.sign == ">" else "below"
        measured = f"{limit.quantity[0].upper()}{limit.quantity[1:]}: {self.value:.4g}{where}"
        return f"{self.name}: {verdict}. {measured}; a value {side} {limit.value:g} is a fault"


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """Result of `attnviz.diagnose`.

    Attributes
    ----------
    findings : tuple of Finding
        All signs in a fixed order, whether or not they are faults.
    prompt : str
        The prompt.
    """

    findings: tuple[Finding, ...]
    prompt: str

    @property
    def found(self) -> list[str]:
        """Names of the faults."""
        return [finding.name for finding in self.findings if finding.found]

    @property
    def table(self) -> pd.DataFrame:
        """Table with one row per sign.

        Columns are ``finding``, ``found`` (bool; missing if not judged), ``value`` (NaN if not judged), ``fault``
        (``">"`` or ``"<"``), ``threshold``, ``quantity``, ``detail`` (words or layers), ``unjudged`` (the reason),
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
        """Return the diagnosis as text: the faults and their meaning, followed by all values."""
        found = [one for one in self.findings if one.found]
        judged = sum(not one.unjudged for one in self.findings)
        number = counted(len(found), "fault") if found else "No fault"
        opening = f"{number} found in the run {self.prompt!r}; {judged} of {len(self.findings)} kinds were judged."
        meanings = [f"- {one.name.upper()}: {one.threshold.meaning}" for one in found]
        return "\n".join([opening, *meanings, "", *(f"{one.sentence()}." for one in self.findings)])

    def __repr__(self) -> str:
        unjudged = ", ".join(one.name for one in self.findings if one.unjudged)
        left_out = f"; not judged: {unjudged}" if unjudged else ""
        return f"<Diagnosis: {', '.join(self.found) or 'nothing found'}{left_out}>"
