"""Published files in, a checkpoint folder out: all of them, as they are, or an error."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file

from moltc_vllm.models import CheckpointError, load_config, load_model, load_tokenizer
from moltc_vllm.models.published import convert as convert_module
from moltc_vllm.models.published.convert import convert_published, split_projectors
from moltc_vllm.models.weights import WeightsError
from moltc_vllm.tasks import TASKS, get_style
from tests.models.published import files

GRAPH = "molecule_encoder.graph_encoder."
BATCH_NORM = "blip2opt.graph_encoder.batch_norms."
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture(scope="module")
def converted(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted") / "plain"
    convert_published(small.lightning, small.language_model, folder)
    return folder


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def without(state, *endings):
    return {key: tensor for key, tensor in state.items() if not key.endswith(endings)}


def fails(tmp_path, small, state=None, *, message, **options):
    """Convert a changed file; the error's details."""
    before = sorted(path.name for path in tmp_path.iterdir())
    source = tmp_path / "changed" / "stage2.ckpt"
    source.parent.mkdir(exist_ok=True)
    told = options.pop("told", files.TOLD)
    files.write_lightning(source, small.state if state is None else state, hyper_parameters=told)
    with pytest.raises(WeightsError, match=message) as caught:
        convert_published(source, small.language_model, tmp_path / "out", **options)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted({*before, "changed"})
    return caught.value.details


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


# Strictness


def test_all_unmatched_and_missing_weights_are_listed(tmp_path, small):
    state = dict(small.state)
    lost = [
        "blip2opt.ln_graph.bias",
        "blip2opt.opt_proj.bias",
        "blip2opt.Qformer.bert.encoder.layer.2.crossattention.self.key.weight",
    ]
    for key in lost:
        del state[key]
    added = [
        "optimizer.step",
        "blip2opt.llm_proj.weight",
        "blip2opt.graph_encoder.gnns.1.mlp.4.weight",
        "blip2opt.Qformer.cls.predictions.bias",
        "blip2opt.Qformer.bert.encoder.layer.0.intermediate.dense.weight",
        "blip2opt.opt_proj.weight_g",
        "blip2qformer.temp",
        "blip2opt.graph_encoder.gnns.12345678.mlp.0.weight",
    ]
    state.update({key: torch.zeros(2) for key in added})
    details = fails(tmp_path, small, state, message=r"superfluous weight .*, and 10 more")
    assert sorted(details) == sorted(
        [f"superfluous weight {key}" for key in added] + [f"missing weight {key}" for key in lost]
    )


def test_shape_mismatches_name_key_found_and_expected(tmp_path, small):
    wrong = {
        "blip2opt.graph_encoder.x_embedding1.weight": (119, 16),
        "blip2opt.graph_encoder.batch_norms.0.running_mean": (17,),
        "blip2opt.Qformer.bert.encoder.layer.1.output_query.dense.weight": (128, 97),
        "blip2opt.opt_proj.weight": (48, 128),
    }
    state = {**small.state, **{key: torch.zeros(shape) for key, shape in wrong.items()}}
    details = fails(tmp_path, small, state, message="has shape .*, and 3 more")
    shapes = {key: list(small.state[key].shape) for key in wrong}
    assert sorted(details) == sorted(
        f"{key} has shape {list(shape)}, expected {shapes[key]}" for key, shape in wrong.items()
    )


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("query_tokens", (4, 128)),
        ("query_tokens", (2, 4, 128)),
        ("query_tokens", (1, 4, 0)),
        ("graph_encoder.x_embedding1.weight", (120,)),
    ],
)
def test_weights_that_tell_sizes_need_their_dimensions(tmp_path, small, key, shape):
    state = {**small.state, f"blip2opt.{key}": torch.zeros(shape)}
    fails(tmp_path, small, state, message=f"blip2opt.{key} has shape")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "key", ["opt_proj.bias", "query_tokens", "graph_encoder.gnns.1.mlp.0.weight"]
)
def test_weights_that_are_no_numbers_are_named(tmp_path, small, key, value):
    state = {key: tensor.clone() for key, tensor in small.state.items()}
    state[f"blip2opt.{key}"].flatten()[-1] = value
    state[f"blip2opt.{key}"].view(-1)[-1] = value
    fails(tmp_path, small, state, message=rf"stage2\.ckpt: blip2opt\.{key} holds NaN or infinite")


