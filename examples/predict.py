"""Ask about pairs of molecules in a few lines of Python."""

import moltc_vllm

if __name__ == "__main__":
    pairs = [("CCO", "O"), ("c1ccccc1", "O")]
    # For a few pairs: the default engine, vLLM, is faster but takes 20 s to start.
    for answer in moltc_vllm.predict("solvation", pairs, engine="torch"):
        print(answer.value, answer.unit, answer.low, answer.high, answer.confidence)
