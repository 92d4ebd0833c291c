"""The HTTP side of vLLM: renderer, endpoint, middleware and server process."""
