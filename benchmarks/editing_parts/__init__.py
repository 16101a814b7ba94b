"""Parts of benchmarks/editing.py."""
