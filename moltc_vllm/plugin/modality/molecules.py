"""What a request may give as a molecule, and what the engine makes of it."""

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
from moltc_vllm.models.prompt import encoder_keys, limits_of
from moltc_vllm.plugin.metrics import BAD_MOLECULES, MOLECULES_PARSED

MODALITY = "molecule"

_FIELDS = {"smiles", "molblock", "role", "task"}


class EncoderInput(NamedTuple):
    """A molecule as the encoder sees it; equal ones share the encoder's cache entry."""

    key: str  # canonical SMILES, or as written where the checkpoint wants it so
    projector: int  # number in the checkpoint's projector bank


class MoleculeSpec(NamedTuple):
    """A molecule as a request gave it."""

    smiles: str
    role: int | None = None
    task: str | None = None

    @classmethod
    def of(cls, value: Any, where: str, config: MoltcConfig) -> MoleculeSpec:
        """Read ``"CCO"``, ``{"smiles": "CCO"}`` or ``{"molblock": "..."}``.

        Args:
            value: What the request has; a mapping may also name ``role`` and ``task``.
            where: The request's field, for the error message.
            config: The checkpoint's configuration.

        Raises:
            VLLMValidationError: If it is none of these.
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
        smiles, block = value.get("smiles"), value.get("molblock")
        if isinstance(smiles, str) == isinstance(block, str):
            raise VLLMValidationError(
                "a molecule needs one of 'smiles' and 'molblock', a string", parameter=where
            )
        if isinstance(block, str):
            try:
                smiles = molblock_to_smiles(block, limits_of(config))
            except MoleculeError as error:
                raise refused(error, where) from error
        role, task = value.get("role"), value.get("task")
        if role is not None and (isinstance(role, bool) or not isinstance(role, int)):
            raise VLLMValidationError("a molecule's role is an integer", parameter=where)
        if task is not None and not isinstance(task, str):
            raise VLLMValidationError("a molecule's task is a string", parameter=where)
        return cls(str(smiles), role, task)


class BadMoleculeError(VLLMValidationError):
    """A molecule that cannot be read: a 400 which names it."""


def refused(error: MoleculeError, where: str) -> BadMoleculeError:
    """Turn a chemistry error into vLLM's kind of bad request, and count it."""
    BAD_MOLECULES.labels(kind=error.kind).inc()
    return BadMoleculeError(str(error), parameter=where)


class MoleculeItems(ProcessorBatchItems[EncoderInput]):
    """The molecules of one prompt."""

    def __init__(self, data: Sequence[EncoderInput]) -> None:
        super().__init__(data, MODALITY)

    def get_item_for_hash(self, index: int) -> object:
        """Molecule and projector: what the encoder's result depends on."""
        item = self.data[index]
        return {"key": item.key, "projector": item.projector}

    def get_processor_data(self) -> Mapping[str, object]:
        """Arguments of the processor."""
        return {"molecules": list(self.data)}


class MoleculeDataParser(MultiModalDataParser):
    """``multi_modal_data["molecule"]`` to `MoleculeItems`."""

    def __init__(self, config: MoltcConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config
        # A look into the configuration takes microseconds, and here they are of every pair.
        self._key = encoder_keys(config)
        self._projector = cache(partial(projector_index, config))
        self._last_role = config.num_roles - 1
        compiled_reader()  # now, and not in the first request: numba's import, a self-test

    def _get_subparsers(self) -> Mapping[str, Any]:
        return {MODALITY: self._parse}

    def _parse(self, data: Any) -> ModalityDataItems[Any, Any] | None:
        if data is None:
            return None
        if isinstance(data, (str, Mapping, EncoderInput, MoleculeSpec)):
            data = [data]
        elif hasattr(data, "tolist"):  # Arrow gives list columns as object arrays
            data = data.tolist()
        if len(data) > self.config.max_molecules:
            raise VLLMValidationError(
                f"{len(data)} molecules in one prompt, at most {self.config.max_molecules}",
                parameter=MODALITY,
            )
        return MoleculeItems([self._resolve(item, place) for place, item in enumerate(data)])

    def _resolve(self, item: Any, place: int) -> EncoderInput:
        # vLLM parses again what its cache did not have: already resolved items come back.
        if isinstance(item, EncoderInput):
            return item
        where = f"{MODALITY}[{place}]"
        spec = MoleculeSpec.of(item, where, self.config)
        role = place if spec.role is None else spec.role
        try:
            key = self._key(spec.smiles)
            projector = self._projector(min(role, self._last_role), spec.task)
        except MoleculeError as error:
            raise refused(error, where) from error
        except ProjectorError as error:
            raise VLLMValidationError(str(error), parameter=where) from error
        MOLECULES_PARSED.inc()
        return EncoderInput(key, projector)
