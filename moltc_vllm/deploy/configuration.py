"""Serve configurations: read, checked before anything starts, and what they want of the cluster."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from ray.serve.schema import DeploymentSchema, ServeApplicationSchema, ServeDeploySchema

from moltc_vllm.deploy.settings import Settings

IMPORT_PATH = "moltc_vllm.deploy:build"
FRONT = "moltc_vllm.deploy.proxy_middleware:middlewares"


class ConfigurationError(ValueError):
    """A configuration that cannot be deployed; the message is one line."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """A Ray Serve configuration with an application of ours.

    Attributes:
        path: Where it was read.
        content: What is in it.
        names: Of our applications.
        settings: Of each of them.
        host: Where it listens, as this machine calls it.
        port: Where it listens.
        prefix: Of its routes.
        affinity: Whether its router is of our own: HAProxy would not ask it.
    """

    path: Path
    content: dict[str, Any]
    names: tuple[str, ...]
    settings: tuple[Settings, ...]
    host: str
    port: int
    prefix: str
    affinity: bool

    @property
    def url(self) -> str:
        """Where clients on this machine find it."""
        return f"http://{self.host}:{self.port}{self.prefix}"

    def at(self, port: int | None) -> Configuration:
        """The same at another port."""
        if port is None:
            return self
        content = copy.deepcopy(self.content)
        content.setdefault("http_options", {})["port"] = port
        return check_configuration(content, self.path)

    def environment(self, haproxy: bool | None = None) -> dict[str, str]:
        """Variables with which the cluster's processes have to be started.

        Args:
            haproxy: Whether HAProxy takes the requests, in place of Serve's own proxy; default: if
                the configuration has no router of its own.

        Raises:
            ConfigurationError: If both are wanted.
        """
        if haproxy is None:
            haproxy = not self.affinity
        if haproxy and self.affinity:
            raise ConfigurationError(
                f"{self.path.name} has a request router, which HAProxy does not ask: take out "
                "request_router_config, or deploy without --haproxy"
            )
        if haproxy:
            return {
                "RAY_SERVE_ENABLE_HA_PROXY": "1",
                # A request is sent again if nothing of an answer has come.
                "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
            }
        return {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": FRONT}


def read_configuration(path: Path) -> Configuration:
    """Read one and check it, against Ray's schema and ours.

    Raises:
        ConfigurationError: If it is not one.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path} cannot be read: {_line(error)}") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} is no Ray Serve configuration")
    return check_configuration(content, path)


def check_configuration(content: dict[str, Any], path: Path) -> Configuration:
    """See `read_configuration`."""
    try:
        schema = ServeDeploySchema.model_validate(content)
    except ValidationError as error:
        raise ConfigurationError(f"{path.name}: {_first(error)}") from error
    _check_keys(content, ServeDeploySchema, path.name)
    for application in content["applications"]:
        _check_keys(application, ServeApplicationSchema, f"{path.name}: applications")
        for deployment in application.get("deployments", ()):
            _check_keys(deployment, DeploymentSchema, f"{path.name}: deployments")
    ours = [one for one in schema.applications if one.import_path == IMPORT_PATH]
    if not ours:
        raise ConfigurationError(f"{path.name} has no application {IMPORT_PATH}")
    affinity = False
    settings = []
    for application in ours:
        try:
            settings.append(Settings.model_validate(application.args))
        except ValidationError as error:
            name = f"{path.name}: {application.name}.args"
            raise ConfigurationError(f"{name}: {_first(error)}") from error
        for deployment in application.deployments:
            if deployment.name != "moltc":
                raise ConfigurationError(
                    f"{path.name}: {application.name} has the deployment 'moltc', not "
                    f"{deployment.name!r}"
                )
            router = deployment.model_dump(exclude_unset=True).get("request_router_config") or {}
            affinity |= "request_router_class" in router
    options = schema.http_options
    host = "127.0.0.1" if options.host in ("0.0.0.0", "::", "") else options.host
    return Configuration(
        path=path,
        content=content,
        names=tuple(one.name for one in ours),
        settings=tuple(settings),
        host=host,
        port=options.port,
        prefix=(ours[0].route_prefix or "/").rstrip("/"),
        affinity=affinity,
    )


def _check_keys(content: dict[str, Any], schema: type[BaseModel], where: str) -> None:
    """Refuse what Ray would not look at: a misspelt setting would silently have no effect."""
    for key in content:
        if key not in schema.model_fields:
            raise ConfigurationError(f"{where}: there is no setting {key!r}")


def _first(error: ValidationError) -> str:
    found = error.errors()[0]
    place = ".".join(map(str, found["loc"]))
    return f"{place}: {_line(found['msg'])}" if place else _line(found["msg"])


def _line(what: object) -> str:
    return " ".join(str(what).split())[:300]
