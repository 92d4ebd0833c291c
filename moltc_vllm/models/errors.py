"""Errors of checkpoint folders and their adapters."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A checkpoint folder that is incomplete or does not fit its configuration."""


class AdapterError(CheckpointError):
    """An adapter that is incomplete or does not fit the language model; the message is one line."""
