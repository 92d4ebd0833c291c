"""Old spellings of what users type or import still work for one release, and warn."""

import copy
import importlib
import json
import sys

import httpx
import pytest
from pydantic import ValidationError

from moltc_vllm.tasks import get_task
from moltc_vllm.tasks.engine import Pair
from moltc_vllm.train.recipe import Recipe, RecipeError, load_recipe
from moltc_vllm.train.run_state import RunIdentity, check_run_identity


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("moltc_vllm.shipped", "moltc_vllm.checkpoints.shipped", "shipped_checkpoint"),
        ("moltc_vllm.deploy.front", "moltc_vllm.deploy.proxy_middleware", "middlewares"),
    ],
)
def test_old_module_warns_and_has_same_object(old, new, name):
    sys.modules.pop(old, None)
    with pytest.warns(FutureWarning, match=new):
        module = importlib.import_module(old)
    assert getattr(module, name) is getattr(importlib.import_module(new), name)


def test_answer_stated_warns_and_equals_generated_value():
    task = get_task("solvation")
    answer = task.parse_answer(task.write(-3.25))
    old_name = "stated"
    with pytest.warns(FutureWarning, match="generated_value"):
        assert getattr(answer, old_name) == answer.generated_value == -3.25


def test_answer_interval_warns_and_equals_likeliest_interval():
    task = get_task("solvation")
    answer = task.parse_answer(task.write(-3.25))
    old_name = "interval"
    with pytest.warns(FutureWarning, match="likeliest_interval"):
        assert getattr(answer, old_name) == answer.likeliest_interval == (-3.5, -3.0)


def test_http_engine_reads_answers_of_version_0_1():
    """A server of version 0.1 sends the fields ``stated`` and ``interval`` under these names."""
    from moltc_vllm.engines.http import HttpEngine

    content = {"task": "solvation", "status": "ok", "value": -3.2, "stated": -3.25}
    content["interval"] = [-3.5, -3.0]
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json={"data": [content]}))
    engine = HttpEngine("http://server")
    engine.client = httpx.Client(transport=transport, base_url="http://server")
    ((_, answer),) = engine.submit("solvation", [Pair(0, ("CCO", "O"))])
    assert (answer.value, answer.generated_value) == (-3.2, -3.25)
    assert answer.likeliest_interval == (-3.5, -3.0)


def test_predict_json_has_both_names_of_generated_value(monkeypatch):
    from typer.testing import CliRunner

    from moltc_vllm.cli import app, predict

    class Engine:
        def submit(self, task, pairs, question=None):
            kind = get_task(task)
            return ((pair, kind.parse_answer(kind.write(-3.25))) for pair in pairs)

    monkeypatch.setattr(predict, "open_engine", lambda *_, **__: Engine())
    result = CliRunner().invoke(app, ["predict", "CCO", "O", "--task", "solvation", "--json"])
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["generated_value"] == answer["stated"] == -3.25


def test_featurize_library_accepts_old_argument_block():
    from moltc_vllm.chem import featurize_library

    with pytest.warns(FutureWarning, match="'chunk_size'"):
        rows = list(featurize_library(["CO", "CC", "CN"], workers=0, block=2))
    assert [key for key, _ in rows] == ["CO", "CC", "CN"]


def test_screened_finish_calls_finalize():
    import moltc_vllm
    from tests.screening.fake_engines import HashEngine

    screened = moltc_vllm.screen("ddi", [("C", "O")], engine=HashEngine())
    with pytest.warns(FutureWarning, match=r"Screened\.finalize"):
        summary = screened.finish()
    assert summary.rows == 1
    assert (screened.folder / "report.html").is_file()


def test_models_prepare_warns_and_calls_prepare_inputs(tiny):
    from moltc_vllm.models import Prompt, load_config, load_tokenizer, prepare, prepare_inputs

    arguments = ([Prompt("<mol>", ["CCO"])], load_tokenizer(tiny), load_config(tiny))
    with pytest.warns(FutureWarning, match="prepare_inputs"):
        inputs = prepare(*arguments)
    assert inputs.input_ids.equal(prepare_inputs(*arguments).input_ids)


RECIPE = {
    "name": "r",
    "stage": "finetune",
    "init_from": "tiny",
    "mixture": {"freesolv": {"batch_size": 2}, "solubility": {"batch_size": 3}},
    "loss": {
        "gaussian_label_sigma": 0.5,
        "expected_value_weight": 0.1,
        "full_text_fraction": 0.9,
        "text_loss_weight": 0.7,
    },
    "max_steps": 30,
    "warmup_steps": 3,
    "min_lr_ratio": 0.3,
    "max_grad_norm": 2.0,
    "ema_decay": 0.5,
}
RECIPE_KEYS = [
    ("start", "init_from", ()),
    ("parts", "mixture", ()),
    ("steps", "max_steps", ()),
    ("warmup", "warmup_steps", ()),
    ("floor", "min_lr_ratio", ()),
    ("clip", "max_grad_norm", ()),
    ("average", "ema_decay", ()),
    ("soften", "gaussian_label_sigma", ("loss",)),
    ("expected", "expected_value_weight", ("loss",)),
    ("whole", "full_text_fraction", ("loss",)),
    ("rest", "text_loss_weight", ("loss",)),
    ("pairs", "batch_size", ("mixture", "freesolv")),
]
every_recipe_key = pytest.mark.parametrize(("old", "new", "path"), RECIPE_KEYS)


