"""Readers of molecule tables: CSV, SMILES, SDF and Parquet files, row by row."""
