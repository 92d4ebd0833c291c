"""Conversion of published files to checkpoint folders: configuration, prompts and card."""

import json
import os
import shutil

import pytest
import torch

from moltc_vllm.models import CheckpointError, load_config, load_model, load_tokenizer
from moltc_vllm.models.conversion import convert as convert_module
from moltc_vllm.models.conversion.convert import convert_published, split_projectors
from moltc_vllm.models.weights import WeightsError
from moltc_vllm.tasks import TASKS, get_style
from tests.models.conversion import published_files as files
from tests.models.conversion.helpers import (
    BATCH_NORM,
    GRAPH,
    error_details,
    read_weights,
)


def test_convert_infers_sizes_and_keeps_weights(small, converted):
    config = load_config(converted)
    graph, qformer = config.graph_encoder_config, config.qformer_config
    assert (graph.hidden_size, graph.num_layers) == (16, 2)
    assert graph.self_loop_bond_type == 0
    assert (qformer.num_queries, qformer.hidden_size, qformer.num_layers) == (4, 128, 3)
    assert (qformer.intermediate_size, qformer.cross_attention_frequency) == (96, 2)
    assert qformer.num_attention_heads == 2  # heads of width 64
    assert config.text_config.enable_bias is False
    assert config.text_config.layer_norm_elementwise_affine is False
    weights = read_weights(converted)
    for published_name, own_name in {
        "graph_encoder.x_embedding2.weight": f"{GRAPH}chirality.weight",
        "graph_encoder.gnns.1.mlp.2.bias": f"{GRAPH}layers.1.mlp.2.bias",
        "graph_encoder.gnns.0.edge_embedding1.weight": f"{GRAPH}layers.0.bond_type.weight",
        "graph_encoder.batch_norms.1.running_var": f"{GRAPH}layers.1.norm.running_var",
        "ln_graph.bias": f"{GRAPH}norm.bias",
        "Qformer.bert.embeddings.LayerNorm.weight": "molecule_encoder.qformer.norm.weight",
        "Qformer.bert.encoder.layer.2.crossattention.self.value.weight": (
            "molecule_encoder.qformer.layers.2.cross_attention.value.weight"
        ),
        "Qformer.bert.encoder.layer.1.attention.output.LayerNorm.bias": (
            "molecule_encoder.qformer.layers.1.self_attention.norm.bias"
        ),
        "Qformer.bert.encoder.layer.1.output_query.dense.weight": (
            "molecule_encoder.qformer.layers.1.down.weight"
        ),
        "opt_proj.weight": "projectors.shared.weight",
    }.items():
        assert torch.equal(weights[own_name], small.state[f"blip2opt.{published_name}"])
    queries = small.state["blip2opt.query_tokens"]
    assert torch.equal(weights["molecule_encoder.qformer.queries"], queries[0])
    load_model(converted)


@pytest.mark.parametrize(
    ("layers", "cross_attention_layers", "frequency"),
    [(1, (0,), 1), (3, (0, 1, 2), 1), (5, (0, 3), 3), (4, (0,), 4)],
)
def test_convert_infers_cross_attention_frequency(
    tmp_path, small, layers, cross_attention_layers, frequency
):
    state = files.published_state(layers=layers, cross_attention_layers=cross_attention_layers)
    hyper_parameters = {"cross_attention_freq": 1 if layers == 1 else frequency}
    path = files.write_lightning(tmp_path / "s.ckpt", state, hyper_parameters=hyper_parameters)
    report = convert_published(path, small.language_model, tmp_path / "c")
    assert report.config.qformer_config.cross_attention_frequency == frequency
    load_model(tmp_path / "c")


@pytest.mark.parametrize("cross_attention_layers", [(0, 1), (0, 2, 3), (1, 2)])
def test_convert_rejects_irregular_cross_attention(tmp_path, small, cross_attention_layers):
    state = files.published_state(layers=4, cross_attention_layers=cross_attention_layers)
    layers = ", ".join(map(str, cross_attention_layers))
    error_details(tmp_path, small, state, message=f"crossattention in layers {layers} of 4")


def test_convert_reports_hyper_parameters_that_contradict_weights(tmp_path, small):
    """Weight names alone do not distinguish a smaller model from a file without the last layer."""

    def conflicts(name, state, hyper_parameters=files.HYPER_PARAMETERS):
        path = files.write_lightning(
            tmp_path / f"{name}.ckpt", state, hyper_parameters=hyper_parameters
        )
        report = convert_published(path, small.language_model, tmp_path / name)
        return report.card["conversion"]["contradictions"]

    last = (f"{BATCH_NORM}1.", "blip2opt.graph_encoder.gnns.1.")
    shorter = {key: t for key, t in small.state.items() if not key.startswith(last)}
    assert conflicts("a", shorter) == ["hyper_parameters say gin_num_layers 2, the weights 1"]
    without_last_cross_attention = {
        k: t for k, t in small.state.items() if "layer.2.crossattention" not in k
    }
    assert conflicts("b", without_last_cross_attention) == [
        "hyper_parameters say cross_attention_freq 2, the weights 3"
    ]
    other = {**files.HYPER_PARAMETERS, "num_query_token": 8, "gin_hidden_dim": 300}
    assert len(conflicts("c", small.state, other)) == 2
    assert conflicts("d", small.state) == []


