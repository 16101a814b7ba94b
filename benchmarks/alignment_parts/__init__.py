"""Parts of the alignment study."""
