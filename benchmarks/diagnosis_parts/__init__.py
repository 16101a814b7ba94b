"""Parts of benchmarks/diagnosis.py."""