def test_a_language_model_with_nan_is_named(tmp_path, small):
    folder = tmp_path / "lm"
    shutil.copytree(small.language_model, folder)
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    weights["model.decoder.layers.1.fc1.weight"][3, 3] = float("nan")
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(
        WeightsError, match=r"pytorch_model\.bin: model.decoder.layers.1.fc1.weight holds"
    ):
        convert_published(small.lightning, folder, tmp_path / "deep" / "er" / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"lm"}


def test_integers_are_no_weights(tmp_path, small):
    quantised = small.state["blip2opt.opt_proj.weight"].to(torch.int8)
    state = {**small.state, "blip2opt.opt_proj.weight": quantised}
    fails(tmp_path, small, state, message="opt_proj.weight has dtype torch.int8")


def test_other_architectures_are_refused_in_one_line(tmp_path, small):
    other = {"model.conv1.weight": torch.zeros(3), "model.fc.bias": torch.zeros(3)}
    message = "is not of MolTC or MolCA: none of its 2 weights .* first is 'model.conv1.weight'"
    assert fails(tmp_path, small, other, message=message) == ()
    for content, reason in (
        ({"conv1.weight": torch.zeros(3)}, "no state_dict; its first entry is 'conv1.weight'"),
        ([1, 2], "no state_dict$"),
        ({"state_dict": [1]}, "no state_dict"),
        ({"state_dict": {"blip2opt.query_tokens": "x"}}, "is a str, not a tensor"),
        ({"state_dict": {}}, "is not of MolTC or MolCA"),
    ):
        torch.save(content, tmp_path / "x.ckpt")
        with pytest.raises(WeightsError, match=reason):
            convert_published(tmp_path / "x.ckpt", small.language_model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_known_unused_weights_are_listed_with_a_reason(converted):
    card = json.loads((converted / "card.json").read_text())
    assert card["conversion"]["unused"] == {
        "blip2opt.Qformer.bert.embeddings.position_ids": "numbers of text positions"
    }


# Statistics that MolCA's files lack


def test_missing_statistics_name_the_option(tmp_path, small):
    state = without(small.state, *STATISTICS, "position_ids")
    details = fails(
        tmp_path,
        small,
        state,
        message=rf"missing weight {BATCH_NORM}0\.running_mean, and 5 more; --graph-encoder FILE",
    )
    assert len(details) == 6


def test_only_what_is_missing_is_filled(tmp_path, small):
    state = without(small.state, *STATISTICS)
    path = files.write_lightning(tmp_path / "s.ckpt", state)
    options = {"graph_encoder": small.graph_encoder}
    report = convert_published(path, small.language_model, tmp_path / "c", **options)
    got = weights_of(tmp_path / "c")
    for number in (0, 1):
        for name in STATISTICS:
            filled = small.gin[f"batch_norms.{number}.{name}"]
            assert torch.equal(got[f"{GRAPH}layers.{number}.norm.{name}"], filled)
        own = small.state[f"{BATCH_NORM}{number}.weight"]
        assert torch.equal(got[f"{GRAPH}layers.{number}.norm.weight"], own)
    assert torch.equal(
        got[f"{GRAPH}atom_type.weight"], small.state["blip2opt.graph_encoder.x_embedding1.weight"]
    )
    assert report.card["conversion"]["filled"] == {
        "from": "graphcl_80.pth",
        "weights": [f"{BATCH_NORM}{number}.{name}" for number in (0, 1) for name in STATISTICS],
    }


def test_nothing_is_filled_where_nothing_is_missing(tmp_path, small, converted):
    report = convert_published(
        small.lightning, small.language_model, tmp_path / "c", graph_encoder=small.graph_encoder
    )
    same = (tmp_path / "c" / "model.safetensors").read_bytes()
    assert same == (converted / "model.safetensors").read_bytes()
    assert report.card["conversion"]["filled"]["weights"] == []


def test_a_frozen_graph_encoder_that_was_not_saved_is_filled(tmp_path, small):
    state = {k: t for k, t in small.state.items() if not k.startswith("blip2opt.graph_encoder.")}
    path = files.write_lightning(tmp_path / "s.ckpt", state)
    convert_published(path, small.language_model, tmp_path / "c", graph_encoder=small.graph_encoder)
    got = weights_of(tmp_path / "c")
    assert torch.equal(got[f"{GRAPH}layers.1.mlp.0.weight"], small.gin["gnns.1.mlp.0.weight"])
    assert torch.equal(got[f"{GRAPH}norm.bias"], state["blip2opt.ln_graph.bias"])
    fails(tmp_path, small, state, message="missing weight .*x_embedding1.*--graph-encoder")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"gnns.2.mlp.0.weight": torch.zeros(32, 16)}, "superfluous weight gnns.2.mlp.0.weight"),
        ({"graph_pred_linear.bias": torch.zeros(2)}, "superfluous weight graph_pred_linear.bias"),
        ({"x_embedding1.weight": torch.zeros(120, 8)}, r"\[120, 8\], expected \[120, 16\]"),
        ({"batch_norms.1.running_var": torch.zeros(9)}, r"running_var has shape \[9\], expected"),
        (
            {"batch_norms.1.running_var": torch.full((16,), torch.nan)},
            r"pth: batch_norms.1.running",
        ),
    ],
)
def test_another_graph_encoder_fills_nothing(tmp_path, small, change, reason):
    torch.save({**small.gin, **change}, tmp_path / "gin.pth")
    state = without(small.state, *STATISTICS)
    fails(tmp_path, small, state, message=reason, graph_encoder=tmp_path / "gin.pth")


