"""Evaluation of any engine on measured data: metrics with intervals, calibration, plots."""