# Attention heads


def test_convert_reads_attention_heads_from_bert_config(tmp_path, small):
    source = tmp_path / "run"
    files.write_bert(source / "bert_pretrained", num_attention_heads=4, layer_norm_eps=1e-7)
    shutil.copy(small.lightning, source / "s.ckpt")
    beside = convert_published(source / "s.ckpt", small.language_model, tmp_path / "a")
    assert beside.config.qformer_config.num_attention_heads == 4
    assert beside.config.qformer_config.layer_norm_eps == 1e-7
    assert beside.card["conversion"]["attention_heads"] == {
        "number": 4,
        "from": "bert_pretrained/config.json",
    }
    for given in (
        files.write_bert(tmp_path / "other", num_attention_heads=8),
        tmp_path / "other" / "config.json",
    ):
        out = tmp_path / given.name
        shutil.rmtree(tmp_path / "b", ignore_errors=True)
        report = convert_published(
            source / "s.ckpt", small.language_model, tmp_path / "b", qformer_config=given
        )
        assert report.config.qformer_config.num_attention_heads == 8
        assert report.card["conversion"]["attention_heads"]["from"] == "other/config.json"
        assert out.exists() or given.exists()


def test_convert_assumes_head_width_64_without_bert_config(small, converted, tmp_path):
    card = json.loads((converted / "card.json").read_text())
    assert card["conversion"]["attention_heads"]["from"] == "no file: heads of width 64"
    state = files.published_state(width=96)
    error_details(
        tmp_path, small, state, message="width 96 is not a multiple of 64; give --qformer-config"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hidden_size": 768}, "hidden_size 768, the weights 128"),
        ({"num_hidden_layers": 12}, "num_hidden_layers 12, the weights 3"),
        ({"intermediate_size": 512}, "intermediate_size 512, the weights 96"),
        ({"num_attention_heads": 5}, "5 attention heads do not divide width 128"),
        ({"num_attention_heads": None}, "None attention heads"),
        ({"cross_attention_freq": 3}, "cross_attention_freq 3, the weights 2"),
        ({"encoder_width": 300}, "encoder_width 300, the weights 16"),
        ({"query_length": 32}, "query_length 32, the weights 4"),
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"model_type": "opt"}, "has model_type 'opt', expected 'bert'"),
    ],
)
def test_convert_rejects_bert_config_that_contradicts_weights(tmp_path, small, changes, reason):
    bert = files.write_bert(tmp_path / "bert", **changes)
    error_details(tmp_path, small, message=reason, qformer_config=bert)


