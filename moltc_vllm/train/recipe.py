"""Recipes: every setting of a training stage, in one YAML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AliasChoices,
    AliasGenerator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from moltc_vllm.data.dataset_registry import DATASETS
from moltc_vllm.data.molecule_targets import TargetKind
from moltc_vllm.data.unseen import SplitBy
from moltc_vllm.train.recipe_keys import (
    LOSS_KEYS,
    MIXTURE_KEYS,
    RECIPE_KEYS,
    both_names_message,
    find_old_keys,
    other_spelling,
    renamed_keys,
)
from moltc_vllm.utils.deprecation import warn_renamed
from moltc_vllm.utils.errors import one_line

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]

PROPERTIES = "properties"
"""Name in ``mixture`` of random pairs of library molecules with their calculated properties."""


class RecipeError(ValueError):
    """A recipe that cannot be read or is not valid; the message is one line."""


def _model_config(renamed: Mapping[str, str] | None = None) -> ConfigDict:
    """Return a configuration that accepts each field under its old name as well.

    Pydantic's errors then name the key as the user spelled it.

    Args:
        renamed: New names by old name.
    """
    old_names = {new: old for old, new in (renamed or {}).items()}

    def accepted_names(field: str) -> str | AliasChoices:
        return AliasChoices(field, old_names[field]) if field in old_names else field

    aliases = AliasGenerator(validation_alias=accepted_names)
    return ConfigDict(extra="forbid", frozen=True, alias_generator=aliases)


class MixtureComponent(BaseModel):
    """Share of one data set in every batch.

    Attributes:
        batch_size: Number of the data set's pairs in each batch.
        block: Largest number of distinct first and second molecules in a block of pairs. The pairs
            of a block are drawn one after another, so a batch has few molecules to encode. 0
            leaves a role unbounded; ``None`` draws pairs in random order.
        both_orders: Whether the two molecules of each pair are put in a random order.
        limit: Number of training pairs, drawn at random; default: all.
    """

    model_config = _model_config(MIXTURE_KEYS)

    batch_size: Positive
    block: tuple[int, int] | None = None
    both_orders: bool = False
    limit: Positive | None = None


class LossSettings(BaseModel):
    """Terms and weights of the loss.

    Attributes:
        gaussian_label_sigma: Standard deviation, in intervals, of the Gaussian that smooths the
            target distribution of an interval token (HL-Gauss), so that a neighboring interval
            costs less than a distant one. 0 uses one-hot targets.
        expected_value_weight: Weight of the Huber loss between the expected and the true position
            of a number on its scale of intervals.
        full_text_fraction: Fraction of the pairs whose whole answer text is trained on; the others
            are trained on its first token only, which decides a label or an interval. Free text
            and lists are always trained on in full.
        text_loss_weight: Weight of the answer tokens after the first one, where they are trained
            on.
        first_token_over: Tokens among which the first one is chosen where it alone is trained on:
            the whole ``vocabulary``, or the first tokens of the task's ``answers``, to which
            decoding is held anyway. The latter saves the product with the vocabulary.
    """

    model_config = _model_config(LOSS_KEYS)

    gaussian_label_sigma: NonNegative = 0.7
    expected_value_weight: NonNegative = 0.3
    full_text_fraction: Fraction = 0.25
    text_loss_weight: NonNegative = 0.3
    first_token_over: Literal["vocabulary", "answers"] = "vocabulary"


class MoleculeSettings(BaseModel):
    """Auxiliary training of the molecule encoder on calculated properties of single molecules.

    Attributes:
        batch_size: Number of molecules in each batch.
        targets: Kinds of calculated properties, see `moltc_vllm.data.molecule_targets`.
        limit: Largest number of molecules: those of the data sets, then molecules drawn from the
            libraries; default: all.
        weight: Weight of the auxiliary loss.
    """

    model_config = _model_config()

    batch_size: Positive
    targets: tuple[TargetKind, ...] = ("descriptors", "fingerprint")
    limit: Positive | None = None
    weight: NonNegative = 1.0


class LoraSettings(BaseModel):
    """Settings of the language model's low-rank adapters (PEFT).

    Attributes:
        r: Rank of the update matrices.
        alpha: Scaling factor; an update is multiplied by ``alpha / r``.
        dropout: Dropout rate before an adapter.
        targets: Names of the linear layers that get an adapter.
    """

    model_config = _model_config()

    r: Positive = 8
    alpha: Positive = 32
    dropout: Fraction = 0.1
    targets: tuple[str, ...] = ("q_proj", "v_proj")


class UnseenSettings(BaseModel):
    """Molecules held out of all training data, to measure predictions for new molecules.

    Attributes:
        fraction: Approximate fraction of the molecules of all data sets to hold out.
        seed: Seed of the draw.
        by: Whether single molecules or all molecules of some scaffolds are held out.
    """

    model_config = _model_config()

    fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    seed: int = 0
    by: SplitBy = "molecule"


Ablation = Literal["lower", "graph"]
"""``lower``: a numeric answer is its value alone, without the interval before it. ``graph``: the
encoder gets methane in place of every molecule, so that only the SMILES in the prompt tells
molecules apart."""


class Recipe(BaseModel):
    """Settings of a training stage.

    Attributes:
        name: Name of the stage, for messages and the card of the checkpoint.
        stage: ``pretrain`` trains one projector, shared by both molecules of a pair;
            ``finetune`` may split projectors by role, or by task and role.
        init_from: Preset whose random weights are the start, if no checkpoint is given.
        unseen: Molecules to hold out of all data sets, the same ones as
            `moltc_vllm.data.unseen.read_unseen` holds out; default: none.
        ablate: Components of the method to leave out, for ablation studies.
        projectors: Sharing of projectors between roles and tasks.
        language_model: Trained weights of the language model: all (``full``), LoRA adapters
            (``lora``) or none (``frozen``).
        lora: Settings of the adapters; used if ``language_model`` is ``lora``.
        mixture: Data sets to train on, by name, with their share of a batch.
        molecules: Auxiliary training of the molecule encoder; default: none.
        loss: Terms and weights of the loss.
        max_steps: Number of optimizer steps.
        learning_rate: Peak learning rate.
        warmup_steps: Steps over which the learning rate rises linearly to its peak. After them it
            falls along a cosine.
        min_lr_ratio: Learning rate after the last step, as a fraction of the peak.
        weight_decay: Weight decay of AdamW; biases, norms and embeddings are exempt.
        max_grad_norm: Norm to which the gradient is clipped.
        ema_decay: Decay of the exponential moving average of the weights, which is validated and
            saved in their place; 0 turns it off.
        dropout: Dropout rate of graph encoder, Q-Former and language model.
        model: Changes of the preset's configuration, for a model with random weights: arguments of
            `MoltcConfig`, with those of its parts as mappings, e.g.
            ``graph_encoder_config: {descriptors: true}``.
        precision: Precision of matrix products: ``no`` (float32) or ``bf16`` (for GPUs).
        gradient_checkpointing: Whether the language model's activations are recomputed in the
            backward pass, which saves memory.
        validate_every: Steps between two validations; 0 validates at the end only.
        validate_on: Split to validate on: ``valid``, or ``train`` to check that the model can fit
            its training data.
        validate_pairs: Largest number of pairs of each data set to validate on.
        save_every: Steps between two saved states.
        seed: Seed of initial weights, drawn pairs and dropout.
    """

    model_config = _model_config(RECIPE_KEYS)

    name: str
    stage: Literal["pretrain", "finetune"]
    init_from: str = "mini"
    unseen: UnseenSettings | None = None
    ablate: tuple[Ablation, ...] = ()
    projectors: Literal["shared", "role", "task_role"] = "shared"
    language_model: Literal["full", "lora", "frozen"] = "full"
    lora: LoraSettings = LoraSettings()
    mixture: dict[str, MixtureComponent]
    molecules: MoleculeSettings | None = None
    loss: LossSettings = LossSettings()
    max_steps: Positive
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 200
    min_lr_ratio: Fraction = 0.02
    weight_decay: NonNegative = 0.01
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    dropout: Fraction = 0.0
    model: dict[str, Any] = {}
    precision: Literal["no", "bf16"] = "no"
    gradient_checkpointing: bool = False
    validate_every: Annotated[int, Field(ge=0)] = 500
    validate_on: Literal["valid", "train"] = "valid"
    validate_pairs: Positive = 1500
    save_every: Positive = 500
    seed: int = 0

    @property
    def uses_intervals(self) -> bool:
        """Whether a numeric answer begins with its interval."""
        return "lower" not in self.ablate

    @property
    def pairs_per_step(self) -> int:
        """Number of pairs in a batch, over all data sets."""
        return sum(component.batch_size for component in self.mixture.values())

    @model_validator(mode="before")
    @classmethod
    def _warn_about_old_keys(cls, content: Any) -> Any:
        for old, new in find_old_keys(content).items():
            warn_renamed(f"recipe key {old!r}", repr(new), stacklevel=3)
        return content

    @model_validator(mode="after")
    def _check_consistency(self) -> Recipe:
        if not self.mixture:
            raise ValueError("a recipe needs at least one data set in 'mixture'")
        for name in self.mixture:
            if name != PROPERTIES and name not in DATASETS:
                raise ValueError(
                    f"unknown data set {name!r}; available: {', '.join(DATASETS)}, {PROPERTIES}"
                )
        if self.stage == "pretrain" and self.projectors != "shared":
            raise ValueError("stage 'pretrain' needs projectors: shared")
        return self


def recipe_names() -> list[str]:
    """Return the names of the recipes in the package."""
    folder = resources.files("moltc_vllm.train") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir())


def load_recipe(name: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply changes to it.

    Args:
        name: Name of a recipe in the package, or path of a YAML file.
        changes: Values to replace, such as ``max_steps=100`` or
            ``mixture.zhangddi.batch_size=8``, in YAML.

    Raises:
        RecipeError: If the recipe does not exist, is not YAML, or has an unknown key or a wrong
            value.
    """
    text = _read_text(name)
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe {name} is not YAML: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"recipe {name} is not a mapping of keys to values")
    _apply_changes(content, changes)
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise RecipeError(f"recipe {name}: {f'{key}: ' if key else ''}{message}") from error


