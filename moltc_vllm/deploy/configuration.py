"""Reading and checking Ray Serve configurations before anything starts."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from ray.serve.schema import DeploymentSchema, ServeApplicationSchema, ServeDeploySchema

from moltc_vllm.deploy.settings import ReplicaSettings
from moltc_vllm.utils.errors import one_line

IMPORT_PATH = "moltc_vllm.deploy:build"
"""``import_path`` of this package's applications."""

PROXY_MIDDLEWARE = "moltc_vllm.deploy.proxy_middleware:middlewares"
"""Value of ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH``."""

_DEPLOYMENT_NAME = "moltc"
_MAX_REASON_CHARACTERS = 300


class ConfigurationError(ValueError):
    """Configuration that cannot be deployed; the message is one line."""


@dataclass(frozen=True, slots=True)
class ServeConfiguration:
    """Ray Serve configuration with at least one application of this package.

    Attributes:
        path: File that the configuration was read from.
        content: Parsed content of the file.
        application_names: Names of this package's applications.
        replica_settings: Settings of the replicas of each application.
        host: Host under which clients on this machine reach the server.
        port: TCP port of the server.
        route_prefix: URL prefix of the first application's routes, without a slash at the end.
        has_router: Whether a deployment has a custom request router, which HAProxy would ignore.
    """

    path: Path
    content: dict[str, Any]
    application_names: tuple[str, ...]
    replica_settings: tuple[ReplicaSettings, ...]
    host: str
    port: int
    route_prefix: str
    has_router: bool

    @property
    def url(self) -> str:
        """URL of the first application for clients on this machine."""
        return f"http://{self.host}:{self.port}{self.route_prefix}"

    def with_port(self, port: int | None) -> ServeConfiguration:
        """Return the configuration with another port.

        Args:
            port: TCP port; ``None`` keeps the configuration's port.
        """
        if port is None:
            return self
        content = copy.deepcopy(self.content)
        content.setdefault("http_options", {})["port"] = port
        return check_configuration(content, self.path)

    def cluster_environment(self, haproxy: bool | None = None) -> dict[str, str]:
        """Return the environment variables that the cluster's processes need at their start.

        Args:
            haproxy: Whether HAProxy receives the requests instead of Serve's own proxy. Default:
                true if the configuration has no request router.

        Raises:
            ConfigurationError: If HAProxy is requested for a configuration with a request router.
        """
        if haproxy is None:
            haproxy = not self.has_router
        if haproxy and self.has_router:
            raise ConfigurationError(
                f"{self.path.name} has a request router, which HAProxy ignores: remove "
                "request_router_config, or deploy without --haproxy"
            )
        if haproxy:
            return {
                "RAY_SERVE_ENABLE_HA_PROXY": "1",
                # HAProxy resends a request unless the response has started.
                "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
            }
        return {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": PROXY_MIDDLEWARE}


def read_configuration(path: Path) -> ServeConfiguration:
    """Read a configuration and check it against the schemas of Ray Serve and this package.

    Args:
        path: YAML file.

    Raises:
        ConfigurationError: If the file cannot be read or its content fails a check.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path} cannot be read: {_reason(error)}") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} is not a Ray Serve configuration (a YAML mapping)")
    return check_configuration(content, path)


def check_configuration(content: dict[str, Any], path: Path) -> ServeConfiguration:
    """Check the parsed content of a configuration; see `read_configuration`.

    Args:
        content: Parsed content of the file.
        path: File that error messages name.

    Raises:
        ConfigurationError: If a check fails.
    """
    try:
        schema = ServeDeploySchema.model_validate(content)
    except ValidationError as error:
        raise ConfigurationError(f"{path.name}: {_first_reason(error)}") from error
    _check_keys(content, ServeDeploySchema, path.name)
    for application in content["applications"]:
        _check_keys(application, ServeApplicationSchema, f"{path.name}: applications")
        for deployment in application.get("deployments", ()):
            _check_keys(deployment, DeploymentSchema, f"{path.name}: deployments")
    applications = [
        application for application in schema.applications if application.import_path == IMPORT_PATH
    ]
    if not applications:
        raise ConfigurationError(f"{path.name} has no application with import_path {IMPORT_PATH}")
    settings = tuple(_read_settings(application, path) for application in applications)
    routers = [_has_router(application, path) for application in applications]
    options = schema.http_options
    host = "127.0.0.1" if options.host in ("0.0.0.0", "::", "") else options.host
    return ServeConfiguration(
        path=path,
        content=content,
        application_names=tuple(application.name for application in applications),
        replica_settings=settings,
        host=host,
        port=options.port,
        route_prefix=(applications[0].route_prefix or "/").rstrip("/"),
        has_router=any(routers),
    )


def _read_settings(application: ServeApplicationSchema, path: Path) -> ReplicaSettings:
    try:
        return ReplicaSettings.model_validate(application.args)
    except ValidationError as error:
        name = f"{path.name}: {application.name}.args"
        raise ConfigurationError(f"{name}: {_first_reason(error)}") from error


def _has_router(application: ServeApplicationSchema, path: Path) -> bool:
    """Check the deployments' names; return whether one of them has a custom request router."""
    has_router = False
    for deployment in application.deployments:
        if deployment.name != _DEPLOYMENT_NAME:
            raise ConfigurationError(
                f"{path.name}: the deployment of {application.name} has to be named "
                f"{_DEPLOYMENT_NAME!r}, not {deployment.name!r}"
            )
        router = deployment.model_dump(exclude_unset=True).get("request_router_config") or {}
        has_router |= "request_router_class" in router
    return has_router


def _check_keys(content: dict[str, Any], schema: type[BaseModel], location: str) -> None:
    """Refuse unknown keys, which Ray ignores: a misspelled setting would have no effect."""
    for key in content:
        if key not in schema.model_fields:
            raise ConfigurationError(f"{location}: unknown setting {key!r}")


def _first_reason(error: ValidationError) -> str:
    """Return the first failed check with the location of its value."""
    detail = error.errors()[0]
    location = ".".join(map(str, detail["loc"]))
    return f"{location}: {_reason(detail['msg'])}" if location else _reason(detail["msg"])


def _reason(error: object) -> str:
    return one_line(error)[:_MAX_REASON_CHARACTERS]
