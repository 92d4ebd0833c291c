"""Writer of fixtures of any size in the reference layout, with outputs of `reference_impl`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import pre_tokenizers, trainers
from torch import Tensor
from transformers import OPTConfig, OPTForCausalLM

from moltc_vllm.models.tokenizer import (
    SPECIAL_TOKENS,
    mark_sequences,
    untrained_galactica_tokenizer,
)
from moltc_vllm.tasks import TASKS
from tests.golden import reference_impl

TEMPLATE = "</s> {} </s> </s>{} </s> . What are the side effects of these two drugs?"
PROMPT = "[START_I_SMILES]{}[END_I_SMILES]. "
BEAMS = 5


@dataclass(frozen=True)
class Sizes:
    """Sizes of a generated fixture; they differ from those of the reference fixture."""

    graph: int = 48
    graph_layers: int = 3
    qformer: int = 64
    qformer_layers: int = 5
    heads: int = 4
    feed_forward: int = 96
    frequency: int = 2
    queries: int = 8
    hidden: int = 96
    layers: int = 2
    language_heads: int = 4
    language_feed_forward: int = 160
    biased: bool = False
    vocabulary: int = 500
    rank: int = 3
    alpha: int = 12
    targets: tuple[str, ...] = ("q_proj", "v_proj", "out_proj", "fc1", "fc2")
    max_length: int = 12
    min_length: int = 4


def make_fixture(folder: Path, pairs: list[tuple[str, str]], sizes: Sizes, seed: int) -> Path:
    """Write a fixture: files of the published code and its expected outputs."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    state = _encoder_state(sizes, generator)
    torch.save(
        {
            "epoch": 3,
            "global_step": 30,
            "pytorch-lightning_version": "1.9.0",
            "state_dict": state,
            "hyper_parameters": {"prompt": PROMPT, "num_query_token": sizes.queries},
        },
        folder / "stage2.ckpt",
    )
    (folder / "bert_pretrained").mkdir()
    (folder / "bert_pretrained" / "config.json").write_text(
        json.dumps(
            {
                "model_type": "bert",
                "hidden_size": sizes.qformer,
                "num_hidden_layers": sizes.qformer_layers,
                "num_attention_heads": sizes.heads,
                "intermediate_size": sizes.feed_forward,
                "layer_norm_eps": 1e-12,
            }
        )
    )
    tokenizer = _tokenizer(sizes.vocabulary)
    size = tokenizer.get_vocab_size()
    model = _language_model(folder / "galactica-1.3b", sizes, size, seed)
    tokenizer.save(str(folder / "galactica-1.3b" / "tokenizer.json"))
    row = _normal(generator, sizes.hidden, scale=0.3)
    torch.save(row, folder / "mol_row.pt")
    _write_and_merge_lora(folder / "lora_full", model, sizes, generator)
    model.resize_token_embeddings(size + 1, mean_resizing=False)
    model.get_input_embeddings().weight.data[-1] = row
    model.tie_weights()
    (stop,) = tokenizer.encode("\n").ids
    # The published code adds the token after loading, so an answer may contain it.
    tokenizer.add_tokens(["<mol>"])
    (folder / "arrays").mkdir()
    with (folder / "expected.jsonl").open("w") as lines:
        for index, pair in enumerate(pairs):
            record = _record(folder, state, model, tokenizer, pair, index, sizes, stop)
            lines.write(json.dumps(record) + "\n")
    return folder


@torch.no_grad()
def _record(
    folder: Path,
    state: dict[str, Tensor],
    model: OPTForCausalLM,
    tokenizer: Any,
    pair: tuple[str, str],
    index: int,
    sizes: Sizes,
    stop: int,
) -> dict[str, Any]:
    raw = TEMPLATE.format(*(PROMPT.format(smiles[:128]) for smiles in pair))
    mol = tokenizer.token_to_id("<mol>")
    ids: list[int] = []
    for segment in raw.split("[END_I_SMILES]"):
        if ids:
            ids += [mol] * sizes.queries
        start, tag, smiles = segment.partition("[START_I_SMILES]")
        text = start if not tag else mark_sequences(f"{start}{tag}{smiles}[END_I_SMILES]")
        ids += tokenizer.encode(text, add_special_tokens=False).ids
    steps = [reference_impl.molecule_steps(state, smiles, sizes.heads) for smiles in pair]
    embeds = model.get_input_embeddings().weight[ids].clone()
    embeds[torch.tensor(ids) == mol] = torch.cat([step["mol"] for step in steps])
    logits = reference_impl.next_logits(model, embeds)
    lengths = (sizes.max_length, sizes.min_length)
    new = reference_impl.greedy(model, embeds, stop, *lengths)
    beams = reference_impl.beam_search(model, embeds, stop, *lengths, width=BEAMS)
    name = f"ddi_{index:02}"
    np.savez(
        folder / "arrays" / f"{name}.npz",
        first_logits=logits.numpy(),
        **{f"{key}{i + 1}": value.numpy() for i, s in enumerate(steps) for key, value in s.items()},
    )
    values, top = logits.topk(20)
    limits = dict(zip(("max_length", "min_length"), lengths, strict=True))

    def text(sequence: list[int]) -> str:
        return tokenizer.decode(sequence, skip_special_tokens=True)

    return {
        "id": name,
        "task": "ddi",
        "smiles1": pair[0],
        "smiles2": pair[1],
        "raw_prompt": raw,
        "input_ids": ids,
        "first_logits_top20": list(zip(top.tolist(), values.tolist(), strict=True)),
        "greedy": {**limits, "sequence": [0, *new], "new_ids": new, "text": _clean(text(new))},
        "beam5": {**limits, "sequence": beams[0][1], "text": _clean(text(beams[0][1]))},
        "arrays": f"arrays/{name}.npz",
    }


