"""One billion pairs on N GPUs, on paper: how long each stage takes, and which one binds.

    python benchmarks/scale_plan.py > benchmarks/results/scale_plan.md

Nothing that it adds up was measured on a GPU. Host figures were measured here, with the command
that is named beside each; those of GPUs are data sheets times a share that is assumed and written
down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

PAIRS = 10**9
FIRST, SECOND = 10**3, 10**6  # so many molecules make so many pairs

# Measured on two cores of this machine, see the README's tables and FINDINGS of each run.
FEATURISE_S = 233e-6  # SMILES to canonical key and graph, one core: benchmarks/featurize.py
# One pair through vLLM with moltc-mini, whose arithmetic is a third of it: `benchmarks/screening.py
# scale`. Prompts that have SMILES in them have to be tokenised as well.
HOST_S = 1.0e-3
PART_BYTES = 75  # of a row in Parquet: `moltc screen`, 1,000 pairs without further columns

# galactica-1.3b with the published encoder.
LAYERS, HIDDEN, PARAMETERS = 24, 2048, 1.3e9
PROMPT, QUESTION, ANSWER, FORKS = 94, 16, 30, 7  # tokens; forks: engine steps of a scored number
FIRST_PART = (PROMPT - QUESTION) // 2  # of the prompt: molecule 1, cached when it comes again
QUERIES, QFORMER, ENCODER_PARAMETERS = 8, 768, 110e6
ATOMS = 25

# One H100 SXM, from its data sheet; the shares are assumptions.
FLOPS, BYTES_S = 989e12 * 0.4, 3.35e12 * 0.7
BATCH = 256


@dataclass(frozen=True)
class Stage:
    """A stage's time for all pairs, in seconds of one GPU or one core."""

    name: str
    arithmetic: str
    seconds: float
    of: str


def stages(score: bool) -> list[Stage]:
    """What has to be done."""
    molecules = FIRST + SECOND
    new = PROMPT - FIRST_PART
    prefill = 2 * PARAMETERS * new / FLOPS
    kv = 2 * LAYERS * HIDDEN * 2 * (PROMPT + ANSWER)
    step = (2 * PARAMETERS + BATCH * kv) / BYTES_S / BATCH
    steps = FORKS if score else ANSWER
    encode = 2 * ENCODER_PARAMETERS * (ATOMS + QUERIES) / FLOPS
    return [
        Stage(
            "featurise",
            f"{molecules:,} molecules x {FEATURISE_S * 1e6:.0f} us, each once",
            molecules * FEATURISE_S,
            "core",
        ),
        Stage(
            "encode",
            f"{molecules:,} x 2 x {ENCODER_PARAMETERS / 1e6:.0f} M x {ATOMS + QUERIES} rows",
            molecules * encode,
            "GPU",
        ),
        Stage(
            "host",
            f"{PAIRS:,} x {HOST_S * 1e3:.1f} ms of an engine's process",
            PAIRS * HOST_S,
            "engine",
        ),
        Stage(
            "prefill",
            f"{PAIRS:,} x {new} new tokens ({FIRST_PART} of {PROMPT} cached) x 2 x 1.3 G",
            PAIRS * prefill,
            "GPU",
        ),
        Stage(
            "decode",
            f"{PAIRS:,} x {steps} steps of (2.6 GB + {BATCH} x {kv / 1e6:.0f} MB of KV) / {BATCH}",
            PAIRS * steps * step,
            "GPU",
        ),
        Stage("store", f"{PAIRS:,} x {PART_BYTES} bytes", PAIRS * PART_BYTES / 500e6, "disk"),
    ]


def duration(seconds: float) -> str:
    """For people."""
    for size, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:,.1f} {name}"
    return f"{seconds:,.1f} s"


def main() -> None:
    """Print the plan."""
    print("# One billion pairs: a plan on paper\n")
    print(
        "Made by `python benchmarks/scale_plan.py`; **computed, not measured**. "
        f"{FIRST:,} x {SECOND:,} molecules, galactica-1.3b in half precision, H100 at 40 % of its "
        "arithmetic and 70 % of its bandwidth (assumed). `host` is what one pair cost one engine "
        "here with a model so small that its arithmetic hardly counts.\n"
    )
    for score in (True, False):
        found = stages(score)
        gpu = sum(one.seconds for one in found if one.of == "GPU")
        host = next(one.seconds for one in found if one.name == "host")
        print(f"## {'Scored' if score else 'Whole answers'}\n")
        print("| stage | arithmetic | one of it takes | of a |\n|---|---|---:|---|")
        for one in found:
            print(f"| {one.name} | {one.arithmetic} | {duration(one.seconds)} | {one.of} |")
        print(
            f"\nA GPU alone could answer {PAIRS / gpu:,.0f} pairs/s; one engine's host side "
            f"{PAIRS / host:,.0f}. **The host binds first**: "
            f"{gpu / host:.0%} of the GPU is used by one engine; {math.ceil(host / gpu)} engines "
            "on a GPU (each with a share of its memory) would fill it.\n"
        )
        print("| GPUs | one engine each | filled |\n|---:|---:|---:|")
        for count in (1, 8, 64, 256):
            print(f"| {count} | {duration(host / count)} | {duration(gpu / count)} |")
        print()
    size = PAIRS * PART_BYTES / 1e9
    print("## What else\n")
    print(
        "- Measured since: an engine with random weights of this size on one H100 scored 258, 336 "
        "and 1,467 pairs/s in three short rounds, of which the first compile kernels "
        "(`benchmarks/results/h100.json`)."
    )
    tokens = QUERIES * QFORMER * 2
    print(
        f"- Storage: {size:,.0f} GB of Parquet, {PAIRS // 5_000:,} parts of 5,000 pairs; with "
        "`--part-rows 100000` there are fewer files.\n"
        f"- Encoded molecules: {tokens:,} bytes each, {(FIRST + SECOND) * tokens / 1e9:.1f} GB for "
        "all: `shared_cache_mb` of a machine, or blocks of second molecules (`--block`) that keep "
        "what is in use small.\n"
        "- A part is lost when an actor dies: with 5,000 pairs it costs "
        f"{duration(5_000 * HOST_S)} of one engine.\n"
        "- What would move the bound: fewer engine steps per pair (several digits in one), batches "
        "of pairs as one request, and featurisation outside the engine's process."
    )


if __name__ == "__main__":
    main()
