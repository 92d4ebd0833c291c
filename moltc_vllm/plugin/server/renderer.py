"""Where requests become prompts: molecules in chat parts and in plain text.

vLLM's chat parsing knows a closed set of content parts, so molecules are taken out here, before
it, and handed over as multimodal data. Selected by ``--tokenizer-mode moltc``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

from vllm.exceptions import VLLMValidationError
from vllm.renderers.hf import HfRenderer

from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.tokenizer import stop_token_id
from moltc_vllm.plugin.modality.molecules import MODALITY, MoleculeSpec
from moltc_vllm.plugin.server.task_adapters import current_request_task
from moltc_vllm.tasks import (
    MOLECULE_END,
    MOLECULE_START,
    MOLECULE_TOKEN,
    PromptStyle,
    molecule_markup,
    task_asked_in,
)

_TAGGED = re.compile(
    re.escape(MOLECULE_START) + r"(?P<smiles>.*?)" + re.escape(MOLECULE_END), re.DOTALL
)
_RESERVED = (MOLECULE_TOKEN, MOLECULE_START, MOLECULE_END)
_SHORT = 256  # characters of a text that is worth remembering


def take_molecules(
    text: str, where: str, markup: Callable[[str], str] = molecule_markup
) -> tuple[str, list[MoleculeSpec]]:
    """Find tagged molecules in a text and put a placeholder behind each.

    Args:
        text: ``... [START_I_SMILES]CCO[END_I_SMILES] ...``.
        where: The request's field, for error messages.
        markup: Writes a molecule as the checkpoint's prompt style has it.

    Raises:
        VLLMValidationError: If the placeholder token is typed, or a tag stands alone.
    """
    if not any(token in text for token in _RESERVED):
        return text, []
    pieces: list[str] = []
    molecules: list[MoleculeSpec] = []
    end = 0
    for match in _TAGGED.finditer(text):
        pieces.append(_without_reserved(text[end : match.start()], where))
        smiles = _without_reserved(match["smiles"], where).strip()
        molecules.append(MoleculeSpec(smiles))
        pieces.append(markup(smiles))
        end = match.end()
    pieces.append(_without_reserved(text[end:], where))
    return "".join(pieces), molecules


def _without_reserved(text: str, where: str) -> str:
    for token in _RESERVED:
        if token in text:
            reason = (
                "is reserved: a molecule is written "
                f"{MOLECULE_START}SMILES{MOLECULE_END} or sent as a content part"
                if token == MOLECULE_TOKEN
                else "has no partner"
            )
            raise VLLMValidationError(f"{token} {reason}", parameter=where)
    return text


class MoltcRenderer(HfRenderer):
    """vLLM's renderer for Hugging Face tokenizers, with molecules."""

    @property
    def _config(self) -> MoltcConfig:
        return self.model_config.hf_config

    @cached_property
    def _style(self) -> PromptStyle:
        return self._config.style

    @cached_property
    def _stop(self) -> int | None:
        return stop_token_id(self.get_tokenizer(), self._style)

    def get_eos_token_id(self) -> int | None:
        """The token that ends an answer in the checkpoint's prompt style."""
        return self._stop

    # A style without SMILES asks for all pairs of a task in the same words.

    def _tokenize_prompt(self, prompt: Any, params: Any) -> Any:
        text = prompt["prompt"]
        if len(text) > _SHORT or self._wants_offsets(prompt, params):
            return super()._tokenize_prompt(prompt, params)
        ids = self._token_ids(text, tuple(sorted(params.get_encode_kwargs().items())))
        return self._build_tokens_prompt(ids, prompt)

    @cached_property
    def _token_ids(self) -> Callable[[str, tuple[tuple[str, Any], ...]], Sequence[int]]:
        tokenizer = self.get_tokenizer()

        @lru_cache(maxsize=1024)
        def token_ids(text: str, settings: tuple[tuple[str, Any], ...]) -> Sequence[int]:
            return tuple(tokenizer(text, **dict(settings))["input_ids"])

        return token_ids

    # Text prompts: completions and `LLM.generate`.

    def render_prompt(self, prompt: Any) -> Any:
        """Attach the molecules that the text names."""
        return self._attach(super().render_prompt(prompt))

    async def _render_prompt_async(self, prompt: Any) -> Any:
        return self._attach(await super()._render_prompt_async(prompt))

    def _attach(self, prompt: Any) -> Any:
        task = current_request_task()
        text = prompt.get("prompt")
        if text is None or prompt.get("multi_modal_data"):
            return prompt  # token ids, or molecules given beside the text
        text, molecules = take_molecules(text, "prompt", self._style.markup)
        if not molecules:
            return prompt
        text = self._style.tidy(text)
        task = task or self._told_by(text)
        if task is not None:
            molecules = [molecule._replace(task=task) for molecule in molecules]
        return {**prompt, "prompt": text, "multi_modal_data": {MODALITY: molecules}}

    # Chat.

    def render_messages(self, messages: Any, params: Any) -> Any:
        """Render a conversation with molecules."""
        messages, molecules = self._take_from_messages(messages, params)
        return self._with_molecules(super().render_messages(messages, params), molecules)

    async def render_messages_async(self, messages: Any, params: Any) -> Any:
        """Render a conversation with molecules."""
        messages, molecules = self._take_from_messages(messages, params)
        rendered = await super().render_messages_async(messages, params)
        return self._with_molecules(rendered, molecules)

    @staticmethod
    def _with_molecules(rendered: Any, molecules: Sequence[MoleculeSpec]) -> Any:
        conversation, prompt = rendered
        if molecules:
            prompt["multi_modal_data"] = {MODALITY: list(molecules)}
        return conversation, prompt

    def _take_from_messages(
        self, messages: Iterable[Any], params: Any
    ) -> tuple[list[Any], list[MoleculeSpec]]:
        asked = current_request_task()
        kwargs = getattr(params, "chat_template_kwargs", None) or {}
        default = kwargs.get("task") or asked
        found: list[MoleculeSpec] = []
        rewritten = []
        for number, message in enumerate(messages):
            where = f"messages[{number}].content"
            content = message.get("content") if isinstance(message, Mapping) else None
            task = (message.get("task") if isinstance(message, Mapping) else None) or default
            if isinstance(content, str):
                content, molecules = take_molecules(content, where, self._style.markup)
            elif content is not None:
                content, molecules = self._take_from_parts(list(content), where)
            else:
                rewritten.append(message)
                continue
            if molecules:
                content = self._style.tidy(content) if isinstance(content, str) else content
                task = task or self._told_by(content)
            found += [m if m.task or not task else m._replace(task=task) for m in molecules]
            rewritten.append({**message, "content": content})
        return rewritten, found

    def _told_by(self, content: str | Sequence[Any]) -> str | None:
        """The task that the text asks for in its own words, where projectors depend on it."""
        if self._config.projector_sharing != "task_role":
            return None
        if not isinstance(content, str):
            parts = (part for part in content if isinstance(part, Mapping))
            content = _join([str(part["text"]) for part in parts if part.get("type") == "text"])
        asked = task_asked_in(content)
        return asked.name if asked is not None and asked.name in self._config.tasks else None

    def _take_from_parts(
        self, parts: list[Any], where: str
    ) -> tuple[str | list[Any], list[MoleculeSpec]]:
        found: list[MoleculeSpec] = []
        rewritten: list[Any] = []
        question: list[str] | None = []  # the texts, while all of them come after all molecules
        for number, part in enumerate(parts):
            here = f"{where}[{number}]"
            if isinstance(part, Mapping) and part.get("type") == MODALITY:
                spec = MoleculeSpec.of(part.get(MODALITY), f"{here}.{MODALITY}", self._config)
                found.append(spec)
                question = None if question else question
                smiles = _without_reserved(spec.smiles, here)
                rewritten.append({"type": "text", "text": self._style.markup(smiles)})
                continue
            text = part if isinstance(part, str) else part.get("text")
            if isinstance(text, str):
                text, molecules = take_molecules(text, here, self._style.markup)
                found += molecules
                if question is not None:
                    question = None if molecules else [*question, text]
                part = {"type": "text", "text": text}
            else:
                question = None
            rewritten.append(part)
        if question is not None:
            whole = self._style.compose_chat([spec.smiles for spec in found], _join(question))
            if whole is not None:
                return whole.text, [found[place] for place in whole.order]
        if all(part.get("type") == "text" for part in rewritten):
            # The stock parser would put line ends between the parts.
            return _join([part["text"] for part in rewritten]), found
        return rewritten, found

    # All prompts, tokenized: nothing may reach the engine with placeholders and molecules that
    # do not fit each other (typed in look-alike characters, or sent as token ids).
    #
    # And every molecule goes to the engine with its data. By vLLM's own cache the second request
    # with a molecule goes without; when it gets there first (the other is streamed), or the first
    # was refused after it had been rendered, the engine fails it, and the client gets a 500. What
    # was packed once is kept all the same, in this process only.

    def clear_mm_cache(self) -> None:
        """Forget processed molecules."""
        super().clear_mm_cache()
        self.get_mm_processor().forget()

    # And a molecule has the same name in all requests: without caches vLLM would give it a new one
    # in each, and encode it again.

    def _process_mm_uuids(
        self, mm_data: Any, mm_data_items: Any, mm_uuid_items: Any, mm_req_id: str
    ) -> Any:
        self._validate_mm_uuids(mm_data, mm_data_items, mm_uuid_items)
        return mm_uuid_items

    def _process_tokens(self, prompt: Any, *, skip_mm_cache: bool = False) -> Any:
        self._check_placeholders(prompt)
        return super()._process_tokens(prompt, skip_mm_cache=True)

    async def _process_tokens_async(self, prompt: Any, *, skip_mm_cache: bool = False) -> Any:
        self._check_placeholders(prompt)
        return await super()._process_tokens_async(prompt, skip_mm_cache=True)

    def _check_placeholders(self, prompt: Mapping[str, Any]) -> None:
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


def _join(texts: Sequence[str]) -> str:
    """Join neighbouring parts with one space where neither brings white space."""
    joined = ""
    for text in texts:
        if joined and text and not joined[-1].isspace() and not text[0].isspace():
            joined += " "
        joined += text
    return joined
