"""Molecule modality of vLLM: parsing, processor, model and caches."""
