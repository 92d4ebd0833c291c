"""vLLM renderer that turns requests with molecules into multimodal prompts.

vLLM's chat parser rejects unknown content parts, so this renderer extracts the molecules first and
attaches them as multimodal data. ``--tokenizer-mode moltc`` selects it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

from vllm.exceptions import VLLMValidationError
from vllm.renderers.hf import HfRenderer

from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.prompt_composer import PromptComposer
from moltc_vllm.models.tokenizer import stop_token_id
from moltc_vllm.plugin.modality.molecules import MODALITY, MoleculeSpec
from moltc_vllm.plugin.server.tagged_text import extract_molecules, join_texts, reject_reserved
from moltc_vllm.plugin.server.task_adapters import current_request_task
from moltc_vllm.tasks import MOLECULE_TOKEN, PromptStyle, find_task_by_question

_MAX_CACHED_CHARACTERS = 256  # longest text whose tokens are cached


class MoltcRenderer(HfRenderer):
    """vLLM's renderer for Hugging Face tokenizers, extended by molecules.

    Every molecule is sent to the engine with its data. With vLLM's own processor cache, the second
    request with a molecule would be sent without the data. The engine would fail that request, and
    the client would get a 500, if it arrived before the first one (which may be streamed) or if the
    first one was rejected after rendering. `MoleculeProcessor` therefore caches packed molecules in
    this process instead.
    """

    @property
    def _config(self) -> MoltcConfig:
        return self.model_config.hf_config

    @cached_property
    def _style(self) -> PromptStyle:
        return self._config.style

    @cached_property
    def _composer(self) -> PromptComposer:
        return PromptComposer(self._config)

    @cached_property
    def _stop(self) -> int | None:
        return stop_token_id(self.get_tokenizer(), self._style)

    def get_eos_token_id(self) -> int | None:
        """Return the token that ends an answer in the checkpoint's prompt style."""
        return self._stop

    def clear_mm_cache(self) -> None:
        """Clear the caches of processed molecules."""
        super().clear_mm_cache()
        self.get_mm_processor().clear_cache()

    # Text prompts of completions and of `LLM.generate`.

    def render_prompt(self, prompt: Any) -> Any:
        """Attach the molecules that are tagged in the text."""
        return self._attach_molecules(super().render_prompt(prompt))

    async def _render_prompt_async(self, prompt: Any) -> Any:
        return self._attach_molecules(await super()._render_prompt_async(prompt))

    def _attach_molecules(self, prompt: Any) -> Any:
        task = current_request_task()
        text = prompt.get("prompt")
        if text is None or prompt.get("multi_modal_data"):
            return prompt  # token ids, or a text with its molecules beside it
        text, molecules = self._extract_from_text(text, "prompt")
        if not molecules:
            return prompt
        text = self._style.tidy(text)
        task = task or self._task_of_question(text)
        molecules = _with_default_task(molecules, task)
        return {**prompt, "prompt": text, "multi_modal_data": {MODALITY: molecules}}

    # Conversations.

    def render_messages(self, messages: Any, params: Any) -> Any:
        """Render a conversation with molecules."""
        messages, molecules = self._extract_from_messages(messages, params)
        return self._add_data(super().render_messages(messages, params), molecules)

    async def render_messages_async(self, messages: Any, params: Any) -> Any:
        """Render a conversation with molecules."""
        messages, molecules = self._extract_from_messages(messages, params)
        rendered = await super().render_messages_async(messages, params)
        return self._add_data(rendered, molecules)

    @staticmethod
    def _add_data(rendered: Any, molecules: Sequence[MoleculeSpec]) -> Any:
        conversation, prompt = rendered
        if molecules:
            prompt["multi_modal_data"] = {MODALITY: list(molecules)}
        return conversation, prompt

    def _extract_from_messages(
        self, messages: Iterable[Any], params: Any
    ) -> tuple[list[Any], list[MoleculeSpec]]:
        """Return messages of text parts only, and the molecules of all messages in order."""
        request_task = current_request_task()
        kwargs = getattr(params, "chat_template_kwargs", None) or {}
        default_task = kwargs.get("task") or request_task
        rewritten: list[Any] = []
        molecules: list[MoleculeSpec] = []
        for index, message in enumerate(messages):
            message, message_molecules = self._extract_from_message(
                message, f"messages[{index}].content", default_task
            )
            rewritten.append(message)
            molecules += message_molecules
        return rewritten, molecules

    def _extract_from_message(
        self, message: Any, where: str, default_task: str | None
    ) -> tuple[Any, list[MoleculeSpec]]:
        content = message.get("content") if isinstance(message, Mapping) else None
        if content is None:
            return message, []
        task = message.get("task") or default_task
        molecules: list[MoleculeSpec]
        if isinstance(content, str):
            content, molecules = self._extract_from_text(content, where)
        else:
            content, molecules = self._extract_from_parts(list(content), where)
        if molecules:
            content = self._style.tidy(content) if isinstance(content, str) else content
            task = task or self._task_of_question(content)
        return {**message, "content": content}, _with_default_task(molecules, task)

    def _extract_from_text(self, text: str, where: str) -> tuple[str, list[MoleculeSpec]]:
        """Return the text with the style's markup, and the molecules in the order of the prompt."""

        def arrange(smiles: Sequence[str]) -> Sequence[int]:
            return self._composer.order_by_question(smiles, text)

        return extract_molecules(text, where, self._style.markup, arrange)

    def _extract_from_parts(
        self, parts: list[Any], where: str
    ) -> tuple[str | list[Any], list[MoleculeSpec]]:
        """Return the content without molecule parts, as one text if possible, and the molecules."""
        rewritten: list[Any] = []
        molecules: list[MoleculeSpec] = []
        texts: list[str] | None = []  # None if the message is not molecules followed by text
        specs = iter(self._read_molecule_parts(parts, where))
        for index, part in enumerate(parts):
            part_where = f"{where}[{index}]"
            if _is_molecule_part(part):
                spec = next(specs)
                molecules.append(spec)
                rewritten.append({"type": "text", "text": self._style.markup(spec.smiles)})
                texts = None if texts else texts
                continue
            text = part if isinstance(part, str) else part.get("text")
            if not isinstance(text, str):
                rewritten.append(part)
                texts = None
                continue
            text, tagged = self._extract_from_text(text, part_where)
            molecules += tagged
            rewritten.append({"type": "text", "text": text})
            texts = None if tagged or texts is None else [*texts, text]
        if texts is not None:
            smiles = [spec.smiles for spec in molecules]
            composed = self._style.compose_chat(smiles, join_texts(texts))
            if composed is not None:
                return composed.text, [molecules[index] for index in composed.order]
        if all(part.get("type") == "text" for part in rewritten):
            # vLLM's own parser would join the parts with line breaks.
            return join_texts([part["text"] for part in rewritten]), molecules
        return rewritten, molecules

    def _read_molecule_parts(self, parts: Sequence[Any], where: str) -> list[MoleculeSpec]:
        """Return the molecules of all molecule parts in the order of the prompt."""
        specs = [
            self._read_molecule_part(part, f"{where}[{index}]")
            for index, part in enumerate(parts)
            if _is_molecule_part(part)
        ]
        texts = (part if isinstance(part, str) else part.get("text") for part in parts)
        text = join_texts([text for text in texts if isinstance(text, str)])
        order = self._composer.order_by_question([spec.smiles for spec in specs], text)
        return [specs[index] for index in order]

    def _read_molecule_part(self, part: Mapping[str, Any], where: str) -> MoleculeSpec:
        spec = MoleculeSpec.from_request(part.get(MODALITY), f"{where}.{MODALITY}", self._config)
        reject_reserved(spec.smiles, where)
        return spec

    def _task_of_question(self, content: str | Sequence[Any]) -> str | None:
        """Return the task whose question is in the content, if projectors depend on the task."""
        if self._config.projector_sharing != "task_role":
            return None
        if not isinstance(content, str):
            parts = (part for part in content if isinstance(part, Mapping))
            content = join_texts(
                [str(part["text"]) for part in parts if part.get("type") == "text"]
            )
        task = find_task_by_question(content)
        return task.name if task is not None and task.name in self._config.tasks else None

    # Tokenization of all prompts.

    def _tokenize_prompt(self, prompt: Any, params: Any) -> Any:
        """Tokenize a text; tokens of short texts are cached.

        In a prompt style without SMILES the texts of all pairs of a task are equal.
        """
        text = prompt["prompt"]
        if len(text) > _MAX_CACHED_CHARACTERS or self._wants_offsets(prompt, params):
            return super()._tokenize_prompt(prompt, params)
        ids = self._cached_token_ids(text, tuple(sorted(params.get_encode_kwargs().items())))
        return self._build_tokens_prompt(ids, prompt)

    @cached_property
    def _cached_token_ids(self) -> Callable[[str, tuple[tuple[str, Any], ...]], Sequence[int]]:
        tokenizer = self.get_tokenizer()

        @lru_cache(maxsize=1024)
        def token_ids(text: str, encode_kwargs: tuple[tuple[str, Any], ...]) -> Sequence[int]:
            return tuple(tokenizer(text, **dict(encode_kwargs))["input_ids"])

        return token_ids

    def _process_mm_uuids(
        self, mm_data: Any, mm_data_items: Any, mm_uuid_items: Any, mm_req_id: str
    ) -> Any:
        """Keep the molecules' content hashes as their ids.

        If all caches are off, vLLM would assign new ids in each request, and the encoder cache
        could not recognize a molecule.
        """
        self._validate_mm_uuids(mm_data, mm_data_items, mm_uuid_items)
        return mm_uuid_items

    def _process_tokens(self, prompt: Any, *, skip_mm_cache: bool = False) -> Any:
        self._check_placeholders(prompt)
        return super()._process_tokens(prompt, skip_mm_cache=True)

    async def _process_tokens_async(self, prompt: Any, *, skip_mm_cache: bool = False) -> Any:
        self._check_placeholders(prompt)
        return await super()._process_tokens_async(prompt, skip_mm_cache=True)

    def _check_placeholders(self, prompt: Mapping[str, Any]) -> None:
        """Check that a tokenized prompt has one placeholder for each molecule.

        They may differ if placeholders are sent as token ids or spelled with look-alike
        characters, which the tokenizer normalizes.
        """
        data = (prompt.get("multi_modal_data") or {}).get(MODALITY)
        if data is None:
            molecules = 0
        else:
            molecules = 1 if isinstance(data, (str, Mapping, MoleculeSpec)) else len(data)
        placeholders = list(prompt["prompt_token_ids"]).count(self._config.molecule_token_id)
        if placeholders != molecules:
            raise VLLMValidationError(
                f"the prompt has {placeholders} {MOLECULE_TOKEN} placeholders for {molecules} "
                "molecules",
                parameter="prompt",
            )


def _is_molecule_part(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == MODALITY


def _with_default_task(molecules: Sequence[MoleculeSpec], task: str | None) -> list[MoleculeSpec]:
    """Return the molecules, with the task set on those that have none."""
    return [spec if spec.task or not task else spec._replace(task=task) for spec in molecules]
