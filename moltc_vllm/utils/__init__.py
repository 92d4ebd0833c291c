"""Helpers without chemistry: atomic files and signal handling."""
