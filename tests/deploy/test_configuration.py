"""Serve configurations: ours are valid, and what is wrong in one is said before anything starts."""

from pathlib import Path

import pytest
import yaml

from moltc_vllm.deploy import build
from moltc_vllm.deploy.configuration import (
    FRONT,
    ConfigurationError,
    check_configuration,
    read_configuration,
)
from moltc_vllm.deploy.settings import Settings

FOLDER = Path(__file__).parents[2] / "serve_configs"
FILES = sorted(set(FOLDER.glob("*.yaml")) - set(FOLDER.glob("vllm-*.yaml")))
CPU = yaml.safe_load((FOLDER / "cpu.yaml").read_text())
ENCODED = Path("encoded")


def application(content):
    """Of a Serve configuration, or of the one in a Kubernetes resource."""
    return content["applications"][0]


def test_there_are_those_that_are_promised():
    names = {path.stem for path in FILES}
    assert names >= {"cpu", "1gpu", "8gpu", "tp4", "autoscale", "multitask", "kuberay", "haproxy"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_ray_and_we_take_it(path, monkeypatch):
    content = yaml.safe_load(path.read_text())
    if path.stem == "kuberay":
        assert (content["kind"], content["apiVersion"]) == ("RayService", "ray.io/v1")
        content = yaml.safe_load(content["spec"]["serveConfigV2"])
        found = check_configuration(content, path)
    else:
        found = read_configuration(path)
    assert found.url.startswith("http://")
    assert found.environment()
    args = application(content)["args"]
    assert build(args)  # Serve calls it with these
    # and vLLM takes the flags
    from moltc_vllm.plugin.launcher import parse

    arguments = Settings(**args).arguments(ENCODED)
    _, parsed = parse(["folder", *arguments[1:]])
    for name, value in args.get("flags", {}).items():
        if not isinstance(value, dict):
            assert getattr(parsed, name.replace("-", "_")) == value


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_nobody_from_outside_by_default(path):
    """CORS is off, and whoever listens on all addresses says who may ask."""
    text = path.read_text()
    assert "allowed-origins" not in text
    if "0.0.0.0" in text:
        assert "VLLM_API_KEY" in text


def changed(**changes):
    content = yaml.safe_load(yaml.safe_dump(CPU))
    for place, value in changes.items():
        holder = content
        *path, last = place.split("__")
        for step in path:
            holder = holder[int(step) if step.isdigit() else step]
        holder[last] = value
    return content


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"http_option": {}}, "no setting 'http_option'"),
        ({"applications__0__arg": {}}, "applications: there is no setting 'arg'"),
        ({"applications__0__deployments__0__num_replica": 2}, "no setting 'num_replica'"),
        ({"applications__0__import_path": "x:y"}, "no application moltc_vllm.deploy:build"),
        ({"applications__0__args": {"modle": "x"}}, r"moltc\.args: modle"),
        ({"applications__0__args": {"watch_s": 0}}, r"moltc\.args: watch_s"),
        ({"applications__0__deployments__0__num_replicas": -1}, "num_replicas"),
        ({"applications__0__deployments__0__name": "x"}, "the deployment 'moltc', not 'x'"),
        ({"applications__0__deployments__0__backpressure_config": {"retry": 1}}, "retry"),
        ({"http_options": {"port": "x"}}, "port"),
    ],
)
def test_what_is_wrong_is_named(changes, reason):
    with pytest.raises(ConfigurationError, match=reason) as caught:
        check_configuration(changed(**changes), Path("mine.yaml"))
    assert str(caught.value).startswith("mine.yaml")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("content", [b"a: [", b"text", b"", b"\xff\xfe"])
def test_what_is_none_is_one_line(tmp_path, content):
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        read_configuration(tmp_path / "a.yaml")
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_configuration(tmp_path / "none.yaml")


def test_a_router_and_haproxy_exclude_each_other():
    with_router = check_configuration(CPU, Path("cpu.yaml"))
    assert with_router.environment() == {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": FRONT}
    with pytest.raises(ConfigurationError, match="HAProxy does not ask"):
        with_router.environment(haproxy=True)
    content = changed()
    del content["applications"][0]["deployments"][0]["request_router_config"]
    without = check_configuration(content, Path("a.yaml"))
    assert without.environment()["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert without.environment(haproxy=False) == with_router.environment()


def test_the_port_can_be_another_one():
    found = check_configuration(CPU, Path("cpu.yaml"))
    assert found.at(None) is found
    assert found.at(9).url == "http://127.0.0.1:9"
    assert found.at(9).content["http_options"]["port"] == 9
    assert CPU["http_options"]["port"] == 8000
    assert found.names == ("moltc",)


def test_flags_become_arguments():
    flags = {
        "max_num_seqs": 4,
        "enforce-eager": False,
        "enable-lora": True,
        "lora-modules": ["a=b", "c=d"],
        "dtype": None,
        "additional-config": {"x": 1},
    }
    folder, *words = Settings(model="m", flags=flags).arguments(ENCODED)
    assert folder == "m"
    assert words[:7] == [
        *("--max-num-seqs", "4", "--no-enforce-eager", "--enable-lora"),
        *("--lora-modules", "a=b", "c=d"),
    ]
    assert words[7] == "--additional-config"
    extra = yaml.safe_load(words[8])
    assert extra == {"moltc_shared_cache": "encoded", "moltc_shared_cache_mb": 256.0, "x": 1}
    assert Settings(model="m", shared_cache_mb=0).arguments(ENCODED) == ["m"]
    assert "--served-model-name" in Settings().arguments(ENCODED)
    with pytest.raises(ValueError, match="table"):
        Settings(flags={"additional-config": "{}"}).arguments(ENCODED)
