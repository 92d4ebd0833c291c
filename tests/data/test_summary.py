"""What is said of a data set, counted by hand where that can be done."""

import json
import math
from collections import Counter
from statistics import fmean, pstdev

import pytest

from moltc_vllm.data.datasets import DATASETS
from moltc_vllm.data.histograms import write_histogram
from moltc_vllm.data.splits import read_parts
from moltc_vllm.data.summary import summarize
from tests.data.small import read

ALL = tuple(DATASETS)


@pytest.fixture(scope="module")
def parts(small):
    return read_parts(ALL, small)


@pytest.mark.parametrize("name", ALL)
def test_rows_add_up_and_all_is_json(small, parts, name):
    found = summarize(parts[name], small)
    json.dumps(found, allow_nan=False)
    for split, rows in found["rows"].items():
        assert rows["all"] == rows["missing"] + rows["held_back"] + rows["kept"]
        assert rows["kept"] == len(parts[name].rows[split])


def test_numbers(small, parts):
    found = summarize(parts["freesolv"], small)
    values = [row.target for row in parts["freesolv"].rows["train"]]
    assert found["target"]["mean"] == pytest.approx(fmean(values))
    assert found["target"]["std"] == pytest.approx(pstdev(values))
    assert (found["target"]["min"], found["target"]["max"]) == (min(values), max(values))
    assert found["target"]["unit"] == "kcal/mol"
    assert found["molecules_by_role"]["solvent"] == 1
    assert found["molecules"] == found["molecules_by_role"]["solute"] + 1 - (
        "O" in {row.molecules[0] for rows in parts["freesolv"].rows.values() for row in rows}
    )
    assert found["intervals"]["table"] == {"width": 0.5, "scale": "linear"}
    assert found["intervals"]["rule"]["spread"] > 1
    assert found["text"]["words"]["min"] == 21


def test_labels(small, parts):
    found = summarize(parts["chchminer"], small)["target"]
    count = Counter(row.target for row in parts["chchminer"].rows["train"])
    assert found["labels"] == {"interaction": count[1], "no_interaction": count[0]}
    share = count[1] / count.total()
    assert found["largest_share"] == max(share, 1 - share)
    assert found["balance"] == pytest.approx(
        -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    )
    assert len(summarize(parts["drugbank86"], small)["target"]["labels"]) == 86


def test_missing_values_of_the_whole_file(small, parts):
    """Of the chromophores that are in the small file."""
    found = summarize(parts["deep4chem_lifetime"], small)
    assert sum(rows["missing"] for rows in found["rows"].values()) > 20


def test_terms(small, parts):
    found = summarize(parts["twosides"], small)["target"]
    sizes = [len(row.target) for row in parts["twosides"].rows["train"]]
    assert found["terms_per_row"]["max"] == max(sizes)
    assert max(sizes) <= found["terms"] <= len(read("ddi_twosides_side_effects.csv.gz"))


@pytest.mark.parametrize("name", ["freesolv", "deep4chem_lifetime", "drugbank86", "twosides"])
def test_a_histogram_of_each_kind(parts, tmp_path, name):
    write_histogram(tmp_path / "a.png", parts[name])
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a.png").stat().st_size > 5000
