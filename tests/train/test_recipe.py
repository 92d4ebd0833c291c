"""Recipes: the shipped ones are valid, and errors name the key in one line."""

import warnings

import pytest
from pydantic import ValidationError

from moltc_vllm.train.recipe import Recipe, RecipeError, load_recipe, recipe_names
from tests.train.helpers import SMALL_RECIPE


def test_shipped_recipes_are_valid_and_have_no_old_keys():
    assert recipe_names() == ["mini-finetune", "mini-pretrain", "mini-smoke"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recipes = {name: load_recipe(name) for name in recipe_names()}
    assert recipes["mini-pretrain"].stage == "pretrain"
    assert recipes["mini-finetune"].stage == "finetune"
    assert all(recipe.name == name for name, recipe in recipes.items())


def test_load_recipe_applies_changes():
    changes = ["max_steps=7", "mixture.zhangddi.batch_size=3", "loss.gaussian_label_sigma=0"]
    recipe = load_recipe("mini-finetune", changes)
    assert recipe.max_steps == 7
    assert recipe.mixture["zhangddi"].batch_size == 3
    assert recipe.loss.gaussian_label_sigma == 0


def test_load_recipe_reads_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "{name: mine, stage: pretrain, max_steps: 3, mixture: {freesolv: {batch_size: 2}}}"
    )
    assert load_recipe(file).mixture["freesolv"].batch_size == 2


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("mini-finetun", [], "unknown recipe 'mini-finetun'; choose mini-finetune, "),
        ("nowhere.yaml", [], "recipe file nowhere.yaml does not exist"),
        ("mini-smoke", ["max_steps"], "'max_steps' does not have the form key=value"),
        (
            "mini-smoke",
            ["max_steps=many"],
            "recipe mini-smoke: max_steps: Input should be a valid integer",
        ),
        ("mini-smoke", ["stepps=3"], "recipe mini-smoke: stepps: Extra inputs are not permitted"),
        ("mini-smoke", ["max_steps.a=3"], "'max_steps.a': 'max_steps' does not contain other keys"),
        ("mini-smoke", ["max_steps=["], "'max_steps=[': the value is not YAML"),
        ("mini-smoke", ["mixture={}"], "recipe mini-smoke: a recipe needs at least one data set"),
        (
            "mini-smoke",
            ["mixture.water.batch_size=3"],
            "unknown data set 'water'; available: drugbank86",
        ),
        ("mini-pretrain", ["projectors=role"], "stage 'pretrain' needs projectors: shared"),
    ],
)
def test_load_recipe_names_the_problem_in_one_line(name, changes, message):
    with pytest.raises(RecipeError) as caught:
        load_recipe(name, changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_load_recipe_refuses_empty_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("")
    with pytest.raises(RecipeError, match="is not a mapping of keys to values"):
        load_recipe(tmp_path / "mine.yaml", ["max_steps=3"])


def test_recipe_refuses_missing_key():
    content = {key: value for key, value in SMALL_RECIPE.items() if key != "max_steps"}
    with pytest.raises(ValidationError, match="max_steps\n  Field required"):
        Recipe.model_validate(content)
