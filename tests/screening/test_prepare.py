"""Settings are checked before a screen starts, and against the manifest on resume."""

import re

import pytest

from moltc_vllm.screening.config import ScreenConfig
from moltc_vllm.screening.inputs import find_molecule_column
from moltc_vllm.screening.manifest import ManifestError
from moltc_vllm.screening.prepare import prepare
from moltc_vllm.tables import TableError
from moltc_vllm.tasks import PromptError, UnknownTaskError
from tests.screening.screens import MODEL, run_config


@pytest.mark.parametrize(
    ("change", "model", "message"),
    [
        ({"task": "ddi"}, MODEL, 'task was "solvation", is "ddi"; prompt was '),
        ({"part_rows": 11}, MODEL, "part_rows was 10, is 11"),
        ({}, {"name": "other"}, 'model.name was "hash", is "other"'),
        ({"limit": 3}, MODEL, "limit was null, is 3"),
        ({"coverage": 0.9}, MODEL, "coverage was 0.8, is 0.9"),
        (
            {},
            {**MODEL, "standardization": "cleanup"},
            'model.standardization was "as-drawn", is "cleanup"',
        ),
    ],
)
def test_prepare_refuses_changed_settings(tmp_path, left, right, change, model, message):
    settings = {"task": "solvation", "left": left, "right": right, "part_rows": 10}
    run_config(ScreenConfig(out=tmp_path / "out", **settings))
    with pytest.raises(ManifestError) as error:
        prepare(ScreenConfig(out=tmp_path / "out", **{**settings, **change}), model)
    out = tmp_path / "out"
    assert str(error.value).startswith(f"{out} holds a screen with different settings: ")
    assert message in str(error.value)


def test_prepare_refuses_changed_file(tmp_path, left, right):
    config = ScreenConfig("solvation", tmp_path / "out", left=left, right=right)
    run_config(config)
    right.write_text(right.read_text() + "\n9,N,y")
    with pytest.raises(ManifestError, match=r"files\.right\.sha256 was "):
        prepare(config, MODEL)


def test_prepare_refuses_folder_without_manifest(tmp_path, left, right):
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(ManifestError, match=r"is not empty and has no manifest\.json"):
        prepare(ScreenConfig("solvation", tmp_path, left=left, right=right), MODEL)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("{}", "lacks the key 'format'"),
        ('{"format": 9, "screen": {}, "moltc_vllm": "9"}', "has format 9, this version writes 1"),
    ],
)
def test_prepare_refuses_unreadable_manifest(tmp_path, left, right, content, message):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text(content)
    config = ScreenConfig("solvation", tmp_path / "out", left=left, right=right)
    with pytest.raises(ManifestError, match=re.escape(message)):
        prepare(config, MODEL)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"task": "solvatoin"}, UnknownTaskError, "solvatoin"),
        ({"task": "caption"}, PromptError, "1 molecule"),
        ({"right": None}, ValueError, "needs a file of pairs, or a left and a right file"),
        ({"how": "triangle"}, ValueError, "needs a file of pairs"),
        ({"how": "zip"}, ValueError, "needs files of equal length, not 13 and 7 rows"),
        ({"how": "all"}, ValueError, "how must be one of product, zip, triangle, not 'all'"),
        ({"order": "sorted"}, ValueError, "order must be one of given, random, not 'sorted'"),
        ({"columns": ("smile", None)}, TableError, "left.csv has no column 'smile'; its columns"),
        ({"part_rows": 0}, ValueError, "part_rows must be at least 1, not 0"),
        ({"limit": 0}, ValueError, "limit must be at least 1, not 0"),
    ],
)
def test_prepare_refuses_impossible_settings(tmp_path, left, right, change, error, message):
    settings = {"task": "solvation", "left": left, "right": right}
    with pytest.raises(error) as caught:
        prepare(ScreenConfig(out=tmp_path / "out", **{**settings, **change}), MODEL)
    assert message in str(caught.value)


def test_prepare_refuses_pairs_with_right_file(tmp_path, left, right):
    config = ScreenConfig("solvation", tmp_path / "out", pairs=left, right=right)
    with pytest.raises(ValueError, match="cannot be combined with a right file"):
        prepare(config, MODEL)


def test_prepare_leaves_no_manifest_after_refusal(tmp_path, left, right):
    config = ScreenConfig("solvation", tmp_path / "out", left=left, right=right, how="zip")
    with pytest.raises(ValueError, match="row by row"):
        prepare(config, MODEL)
    right.write_text(left.read_text())
    assert run_config(config)[1]


def test_prepare_needs_names_of_ambiguous_pair_columns(tmp_path):
    (tmp_path / "pairs.csv").write_text("a,b,c\nC,O,x\n")
    config = ScreenConfig("ddi", tmp_path / "out", pairs=tmp_path / "pairs.csv")
    with pytest.raises(TableError, match="cannot tell which two columns hold the molecules"):
        prepare(config, MODEL)


def test_find_molecule_column_prefers_structures_of_sdf():
    assert find_molecule_column("a.sdf", ("smiles", "name", "SMILES"), None) == 0
    assert find_molecule_column("a.csv", ("id", "SMILES"), None) == 1
    with pytest.raises(TableError, match="name it with --columns; the columns are SMILES, Smiles"):
        find_molecule_column("a.csv", ("SMILES", "Smiles"), None)