def _clean(text: str) -> str:
    from transformers import PreTrainedTokenizerBase

    return str(PreTrainedTokenizerBase.clean_up_tokenization(None, text)).strip()


def _normal(generator: torch.Generator, *shape: int, scale: float) -> Tensor:
    return torch.randn(*shape, generator=generator) * scale


def _encoder_state(sizes: Sizes, generator: torch.Generator) -> dict[str, Tensor]:
    d, q, out = sizes.graph, sizes.qformer, {}

    def linear(name: str, rows: int, columns: int) -> None:
        out[f"{name}.weight"] = _normal(generator, rows, columns, scale=columns**-0.5)
        out[f"{name}.bias"] = _normal(generator, rows, scale=0.1)

    def norm(name: str, width: int) -> None:
        out[f"{name}.weight"] = 1 + _normal(generator, width, scale=0.1)
        out[f"{name}.bias"] = _normal(generator, width, scale=0.1)

    out["query_tokens"] = _normal(generator, 1, sizes.queries, q, scale=1.0)
    out["graph_encoder.x_embedding1.weight"] = _normal(generator, 120, d, scale=0.5)
    out["graph_encoder.x_embedding2.weight"] = _normal(generator, 3, d, scale=0.5)
    for layer in range(sizes.graph_layers):
        name = f"graph_encoder.gnns.{layer}"
        linear(f"{name}.mlp.0", 2 * d, d)
        linear(f"{name}.mlp.2", d, 2 * d)
        out[f"{name}.edge_embedding1.weight"] = _normal(generator, 6, d, scale=0.3)
        out[f"{name}.edge_embedding2.weight"] = _normal(generator, 3, d, scale=0.3)
        name = f"graph_encoder.batch_norms.{layer}"
        norm(name, d)
        out[f"{name}.running_mean"] = _normal(generator, d, scale=0.3)
        out[f"{name}.running_var"] = torch.rand(d, generator=generator) + 0.5
        out[f"{name}.num_batches_tracked"] = torch.tensor(30)
    norm("ln_graph", d)
    out["Qformer.bert.embeddings.position_ids"] = torch.arange(512)[None]
    norm("Qformer.bert.embeddings.LayerNorm", q)
    for layer in range(sizes.qformer_layers):
        name = f"Qformer.bert.encoder.layer.{layer}"
        attentions = [("attention", q)] + [("crossattention", d)] * (layer % sizes.frequency == 0)
        for kind, width in attentions:
            linear(f"{name}.{kind}.self.query", q, q)
            linear(f"{name}.{kind}.self.key", q, width)
            linear(f"{name}.{kind}.self.value", q, width)
            linear(f"{name}.{kind}.output.dense", q, q)
            norm(f"{name}.{kind}.output.LayerNorm", q)
        linear(f"{name}.intermediate_query.dense", sizes.feed_forward, q)
        linear(f"{name}.output_query.dense", q, sizes.feed_forward)
        norm(f"{name}.output_query.LayerNorm", q)
    linear("opt_proj", sizes.hidden, q)
    return {f"blip2opt.{key}": tensor for key, tensor in out.items()}


def _tokenizer(size: int) -> Any:
    tokenizer = untrained_galactica_tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = (text for task in TASKS.values() for text in task.examples())
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _language_model(folder: Path, sizes: Sizes, vocabulary: int, seed: int) -> OPTForCausalLM:
    torch.manual_seed(seed)
    config = OPTConfig(
        vocab_size=vocabulary,
        hidden_size=sizes.hidden,
        word_embed_proj_dim=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.language_heads,
        ffn_dim=sizes.language_feed_forward,
        max_position_embeddings=512,
        activation_function="gelu",
        enable_bias=sizes.biased,
        layer_norm_elementwise_affine=sizes.biased,
        init_std=0.2,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        architectures=["OPTForCausalLM"],
    )
    model = OPTForCausalLM(config).eval()
    folder.mkdir()
    config.save_pretrained(folder)
    state = {k: t for k, t in model.state_dict().items() if k != "lm_head.weight"}
    torch.save(state, folder / "pytorch_model.bin")
    return model


@torch.no_grad()
def _write_and_merge_lora(
    folder: Path, model: OPTForCausalLM, sizes: Sizes, generator: torch.Generator
) -> None:
    """Write an adapter and merge it into the model."""
    tensors = {}
    for name, module in model.named_modules():
        if name.rpartition(".")[2] not in sizes.targets:
            continue
        rows, columns = module.weight.shape
        a = _normal(generator, sizes.rank, columns, scale=columns**-0.5)
        b = _normal(generator, rows, sizes.rank, scale=0.2)
        tensors[f"base_model.model.{name}.lora_A.weight"] = a
        tensors[f"base_model.model.{name}.lora_B.weight"] = b
        module.weight += sizes.alpha / sizes.rank * b @ a
    folder.mkdir()
    torch.save(tensors, folder / "adapter_model.bin")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": sizes.rank,
        "lora_alpha": sizes.alpha,
        "lora_dropout": 0.1,
        "target_modules": list(sizes.targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
        "modules_to_save": None,
        "base_model_name_or_path": "galactica-1.3b",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
