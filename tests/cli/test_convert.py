"""``moltc convert``: options, reports, and errors as one line after a line per weight."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from moltc_vllm.cli import app

runner = CliRunner()


def run(*arguments):
    return runner.invoke(app, ["convert", *map(str, arguments)])


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Folder with small published files."""
    from tests.models.conversion import published_files as files

    root = tmp_path_factory.mktemp("published")
    files.write_lightning(root / "stage2.ckpt", files.published_state())
    files.write_lightning(root / "stage1.ckpt", files.published_state(stage=1))
    files.write_language_model(root / "lm")
    files.write_lora(root / "lora", files.ATTENTION)
    return root


def source(published, name="stage2.ckpt"):
    return "--lightning", published / name, "--language-model", published / "lm"


def check_rejected(result, reason):
    """Check that the last error line contains the reason; return the lines before it."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    *details, last = result.stderr.splitlines()
    assert last.startswith("moltc: ")
    assert reason in last
    return details


def test_convert_writes_checkpoint_from_published_files(published, tmp_path):
    out = tmp_path / "new" / "out"
    result = run(*source(published), "--lora", published / "lora", "--projectors", "task_role", out)
    assert result.exit_code == 0, result.output
    assert "GIN 2 x 16, Q-Former 3 x 128, opt of width 32" in result.stdout
    assert "projectors task_role, prompts moltc-2024" in result.stdout
    assert "attention heads: 2, from no file: heads of width 64" in result.stdout
    assert "LoRA: lora of rank 4, 4 modules, scale 8, merged" in result.stdout
    assert result.stderr == ""
    assert json.loads((out / "config.json").read_text())["model_type"] == "moltc"


def test_convert_passes_every_option(published, tmp_path, monkeypatch):
    from moltc_vllm.models.conversion import convert as module

    received = {}

    def record(lightning, language_model, out, **options):
        received.update(options, lightning=lightning, language_model=language_model, out=out)
        raise ValueError("stop here")

    monkeypatch.setattr(module, "convert_published", record)
    options = {
        "lora": "a",
        "lora_as": "adapter",
        "lora_alpha": 16.0,
        "task": "ddi",
        "graph_encoder": "b",
        "qformer_config": "c",
        "molecule_row": "d",
        "prompt_style": "moltc",
        "molecule_prompt": "e",
    }
    words = [w for name, value in options.items() for w in (f"--{name.replace('_', '-')}", value)]
    check_rejected(
        run(*source(published), *words, "--new-projector", "--projector-per-role", "out"),
        "stop here",
    )
    assert {name: str(value) for name, value in received.items()} == {
        **{name: str(value) for name, value in options.items()},
        "lightning": str(published / "stage2.ckpt"),
        "language_model": str(published / "lm"),
        "new_projector": "True",
        "projector_sharing": "role",
        "out": "out",
    }
    received.clear()
    run(*source(published), "out")
    assert received.keys() == {
        "lightning",
        "language_model",
        "out",
    }  # defaults are those of the Python function


def test_convert_splits_projectors_of_checkpoint(tiny, tmp_path):
    result = run("--checkpoint", tiny, "--role-split", tmp_path / "roles")
    assert result.exit_code == 0, result.output
    assert "projectors role" in result.stdout
    result = run("--checkpoint", tmp_path / "roles", "--projectors", "task_role", tmp_path / "t")
    assert result.exit_code == 0, result.output
    details = check_rejected(
        run("--checkpoint", tmp_path / "t", "--projectors", "shared", tmp_path / "s"),
        "cannot be joined into 1 ('shared')",
    )
    assert details == []
    assert {path.name for path in tmp_path.iterdir()} == {"roles", "t"}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (
            [],
            "give either --lightning (published files) or --checkpoint (a folder of this package)",
        ),
        (["--lightning", "a", "--checkpoint", "b"], "give either --lightning"),
        (["--lightning", "a"], "--lightning needs --language-model"),
        (["--checkpoint", "a"], "needs --role-split or --projectors"),
        (["--checkpoint", "a", "--role-split", "--lora", "b"], "--lora cannot be combined with"),
        (["--checkpoint", "a", "--role-split", "--new-projector"], "--new-projector cannot be"),
        (["--checkpoint", "a", "--role-split", "--language-model", "b"], "--language-model cannot"),
        (["--checkpoint", "a", "--role-split", "--projectors", "shared"], "contradict each other"),
        (["--checkpoint", "nowhere", "--role-split"], "nowhere is not a checkpoint folder"),
        (["--lightning", "nowhere", "--language-model", "b"], "nowhere does not exist"),
        (
            ["--lightning", "a", "--language-model", "b", "--lora-as", "x"],
            "lora_as must be one of merge",
        ),
    ],
)
def test_convert_rejects_incompatible_options(tmp_path, monkeypatch, arguments, reason):
    monkeypatch.chdir(tmp_path)
    assert check_rejected(run(*arguments, "out"), reason) == []
    assert list(tmp_path.iterdir()) == []


def write_defective(kind, published, folder):
    """Write a Lightning file with a defect of the given kind."""
    import torch
    from safetensors.torch import save_file

    from tests.models.conversion import published_files as files

    path, state = folder / "stage2.ckpt", files.published_state()
    whole = (published / "stage2.ckpt").read_bytes()
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("no pickle")
    elif kind == "safetensors":
        save_file(state, path)
    elif kind.startswith("cut"):
        path.write_bytes(whole[: int(len(whole) * float(kind.split()[1]))])
    elif kind == "code":

        class Bomb:
            def __reduce__(self):
                return os.system, (f"touch {folder / 'code-ran'}",)

        torch.save({"state_dict": state, "callbacks": Bomb()}, path)
    elif kind == "resnet":
        torch.save({"conv1.weight": torch.zeros(2), "fc.bias": torch.zeros(2)}, path)
    elif kind == "other lightning":
        files.write_lightning(path, {"model.a": torch.zeros(2), "model.b": torch.zeros(2)})
    else:
        key = "blip2opt.graph_encoder.gnns.0.mlp.0.bias"
        if "missing" in kind:
            del state[key]
        if kind == "two missing":
            del state["blip2opt.opt_proj.bias"]
        if kind == "shape":
            state[key] = torch.zeros(5)
        elif kind == "nan":
            state[key][2] = float("nan")
        files.write_lightning(path, state)
    return path


DEFECTS = {
    "empty": ("stage2.ckpt is empty", 0),
    "text": ("stage2.ckpt is not a file written by torch.save", 0),
    "safetensors": ("stage2.ckpt is a safetensors file", 0),
    "cut 0.001": ("stage2.ckpt is truncated or damaged", 0),
    "cut 0.5": ("stage2.ckpt is truncated or damaged", 0),
    "cut 0.999": ("stage2.ckpt is truncated or damaged", 0),
    "code": ("stage2.ckpt would run 'posix.system' when loaded; refused", 0),
    "resnet": ("stage2.ckpt is not a Lightning checkpoint: no state_dict", 0),
    "other lightning": (
        "stage2.ckpt is not a checkpoint of MolTC or MolCA: none of its 2 weights",
        0,
    ),
    "missing": ("missing weight blip2opt.graph_encoder.gnns.0.mlp.0.bias; give --graph-encoder", 0),
    "two missing": ("missing weight blip2opt.graph_encoder.gnns.0.mlp.0.bias, and 1 more", 2),
    "shape": ("gnns.0.mlp.0.bias has shape [5], expected [32]", 0),
    "nan": ("blip2opt.graph_encoder.gnns.0.mlp.0.bias holds NaN or infinite values", 0),
}


@pytest.mark.parametrize("kind", DEFECTS)
@pytest.mark.parametrize("existing", [False, True])
def test_convert_reports_defective_file_and_leaves_no_output(published, tmp_path, kind, existing):
    reason, listed = DEFECTS[kind]
    path = write_defective(kind, published, tmp_path)
    if existing:
        (tmp_path / "out").mkdir()
    result = run("--lightning", path, "--language-model", published / "lm", tmp_path / "out")
    details = check_rejected(result, reason)
    assert len(details) == listed
    left = {"stage2.ckpt", "out"} if existing else {"stage2.ckpt"}
    assert {item.name for item in tmp_path.iterdir()} == left
    assert not existing or list((tmp_path / "out").iterdir()) == []


def test_convert_does_not_change_used_folder(published, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    check_rejected(run(*source(published), tmp_path / "out"), "out exists and is not empty")
    check_rejected(
        run("--lightning", "nowhere", "--language-model", "b", tmp_path / "out"), "not empty"
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_convert_of_stage_1_suggests_new_projector(published, tmp_path):
    check_rejected(
        run(*source(published, "stage1.ckpt"), tmp_path / "out"),
        "give --new-projector to initialize",
    )
    result = run(*source(published, "stage1.ckpt"), "--new-projector", tmp_path / "out")
    assert result.exit_code == 0
    assert "train it before you use the answers" in result.stdout


def test_convert_warns_about_missing_trained_weights(published, tmp_path):
    from tests.models.conversion import published_files as files

    shutil.copytree(published / "lm", tmp_path / "lm")
    hyper_parameters = {**files.HYPER_PARAMETERS, "llm_tune": "lora"}
    state = files.published_state()
    files.write_lightning(tmp_path / "stage2.ckpt", state, hyper_parameters=hyper_parameters)
    result = run(*source(tmp_path), tmp_path / "out")
    assert result.exit_code == 0
    assert result.stderr.startswith("moltc: warning: not in these files: LoRA weights")


def test_convert_process_prints_one_line_only(published, tmp_path):
    """Libraries print no warnings around the error line."""
    path = write_defective("code", published, tmp_path)
    command = [sys.executable, "-m", "moltc_vllm.cli", "convert", "--lightning", path]
    command += ["--language-model", published / "lm", tmp_path / "out"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == f"moltc: {path} would run 'posix.system' when loaded; refused\n"
    assert not (tmp_path / "code-ran").exists()