def recipe_with_old_keys(keys):
    """Return `RECIPE` with some keys renamed back, in every data set of the mixture."""
    content = copy.deepcopy(RECIPE)
    nested = [content["loss"], *content["mixture"].values()]
    for old, new, path in keys:
        for mapping in nested if path else [content]:
            if new in mapping:
                mapping[old] = mapping.pop(new)
    return content


def renamed_warnings(caught):
    return [str(warning.message) for warning in caught if warning.category is FutureWarning]


@every_recipe_key
def test_old_recipe_key_warns_once_and_is_read(old, new, path):
    content = recipe_with_old_keys([(old, new, path)])
    with pytest.warns(FutureWarning) as caught:
        recipe = Recipe.model_validate(content)
    (message,) = renamed_warnings(caught)
    assert message.startswith(f"recipe key '{old}' was renamed to '{new}'")
    assert recipe == Recipe.model_validate(RECIPE)


def test_old_recipe_keys_together_warn_once_each(tmp_path):
    file = tmp_path / "old.yaml"
    file.write_text(json.dumps(recipe_with_old_keys(RECIPE_KEYS)))
    with pytest.warns(FutureWarning) as caught:
        recipe = load_recipe(file)
    assert len(renamed_warnings(caught)) == len(RECIPE_KEYS)
    assert recipe == Recipe.model_validate(RECIPE)


@every_recipe_key
def test_old_recipe_key_can_be_set(tmp_path, old, new, path):
    """The change may have another spelling than the file."""
    value = {"freesolv": {"batch_size": 9}} if new == "mixture" else "mini"
    value = value if new in ("mixture", "init_from") else 0.25
    if new in ("max_steps", "warmup_steps", "batch_size"):
        value = 9
    spelled_new, spelled_old = ".".join((*path, new)), ".".join((*path, old))
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(RECIPE))
    expected = load_recipe(file, [f"{spelled_new}={json.dumps(value)}"])
    with pytest.warns(FutureWarning, match=f"'{old}' was renamed to '{new}'"):
        assert load_recipe(file, [f"{spelled_old}={json.dumps(value)}"]) == expected
    file.write_text(json.dumps(recipe_with_old_keys([(old, new, path)])))
    assert load_recipe(file, [f"{spelled_new}={json.dumps(value)}"]) == expected


@pytest.mark.filterwarnings("ignore:.*renamed:FutureWarning")
def test_old_path_of_batch_size_can_be_set():
    recipe = load_recipe("mini-finetune", ["steps=100", "parts.zhangddi.pairs=8"])
    assert (recipe.max_steps, recipe.mixture["zhangddi"].batch_size) == (100, 8)


@every_recipe_key
def test_old_and_new_recipe_key_together_are_an_error(old, new, path):
    content = copy.deepcopy(RECIPE)
    mapping = content
    for key in path:
        mapping = mapping[key]
    mapping[old] = mapping[new]
    message = f"'{old}' is the old name of '{new}' and both are given; give '{new}' only"
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate(content)


@every_recipe_key
def test_setting_old_and_new_recipe_key_is_an_error(tmp_path, old, new, path):
    changes = [f"{'.'.join((*path, key))}=1" for key in (old, new)]
    with pytest.raises(RecipeError, match=f"--set: '{old}' is the old name of '{new}'"):
        load_recipe("mini-smoke", changes)


@pytest.mark.filterwarnings("ignore:.*renamed:FutureWarning")
@every_recipe_key
def test_error_of_recipe_names_the_key_as_typed(old, new, path):
    for key in (old, new):
        typed = ".".join((*path, key))
        with pytest.raises(RecipeError, match=rf"recipe mini-finetune: {typed}: "):
            load_recipe("mini-finetune", [f"{typed}=[wrong]"])


@pytest.mark.filterwarnings("ignore:.*renamed:FutureWarning")
def test_run_of_version_0_1_is_resumed_with_either_spelling(tmp_path):
    """``recipe.json`` of an old run folder has the old keys."""
    content = {**recipe_with_old_keys(RECIPE_KEYS), "from": "tiny", "processes": 1}
    (tmp_path / "recipe.json").write_text(json.dumps(content))
    for keys in (RECIPE_KEYS, []):
        recipe = Recipe.model_validate(recipe_with_old_keys(keys))
        check_run_identity(tmp_path, RunIdentity(recipe, "tiny", 1))
        other = recipe.model_copy(update={"max_steps": 31})
        with pytest.raises(ValueError, match="another value of max_steps;"):
            check_run_identity(tmp_path, RunIdentity(other, "tiny", 1))
