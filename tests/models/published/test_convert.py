"""Published files in, a checkpoint folder out: all of them, as they are, or an error."""

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
from tests.models.published import files
from tests.models.published.converting import (
    BATCH_NORM,
    GRAPH,
    fails,
    weights_of,
)


def test_sizes_and_weights_are_the_files(small, converted):
    config = load_config(converted)
    graph, reader = config.graph_encoder_config, config.qformer_config
    assert (graph.hidden_size, graph.num_layers) == (16, 2)
    assert graph.self_loop_bond_type == 0
    assert (reader.num_queries, reader.hidden_size, reader.num_layers) == (4, 128, 3)
    assert (reader.intermediate_size, reader.cross_attention_frequency) == (96, 2)
    assert reader.num_attention_heads == 2  # of width 64
    assert config.text_config.enable_bias is False
    assert config.text_config.layer_norm_elementwise_affine is False
    got = weights_of(converted)
    for theirs, ours in {
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
        assert torch.equal(got[ours], small.state[f"blip2opt.{theirs}"])
    queries = small.state["blip2opt.query_tokens"]
    assert torch.equal(got["molecule_encoder.qformer.queries"], queries[0])
    load_model(converted)


@pytest.mark.parametrize(
    ("layers", "crossing", "frequency"),
    [(1, (0,), 1), (3, (0, 1, 2), 1), (5, (0, 3), 3), (4, (0,), 4)],
)
def test_the_frequency_of_cross_attention_is_read_off(tmp_path, small, layers, crossing, frequency):
    state = files.published_state(layers=layers, crossing=crossing)
    told = {"cross_attention_freq": 1 if layers == 1 else frequency}
    path = files.write_lightning(tmp_path / "s.ckpt", state, hyper_parameters=told)
    report = convert_published(path, small.language_model, tmp_path / "c")
    assert report.config.qformer_config.cross_attention_frequency == frequency
    load_model(tmp_path / "c")


@pytest.mark.parametrize("crossing", [(0, 1), (0, 2, 3), (1, 2)])
def test_irregular_cross_attention_is_refused(tmp_path, small, crossing):
    state = files.published_state(layers=4, crossing=crossing)
    layers = ", ".join(map(str, crossing))
    fails(tmp_path, small, state, message=f"crossattention in layers {layers} of 4")


def test_settings_that_are_not_the_weights_are_told(tmp_path, small):
    """Names alone cannot tell a shorter model from one that has lost its end."""

    def told_by(name, state, told=files.TOLD):
        path = files.write_lightning(tmp_path / f"{name}.ckpt", state, hyper_parameters=told)
        report = convert_published(path, small.language_model, tmp_path / name)
        return report.card["conversion"]["contradictions"]

    last = (f"{BATCH_NORM}1.", "blip2opt.graph_encoder.gnns.1.")
    shorter = {key: t for key, t in small.state.items() if not key.startswith(last)}
    assert told_by("a", shorter) == ["hyper_parameters say gin_num_layers 2, the weights 1"]
    blind = {k: t for k, t in small.state.items() if "layer.2.crossattention" not in k}
    assert told_by("b", blind) == ["hyper_parameters say cross_attention_freq 2, the weights 3"]
    other = {**files.TOLD, "num_query_token": 8, "gin_hidden_dim": 300}
    assert len(told_by("c", small.state, other)) == 2
    assert told_by("d", small.state) == []


# Attention heads


def test_heads_are_those_of_the_bert_beside_or_given(tmp_path, small):
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


def test_without_a_bert_heads_have_width_64(small, converted, tmp_path):
    card = json.loads((converted / "card.json").read_text())
    assert card["conversion"]["attention_heads"]["from"] == "no file: heads of width 64"
    state = files.published_state(width=96)
    fails(tmp_path, small, state, message="width 96 is not a multiple of 64; give --qformer-config")


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
        ({"model_type": "opt"}, "of a 'opt' model, expected 'bert'"),
    ],
)
def test_a_bert_that_contradicts_the_weights_is_refused(tmp_path, small, changes, reason):
    bert = files.write_bert(tmp_path / "bert", **changes)
    fails(tmp_path, small, message=reason, qformer_config=bert)