def test_convert_rejects_unreadable_bert_config(tmp_path, small):
    error_details(tmp_path, small, message="No such file", qformer_config=tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("[1]")
    error_details(tmp_path, small, message="does not hold a JSON object", qformer_config=tmp_path)


# Prompts


@pytest.mark.parametrize("style", ["moltc-2024", "moltc-2024-early"])
def test_prompt_style_sets_tasks_chat_template_and_stop_token(tmp_path, small, style):
    convert_published(small.lightning, small.language_model, tmp_path / "c", prompt_style=style)
    config, tokenizer = load_config(tmp_path / "c"), load_tokenizer(tmp_path / "c")
    own = get_style(style, files.PROMPT)
    assert (config.prompt_style, config.molecule_prompt) == (style, files.PROMPT)
    assert config.tasks == own.tasks() != list(TASKS)
    assert tokenizer.chat_template == own.chat_template
    generation = json.loads((tmp_path / "c" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == tokenizer.encode("\n", add_special_tokens=False)[0]


def test_moltc_style_has_all_tasks_and_eos_token(tmp_path, small):
    convert_published(small.lightning, small.language_model, tmp_path / "c", prompt_style="moltc")
    config, tokenizer = load_config(tmp_path / "c"), load_tokenizer(tmp_path / "c")
    assert (config.tasks, config.molecule_prompt) == (list(TASKS), None)
    generation = json.loads((tmp_path / "c" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == tokenizer.eos_token_id == 2


def test_molecule_prompt_is_given_stored_or_published(tmp_path, small):
    other = "The SMILES of this molecule is [START_I_SMILES]{}[END_I_SMILES]."
    stored = files.write_lightning(
        tmp_path / "a.ckpt", small.state, hyper_parameters={"prompt": other}
    )
    silent = files.write_lightning(tmp_path / "b.ckpt", small.state, hyper_parameters=None)
    given = "[START_I_SMILES]{}[END_I_SMILES]"

    def prompt(path, out, **options):
        report = convert_published(path, small.language_model, tmp_path / out, **options)
        return report.config.molecule_prompt

    assert prompt(stored, "a") == other
    assert prompt(silent, "b") == files.PROMPT
    assert prompt(stored, "c", molecule_prompt=given) == given


@pytest.mark.parametrize(
    "prompt",
    [
        "{}",
        "[START_SMILES]{}[END_SMILES]",
        "[START_I_SMILES]{} [END_I_SMILES]",
        "{} [START_I_SMILES]{}[END_I_SMILES]",
        "",
    ],
)
def test_convert_rejects_molecule_prompt_without_placeholder(tmp_path, small, prompt):
    with pytest.raises(ValueError, match=r"needs one \{\}"):
        convert_published(
            small.lightning, small.language_model, tmp_path / "c", molecule_prompt=prompt
        )
    message = r"stage2.ckpt: prompt in hyper_parameters: .*; give --molecule-prompt"
    error_details(tmp_path, small, hyper_parameters={"prompt": prompt}, message=message)


def test_convert_rejects_unknown_options(tmp_path, small):
    for options, reason in (
        ({"prompt_style": "molca"}, "unknown prompt style 'molca'"),
        (
            {"prompt_style": "moltc", "molecule_prompt": files.PROMPT},
            "does not use a molecule prompt",
        ),
        (
            {"projector_sharing": "both"},
            "projectors must be one of shared, role, task_role, not 'both'",
        ),
        ({"lora_as": "both"}, "lora_as must be one of merge, adapter, not 'both'"),
    ):
        with pytest.raises(ValueError, match=reason):
            convert_published(small.lightning, small.language_model, tmp_path / "c", **options)
    assert not (tmp_path / "c").exists()


# The folder


def test_convert_is_deterministic_and_independent_of_location(tmp_path, small):
    folders = []
    for name in ("one", "elsewhere"):
        root = tmp_path / name
        shutil.copytree(small.root, root / "files")
        source, out = root / "files", root / "out"
        row = source / "row.pt"
        torch.save(torch.ones(files.HIDDEN), row)
        for path in source.rglob("*"):
            os.utime(path, (1, 1) if name == "one" else None)
        convert_published(
            source / "stage2.ckpt",
            source / "galactica-1.3b",
            out,
            lora=source / "lora_epoch_9",
            lora_as="adapter",
            graph_encoder=source / "graphcl_80.pth",
            qformer_config=files.write_bert(source / "bert"),
            molecule_row=row,
            projector_sharing="task_role",
        )
        folders.append({p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()})
    assert len(folders[0]) >= 8
    assert folders[0] == folders[1]
    assert not any(str(tmp_path).encode() in content for content in folders[0].values())


def test_card_records_inputs_without_paths(small, converted):
    text = (converted / "card.json").read_text()
    card = json.loads(text)
    published = card["published"]
    assert (published["epoch"], published["global_step"]) == (7, 1234)
    assert published["pytorch-lightning_version"] == "1.9.0"
    assert published["hyper_parameters"]["root"] == "ddi"
    assert published["hyper_parameters"]["prompt"] == files.PROMPT
    assert [(i["option"], i["file"], len(i["sha256"])) for i in published["inputs"]] == [
        ("--lightning", "stage2.ckpt", 64),
        ("--language-model", "galactica-1.3b/config.json", 64),
        ("--language-model", "galactica-1.3b/tokenizer.json", 64),
        ("--language-model", "galactica-1.3b/pytorch_model.bin", 64),
    ]
    assert card["trained_on"] == "unknown"
    assert card["prompt_style"] == "moltc-2024"
    assert card["conversion"]["tensors"] == len(read_weights(converted))
    assert "/home" not in text
    assert str(small.root) not in text


def test_card_lists_hyper_parameters_that_json_cannot_represent(tmp_path, small):
    hyper_parameters = {
        "weights": torch.zeros(3),
        "rates": [1e-4, float("nan")],
        "paths": {"a": ["/scratch/x/last.ckpt", "C:\\data\\y.ckpt", "~/z", "kept/as it is"]},
        "flag": True,
        "none": None,
    }
    path = files.write_lightning(
        tmp_path / "s.ckpt", small.state, hyper_parameters=hyper_parameters
    )
    published = convert_published(path, small.language_model, tmp_path / "c").card["published"]
    assert published["hyper_parameters"] == {
        "paths": {"a": ["last.ckpt", "y.ckpt", "z", "kept/as it is"]},
        "flag": True,
        "none": None,
    }
    assert published["hyper_parameters_left_out"] == ["rates", "weights"]


def test_convert_rejects_used_folder_before_reading(tmp_path, small, monkeypatch):
    def fail(*_):
        raise AssertionError("a file was read")

    monkeypatch.setattr(convert_module, "read_inputs", fail)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("used", "file"):
        with pytest.raises(CheckpointError, match="exists and is not empty"):
            convert_published(small.lightning, small.language_model, tmp_path / name)
        with pytest.raises(CheckpointError, match="exists and is not empty"):
            split_projectors(small.root, tmp_path / name, "role")
    assert (tmp_path / "used" / "mine.txt").read_text() == "mine"


def test_convert_uses_empty_folder_and_keeps_it_after_failure(tmp_path, small):
    (tmp_path / "out").mkdir()
    with pytest.raises(WeightsError, match="does not exist"):
        convert_published(tmp_path / "nothing.ckpt", small.language_model, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    convert_published(small.lightning, small.language_model, tmp_path / "out")
    assert (tmp_path / "out" / "card.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
