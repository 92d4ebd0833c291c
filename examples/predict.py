"""Ask about pairs of molecules in three lines."""

import moltc_vllm

if __name__ == "__main__":
    for answer in moltc_vllm.predict("solvation", [("CCO", "O"), ("c1ccccc1", "O")]):
        print(answer.value, answer.unit, answer.interval, answer.confidence)
