"""The bundled sound event detector: which of the sounds it knows a recording has, and when.

Input: audio. Output: events with onset, offset and probability, or the probability of each frame. It imports
audio, events, text, the bundled weights, and the names of the classes from scenes.
"""

from attnviz.listener.decoding import Decoding
from attnviz.listener.hearing import Hearing
from attnviz.listener.model import Listener, ListenerConfig

__all__ = ["Decoding", "Hearing", "Listener", "ListenerConfig"]
