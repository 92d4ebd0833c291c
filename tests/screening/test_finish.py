"""What stands beside the parts of a screen."""

import json

import pytest

from moltc_vllm.screening.finalize import finalize
from moltc_vllm.screening.prepare import ScreenConfig, prepare
from moltc_vllm.screening.run import run
from moltc_vllm.screening.summary import Ranking
from tests.screening.engines import HashEngine
from tests.screening.test_report import Reader
from tests.screening.test_summary import Quiet

LEFT = ["smiles,Name", *(f"{'C' * n},chain {n}" for n in range(1, 60)), "C1CC,broken"]
RIGHT = ["smi", *(f"{'C' * n}O" for n in range(1, 90))]


def finished(folder, task, ranking, **how):
    (folder / "left.csv").write_text("\n".join(LEFT))
    (folder / "right.csv").write_text("\n".join(RIGHT))
    (folder / "pairs.csv").write_text("a_smiles,b_smiles\nC,O\nCC,O\nC(,O")
    files = {name: folder / f"{path}.csv" for name, path in how.pop("files").items()}
    config = ScreenConfig(task, folder / "out", **files, **how, part_rows=1000)
    screen = prepare(config, {"name": "hash"}).screen
    run(screen, HashEngine(), Quiet())
    found = finalize(screen, ranking, {"rows_per_s": 12.5})
    return found, (folder / "out" / "report.html").read_text()


BOTH = {"left": "left", "right": "right"}


@pytest.mark.parametrize("task", ["solvation", "ddi"])
def test_a_product_has_it_all(tmp_path, task):
    found, page = finished(tmp_path, task, Ranking(10), files=BOTH)
    tags = Reader(page).tags
    assert found.rows == 60 * 89
    # Two drawings of each of the ten, and two charts.
    assert tags["svg"] == 22
    assert f"{found.rows:,} pairs" in page
    assert "chain 2" in page
    assert "40 of 60 and 60 of 89 molecules" in page
    assert tags["td"] > 40 * 60
    assert "syntax" in page
    assert "rows_per_s" in page
    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert written["run"] == {"rows_per_s": 12.5}


def test_a_file_of_pairs_has_no_heat_map(tmp_path):
    found, page = finished(tmp_path, "solvation", Ranking(10), files={"pairs": "pairs"})
    assert found.rows == 3
    assert "against" not in page
    assert Reader(page).tags["svg"] == 6


def test_a_table_against_itself(tmp_path):
    _, page = finished(tmp_path, "ddi", Ranking(0), files={"left": "left"}, how="triangle")
    assert "against" in page
    assert 'class="hits"' not in page


def test_a_small_sample_has_no_heat_map(tmp_path):
    _, page = finished(tmp_path, "solvation", Ranking(3), files=BOTH, order="random", limit=200)
    assert "against" not in page
    assert "200 pairs" in page
