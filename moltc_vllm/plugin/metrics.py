"""Prometheus counters of the molecule modality, exported beside vLLM's own on ``/metrics``.

The encoder runs in a worker process. Its counters reach the server's ``/metrics`` through
prometheus_client's multi-process mode, which `moltc serve` switches on.
"""

from __future__ import annotations

from prometheus_client import Counter

MOLECULES_ENCODED = Counter(
    "moltc_molecules_encoded", "Molecules encoded by graph encoder and Q-Former."
)
ENCODER_CACHE_HITS = Counter(
    "moltc_encoder_cache_hits",
    "Molecules found in the caches of encoded molecules, e.g. for another role or task.",
)
ENCODER_RUNS = Counter("moltc_encoder_runs", "Batches of molecules that the encoder processed.")
ENCODER_SECONDS = Counter(
    "moltc_encoder_seconds", "Host time spent in the molecule encoder, in seconds."
)
MOLECULES_PARSED = Counter("moltc_molecules_parsed", "Molecules parsed from requests.")
BAD_MOLECULES = Counter("moltc_bad_molecules", "Molecules rejected, by reason.", ["kind"])
PAIRS_ANSWERED = Counter(
    "moltc_pairs_answered", "Answers of /v1/interactions, by task and status.", ["task", "status"]
)
