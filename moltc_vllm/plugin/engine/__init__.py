"""vLLM in this process: request builder, decoding strategies and engine."""
