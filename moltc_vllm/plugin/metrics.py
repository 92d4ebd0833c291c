"""Prometheus counters of the molecule modality, exported beside vLLM's own on ``/metrics``.

The encoder runs in a worker process. Its counters reach the server's ``/metrics`` through
prometheus_client's multi-process mode, which `moltc serve` switches on.
"""

from __future__ import annotations

from prometheus_client import Counter

MOLECULES_ENCODED = Counter(
    "moltc_molecules_encoded", "Molecules that went through the graph encoder and Q-Former."
)
ENCODER_CACHE_HITS = Counter(
    "moltc_encoder_cache_hits", "Molecules that were encoded before, for another role or task."
)
ENCODER_RUNS = Counter("moltc_encoder_runs", "Batches of molecules the encoder ran.")
ENCODER_SECONDS = Counter(
    "moltc_encoder_seconds", "Host time spent in the molecule encoder, in seconds."
)
MOLECULES_PARSED = Counter("moltc_molecules_parsed", "Molecules read from requests.")
BAD_MOLECULES = Counter("moltc_bad_molecules", "Molecules refused, by reason.", ["kind"])
PAIRS_ANSWERED = Counter(
    "moltc_pairs_answered", "Answers of /v1/interactions, by task and status.", ["task", "status"]
)
