"""Recipes: those that are shipped can be followed, and what is wrong is named in one line."""

import pytest

from moltc_vllm.train.recipe import RecipeError, load_recipe, recipe_names


def test_shipped_recipes_are_whole():
    assert recipe_names() == ["mini-finetune", "mini-pretrain", "mini-smoke"]
    stages = {name: load_recipe(name).stage for name in recipe_names()}
    assert stages["mini-pretrain"] == "pretrain"
    assert stages["mini-finetune"] == "finetune"
    for name in recipe_names():
        assert load_recipe(name).name == name


def test_values_can_be_changed(tmp_path):
    recipe = load_recipe("mini-finetune", ["steps=7", "parts.zhangddi.pairs=3", "loss.soften=0"])
    assert (recipe.steps, recipe.parts["zhangddi"].pairs, recipe.loss.soften) == (7, 3, 0)
    file = tmp_path / "mine.yaml"
    file.write_text("{name: mine, stage: pretrain, steps: 3, parts: {freesolv: {pairs: 2}}}")
    assert load_recipe(file).parts["freesolv"].pairs == 2


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("mini-finetun", [], "unknown recipe 'mini-finetun'; there are mini-finetune, "),
        ("nowhere.yaml", [], "there is no recipe nowhere.yaml"),
        ("mini-smoke", ["steps"], "'steps' is not of the form key=value"),
        ("mini-smoke", ["steps=many"], "recipe mini-smoke: steps: Input should be a valid integer"),
        ("mini-smoke", ["stepps=3"], "recipe mini-smoke: stepps: Extra inputs are not permitted"),
        ("mini-smoke", ["steps.a=3"], "'steps.a': 'steps' has nothing inside"),
        ("mini-smoke", ["steps=["], "'steps=[': the value is not YAML"),
        ("mini-smoke", ["parts={}"], "a recipe needs at least one data set"),
        ("mini-smoke", ["parts.water.pairs=3"], "unknown data set 'water'; there are drugbank86"),
        ("mini-pretrain", ["projectors=role"], "in pretraining both molecules share one projector"),
    ],
)
def test_what_is_wrong_is_named(name, changes, message):
    with pytest.raises(RecipeError) as caught:
        load_recipe(name, changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_file_is_no_recipe(tmp_path):
    (tmp_path / "mine.yaml").write_text("")
    with pytest.raises(RecipeError, match="is no list of settings"):
        load_recipe(tmp_path / "mine.yaml", ["steps=3"])