def _read_text(name: str | Path) -> str:
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise RecipeError(f"recipe file {path} does not exist")
        return path.read_text()
    if str(name) not in recipe_names():
        raise RecipeError(
            f"unknown recipe {str(name)!r}; choose {', '.join(recipe_names())} or a YAML file"
        )
    return (resources.files("moltc_vllm.train") / "recipes" / f"{name}.yaml").read_text()


def _apply_changes(content: dict[str, Any], changes: Sequence[str]) -> None:
    """Set the values of ``key=value`` changes in a recipe's content, in place.

    A key of the content takes the spelling of the change, whether it is the old or the new one.
    """
    spellings: dict[tuple[str, ...], str] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise RecipeError(f"{change!r} does not have the form key=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise RecipeError(f"{change!r}: the value is not YAML") from error
        *parents, last = key.split(".")
        mapping: Any = content
        path: list[str] = []
        for parent in parents:
            _use_spelling(mapping, path, parent, spellings)
            mapping = mapping.setdefault(parent, {})
            if not isinstance(mapping, dict):
                raise RecipeError(f"{key!r}: {parent!r} does not contain other keys")
            path.append(parent)
        _use_spelling(mapping, path, last, spellings)
        mapping[last] = value


def _use_spelling(
    mapping: dict[str, Any], path: Sequence[str], key: str, spellings: dict[tuple[str, ...], str]
) -> None:
    """Rename a key of a mapping to the spelling of a change.

    Args:
        mapping: Mapping of a recipe's content, changed in place.
        path: Keys that lead to the mapping.
        key: Key to set in the mapping.
        spellings: Spellings in earlier changes, by path and new name; this one is added.

    Raises:
        RecipeError: If an earlier change spelled the same key differently.
    """
    other = other_spelling(path, key)
    if other is None:
        return
    old, new = (key, other) if key in renamed_keys(path) else (other, key)
    if spellings.setdefault((*path, new), key) != key:
        raise RecipeError(f"--set: {both_names_message(old, new)}")
    if other in mapping:
        mapping[key] = mapping.pop(other)
