"""Parts of benchmarks/overhead.py: cost of capturing cross-attention with attnviz and other tools."""
