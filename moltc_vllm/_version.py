"""The version of the package: its only definition; the build reads this file."""

__version__ = "0.2.0"
