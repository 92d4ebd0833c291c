"""The molecule modality inside vLLM: processor, model and caches."""
