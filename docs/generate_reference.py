"""Generate the reference pages from the code; mkdocs-gen-files runs this during the build.

`reference_pages` has no dependency on MkDocs, so that the tests can call it.
"""

from __future__ import annotations

import enum
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

ROOT = Path(__file__).parent.parent


def reference_pages() -> dict[str, str]:
    """Return the generated pages: path below ``docs/`` and Markdown text."""
    return {
        "reference/cli.md": command_line_page(),
        "reference/http-api.md": http_page(),
        "reference/configuration.md": configuration_page(),
        "reference/metrics.md": metrics_page(),
        # The files of the repository's top folder are pages, too.
        "development/contributing.md": (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
        "development/changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
    }


def command_line_page() -> str:
    """Describe every command of ``moltc`` with its arguments and options."""
    from typer.main import get_command

    from moltc_vllm.cli import app

    lines = [
        "# Command line",
        "",
        "Generated from the commands themselves. `moltc COMMAND --help` prints the same.",
        "",
    ]
    for path, command in _commands("moltc", get_command(app)):
        lines += [f"## `{path}`", "", inspect.cleandoc(command.help or ""), ""]
        rows = [_parameter_row(parameter) for parameter in command.params]
        rows = [row for row in rows if row]
        if rows:
            lines += ["| option | default | meaning |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _commands(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Yield every leaf command with its full name."""
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
        return
    for name, child in children.items():
        yield from _commands(f"{path} {name}", child)


def _parameter_row(parameter: Any) -> str:
    if "--help" in parameter.opts:
        return ""
    is_argument = parameter.param_type_name == "argument"
    names = (
        [parameter.name.upper()] if is_argument else [*parameter.opts, *parameter.secondary_opts]
    )
    default = parameter.default
    if callable(default) or default in (None, "", ()) or repr(default).startswith("<"):
        shown = "required" if parameter.required else ""
    else:
        shown = f"`{getattr(default, 'value', default)}`"
    text = getattr(parameter, "help", None) or ""
    if choices := _choices(parameter):
        text += f" One of {', '.join(f'`{choice}`' for choice in choices)}."
    return f"| {', '.join(f'`{name}`' for name in names)} | {shown} | {_cell(text)} |"


def _choices(parameter: Any) -> list[str]:
    """Return the values of an option whose type is an enum."""
    descriptor = getattr(parameter, "type_descriptor", None)  # Typer 0.29 and later
    annotation = getattr(descriptor, "annotation", None)
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return [str(item.value) for item in kind]
    return [str(choice) for choice in getattr(getattr(parameter, "type", None), "choices", ())]


def http_page() -> str:
    """Describe our own routes from the OpenAPI document that the server publishes."""
    from fastapi import FastAPI

    from moltc_vllm.plugin.launcher import prepare_environment

    prepare_environment()
    from moltc_vllm.plugin.server.endpoint import router

    application = FastAPI()
    application.include_router(router)
    document = application.openapi()
    lines = [
        "# HTTP API",
        "",
        "`moltc serve` is vLLM's OpenAI-compatible server: all of its routes are there "
        "(`/v1/chat/completions`, `/v1/completions`, `/v1/responses`, `/v1/messages`, `/tokenize`, "
        "`/health`, `/metrics`, ...), and molecules go into them as described in "
        "[Serving](../guides/serving.md). The routes below are ours, generated from the OpenAPI "
        "document that the server publishes at `/openapi.json`.",
        "",
    ]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            lines += [f"## `{method.upper()} {path}`", "", operation.get("description", ""), ""]
    lines += ["## Objects", ""]
    for name, schema in document.get("components", {}).get("schemas", {}).items():
        if name in ("HTTPValidationError", "ValidationError"):
            continue
        description = inspect.cleandoc(schema.get("description", ""))
        summary, _, attributes = description.partition("Attributes:")
        lines += [f"### {name}", "", summary.strip(), "", *_schema_table(schema, attributes)]
    return "\n".join(lines)


def _schema_table(schema: dict[str, Any], attributes: str) -> list[str]:
    meanings = _entries(attributes)
    rows = []
    for name, field in schema.get("properties", {}).items():
        default = "required" if name in schema.get("required", ()) else ""
        if field.get("default") is not None:
            default = f"`{json.dumps(field['default'])}`"
        meaning = field.get("description") or meanings.get(name, "")
        rows.append(f"| `{name}` | {_cell(_type_name(field))} | {default} | {_cell(meaning)} |")
    if not rows:
        return []
    return ["| field | type | default | meaning |", "|---|---|---|---|", *rows, ""]


def _type_name(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return str(field["$ref"].rsplit("/", 1)[-1])
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "enum" in field:
        return " or ".join(f"`{json.dumps(value)}`" for value in field["enum"])
    for key in ("anyOf", "oneOf", "allOf"):
        if key in field:
            return " or ".join(dict.fromkeys(_type_name(option) for option in field[key]))
    if field.get("type") == "array":
        return f"array of {_type_name(field.get('items', {}))}"
    return str(field.get("type", "any"))


def configuration_page() -> str:
    """Describe recipes, replica settings, environment variables and engine settings."""
    from moltc_vllm.deploy.settings import ReplicaSettings
    from moltc_vllm.train import recipe

    lines = [
        "# Configuration",
        "",
        "## Environment variables",
        "",
        "| variable | meaning |",
        "|---|---|",
        *(f"| `{name}` | {meaning} |" for name, meaning in ENVIRONMENT.items()),
        "",
        "## Settings of the engine",
        "",
        "`moltc serve` takes every flag of `vllm serve`. Settings of our own go into "
        "`--additional-config`, a JSON object:",
        "",
        "| key | default | meaning |",
        "|---|---|---|",
        *(f"| `{key}` | {default} | {text} |" for key, default, text in ADDITIONAL_CONFIG),
        "",
        "## Recipes",
        "",
        "Keys of the YAML file that `moltc train` reads; see [Training](../guides/training.md).",
        "",
    ]
    models = [
        model
        for _, model in inspect.getmembers(recipe, inspect.isclass)
        if model.__module__ == recipe.__name__ and hasattr(model, "model_fields")
    ]
    models.sort(key=lambda model: model.__name__ != "Recipe")
    for model in models:
        lines += _model_section(model)
    lines += [
        "## Replicas",
        "",
        "Keys under `args` in a Ray Serve configuration; see "
        "[Deployment](../guides/deployment.md).",
        "",
        *_model_section(ReplicaSettings),
    ]
    return "\n".join(lines)


ENVIRONMENT = {
    "MOLTC_DATA": "Folder of the measured data sets, for `moltc data`, `moltc train` and the "
    "benchmarks; see [Data](../guides/data.md).",
    "MOLTC_KERNELS": "Implementation of the molecule kernels: `naive`, `cpu` or `triton`. Default: "
    "Triton on a GPU, `cpu` elsewhere. Answers are the same.",
    "MOLTC_FEATURIZE": "`loops` reads molecules with plain Python loops instead of the compiled "
    "reader of RDKit's pickles. Graphs are the same.",
    "OPENAI_API_KEY": "API key that `moltc screen`, `predict` and `evaluate` send to `--endpoint`.",
    "VLLM_API_KEY": "API key that the server requires.",
    "VLLM_PLUGINS": "Plugins that vLLM loads; `moltc serve` adds `moltc` and `moltc_http`.",
    "VLLM_CPU_OMP_THREADS_BIND": "Cores of vLLM's CPU worker; `moltc serve` sets `nobind`.",
    "VLLM_CPU_KVCACHE_SPACE": "Memory of the key-value cache on CPU in GiB; `moltc serve` sets 1.",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "Set to "
    "`moltc_vllm.deploy.proxy_middleware:middlewares` where a Ray cluster is started, so that "
    "Serve's proxy routes by molecule and retries once.",
}

ADDITIONAL_CONFIG = [
    ("moltc_encoder_cache_mb", "64", "Size of the cache of encoded molecules, in MB."),
    (
        "moltc_shared_cache",
        "none",
        "Folder of a cache of encoded molecules that all engines of this machine share (LMDB).",
    ),
    ("moltc_shared_cache_mb", "256", "Largest size of that shared cache, in MB."),
]


def _model_section(model: Any) -> list[str]:
    """Describe a pydantic model: fields with types, defaults and the docstring's entries."""
    documentation = inspect.getdoc(model) or ""
    summary, _, attributes = documentation.partition("Attributes:")
    meanings = _entries(attributes)
    lines = [f"### {model.__name__}", "", summary.strip(), ""]
    if not model.model_fields:
        return lines
    lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        kind = inspect.formatannotation(field.annotation).replace("moltc_vllm.train.recipe.", "")
        default = "required" if field.is_required() else f"`{_default_text(field.default)}`"
        lines.append(f"| `{name}` | `{kind}` | {default} | {_cell(meanings.get(name, ''))} |")
    return [*lines, ""]


def _default_text(default: Any) -> str:
    return type(default).__name__ if hasattr(default, "model_fields") else repr(default)


def _entries(text: str) -> dict[str, str]:
    """Return the entries of a Google-style section by name, each on one line."""
    entries: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc(text).splitlines():
        if line and not line.startswith(" ") and ":" in line:
            name, _, first = line.partition(":")
            entries[name] = first.strip()
        elif line.strip() and name:
            entries[name] += f" {line.strip()}"
    return entries


def metrics_page() -> str:
    """Describe our Prometheus counters."""
    from prometheus_client import Counter

    from moltc_vllm.plugin import metrics

    counters = [item for item in vars(metrics).values() if isinstance(item, Counter)]
    rows = []
    for counter in counters:
        (family,) = counter.describe()
        labels = ", ".join(f"`{label}`" for label in counter._labelnames)
        rows.append(f"| `{family.name}_total` | {labels} | {_cell(family.documentation)} |")
    return "\n".join(
        [
            "# Metrics",
            "",
            "`/metrics` of `moltc serve` has vLLM's own metrics and these counters. Behind Ray "
            "Serve, Ray's exporter has the counters of all replicas as `ray_moltc_*` and "
            "`ray_vllm_*` with the label `ReplicaId`; `serve_configs/grafana/moltc.json` is a "
            "dashboard of them.",
            "",
            "| counter | labels | meaning |",
            "|---|---|---|",
            *rows,
            "",
            "The encoder runs in a worker process. Its counters reach `/metrics` through "
            "prometheus_client's multi-process mode: counters are sums over processes, and vLLM's "
            "gauges have the value of the process that wrote last.",
            "",
        ]
    )


def _cell(text: str) -> str:
    """Make a text fit into a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|").replace("``", "`")


def _write_pages() -> None:
    import mkdocs_gen_files

    for path, text in reference_pages().items():
        with mkdocs_gen_files.open(path, "w") as file:
            file.write(text)


if __name__ == "<run_path>":  # the name under which mkdocs-gen-files runs a script
    _write_pages()