def test_a_graph_encoder_that_lacks_them_too(tmp_path, small):
    torch.save(without(small.gin, *STATISTICS), tmp_path / "gin.pth")
    state = without(small.state, *STATISTICS)
    details = fails(
        tmp_path,
        small,
        state,
        message="running_mean, and 5 more$",
        graph_encoder=tmp_path / "gin.pth",
    )
    assert len(details) == 6


# Stage 1


@pytest.fixture(scope="module")
def stage_1(small):
    return files.write_lightning(small.root / "stage1.ckpt", files.published_state(stage=1))


def test_stage_1_needs_a_new_projection(tmp_path, small, stage_1):
    with pytest.raises(WeightsError, match="has no projection: --new-projector draws one"):
        convert_published(stage_1, small.language_model, tmp_path / "c")
    for seed, out in enumerate(("c", "again")):
        torch.manual_seed(seed)  # not what the projection is drawn from
        report = convert_published(
            stage_1,
            small.language_model,
            tmp_path / out,
            new_projector=True,
            projector_sharing="role",
        )
    card = report.card
    assert "untrained" in card["note"]
    assert card["published"]["stage"] == 1
    assert card["conversion"]["drawn"] == {"projection": {"seed": 0}}
    unused = card["conversion"]["unused"]
    assert unused["blip2qformer.temp"]
    assert unused["blip2qformer.Qformer.bert.encoder.layer.1.output.LayerNorm.bias"]
    assert unused["blip2qformer.Qformer.cls.predictions.decoder.weight"]
    # Positions, two embeddings, head, three layers of six, three pairs of heads, temperature.
    assert len(unused) == 1 + 2 + 2 + 3 * 6 + 6 + 1
    first, second = weights_of(tmp_path / "c"), weights_of(tmp_path / "again")
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(first["projectors.role_0.weight"], first["projectors.role_1.weight"])
    assert 0 < first["projectors.role_0.weight"].std() < 0.1
    state = files.published_state(stage=1)
    value = state["blip2qformer.Qformer.bert.encoder.layer.0.output_query.dense.weight"]
    assert torch.equal(first["molecule_encoder.qformer.layers.0.down.weight"], value)


def test_drawing_leaves_the_random_state_alone(tmp_path, small, stage_1):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    convert_published(stage_1, small.language_model, tmp_path / "c", new_projector=True)
    assert torch.equal(torch.rand(1), expected)


def test_a_trained_projection_is_not_thrown_away(tmp_path, small):
    fails(tmp_path, small, message="has a projection, which --new-projector", new_projector=True)


def test_superfluous_weights_of_stage_1_are_listed_first(tmp_path, small):
    state = files.published_state(stage=1, extra={"blip2qformer.nonsense": torch.zeros(1)})
    details = fails(tmp_path, small, state, message="is of stage 1")
    assert details == ("superfluous weight blip2qformer.nonsense",)


# The language model


