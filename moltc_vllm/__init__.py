"""MolTC as a vLLM plugin: a language model that understands pairs of molecules."""

__version__ = "0.1.0"
