"""Parts of benchmarks/overhead.py: what capturing cross-attention costs, for attnviz and for its peers."""
