"""Pool phrases: those of an alignment, or more than fit into memory.

Blocks of phrases are read one after the other. Their curves go to scratch files on disk; about a kilobyte of each
phrase stays in memory. Exchanges between clips cost (phrases x permutations) instead of (phrases x phrases).
"""

from attnviz.alignment.streamed.blocks import PhraseBlock, PhraseSource, block_of
from attnviz.alignment.streamed.pool import StreamedPool, pool_phrases, pool_stream

__all__ = ["PhraseBlock", "PhraseSource", "StreamedPool", "block_of", "pool_phrases", "pool_stream"]
