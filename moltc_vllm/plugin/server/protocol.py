"""Request and response of ``POST /v1/interactions``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictStr

from moltc_vllm.tasks import Answer
from moltc_vllm.utils.coverage import DEFAULT_COVERAGE

MAX_PAIRS = 10_000
"""Maximum number of pairs in a request; larger sets need several requests or a screen."""


class MoleculeObject(BaseModel):
    """A molecule as an object with either SMILES or a molblock."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    smiles: StrictStr | None = None
    """SMILES of the molecule."""

    molblock: StrictStr | None = None
    """MDL molblock of the molecule."""


Molecule = Annotated[StrictStr | MoleculeObject, Field(union_mode="left_to_right")]
"""A molecule of a pair: SMILES or an object."""


class InteractionsRequest(BaseModel):
    """Body of ``POST /v1/interactions``."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    model: StrictStr | None = None
    """Served model name; default: the adapter of the task, or else the base model."""

    task: StrictStr
    """Name of the task to answer for every pair."""

    pairs: Annotated[list[list[Molecule]], Field(min_length=1, max_length=MAX_PAIRS)]
    """Molecules of each pair, in the order of the task's roles."""

    question: StrictStr | None = None
    """Question of a task that takes one."""

    constrained: bool | None = None
    """Whether a grammar constrains answers; default: the choice of the model's prompt style."""

    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Maximum length of an answer in tokens; default: the prompt style's."""

    beams: Annotated[int, Field(ge=1)] = 1
    """Width of the beam search; 1 is greedy decoding."""

    score: bool = False
    """Whether only the tokens that distinguish answers are generated, without the model's text."""

    coverage: Annotated[float, Field(gt=0, lt=1)] = DEFAULT_COVERAGE
    """Coverage of the prediction intervals ``low`` to ``high`` of numeric answers."""


class Usage(BaseModel):
    """Token counts, summed over all pairs."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    prompt_tokens: int = 0
    """Tokens of the prompts, molecule tokens included."""

    completion_tokens: int = 0
    """Generated tokens."""

    total_tokens: int = 0
    """Sum of both."""


class InteractionsResponse(BaseModel):
    """One answer per pair, in the order of the request."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    id: str
    """Id of the response; the engine's request ids begin with it."""

    object: Literal["list"] = "list"
    """Kind of object, as OpenAI's API names it."""

    model: str
    """Served name of the model or adapter that answered."""

    task: str
    """Name of the task."""

    data: list[Answer]
    """Answers in the order of the request's pairs."""

    usage: Usage
    """Token counts of the request."""
