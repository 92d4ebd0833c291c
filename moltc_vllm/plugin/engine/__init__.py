"""vLLM's engine in the caller's process: request builder, decoding strategies, engine."""
