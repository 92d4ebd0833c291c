"""Molecules in requests: their accepted forms, validation and parsing for vLLM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

from vllm.exceptions import VLLMValidationError
from vllm.multimodal.parse import ModalityDataItems, MultiModalDataParser, ProcessorBatchItems

from moltc_vllm.chem import MoleculeError, molblock_to_smiles
from moltc_vllm.chem.fast.dispatch import compiled_reader
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.projector import ProjectorError, projector_index
from moltc_vllm.models.prompt import encoder_key_fn, molecule_limits
from moltc_vllm.plugin.metrics import BAD_MOLECULES, MOLECULES_PARSED

MODALITY = "molecule"

_FIELDS = {"smiles", "molblock", "role", "task"}


class EncoderInput(NamedTuple):
    """Input of the molecule encoder; equal inputs share one entry of vLLM's encoder cache.

    Attributes:
        key: Canonical SMILES, or SMILES as written if the checkpoint's encoder depends on it.
        projector: Index in the checkpoint's projector bank.
    """

    key: str
    projector: int


class MoleculeSpec(NamedTuple):
    """A validated molecule of a request.

    Attributes:
        smiles: SMILES as given in the request, or converted from the request's molblock.
        role: Index of the molecule's role; default: its position in the prompt.
        task: Task whose projector encodes it.
    """

    smiles: str
    role: int | None = None
    task: str | None = None

    @classmethod
    def from_request(cls, value: Any, where: str, config: MoltcConfig) -> MoleculeSpec:
        """Validate ``"CCO"``, ``{"smiles": "CCO"}`` or ``{"molblock": "..."}``.

        Args:
            value: Value in the request; a mapping may also have ``role`` and ``task``.
            where: Field of the request, for the error message.
            config: Configuration of the checkpoint.

        Raises:
            BadMoleculeError: If the molblock cannot be read.
            VLLMValidationError: If the value has none of these forms.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            return cls(value)
        if not isinstance(value, Mapping):
            raise VLLMValidationError(
                f"a molecule is a SMILES string or an object with 'smiles' or 'molblock', "
                f"not {type(value).__name__}",
                parameter=where,
            )
        unknown = sorted(str(key) for key in value.keys() - _FIELDS)
        if unknown:
            raise VLLMValidationError(
                f"a molecule has no field {unknown[0][:80]!r}; it may have smiles or molblock, "
                "role and task",
                parameter=where,
            )
        smiles, molblock = value.get("smiles"), value.get("molblock")
        if isinstance(smiles, str) == isinstance(molblock, str):
            raise VLLMValidationError(
                "a molecule needs one of 'smiles' and 'molblock', a string", parameter=where
            )
        if isinstance(molblock, str):
            try:
                smiles = molblock_to_smiles(molblock, molecule_limits(config))
            except MoleculeError as error:
                raise bad_molecule_error(error, where) from error
        role, task = value.get("role"), value.get("task")
        if role is not None and (isinstance(role, bool) or not isinstance(role, int)):
            raise VLLMValidationError("a molecule's role is an integer", parameter=where)
        if task is not None and not isinstance(task, str):
            raise VLLMValidationError("a molecule's task is a string", parameter=where)
        return cls(str(smiles), role, task)


class BadMoleculeError(VLLMValidationError):
    """Error of an invalid molecule; the server responds with status 400 and its message."""


def bad_molecule_error(error: MoleculeError, where: str) -> BadMoleculeError:
    """Convert a chemistry error to vLLM's validation error and count it.

    Args:
        error: Error of the molecule.
        where: Field of the request, for the error message.
    """
    BAD_MOLECULES.labels(kind=error.kind).inc()
    return BadMoleculeError(str(error), parameter=where)


class MoleculeItems(ProcessorBatchItems[EncoderInput]):
    """Molecules of one prompt."""

    def __init__(self, data: Sequence[EncoderInput]) -> None:
        super().__init__(data, MODALITY)

    def get_item_for_hash(self, index: int) -> object:
        """Return the values that determine the encoder's output: molecule and projector."""
        item = self.data[index]
        return {"key": item.key, "projector": item.projector}

    def get_processor_data(self) -> Mapping[str, object]:
        """Return the arguments of the processor."""
        return {"molecules": list(self.data)}


class MoleculeDataParser(MultiModalDataParser):
    """Parser of ``multi_modal_data["molecule"]`` to `MoleculeItems`."""

    def __init__(self, config: MoltcConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config
        # Resolved once, because attribute access of a configuration takes microseconds.
        self._encoder_key = encoder_key_fn(config)
        self._projector_index = cache(partial(projector_index, config))
        self._last_role = config.num_roles - 1
        compiled_reader()  # imports numba and runs a self-test before the first request

    def _get_subparsers(self) -> Mapping[str, Any]:
        return {MODALITY: self._parse}

    def _parse(self, data: Any) -> ModalityDataItems[Any, Any] | None:
        if data is None:
            return None
        if isinstance(data, (str, Mapping, EncoderInput, MoleculeSpec)):
            data = [data]
        elif hasattr(data, "tolist"):  # list columns of Arrow tables arrive as object arrays
            data = data.tolist()
        if len(data) > self.config.max_molecules:
            raise VLLMValidationError(
                f"{len(data)} molecules in one prompt, at most {self.config.max_molecules}",
                parameter=MODALITY,
            )
        return MoleculeItems([self._resolve(item, index) for index, item in enumerate(data)])

    def _resolve(self, item: Any, index: int) -> EncoderInput:
        # vLLM parses the items that its cache lacks a second time; they are already resolved.
        if isinstance(item, EncoderInput):
            return item
        where = f"{MODALITY}[{index}]"
        spec = MoleculeSpec.from_request(item, where, self.config)
        role = index if spec.role is None else spec.role
        try:
            key = self._encoder_key(spec.smiles)
            projector = self._projector_index(min(role, self._last_role), spec.task)
        except MoleculeError as error:
            raise bad_molecule_error(error, where) from error
        except ProjectorError as error:
            raise VLLMValidationError(str(error), parameter=where) from error
        MOLECULES_PARSED.inc()
        return EncoderInput(key, projector)