def test_a_tuned_language_model_is_the_lightning_files(tmp_path, small):
    state = files.tuned(small.state, small.language_model)
    name = "model.decoder.layers.0.fc2.weight"
    state[f"blip2opt.opt_model.{name}"] = torch.ones(files.HIDDEN, 64)
    path = files.write_lightning(tmp_path / "s.ckpt", state)
    folder = tmp_path / "lm"  # configuration and tokenizer are enough
    shutil.copytree(small.language_model, folder)
    (folder / "pytorch_model.bin").unlink()
    report = convert_published(path, folder, tmp_path / "c")
    got = weights_of(tmp_path / "c")
    assert torch.equal(got[f"language_model.{name}"], torch.ones(files.HIDDEN, 64))
    assert got["language_model.model.decoder.embed_tokens.weight"][-1].eq(0.25).all()
    assert report.config.mask_molecule_token is False
    assert report.card["conversion"]["language_model"] == "s.ckpt"
    assert len(report.card["published"]["inputs"]) == 3
    assert load_config(tmp_path / "c").mask_molecule_token is False

    row = tmp_path / "row.pt"
    torch.save(torch.zeros(files.HIDDEN), row)
    for option in ({"molecule_row": row}, {"lora": small.lora}):
        with pytest.raises(WeightsError, match=r"row already|language model of its own"):
            convert_published(path, folder, tmp_path / "d", **option)


def test_a_tuned_language_model_fits_its_configuration(tmp_path, small):
    whole = files.tuned(small.state, small.language_model)
    prefix = "blip2opt.opt_model."
    embeddings = f"{prefix}model.decoder.embed_tokens.weight"
    state = {**whole, f"{prefix}model.decoder.layers.0.fc1.bias": torch.zeros(64)}
    del state[f"{prefix}model.decoder.layers.1.fc1.weight"]
    assert fails(tmp_path, small, state, message="superfluous weight .*and 1 more") == (
        f"superfluous weight {prefix}model.decoder.layers.0.fc1.bias",
        f"missing weight {prefix}model.decoder.layers.1.fc1.weight",
    )
    # Without the row of <mol> it is not what was tuned.
    rows = whole[embeddings][:-1]
    state = {**whole, embeddings: rows, f"{prefix}lm_head.weight": rows}
    fails(
        tmp_path, small, state, message=rf"{embeddings} has shape \[\d+, 32\], expected \[\d+, 32\]"
    )
    state = {**whole, f"{prefix}lm_head.weight": whole[embeddings] + 1}
    fails(tmp_path, small, state, message="lm_head.weight differs from model.decoder.embed_tokens")


def test_a_tuned_model_that_lost_its_language_model_is_noted(tmp_path, small):
    path = files.write_lightning(
        tmp_path / "s.ckpt", small.state, hyper_parameters={"llm_tune": "full"}
    )
    report = convert_published(path, small.language_model, tmp_path / "c")
    assert "language model" in report.card["conversion"]["lacking"][0]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_any_causal_language_model_will_do(tmp_path, small, kind):
    folder = files.write_language_model(tmp_path / "lm", kind)
    report = convert_published(small.lightning, folder, tmp_path / "c")
    assert report.config.text_config.model_type == kind
    stored = torch.load(folder / "pytorch_model.bin", weights_only=True)
    got = weights_of(tmp_path / "c")
    for key, tensor in stored.items():
        assert torch.equal(got[f"language_model.{key}"][: len(tensor)], tensor)
    load_model(tmp_path / "c")


def test_every_dtype_is_kept(tmp_path, small):
    state = {
        key: tensor.half() if "ln_graph" in key else tensor for key, tensor in small.state.items()
    }
    path = files.write_lightning(tmp_path / "s.ckpt", state)
    folder = files.write_language_model(tmp_path / "lm", dtype=torch.bfloat16)
    convert_published(path, folder, tmp_path / "c", lora=small.lora)
    for key, tensor in weights_of(tmp_path / "c").items():
        if "graph_encoder.norm" in key:
            assert tensor.dtype == torch.float16
        elif key.startswith("language_model."):
            assert tensor.dtype == torch.bfloat16
        else:
            assert tensor.dtype in (torch.float32, torch.int64)


