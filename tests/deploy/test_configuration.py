"""Ray Serve configurations: the shipped ones are valid, and errors are found before a start."""

from pathlib import Path

import pytest
import yaml

from moltc_vllm.deploy import build
from moltc_vllm.deploy.configuration import (
    PROXY_MIDDLEWARE,
    ConfigurationError,
    check_configuration,
    read_configuration,
)
from moltc_vllm.deploy.settings import ReplicaSettings

FOLDER = Path(__file__).parents[2] / "serve_configs"
FILES = sorted(set(FOLDER.glob("*.yaml")) - set(FOLDER.glob("vllm-*.yaml")))
CPU = yaml.safe_load((FOLDER / "cpu.yaml").read_text())
CACHE_FOLDER = Path("encoded")


def changed(**changes):
    """The CPU configuration with other values; keys are paths with ``__`` between the steps."""
    content = yaml.safe_load(yaml.safe_dump(CPU))
    for location, value in changes.items():
        parent = content
        *path, last = location.split("__")
        for step in path:
            parent = parent[int(step) if step.isdigit() else step]
        parent[last] = value
    return content


def test_documented_configurations_exist():
    names = {path.stem for path in FILES}
    assert names >= {"cpu", "1gpu", "8gpu", "tp4", "autoscale", "multitask", "kuberay", "haproxy"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shipped_configuration_is_valid(path, monkeypatch):
    content = yaml.safe_load(path.read_text())
    if path.stem == "kuberay":
        assert (content["kind"], content["apiVersion"]) == ("RayService", "ray.io/v1")
        content = yaml.safe_load(content["spec"]["serveConfigV2"])
        configuration = check_configuration(content, path)
    else:
        configuration = read_configuration(path)
    assert configuration.url.startswith("http://")
    assert configuration.cluster_environment()
    args = content["applications"][0]["args"]
    assert build(args)  # Serve calls it with these arguments
    # vLLM's parser accepts the flags and reads the configured values.
    from moltc_vllm.plugin.launcher import parse

    arguments = ReplicaSettings(**args).serve_arguments(CACHE_FOLDER)
    _, parsed = parse(["folder", *arguments[1:]])
    for name, value in args.get("flags", {}).items():
        if not isinstance(value, dict):
            assert getattr(parsed, name.replace("-", "_")) == value


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shipped_configuration_is_closed_to_strangers(path):
    """CORS is off, and a server that listens on all interfaces mentions the API key."""
    text = path.read_text()
    assert "allowed-origins" not in text
    if "0.0.0.0" in text:
        assert "VLLM_API_KEY" in text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"http_option": {}}, "unknown setting 'http_option'"),
        ({"applications__0__arg": {}}, "applications: unknown setting 'arg'"),
        ({"applications__0__deployments__0__num_replica": 2}, "unknown setting 'num_replica'"),
        (
            {"applications__0__import_path": "x:y"},
            "no application with import_path moltc_vllm.deploy:build",
        ),
        ({"applications__0__args": {"modle": "x"}}, r"moltc\.args: modle"),
        ({"applications__0__args": {"watch_s": 0}}, r"moltc\.args: watch_s"),
        ({"applications__0__deployments__0__num_replicas": -1}, "num_replicas"),
        ({"applications__0__deployments__0__name": "x"}, "has to be named 'moltc', not 'x'"),
        ({"applications__0__deployments__0__backpressure_config": {"retry": 1}}, "retry"),
        ({"http_options": {"port": "x"}}, "port"),
    ],
)
def test_invalid_setting_is_named(changes, reason):
    with pytest.raises(ConfigurationError, match=reason) as caught:
        check_configuration(changed(**changes), Path("mine.yaml"))
    assert str(caught.value).startswith("mine.yaml")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("content", [b"a: [", b"text", b"", b"\xff\xfe"])
def test_file_without_configuration_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        read_configuration(tmp_path / "a.yaml")
    assert len(str(caught.value).splitlines()) == 1


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_configuration(tmp_path / "none.yaml")


def test_router_excludes_haproxy():
    with_router = check_configuration(CPU, Path("cpu.yaml"))
    variable = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
    assert with_router.cluster_environment() == {variable: PROXY_MIDDLEWARE}
    with pytest.raises(ConfigurationError, match="which HAProxy ignores"):
        with_router.cluster_environment(haproxy=True)
    content = changed()
    del content["applications"][0]["deployments"][0]["request_router_config"]
    without_router = check_configuration(content, Path("a.yaml"))
    assert without_router.cluster_environment()["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert without_router.cluster_environment(haproxy=False) == with_router.cluster_environment()


def test_with_port_changes_url_and_content():
    configuration = check_configuration(CPU, Path("cpu.yaml"))
    assert configuration.with_port(None) is configuration
    assert configuration.with_port(9).url == "http://127.0.0.1:9"
    assert configuration.with_port(9).content["http_options"]["port"] == 9
    assert CPU["http_options"]["port"] == 8000
    assert configuration.application_names == ("moltc",)


def test_flags_become_serve_arguments():
    flags = {
        "max_num_seqs": 4,
        "enforce-eager": False,
        "enable-lora": True,
        "lora-modules": ["a=b", "c=d"],
        "dtype": None,
        "additional-config": {"x": 1},
    }
    settings = ReplicaSettings(model="m", flags=flags)
    model, *arguments = settings.serve_arguments(CACHE_FOLDER)
    assert model == "m"
    assert arguments[:7] == [
        *("--max-num-seqs", "4", "--no-enforce-eager", "--enable-lora"),
        *("--lora-modules", "a=b", "c=d"),
    ]
    assert arguments[7] == "--additional-config"
    assert yaml.safe_load(arguments[8]) == {
        "moltc_shared_cache": "encoded",
        "moltc_shared_cache_mb": 256.0,
        "x": 1,
    }


def test_shared_cache_can_be_disabled():
    settings = ReplicaSettings(model="m", shared_cache_mb=0)
    assert settings.serve_arguments(CACHE_FOLDER) == ["m"]


def test_shipped_checkpoint_gets_its_name():
    assert "--served-model-name" in ReplicaSettings().serve_arguments(CACHE_FOLDER)


def test_additional_config_has_to_be_a_mapping():
    with pytest.raises(ValueError, match="additional-config has to be a mapping"):
        ReplicaSettings(flags={"additional-config": "{}"}).serve_arguments(CACHE_FOLDER)
