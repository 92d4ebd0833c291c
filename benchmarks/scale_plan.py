"""Estimate of the time that one billion pairs take on N GPUs, and of the limiting stage.

    python benchmarks/scale_plan.py > benchmarks/results/scale_plan.md

The totals are computed, not measured. Host times were measured on two CPU cores with the benchmark
named beside each of them. GPU times are data-sheet figures multiplied by an assumed efficiency.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

FIRST, SECOND = 10**3, 10**6
PAIRS = FIRST * SECOND

FEATURIZE_S = 233e-6
"""Seconds from SMILES to canonical key and graph on one core, by ``benchmarks/featurize.py``."""

HOST_S = 1.0e-3
"""Seconds per pair in vLLM's engine process with moltc-mini, by ``benchmarks/screening.py scale``.

The model's arithmetic is a third of it. Prompts that contain SMILES also have to be tokenized.
"""

PART_BYTES = 75
"""Bytes of a row in a part (Parquet) without further columns, from a screen of 1,000 pairs."""

# Sizes of galactica-1.3b with the published encoder.
LAYERS, HIDDEN, PARAMETERS = 24, 2048, 1.3e9
PROMPT_TOKENS, QUESTION_TOKENS, ANSWER_TOKENS = 94, 16, 30
SCORED_STEPS = 7  # engine steps of a scored number; the other tokens of the answer are forced
CACHED_TOKENS = (PROMPT_TOKENS - QUESTION_TOKENS) // 2  # molecule 1, in the prefix cache
QUERIES, QFORMER_HIDDEN, ENCODER_PARAMETERS = 8, 768, 110e6
ATOMS = 25

# An H100 SXM by its data sheet, multiplied by an assumed efficiency.
FLOPS, BYTES_PER_S = 989e12 * 0.4, 3.35e12 * 0.7
BATCH = 256


@dataclass(frozen=True)
class Stage:
    """Stage of a screen.

    Attributes:
        name: Name in the table.
        arithmetic: Formula of the time, for the table.
        seconds: Time of all pairs on one unit of the resource.
        resource: Resource that the stage needs: core, GPU, engine or disk.
    """

    name: str
    arithmetic: str
    seconds: float
    resource: str


def stages(score: bool) -> list[Stage]:
    """List the stages of a screen.

    Args:
        score: Whether answers are scored instead of generated as a whole.
    """
    molecules = FIRST + SECOND
    new_tokens = PROMPT_TOKENS - CACHED_TOKENS
    prefill_s = 2 * PARAMETERS * new_tokens / FLOPS
    kv_bytes = 2 * LAYERS * HIDDEN * 2 * (PROMPT_TOKENS + ANSWER_TOKENS)
    step_s = (2 * PARAMETERS + BATCH * kv_bytes) / BYTES_PER_S / BATCH
    steps = SCORED_STEPS if score else ANSWER_TOKENS
    encode_s = 2 * ENCODER_PARAMETERS * (ATOMS + QUERIES) / FLOPS
    return [
        Stage(
            "featurize",
            f"{molecules:,} molecules x {FEATURIZE_S * 1e6:.0f} us, each once",
            molecules * FEATURIZE_S,
            "core",
        ),
        Stage(
            "encode",
            f"{molecules:,} x 2 x {ENCODER_PARAMETERS / 1e6:.0f} M x {ATOMS + QUERIES} rows",
            molecules * encode_s,
            "GPU",
        ),
        Stage(
            "host",
            f"{PAIRS:,} x {HOST_S * 1e3:.1f} ms in an engine process",
            PAIRS * HOST_S,
            "engine",
        ),
        Stage(
            "prefill",
            f"{PAIRS:,} x {new_tokens} new tokens ({CACHED_TOKENS} of {PROMPT_TOKENS} cached) "
            "x 2 x 1.3 G",
            PAIRS * prefill_s,
            "GPU",
        ),
        Stage(
            "decode",
            f"{PAIRS:,} x {steps} steps of (2.6 GB + {BATCH} x {kv_bytes / 1e6:.0f} MB of KV) "
            f"/ {BATCH}",
            PAIRS * steps * step_s,
            "GPU",
        ),
        Stage("store", f"{PAIRS:,} x {PART_BYTES} bytes", PAIRS * PART_BYTES / 500e6, "disk"),
    ]


def format_duration(seconds: float) -> str:
    """Format seconds in the largest fitting unit."""
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.1f} s"


def print_stages(title: str, score: bool) -> None:
    """Print a table of the stages, and a table of the total time by number of GPUs."""
    table = stages(score)
    gpu_s = sum(stage.seconds for stage in table if stage.resource == "GPU")
    host_s = next(stage.seconds for stage in table if stage.name == "host")
    print(f"## {title}\n")
    print("| stage | arithmetic | time on one | resource |\n|---|---|---:|---|")
    for stage in table:
        duration = format_duration(stage.seconds)
        print(f"| {stage.name} | {stage.arithmetic} | {duration} | {stage.resource} |")
    print(
        f"\nOne GPU could answer {PAIRS / gpu_s:,.0f} pairs/s, and the host side of one engine "
        f"{PAIRS / host_s:,.0f}. **The host is the limit**: one engine uses {gpu_s / host_s:.0%} "
        f"of a GPU; {math.ceil(host_s / gpu_s)} engines per GPU (each with a share of its memory) "
        "would fill it.\n"
    )
    print("| GPUs | one engine per GPU | GPUs filled |\n|---:|---:|---:|")
    for count in (1, 8, 64, 256):
        print(f"| {count} | {format_duration(host_s / count)} | {format_duration(gpu_s / count)} |")
    print()


def print_notes() -> None:
    """Print the storage, the memory, and what would change the estimate."""
    part_gb = PAIRS * PART_BYTES / 1e9
    embedding_bytes = QUERIES * QFORMER_HIDDEN * 2
    print("## Notes\n")
    print(
        "- Measured later: an engine with random weights of this size on one H100 scored 258, 336 "
        "and 1,467 pairs/s in three short rounds, the first ones with the compilation of kernels "
        "(`benchmarks/results/h100.json`)."
    )
    print(
        f"- Storage: {part_gb:,.0f} GB of Parquet in {PAIRS // 5_000:,} parts of 5,000 pairs; "
        "`--part-rows 100000` reduces the number of files.\n"
        f"- Encoded molecules: {embedding_bytes:,} bytes each, "
        f"{(FIRST + SECOND) * embedding_bytes / 1e9:.1f} GB in total. Either `shared_cache_mb` "
        "holds them, or `--block` limits how many second molecules are in use at a time.\n"
        "- The death of an actor loses an unfinished part; 5,000 pairs cost "
        f"{format_duration(5_000 * HOST_S)} of one engine.\n"
        "- The host limit would move with fewer engine steps per pair (several digits per token), "
        "batches of pairs as one request, and featurization outside the engine process."
    )


def main() -> None:
    """Print the estimate as Markdown."""
    print("# One billion pairs: an estimate\n")
    print(
        "Printed by `python benchmarks/scale_plan.py`; **computed, not measured**. "
        f"{FIRST:,} x {SECOND:,} molecules, galactica-1.3b in half precision, H100 at 40 % of its "
        "arithmetic and 70 % of its bandwidth (assumed). `host` is the measured time of one pair "
        "in one engine with a model whose arithmetic is only a third of it.\n"
    )
    print_stages("Scored answers", score=True)
    print_stages("Generated answers", score=False)
    print_notes()


if __name__ == "__main__":
    main()
