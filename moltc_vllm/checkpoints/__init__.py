"""Checkpoints that are part of the package."""
