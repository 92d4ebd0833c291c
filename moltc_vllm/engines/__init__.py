"""Engines that answer pairs: the factory, the HTTP client and wrappers around other engines."""
