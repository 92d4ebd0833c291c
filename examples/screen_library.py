"""Screen solutes against solvents, and read the answers with pandas.

Run it again after an interruption: it resumes in the same folder.
"""

import argparse
from pathlib import Path

import moltc_vllm

HERE = Path(__file__).parent


def main() -> None:
    """Screen, print the matrix of values, and name the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("result"), help="output folder")
    parser.add_argument("--engine", default="vllm", choices=["vllm", "torch"])
    options = parser.parse_args()

    screened = moltc_vllm.screen(
        "solvation",
        left=HERE / "solutes.csv",
        right=HERE / "solvents.csv",
        out=options.out,
        engine=options.engine,
    )
    screened.finalize()  # answers everything; writes summary.json, top.csv and report.html
    table = screened.to_arrow().to_pandas()
    matrix = table.pivot(index="left_name", columns="right_name", values="value")
    print(matrix.round(2).to_string())
    print(f"report: {options.out / 'report.html'}")


if __name__ == "__main__":
    main()
