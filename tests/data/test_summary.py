"""Summaries of data sets, compared with counts made independently where possible."""

import json
import math
from collections import Counter
from statistics import fmean, pstdev

import pytest

from moltc_vllm.data.dataset_registry import DATASETS
from moltc_vllm.data.histograms import write_histogram
from moltc_vllm.data.splits import read_splits
from moltc_vllm.data.summary import summarize
from tests.data.small import read

ALL = tuple(DATASETS)


@pytest.fixture(scope="module")
def datasets(small):
    return read_splits(ALL, small)


@pytest.mark.parametrize("name", ALL)
def test_row_counts_add_up_and_summary_is_json(small, datasets, name):
    summary = summarize(datasets[name], small)
    json.dumps(summary, allow_nan=False)
    for split, rows in summary["rows"].items():
        assert rows["all"] == rows["missing"] + rows["held_back"] + rows["kept"]
        assert rows["kept"] == len(datasets[name].rows[split])


def test_summary_of_numbers(small, datasets):
    summary = summarize(datasets["freesolv"], small)
    values = [row.target for row in datasets["freesolv"].rows["train"]]
    assert summary["target"]["mean"] == pytest.approx(fmean(values))
    assert summary["target"]["std"] == pytest.approx(pstdev(values))
    assert (summary["target"]["min"], summary["target"]["max"]) == (min(values), max(values))
    assert summary["target"]["unit"] == "kcal/mol"
    assert summary["molecules_by_role"]["solvent"] == 1
    assert summary["molecules"] == summary["molecules_by_role"]["solute"] + 1 - (
        "O" in {row.molecules[0] for rows in datasets["freesolv"].rows.values() for row in rows}
    )
    assert summary["intervals"]["table"] == {"width": 0.5, "scale": "linear"}
    assert summary["intervals"]["rule"]["spread"] > 1
    assert summary["text"]["words"]["min"] == 21


def test_summary_of_labels(small, datasets):
    summary = summarize(datasets["chchminer"], small)["target"]
    count = Counter(row.target for row in datasets["chchminer"].rows["train"])
    assert summary["labels"] == {"interaction": count[1], "no_interaction": count[0]}
    share = count[1] / count.total()
    assert summary["largest_share"] == max(share, 1 - share)
    assert summary["balance"] == pytest.approx(
        -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    )
    assert len(summarize(datasets["drugbank86"], small)["target"]["labels"]) == 86


def test_missing_targets_are_counted(small, datasets):
    summary = summarize(datasets["deep4chem_lifetime"], small)
    assert sum(rows["missing"] for rows in summary["rows"].values()) > 20


def test_summary_of_terms(small, datasets):
    summary = summarize(datasets["twosides"], small)["target"]
    sizes = [len(row.target) for row in datasets["twosides"].rows["train"]]
    assert summary["terms_per_row"]["max"] == max(sizes)
    assert max(sizes) <= summary["terms"] <= len(read("ddi_twosides_side_effects.csv.gz"))


@pytest.mark.parametrize("name", ["freesolv", "deep4chem_lifetime", "drugbank86", "twosides"])
def test_histogram_of_each_kind_of_task(datasets, tmp_path, name):
    write_histogram(tmp_path / "a.png", datasets[name])
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a.png").stat().st_size > 5000
