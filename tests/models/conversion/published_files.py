"""Factory of small files with the published layout.

The weights come from modules that are named like the published ones, independently of the
converter's table of names, so that an error in the table makes a test fail.
"""

import json
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM as CausalLM
from transformers import GPT2Config, LlamaConfig, OPTConfig

from moltc_vllm.models.tokenizer import train_tokenizer

GIN_WIDTH, GIN_LAYERS = 16, 2
WIDTH, LAYERS, FEED_FORWARD, QUERIES, FREQUENCY = 128, 3, 96, 4, 2
HIDDEN, VOCABULARY = 32, 300
PROMPT = "[START_I_SMILES]{}[END_I_SMILES]. "
HYPER_PARAMETERS = {
    "gin_num_layers": GIN_LAYERS,
    "gin_hidden_dim": GIN_WIDTH,
    "num_query_token": QUERIES,
    "cross_attention_freq": FREQUENCY,
    "llm_tune": "freeze",
    "prompt": PROMPT,
    "root": "/home/user/data/ddi",
    "lr": 1e-4,
}


def tree(**children):
    """Return a module with the given children."""
    module = nn.Module()
    for name, child in children.items():
        module.add_module(name, child)
    return module


class Gin(nn.Module):
    """Weights of the published graph encoder."""

    def __init__(self, width=GIN_WIDTH, layers=GIN_LAYERS):
        super().__init__()
        self.x_embedding1, self.x_embedding2 = nn.Embedding(120, width), nn.Embedding(3, width)
        self.gnns = nn.ModuleList(
            tree(
                mlp=nn.Sequential(
                    nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
                ),
                edge_embedding1=nn.Embedding(6, width),
                edge_embedding2=nn.Embedding(3, width),
            )
            for _ in range(layers)
        )
        self.batch_norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(layers))


def attention(width, keys):
    """Return the weights of an attention layer with keys of another width."""
    return tree(
        self=tree(
            query=nn.Linear(width, width),
            key=nn.Linear(keys, width),
            value=nn.Linear(keys, width),
        ),
        output=tree(dense=nn.Linear(width, width), LayerNorm=nn.LayerNorm(width)),
    )


def feed_forward(width, inner, suffix):
    """Return the modules of a feed-forward block by name."""
    return {
        f"intermediate{suffix}": tree(dense=nn.Linear(width, inner)),
        f"output{suffix}": tree(dense=nn.Linear(inner, width), LayerNorm=nn.LayerNorm(width)),
    }


def qformer(width, layers, cross_attention_layers, text_branch):
    """Return the weights of a Q-Former, of stage 1 with its text branch."""
    blocks = [
        tree(
            attention=attention(width, width),
            **(
                {"crossattention": attention(width, GIN_WIDTH)}
                if layer in cross_attention_layers
                else {}
            ),
            **feed_forward(width, FEED_FORWARD, "_query"),
            **(feed_forward(width, FEED_FORWARD, "") if text_branch else {}),
        )
        for layer in range(layers)
    ]
    embeddings = tree(LayerNorm=nn.LayerNorm(width))
    embeddings.register_buffer("position_ids", torch.arange(32)[None])
    head = {}
    if text_branch:
        embeddings.word_embeddings = nn.Embedding(50, width)
        embeddings.position_embeddings = nn.Embedding(32, width)
        head = {"cls": tree(predictions=tree(decoder=nn.Linear(width, 50)))}
    bert = tree(embeddings=embeddings, encoder=tree(layer=nn.ModuleList(blocks)))
    return tree(bert=bert, **head)


def published_state(
    stage=2,
    *,
    width=WIDTH,
    layers=LAYERS,
    cross_attention_layers=(0, 2),
    hidden=HIDDEN,
    seed=0,
    extra=None,
):
    """Return the state dict of a published model without its language model."""
    torch.manual_seed(seed)
    parts = {
        "graph_encoder": Gin(),
        "ln_graph": nn.LayerNorm(GIN_WIDTH),
        "Qformer": qformer(width, layers, cross_attention_layers, text_branch=stage == 1),
    }
    if stage == 2:
        parts["opt_proj"] = nn.Linear(width, hidden)
    else:
        parts["graph_proj"], parts["text_proj"] = nn.Linear(width, 8), nn.Linear(width, 8)
        parts["gtm_head"] = nn.Linear(width, 2)
    model = tree(**parts)
    model.query_tokens = nn.Parameter(torch.empty(1, QUERIES, width))
    if stage == 1:
        model.temp = nn.Parameter(torch.tensor(0.07))
    whole = tree(**{"blip2opt" if stage == 2 else "blip2qformer": model})
    state = {key: tensor.detach().clone() for key, tensor in whole.state_dict().items()}
    for key, tensor in state.items():  # also those initialized with zeros or ones
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape) * 0.1 + (1.0 if "running_var" in key else 0.0))
    return {**state, **(extra or {})}


