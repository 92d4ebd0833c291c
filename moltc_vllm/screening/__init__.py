"""Screening: pairs of molecules in, answers in Parquet parts out, over any engine."""
