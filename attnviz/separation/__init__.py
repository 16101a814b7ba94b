"""Separate the sounds of a clip by the maps of its words.

Maps and the clip's audio enter; the audio of each phrase leaves. May import maps, audio, text and io: no model is
loaded. `solo` returns the sound of one phrase, `separate` those of all phrases and the rest, and `si_sdr` scores a
separated sound against the sound alone.
"""

from attnviz.separation.scores import si_sdr
from attnviz.separation.separating import Separation, separate
from attnviz.separation.soloing import Solo, solo

__all__ = ["Separation", "Solo", "separate", "si_sdr", "solo"]