def test_a_bert_that_is_none(tmp_path, small):
    fails(tmp_path, small, message="does not exist", qformer_config=tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("[1]")
    fails(tmp_path, small, message="not a JSON object", qformer_config=tmp_path)


# Prompts


@pytest.mark.parametrize("style", ["moltc-2024", "moltc-2024-early"])
def test_the_style_decides_tasks_template_and_stop(tmp_path, small, style):
    convert_published(small.lightning, small.language_model, tmp_path / "c", prompt_style=style)
    config, tokenizer = load_config(tmp_path / "c"), load_tokenizer(tmp_path / "c")
    own = get_style(style, files.PROMPT)
    assert (config.prompt_style, config.molecule_prompt) == (style, files.PROMPT)
    assert config.tasks == own.tasks() != list(TASKS)
    assert tokenizer.chat_template == own.chat_template
    generation = json.loads((tmp_path / "c" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == tokenizer.encode("\n", add_special_tokens=False)[0]


def test_our_own_style_has_all_tasks_and_ends_with_eos(tmp_path, small):
    convert_published(small.lightning, small.language_model, tmp_path / "c", prompt_style="moltc")
    config, tokenizer = load_config(tmp_path / "c"), load_tokenizer(tmp_path / "c")
    assert (config.tasks, config.molecule_prompt) == (list(TASKS), None)
    generation = json.loads((tmp_path / "c" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == tokenizer.eos_token_id == 2


def test_the_molecule_prompt_is_given_told_or_published(tmp_path, small):
    other = "The SMILES of this molecule is [START_I_SMILES]{}[END_I_SMILES]."
    told = files.write_lightning(
        tmp_path / "a.ckpt", small.state, hyper_parameters={"prompt": other}
    )
    silent = files.write_lightning(tmp_path / "b.ckpt", small.state, hyper_parameters=None)
    given = "[START_I_SMILES]{}[END_I_SMILES]"

    def prompt(path, out, **options):
        report = convert_published(path, small.language_model, tmp_path / out, **options)
        return report.config.molecule_prompt

    assert prompt(told, "a") == other
    assert prompt(silent, "b") == files.PROMPT
    assert prompt(told, "c", molecule_prompt=given) == given


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
def test_a_molecule_prompt_needs_its_place(tmp_path, small, prompt):
    with pytest.raises(ValueError, match=r"needs one \{\}"):
        convert_published(
            small.lightning, small.language_model, tmp_path / "c", molecule_prompt=prompt
        )
    message = r"stage2.ckpt: prompt in hyper_parameters: .*; give --molecule-prompt"
    fails(tmp_path, small, told={"prompt": prompt}, message=message)


def test_options_that_are_none(tmp_path, small):
    for options, reason in (
        ({"prompt_style": "molca"}, "unknown prompt style 'molca'"),
        ({"prompt_style": "moltc", "molecule_prompt": files.PROMPT}, "has no molecule prompt"),
        ({"projector_sharing": "both"}, "projectors 'both' is none of shared, role, task_role"),
        ({"lora_as": "both"}, "LoRA as 'both' is none of merge, adapter"),
    ):
        with pytest.raises(ValueError, match=reason):
            convert_published(small.lightning, small.language_model, tmp_path / "c", **options)
    assert not (tmp_path / "c").exists()


# The folder


def test_the_same_inputs_give_the_same_bytes_wherever_they_lie(tmp_path, small):
    """No dates, no paths, no order of a set."""
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


def test_the_card_tells_the_inputs_and_no_paths(small, converted):
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
    assert card["conversion"]["tensors"] == len(weights_of(converted))
    assert "/home" not in text
    assert str(small.root) not in text


def test_hyper_parameters_that_are_no_json_are_named(tmp_path, small):
    told = {
        "weights": torch.zeros(3),
        "rates": [1e-4, float("nan")],
        "paths": {"a": ["/scratch/x/last.ckpt", "C:\\data\\y.ckpt", "~/z", "kept/as it is"]},
        "flag": True,
        "none": None,
    }
    path = files.write_lightning(tmp_path / "s.ckpt", small.state, hyper_parameters=told)
    published = convert_published(path, small.language_model, tmp_path / "c").card["published"]
    assert published["hyper_parameters"] == {
        "paths": {"a": ["last.ckpt", "y.ckpt", "z", "kept/as it is"]},
        "flag": True,
        "none": None,
    }
    assert published["hyper_parameters_left_out"] == ["rates", "weights"]


def test_a_folder_in_use_is_refused_before_anything_is_read(tmp_path, small, monkeypatch):
    def unexpected(*_):
        raise AssertionError("read")

    monkeypatch.setattr(convert_module, "read_lightning", unexpected)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("used", "file"):
        with pytest.raises(CheckpointError, match="exists and is not empty"):
            convert_published(small.lightning, small.language_model, tmp_path / name)
        with pytest.raises(CheckpointError, match="exists and is not empty"):
            split_projectors(small.root, tmp_path / name, "role")
    assert (tmp_path / "used" / "mine.txt").read_text() == "mine"


def test_an_empty_folder_is_used_and_stays_if_nothing_comes_of_it(tmp_path, small):
    (tmp_path / "out").mkdir()
    with pytest.raises(WeightsError, match="does not exist"):
        convert_published(tmp_path / "nothing.ckpt", small.language_model, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    convert_published(small.lightning, small.language_model, tmp_path / "out")
    assert (tmp_path / "out" / "card.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
