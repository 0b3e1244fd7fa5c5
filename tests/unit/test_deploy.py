"""What deploy/, Dockerfile and the guides to deployment promise, as far as it shows without a container engine."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from importlib.metadata import requires
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from packaging.requirements import Requirement

from howdah.core.settings import Settings

ROOT: Final = Path(__file__).resolve().parents[2]
DEPLOY: Final = ROOT / "deploy"
DOCKERFILE: Final = (ROOT / "Dockerfile").read_text()
# After HOWDAH_DRAIN_S: 5 s for handlers that are cancelled, 10 s to record outcomes.
AFTER_DRAIN_S: Final = 15


def drain_s() -> float:
    """Default of HOWDAH_DRAIN_S."""
    [field] = [each for each in dataclasses.fields(Settings) if each.name == "drain_s"]
    return float(field.default)


def assignments(text: str) -> dict[str, str]:
    """Variables of an environment file, those behind a `#` too."""
    return dict(re.findall(r"^(?:# )?([A-Z][A-Z0-9_]*)=(.*)$", text, flags=re.MULTILINE))


def compose() -> dict[str, Any]:
    """The compose file."""
    parsed: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return parsed


def pods() -> dict[str, dict[str, Any]]:
    """Pod templates for Kubernetes, by the name of what they are for."""
    files = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    documents = [document for file in files for document in yaml.safe_load_all(file.read_text())]
    return {
        document["metadata"]["name"]: document["spec"]["template"]["spec"]
        for document in documents
        if "template" in document["spec"]
    }


def runtime_distributions() -> set[str]:
    """Every distribution that Howdah needs to run, without extras."""
    found: set[str] = set()
    left = [Requirement("howdah")]
    while left:
        requirement = left.pop()
        name = requirement.name.lower().replace("_", "-")
        found.add(name)
        for each in map(Requirement, requires(name) or []):
            extras = requirement.extras or {""}
            if (each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras)) and (
                each.name.lower().replace("_", "-") not in found or each.extras
            ):
                left.append(each)
    return found


def test_environment_file_names_only_settings() -> None:
    """The example starts every process, as it stands and with each line of it in use."""
    text = (DEPLOY / "env.example").read_text()
    active = dict(re.findall(r"^([A-Z][A-Z0-9_]*)=(.*)$", text, flags=re.MULTILINE))

    assert Settings.from_env(active).database_url == active["HOWDAH_DATABASE_URL"]
    assert Settings.from_env(assignments(text)).handlers == ("shop.jobs",)
    assert {"RUN_DIR", "LOG_DIR", "API_PROCESSES", "WORKERS"} <= set(active)


def test_environment_file_shows_defaults() -> None:
    """A line that is not in use shows what holds without it, apart from examples of what is unset."""
    text = (DEPLOY / "env.example").read_text()
    url = "postgresql://howdah@127.0.0.1/howdah"
    plain = Settings.from_env({"HOWDAH_DATABASE_URL": url})
    shown = Settings.from_env({**assignments(text), "HOWDAH_DATABASE_URL": url})
    differing = {
        each.name for each in dataclasses.fields(Settings) if getattr(plain, each.name) != getattr(shown, each.name)
    }

    assert differing == {"direct_url", "handlers", "callback_allow_cidrs", "public_url"}


@pytest.mark.parametrize("file", ["Dockerfile", "supervisord.conf", "deploy/compose.yaml", "deploy/kubernetes"])
def test_deployment_files_set_only_settings(file: str) -> None:
    """No file sets a variable that would stop every process at its start."""
    path = ROOT / file
    texts = [each.read_text() for each in ([path] if path.is_file() else path.iterdir())]
    names = {name for text in texts for name in re.findall(r"\bHOWDAH_[A-Z_]*[A-Z]\b", text)}

    assert names
    assert names <= {f"HOWDAH_{each.name.upper()}" for each in dataclasses.fields(Settings)} | {"HOWDAH_API"}


def test_image_is_installed_as_the_guide_says() -> None:
    """The two commands that install are the same everywhere: pinned, hashed, and without build isolation."""
    installs = re.findall(r"^RUN (pip install .*)$", DOCKERFILE, flags=re.MULTILINE)
    guide = (ROOT / "docs" / "howto" / "deploy-with-supervisord.md").read_text()

    assert installs == [
        "pip install --no-deps --require-hashes -r requirements.lock",
        "pip install --no-deps --no-build-isolation .",
    ]
    assert re.findall(r"\bpip install --no-deps.*", guide) == installs


def test_image_keeps_only_what_runs() -> None:
    """What the pins hold beyond the needs of a process, the build backend above all, is taken out of the image."""
    [removed] = re.findall(r"^RUN pip uninstall --yes((?: \\\n|.)*)$", DOCKERFILE, flags=re.MULTILINE)
    pinned = set(re.findall(r"^([a-z0-9.-]+)==", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE))

    assert set(removed.replace("\\", "").split()) == pinned - runtime_distributions()
    assert "hatchling" in removed


def test_image_is_run_by_an_unprivileged_account_that_gets_signals() -> None:
    """The process itself is asked to stop, not a shell; it is not root; and its health is looked at."""
    final = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    forms = dict(re.findall(r"^(ENTRYPOINT|CMD|STOPSIGNAL|USER) (.*)$", final, flags=re.MULTILINE))
    [check] = re.findall(r"^HEALTHCHECK .*\\\n    CMD (.*)$", final, flags=re.MULTILINE)
    program, flag, script = json.loads(check)

    assert (json.loads(forms["ENTRYPOINT"]), json.loads(forms["CMD"])) == (["howdah"], ["api"])
    assert (forms["STOPSIGNAL"], forms["USER"]) == ("SIGTERM", "10001:10001")
    assert (program, flag) == ("python", "-c")
    assert b"\0api\0" in [node.value for node in ast.walk(ast.parse(script)) if isinstance(node, ast.Constant)]


def test_image_gets_every_file_that_it_copies() -> None:
    """.dockerignore lets through what the Dockerfile copies, and nothing else."""
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, flags=re.MULTILINE)
    ignore = (ROOT / ".dockerignore").read_text().splitlines()

    assert "*" in ignore
    assert {line[1:] for line in ignore if line.startswith("!")} == {name for line in copied for name in line.split()}
    assert all((ROOT / name).exists() for line in copied for name in line.split())


def test_compose_runs_two_of_each_process_and_lets_them_drain() -> None:
    """No process is alone, none starts before the schema is there, and none is killed while it drains."""
    services = compose()["services"]

    assert set(services) == {"postgres", "migrate", "api", "worker", "scheduler", "nginx"}
    for name in ("api", "worker", "scheduler"):
        service = services[name]
        assert service["command"] == [name]
        assert service["deploy"]["replicas"] == 2
        assert service["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
        assert float(service["stop_grace_period"].removesuffix("s")) > drain_s() + AFTER_DRAIN_S
        assert "ports" not in service


def test_compose_mounts_files_that_exist() -> None:
    """Nginx is given our server and the upstream for containers, and its port is open to this host alone."""
    nginx = compose()["services"]["nginx"]

    assert len(nginx["volumes"]) == 2
    assert all((DEPLOY / volume.split(":")[0]).is_file() for volume in nginx["volumes"])
    assert [port.rpartition(":")[0] for port in nginx["ports"]] == ["127.0.0.1:8080"]


def test_kubernetes_gives_pods_time_and_no_service_links() -> None:
    """Pods drain before they are killed, are asked for their health, and get no variables that are not settings."""
    found = pods()

    assert set(found) == {"howdah-api", "howdah-worker", "howdah-scheduler", "howdah-migrate"}
    for name, pod in found.items():
        [container] = pod["containers"]
        assert pod["enableServiceLinks"] is False, name
        assert container["args"] == [name.removeprefix("howdah-")]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        if name == "howdah-migrate":
            continue
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
        limit_s = drain_s() + AFTER_DRAIN_S if name != "howdah-api" else 20
        assert pod["terminationGracePeriodSeconds"] > limit_s, name
