"""Parts of benchmarks/encoders.py."""
