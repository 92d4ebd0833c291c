"""Methods that `benchmarks/accuracy.py` compares, on the same rows."""
