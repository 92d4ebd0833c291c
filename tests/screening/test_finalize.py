"""Finalizing a screen writes its summary and its report."""

import json
import re

import pytest

from moltc_vllm.screening.config import Ranking, ScreenConfig
from moltc_vllm.screening.finalize import finalize
from moltc_vllm.screening.prepare import prepare
from moltc_vllm.screening.run import LocalExecutor, run_screen
from tests.screening.fake_engines import HashEngine
from tests.screening.test_report import PageParser

LEFT = ["smiles,Name", *(f"{'C' * n},chain {n}" for n in range(1, 60)), "C1CC,broken"]
RIGHT = ["smi", *(f"{'C' * n}O" for n in range(1, 90))]


def finalize_screen(folder, task, ranking, **options):
    (folder / "left.csv").write_text("\n".join(LEFT))
    (folder / "right.csv").write_text("\n".join(RIGHT))
    (folder / "pairs.csv").write_text("a_smiles,b_smiles\nC,O\nCC,O\nC(,O")
    files = {name: folder / f"{path}.csv" for name, path in options.pop("files").items()}
    config = ScreenConfig(task, folder / "out", **files, **options, part_rows=1000)
    screen = prepare(config, {"name": "hash"}).screen
    run_screen(screen, LocalExecutor(HashEngine()))
    summary = finalize(screen, ranking, {"rows_per_s": 12.5})
    return summary, (folder / "out" / "report.html").read_text()


BOTH = {"left": "left", "right": "right"}


@pytest.mark.parametrize("task", ["solvation", "ddi"])
def test_report_of_product_has_all_sections(tmp_path, task):
    summary, page = finalize_screen(tmp_path, task, Ranking(10), files=BOTH)
    tags = PageParser(page).tags
    assert summary.rows == 60 * 89
    # Two molecules for each of the ten best pairs, and two charts.
    assert tags["svg"] == 22
    assert f"{summary.rows:,} pairs" in page
    assert "chain 2" in page
    assert "40 of 60 and 60 of 89 molecules" in page
    assert tags["td"] > 40 * 60
    assert "syntax" in page
    assert "rows_per_s" in page
    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert written["run"] == {"rows_per_s": 12.5}


def test_report_of_pair_table_has_no_heatmap(tmp_path):
    summary, page = finalize_screen(tmp_path, "solvation", Ranking(10), files={"pairs": "pairs"})
    assert summary.rows == 3
    assert "against" not in page
    assert PageParser(page).tags["svg"] == 6


def test_report_of_triangle_has_heatmap(tmp_path):
    _, page = finalize_screen(tmp_path, "ddi", Ranking(0), files={"left": "left"}, how="triangle")
    assert "against" in page
    assert 'class="hits"' not in page


def test_report_says_which_molecule_acts(tmp_path):
    summary, page = finalize_screen(
        tmp_path, "ddi_type", Ranking(20), files={"left": "left"}, how="triangle"
    )
    assert summary.rows == 60 * 59
    assert re.search(r"<small>chain \d+ acts on chain \d+</small>", page)
    assert page.count(" acts on ") == sum(row["subject"] is not None for row in summary.top)


def test_report_of_small_sample_has_no_heatmap(tmp_path):
    _, page = finalize_screen(
        tmp_path, "solvation", Ranking(3), files=BOTH, order="random", limit=200
    )
    assert "against" not in page
    assert "200 pairs" in page


def test_ranking_can_require_familiar_molecules(tmp_path):
    summary, page = finalize_screen(tmp_path, "solvation", Ranking(40), files=BOTH)
    assert {row["familiarity"] for row in summary.top} == {"known", "similar", "unlike"}
    assert sum(summary.familiarities.values()) == summary.statuses["ok"]
    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert written["familiarity"] == dict(summary.familiarities)
    for required, allowed in (("known", {"known"}), ("similar", {"known", "similar"})):
        strict, page = finalize_screen(
            tmp_path, "solvation", Ranking(40, familiarity=required), files=BOTH
        )
        assert {row["familiarity"] for row in strict.top} == allowed
        assert len(strict.top) == 40
        scores = [row["value"] for row in strict.top]
        assert scores == sorted(scores, reverse=True)
        assert f"{' or '.join(sorted(allowed))} molecules only" in page


def test_ranking_by_familiarity_needs_it(tmp_path):
    class UnfamiliarEngine(HashEngine):
        def submit(self, task, pairs, question=None):
            for pair, answer in super().submit(task, pairs, question):
                yield pair, answer.model_copy(update={"familiarity": None})

    config = ScreenConfig("ddi", tmp_path / "out", left=tmp_path / "left.csv", how="triangle")
    (tmp_path / "left.csv").write_text("smiles\nC\nCC\nCCC")
    screen = prepare(config, {"name": "hash"}).screen
    run_screen(screen, LocalExecutor(UnfamiliarEngine()))
    assert len(finalize(screen, Ranking()).top) <= 3
    with pytest.raises(ValueError, match="no index of its training"):
        finalize(screen, Ranking(familiarity="known"))