def test_a_folder_that_is_no_language_model(tmp_path, small):
    def refused(folder, reason):
        with pytest.raises(WeightsError, match=reason) as caught:
            convert_published(small.lightning, folder, tmp_path / "out")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()
        return caught.value.details

    def copy(name):
        shutil.copytree(small.language_model, tmp_path / name)
        return tmp_path / name

    refused(tmp_path / "nowhere", "is not a folder")
    folder = copy("a")
    (folder / "tokenizer.json").write_text("{}")
    refused(folder, "tokenizer.json: ")
    (folder / "tokenizer.json").unlink()
    refused(folder, "has no tokenizer.json")
    folder = copy("b")
    (folder / "config.json").write_text('{"model_type": "vit"}')
    refused(folder, "no causal language model of type 'vit'")
    (folder / "config.json").write_text('{"hidden_size": 3}')
    refused(folder, "config.json: ")
    (folder / "config.json").unlink()
    refused(folder, "has no config.json")
    folder = copy("c")
    data = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(data[: len(data) // 2])
    refused(folder, r"pytorch_model\.bin is truncated or damaged")
    (folder / "pytorch_model.bin").unlink()
    refused(folder, "has no model.safetensors or pytorch_model.bin")
    (folder / "model.safetensors").write_bytes(data[:100])
    refused(folder, r"model\.safetensors cannot be read")
    folder = copy("d")
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    del weights["model.decoder.layers.0.fc1.weight"], weights["model.decoder.layers.1.fc1.weight"]
    torch.save({**weights, "a": torch.zeros(1), "b": torch.zeros(1)}, folder / "pytorch_model.bin")
    assert len(refused(folder, "superfluous weight a, and 3 more")) == 4


def test_code_that_a_folder_brings_is_not_run(tmp_path, small):
    folder, sign = tmp_path / "lm", tmp_path / "it-ran"
    shutil.copytree(small.language_model, folder)
    raw = json.loads((folder / "config.json").read_text())
    raw.update(model_type="mine", auto_map={"AutoConfig": "code.Config"})
    (folder / "config.json").write_text(json.dumps(raw))
    (folder / "code.py").write_text(f"open({str(sign)!r}, 'w')\nclass Config: pass\n")
    with pytest.raises(WeightsError, match=r"config\.json: "):
        convert_published(small.lightning, folder, tmp_path / "out")
    assert not sign.exists()


# The placeholder's row


def test_the_row_is_a_mean_and_masked_unless_it_is_known(tmp_path, small, converted):
    key = "language_model.model.decoder.embed_tokens.weight"
    mean = weights_of(converted)[key]
    torch.testing.assert_close(mean[-1], mean[:-1].mean(0))
    assert load_config(converted).mask_molecule_token is True
    row = torch.randn(files.HIDDEN)
    torch.save(row, tmp_path / "mol_row.pt")
    report = convert_published(
        small.lightning, small.language_model, tmp_path / "c", molecule_row=tmp_path / "mol_row.pt"
    )
    got = weights_of(tmp_path / "c")[key]
    assert torch.equal(got[-1], row)
    assert torch.equal(got[:-1], mean[:-1])
    assert load_config(tmp_path / "c").mask_molecule_token is False
    assert report.config.molecule_token_id == len(got) - 1
    assert "mol_row.pt" in report.card["conversion"]["molecule_row"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (torch.zeros(31), r"the row has shape \[31\], expected \[32\]"),
        (torch.zeros(1, 32), r"the row has shape \[1, 32\]"),
        (torch.full((32,), float("nan")), "holds NaN"),
        ({"row": torch.zeros(32)}, "is a dict, expected a tensor"),
    ],
)
def test_a_row_that_is_none(tmp_path, small, content, reason):
    torch.save(content, tmp_path / "row.pt")
    fails(tmp_path, small, message=reason, molecule_row=tmp_path / "row.pt")


def test_a_row_does_not_tell_an_output_layer_of_its_own(tmp_path, small):
    folder = files.write_language_model(tmp_path / "lm", "llama")
    torch.save(torch.zeros(32), tmp_path / "row.pt")
    with pytest.raises(WeightsError, match="has an output layer of its own"):
        convert_published(
            small.lightning, folder, tmp_path / "out", molecule_row=tmp_path / "row.pt"
        )


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


# Projectors


@pytest.mark.parametrize("sharing", ["role", "task_role"])
def test_published_projections_are_copied_to_all_places(tmp_path, small, sharing):
    report = convert_published(
        small.lightning, small.language_model, tmp_path / "c", projector_sharing=sharing
    )
    own = {k: t for k, t in weights_of(tmp_path / "c").items() if k.startswith("projectors.")}
    places = 2 if sharing == "role" else 2 * len(report.config.tasks)
    assert len(own) == 2 * places
    for key, tensor in own.items():
        assert torch.equal(tensor, small.state[f"blip2opt.opt_proj.{key.rsplit('.')[-1]}"])
    assert load_model(tmp_path / "c").config.projector_sharing == sharing


@pytest.fixture(scope="module")
def with_adapter(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("split") / "whole"
    convert_published(
        small.lightning, small.language_model, folder, lora=small.lora, lora_as="adapter"
    )
    (folder / "notes").mkdir()
    (folder / "notes" / "readme.txt").write_text("kept")
    return folder


def test_a_split_keeps_everything_else(tmp_path, with_adapter):
    split_projectors(with_adapter, tmp_path / "roles", "role")
    split_projectors(tmp_path / "roles", tmp_path / "tasks", "task_role")
    split_projectors(with_adapter, tmp_path / "direct", "task_role")
    before = weights_of(with_adapter)
    for name in ("roles", "tasks", "direct"):
        after = weights_of(tmp_path / name)
        for key, tensor in before.items():
            if not key.startswith("projectors."):
                assert torch.equal(tensor, after[key])
                assert tensor.dtype == after[key].dtype
        added = {key for key in after if key.startswith("projectors.")}
        for key in added:
            assert torch.equal(after[key], before[f"projectors.shared.{key.rsplit('.')[-1]}"])
        assert len(added) == len(after) - len(before) + 2
        load_model(tmp_path / name)
        changed = {"config.json", "card.json", "model.safetensors"}
        for path in with_adapter.rglob("*"):
            inside = path.relative_to(with_adapter)
            if path.is_file() and str(inside) not in changed:
                assert (tmp_path / name / inside).read_bytes() == path.read_bytes()
        assert {p.relative_to(tmp_path / name) for p in (tmp_path / name).rglob("*")} == {
            p.relative_to(with_adapter) for p in with_adapter.rglob("*")
        }
    configs = [
        json.loads((f / "config.json").read_text()) for f in (with_adapter, tmp_path / "roles")
    ]
    assert configs[1].pop("projector_sharing") == "role"
    assert configs[0].pop("projector_sharing") == "shared"
    assert configs[0] == configs[1]


def test_a_split_is_noted_in_the_card(tmp_path, with_adapter):
    split_projectors(with_adapter, tmp_path / "roles", "role")
    split_projectors(tmp_path / "roles", tmp_path / "tasks", "task_role")
    old = json.loads((with_adapter / "card.json").read_text())
    new = json.loads((tmp_path / "tasks" / "card.json").read_text())
    steps = new.pop("steps")
    assert [step["step"] for step in steps] == [
        "projectors shared -> role, copied",
        "projectors role -> task_role, copied",
    ]
    assert [step["checkpoint"] for step in steps] == ["whole", "roles"]
    assert steps[0]["inputs"][0]["sha256"] == old["sha256"]["model.safetensors"]
    assert new.pop("sha256") != old.pop("sha256")
    assert new == old


def test_a_split_keeps_what_roles_learned(tmp_path, tiny_roles):
    split_projectors(tiny_roles, tmp_path / "tasks", "task_role")
    before, after = weights_of(tiny_roles), weights_of(tmp_path / "tasks")
    assert not torch.equal(before["projectors.role_0.weight"], before["projectors.role_1.weight"])
    for task in load_config(tiny_roles).tasks:
        for role in ("role_0", "role_1"):
            copied = after[f"projectors.{task}_{role}.weight"]
            assert torch.equal(copied, before[f"projectors.{role}.weight"])


def test_projectors_are_not_joined(tmp_path, tiny, tiny_roles, tiny_llama):
    for folder, sharing, reason in (
        (tiny_roles, "shared", r"2 that may differ cannot become 1 \('shared'\)"),
        (tiny_llama, "role", r"that may differ cannot become 2 \('role'\)"),
        (tiny_llama, "shared", "cannot become 1"),
        (tiny, "shared", "has projectors 'shared' already"),
        (tiny_roles, "role", "has projectors 'role' already"),
        (tmp_path / "nowhere", "role", "is not a checkpoint folder"),
    ):
        with pytest.raises(CheckpointError, match=reason):
            split_projectors(folder, tmp_path / "c", sharing)
    with pytest.raises(CheckpointError, match=r"is inside .*which is copied"):
        split_projectors(tiny, tiny / "roles", "role")
    with pytest.raises(ValueError, match="'many' is none of"):
        split_projectors(tiny, tmp_path / "c", "many")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_is_not_whole_is_not_split(tmp_path, tiny):
    folder = tmp_path / "broken"
    shutil.copytree(tiny, folder)
    weights = load_file(folder / "model.safetensors")
    lost = "molecule_encoder.graph_encoder.layers.0.mlp.0.bias"
    del weights[lost]
    from safetensors.torch import save_file

    save_file(weights, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=f"missing weight {lost}"):
        split_projectors(folder, tmp_path / "c", "role")
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]
