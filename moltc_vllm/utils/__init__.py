"""General helpers: atomic files, JSON objects, error messages, deprecations and signals."""
