"""What people use instead, on the same rows: the methods of `benchmarks/accuracy.py`."""
