"""Evaluation: measured data in, metrics with intervals out, over any engine."""