def write_lightning(path, state, **changes):
    """Write a file as Lightning 1.9 does; a change to None omits an entry."""
    content = {
        "epoch": 7,
        "global_step": 1234,
        "pytorch-lightning_version": "1.9.0",
        "state_dict": state,
        "loops": {"fit_loop": {}},
        "hparams_name": "args",
        "hyper_parameters": dict(HYPER_PARAMETERS),
        **changes,
    }
    torch.save({key: value for key, value in content.items() if value is not None}, path)
    return path


def tuned(state, language_model):
    """Add a fully tuned language model, with the placeholder's row and the tied output layer."""
    weights = torch.load(language_model / "pytorch_model.bin", weights_only=True)
    name = "model.decoder.embed_tokens.weight"
    weights[name] = torch.cat([weights[name], torch.full((1, HIDDEN), 0.25)])
    weights["lm_head.weight"] = weights[name]
    return {**state, **{f"blip2opt.opt_model.{key}": t for key, t in weights.items()}}


def write_bert(folder: Path, **changes):
    """Write a BERT configuration that fits the weights, with changes."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {
        "model_type": "bert",
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "intermediate_size": FEED_FORWARD,
        "num_attention_heads": 4,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(sizes))
    return folder


def write_language_model(folder: Path, kind="opt", dtype=torch.float32):
    """Write a small language-model folder, by default in Galactica's layout."""
    folder.mkdir(parents=True)
    ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    tokenizer = train_tokenizer(["The solvation of molecules.\n"] * 3, VOCABULARY)
    raw = json.loads(tokenizer.backend_tokenizer.to_str())
    raw["added_tokens"] = [t for t in raw["added_tokens"] if t["content"] != "<mol>"]
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    ids["vocab_size"] = len(tokenizer) - 1
    small = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": HIDDEN, **ids}
    if kind == "opt":
        config = OPTConfig(
            **small,
            ffn_dim=64,
            word_embed_proj_dim=HIDDEN,
            max_position_embeddings=64,
            enable_bias=False,
            layer_norm_elementwise_affine=False,
        )
    elif kind == "llama":
        config = LlamaConfig(**small, intermediate_size=64, tie_word_embeddings=False)
    else:
        config = GPT2Config(n_embd=HIDDEN, n_layer=2, n_head=2, n_positions=64, **ids)
    config.dtype = dtype
    torch.manual_seed(1)
    state = CausalLM.from_config(config).to(dtype).state_dict()
    config.save_pretrained(folder)
    if config.tie_word_embeddings:
        state.pop("lm_head.weight")
    torch.save({key: tensor.clone() for key, tensor in state.items()}, folder / "pytorch_model.bin")
    return folder


def write_lora(folder: Path, modules, *, rank=4, seed=2, drop=(), **changes):
    """Write a PEFT folder; ``modules`` maps module names to (out, in)."""
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": 32,
        "lora_dropout": 0.1,
        "target_modules": sorted({name.rsplit(".", 1)[-1] for name in modules}),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
        "modules_to_save": None,
        "base_model_name_or_path": "/home/user/galactica-1.3b",
        **changes,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    weights = lora_weights(modules, rank)
    torch.save({k: t for k, t in weights.items() if k not in drop}, folder / "adapter_model.bin")
    return folder


def lora_weights(modules, rank, name=""):
    """Return random matrices A and B under PEFT's keys."""
    weights = {}
    for module, (out, inner) in modules.items():
        key = f"base_model.model.{module}.lora_"
        weights[f"{key}A{name}.weight"] = torch.randn(rank, inner) * 0.1
        weights[f"{key}B{name}.weight"] = torch.randn(out, rank) * 0.1
    return weights


ATTENTION = {
    f"model.decoder.layers.{layer}.self_attn.{name}": (HIDDEN, HIDDEN)
    for layer in range(2)
    for name in ("q_proj", "v_proj")
}
FEED_FORWARDS = {
    f"model.decoder.layers.{layer}.{name}": shape
    for layer in range(2)
    for name, shape in (("fc1", (64, HIDDEN)), ("fc2", (HIDDEN, 64)))
}
