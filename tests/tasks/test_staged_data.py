"""Answers for every label in the data sets can be written and parsed, up to rounding."""

import csv
import gzip
from collections.abc import Iterator

import pytest

from moltc_vllm.tasks import DDI_TYPES, TASKS, Number
from moltc_vllm.tasks.ddi_types import DIRECTED_DDI_TYPES
from moltc_vllm.tasks.side_effects import SIDE_EFFECTS
from tests.paths import data_dir


def rows(name: str) -> Iterator[dict[str, str]]:
    with gzip.open(data_dir() / f"{name}.csv.gz", "rt", encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def test_ddi_types_equal_published_templates() -> None:
    published = {
        int(row["label"]): row["template"].replace("Drug 1", "#Drug1").replace("Drug 2", "#Drug2")
        for row in rows("ddi_drugbank86_types")
    }
    assert {label.id: label.text for label in DDI_TYPES} == published
    assert [label.id for label in DDI_TYPES] == list(range(1, 87))


def test_directed_ddi_types_are_those_with_a_subject_in_the_source() -> None:
    undirected = {
        int(row["label"]) for row in rows("ddi_drugbank86_types") if row["subject_in_source"] == "3"
    }
    assert {label.id for label in DDI_TYPES} - undirected == DIRECTED_DDI_TYPES
    assert TASKS["ddi_type"].directed_labels == DIRECTED_DDI_TYPES


@pytest.mark.parametrize(
    ("drug", "label_id", "effect"),
    [
        ("DB01026", 47, "decrease metabolism"),  # ketoconazole inhibits enzymes
        ("DB01045", 4, "increase metabolism"),  # rifampicin induces enzymes
        ("DB01026", 73, "increase serum concentration"),
        ("DB01045", 75, "decrease serum concentration"),
        ("DB01394", 73, None),  # colchicine is a substrate: it is acted on
    ],
)
def test_first_drug_of_a_row_acts_on_the_second(
    drug: str, label_id: int, effect: str | None
) -> None:
    """Known perpetrators and victims of interactions stand on their side of the data."""
    positions = [
        (row["drugbank_id_1"], row["drugbank_id_2"]).index(drug)
        for row in rows("ddi_drugbank86")
        if int(row["label"]) == label_id and drug in (row["drugbank_id_1"], row["drugbank_id_2"])
    ]
    assert len(positions) > 20
    share_of_subjects = positions.count(0) / len(positions)
    if effect is None:
        assert share_of_subjects < 0.1
    else:
        assert share_of_subjects > 0.9
        assert next(label.name for label in DDI_TYPES if label.id == label_id) == effect


@pytest.mark.parametrize(
    ("name", "file", "column"),
    [
        ("solvation", "solv_combisolv_exp", "dg_solv_kcal_mol"),
        ("solvation", "solv_combisolv_qm", "dg_solv_kcal_mol"),
        ("solvation", "solv_freesolv", "dg_solv_kcal_mol"),
        ("solubility", "solv_solubility_logs", "log_s_mol_per_l"),
        ("absorption", "chromophore_deep4chem", "absorption_nm"),
        ("emission", "chromophore_deep4chem", "emission_nm"),
        ("lifetime", "chromophore_deep4chem", "lifetime_ns"),
        ("quantum_yield", "chromophore_deep4chem", "quantum_yield"),
    ],
)
def test_number_round_trips_every_staged_value(name: str, file: str, column: str) -> None:
    task = TASKS[name]
    assert isinstance(task.kind, Number)
    rounding = 0.5 * 10**-task.kind.decimals + 1e-9
    values = {float(row[column]) for row in rows(file) if row[column]}
    assert len(values) > 100
    for value in values:
        fields = task.kind.parse(task.kind.write(value))
        assert fields.value is not None
        assert fields.interval is not None
        assert abs(fields.value - value) <= rounding
        assert fields.interval[0] <= fields.value < fields.interval[1]


def test_terms_round_trips_every_side_effect() -> None:
    names = [row["name"] for row in rows("ddi_twosides_side_effects")]
    assert names == list(SIDE_EFFECTS)
    answer = TASKS["ddi_side_effects"].parse_answer(TASKS["ddi_side_effects"].write(names))
    assert answer.items == tuple(" ".join(name.split()) for name in names)


def test_text_accepts_every_caption() -> None:
    for row in rows("captions"):
        assert TASKS["caption"].parse_answer(TASKS["caption"].write(row["caption"])).status == "ok"
