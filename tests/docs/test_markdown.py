"""Every command and code block of the README and the documentation is parsed or executed."""

import ast
import importlib
import json
import re
import shlex
import tomllib

import pytest
import yaml
from typer.main import get_command

from moltc_vllm.cli import app
from tests.docs.blocks import PAGES, ROOT, blocks, commands

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
LANGUAGES = {"python", "console", "yaml", "json", ""}


def ids(items):
    return [item if isinstance(item, str) else f"{item[0]} {item[1][:50]}" for item in items]


def test_blocks_have_languages_that_are_tested():
    assert {block.language for block in blocks()} <= LANGUAGES
    assert len(blocks("python")) >= 8
    assert len(commands()) >= 40


def parse_moltc(words):
    command = get_command(app)
    while hasattr(command, "commands"):
        _, *words = words
        if words and words[0].startswith("--"):
            break
        assert words[0] in command.commands, words
        command = command.commands[words[0]]
    command.make_context(words[0], words[1:] if not words[0].startswith("--") else words)


def check_command(line):
    words = shlex.split(line, comments=True)
    # Variables before a command, e.g. MOLTC_TEST_URL=...
    while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    match words:
        case ["moltc", *_]:
            parse_moltc(words)
        case ["make", *targets]:
            assert {word for word in targets if "=" not in word} <= TARGETS
        case ["pip", "install", *rest]:
            for extras in re.findall(r"\.\[([\w,]+)\]", " ".join(rest)):
                assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()
            for name in re.findall(r"-c (\S+)", line):
                assert (ROOT / name).is_file()
        case ["python", "-m", module, *options]:
            if module in ("build", "zipfile"):  # of other projects
                return
            folder = ROOT / module.replace(".", "/")
            kernel = ROOT / "kernels" / module.replace(".", "/")
            assert folder.with_suffix(".py").is_file() or any(
                (path / "__main__.py").is_file() for path in (folder, kernel)
            ), module
            del options
        case ["python", script, *_]:
            assert (ROOT / script).is_file(), script
            source = "\n".join(path.read_text() for path in (ROOT / script).parent.rglob("*.py"))
            for option in re.findall(r"(?<=\s)--[a-z-]+", line):
                assert f'"{option}"' in source or option == "--json", option
        case ["curl", *_]:
            body = words[words.index("-d") + 1]
            json.loads(body)
            url = next(word for word in words if word.startswith("http"))
            assert url.split("/", 3)[3] in ("v1/interactions", "v1/chat/completions")
        case ["docker", "build", "-f", file, *_]:
            assert (ROOT / file).is_file()
        case ["docker", "run", *_]:
            assert re.search(r"moltc-vllm:(cpu|cuda)", line)
        case ["export", assignment]:
            assert assignment.startswith("MOLTC_DATA=")
        case ["accelerate", "launch", "-m", "moltc_vllm.cli", *rest]:
            parse_moltc(["moltc", *rest])
        case _:
            pytest.fail(f"no check for the command {line!r}")


@pytest.mark.parametrize(("block", "line"), commands(), ids=ids(commands()))
def test_command_can_be_parsed(block, line):
    check_command(line)


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.name)
def test_python_block_compiles_and_its_imports_exist(block):
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("moltc"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module}.{alias.name}"


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.name)
def test_python_block_is_executed_or_reads_a_result(block):
    """A block without the mark ``test: run`` may only read files that another command writes."""
    assert block.mark.startswith("run") or "result/" in block.text


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: block.name)
def test_yaml_block_is_valid(block):
    from moltc_vllm.models.config import MoltcConfig
    from moltc_vllm.train.recipe import Recipe, load_recipe

    content = yaml.safe_load(block.text)
    if "stage" in content:
        Recipe.model_validate(content)
    elif content.keys() <= Recipe.model_fields.keys():  # a part of a recipe
        recipe = Recipe.model_validate({**load_recipe("mini-pretrain").model_dump(), **content})
        MoltcConfig(**recipe.model)
        for part, arguments in recipe.model.items():
            assert arguments.keys() <= vars(getattr(MoltcConfig(), part)).keys()
    else:
        pytest.fail(f"{block.name}: no check for this YAML")


@pytest.mark.parametrize("block", blocks("json"), ids=lambda block: block.name)
def test_json_block_is_valid(block):
    content = json.loads(block.text)
    from moltc_vllm.tasks import Answer

    for answer in content["data"]:
        Answer.model_validate(answer)


def test_relative_links_exist():
    generated = {"cli", "http-api", "configuration", "metrics", "contributing", "changelog"}
    for page in PAGES:
        text = re.sub(r"`[^`\n]*`", "", page.read_text())  # a SMILES may look like a link
        for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", text):
            path = (page.parent / target).resolve()
            assert path.exists() or path.stem in generated, f"{page.name}: {target}"


def test_paths_in_backticks_exist():
    """Paths of our folders that the pages name exist."""
    pattern = (
        r"`((?:moltc_vllm|kernels|benchmarks|serve_configs|tests|docker|examples|docs)/[\w./-]*\w)`"
    )
    for page in PAGES:
        for name in re.findall(pattern, page.read_text()):
            assert (ROOT / name).exists(), f"{page.name}: {name}"


def test_options_of_moltc_exist():
    """Every long option in backticks is an option of moltc, of vLLM or of a benchmark."""
    sources = "\n".join(
        path.read_text()
        for folder in ("moltc_vllm", "benchmarks", "tests/golden", "kernels")
        for path in (ROOT / folder).rglob("*.py")
    )
    of_vllm = {
        "--max-loras", "--no-enable-lora", "--lora-modules", "--logprobs-mode",
        "--additional-config", "--served-model-name",
    }  # fmt: skip
    parameters = set()

    def collect(command):
        for parameter in command.params:
            parameters.update(parameter.opts)
        for child in getattr(command, "commands", {}).values():
            collect(child)

    collect(get_command(app))
    for page in PAGES:
        if page.name == "published-model.md":  # names options of the published code
            continue
        text = page.read_text()
        for option in re.findall(r"`(--[a-z][\w-]+)", text):
            assert option in parameters | of_vllm or f'"{option}"' in sources, (page.name, option)


def test_readme_is_short_and_has_the_two_commands():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 200
    first_screen = lines[:40]
    assert "$ make demo" in first_screen
    assert "$ make test" in first_screen


def test_readme_lists_every_task():
    from moltc_vllm.tasks import TASKS

    readme = (ROOT / "README.md").read_text()
    page = (ROOT / "docs/concepts/tasks-and-answers.md").read_text()
    for name, task in TASKS.items():
        # Experimental tasks are only on the page that explains them.
        assert (f"`{name}`" in readme) == (task.caution is None)
        assert f"| `{name}` |" in page
