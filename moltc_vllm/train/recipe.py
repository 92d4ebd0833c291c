"""Recipes: everything that decides what a training run does, in one YAML file."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from moltc_vllm.data.datasets import DATASETS

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]

PROPERTIES = "properties"
"""Not measured pairs: random pairs of library molecules, and their computed properties."""


class RecipeError(ValueError):
    """A recipe that cannot be followed; the message is one line."""


class Part(BaseModel):
    """One data set's part of every batch.

    Attributes:
        pairs: How many of its pairs are in each batch.
        block: Pairs are drawn without replacement in the order of cells of so many first and so
            many second molecules, so that a batch has few molecules to encode; 0: no bound.
            ``None``: in random order.
        both_orders: Whether each pair is shown in a random order of its two molecules.
        limit: So many pairs of the train part, drawn at random; default: all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pairs: Positive
    block: tuple[int, int] | None = None
    both_orders: bool = False
    limit: Positive | None = None


class Loss(BaseModel):
    """What is minimised.

    Attributes:
        soften: Width of the Gaussian, in intervals, over which the target of an interval token is
            spread: the neighbour of the right interval is less wrong than one far away. 0: none.
        expected: Weight of the Huber loss between the expected and the true position of a number.
        whole: Fraction of the pairs that are taught the whole text of their answer; the others are
            taught its first token, which decides a label or an interval. Free text and lists are
            always whole.
        rest: Weight of the tokens after an answer's first one, where they are taught.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    soften: Annotated[float, Field(ge=0)] = 0.7
    expected: Annotated[float, Field(ge=0)] = 0.3
    whole: Fraction = 0.25
    rest: Annotated[float, Field(ge=0)] = 0.3


class Lora(BaseModel):
    """Low-rank adapters of the language model, by PEFT."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    r: Positive = 8
    alpha: Positive = 32
    dropout: Fraction = 0.1
    targets: tuple[str, ...] = ("q_proj", "v_proj")


class Unseen(BaseModel):
    """Molecules that nothing is trained on, to measure what the model says of new ones.

    Attributes:
        fraction: Of the molecules of all data sets, about.
        seed: Another one sets other molecules aside.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    seed: int = 0


Ablation = Literal["lower", "graph"]
"""``lower``: a number's answer is its value alone, without the interval before it. ``graph``: the
encoder sees methane in place of every molecule, which only its SMILES in the prompt tells then."""


class Recipe(BaseModel):
    """A training stage.

    Attributes:
        stage: ``pretrain``: the graph encoder and one projector shared by both molecules;
            ``finetune``: projectors may be split per role, or per task and role.
        start: Preset to begin with, if no checkpoint is given.
        unseen: Molecules to leave out of everything; default: none. The same ones as in
            `moltc_vllm.data.unseen.read_unseen`.
        ablate: What of the method is left out, to see what it is good for.
        projectors: How projectors are shared.
        language_model: Whether the language model is trained wholly, by LoRA, or not at all.
        parts: Data sets and their part of a batch.
        steps: Optimiser steps.
        learning_rate: Largest; rises over ``warmup`` steps, then falls as a cosine to ``floor``
            times itself.
        weight_decay: AdamW's; not on biases, norms and embeddings.
        clip: Largest norm of the gradient.
        average: Decay of the exponential moving average of the weights that is kept and saved;
            0: none.
        dropout: Of graph encoder, Q-Former and language model.
        precision: Of the matrix products; ``bf16`` is for GPUs.
        gradient_checkpointing: Compute activations twice to hold fewer.
        validate_every: Steps between looks at the valid parts; 0: only at the end.
        validate_on: The valid parts; or those it trains on, to see whether it can learn at all.
        validate_pairs: At most so many pairs of each data set are looked at.
        save_every: Steps between saved states.
        seed: Of everything random.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    stage: Literal["pretrain", "finetune"]
    start: str = "mini"
    unseen: Unseen | None = None
    ablate: tuple[Ablation, ...] = ()
    projectors: Literal["shared", "role", "task_role"] = "shared"
    language_model: Literal["full", "lora", "frozen"] = "full"
    lora: Lora = Lora()
    parts: dict[str, Part]
    loss: Loss = Loss()
    steps: Positive
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    warmup: Annotated[int, Field(ge=0)] = 200
    floor: Fraction = 0.02
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip: Annotated[float, Field(gt=0)] = 1.0
    average: Annotated[float, Field(ge=0, lt=1)] = 0.999
    dropout: Fraction = 0.0
    precision: Literal["no", "bf16"] = "no"
    gradient_checkpointing: bool = False
    validate_every: Annotated[int, Field(ge=0)] = 500
    validate_on: Literal["valid", "train"] = "valid"
    validate_pairs: Positive = 1500
    save_every: Positive = 500
    seed: int = 0

    @property
    def intervals(self) -> bool:
        """Whether a number's answer begins with its interval."""
        return "lower" not in self.ablate

    @model_validator(mode="after")
    def _can_be_followed(self) -> Recipe:
        if not self.parts:
            raise ValueError("a recipe needs at least one data set in parts")
        for name in self.parts:
            if name != PROPERTIES and name not in DATASETS:
                raise ValueError(f"unknown data set {name!r}; there are {', '.join(DATASETS)}")
        if self.stage == "pretrain" and self.projectors != "shared":
            raise ValueError("in pretraining both molecules share one projector")
        return self


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("moltc_vllm.train") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir())


def load_recipe(name: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        name: Of one that comes with the package, or the path of a YAML file.
        changes: ``steps=100`` or ``parts.zhangddi.pairs=8``, values in YAML.

    Raises:
        RecipeError: If there is none of that name, or it does not say what a recipe says.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise RecipeError(f"there is no recipe {path}")
        text = path.read_text()
    else:
        if str(name) not in recipe_names():
            known = ", ".join(recipe_names())
            raise RecipeError(f"unknown recipe {str(name)!r}; there are {known}, or a YAML file")
        text = (resources.files("moltc_vllm.train") / "recipes" / f"{name}.yaml").read_text()
    try:
        content = yaml.safe_load(text)
        if not isinstance(content, dict):
            raise RecipeError(f"recipe {name} is no list of settings")
        for change in changes:
            _change(content, change)
        return Recipe.model_validate(content)
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe {name} is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "recipe"
        raise RecipeError(f"recipe {name}: {where}: {first['msg']}") from error


def _change(content: Any, change: str) -> None:
    key, equals, value = change.partition("=")
    if not equals:
        raise RecipeError(f"{change!r} is not of the form key=value")
    *path, last = key.split(".")
    place: Any = content
    for step in path:
        place = place.setdefault(step, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise RecipeError(f"{key!r}: {step!r} has nothing inside")
    try:
        place[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"{change!r}: the value is not YAML") from error
