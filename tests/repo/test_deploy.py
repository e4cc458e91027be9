"""What deploy/ says agrees with the code: names, commands, addresses, ports, users and times.

That the files are well-formed for those who read them is for tools/check_deploy.py.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import typer
import yaml
from starlette.routing import Route
from tree import ROOT

from lowtide import __version__, config, limits
from lowtide.api.app import create_app
from lowtide.api.console import rendering
from lowtide.api.middleware.auth import is_public
from lowtide.cli.commands import command_line
from lowtide.config.sources import ConfigError
from lowtide.service.services import Services

DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())
STOP_S = 2 * limits.DRAIN_S + 5
"""The API and the calls in flight, then the last commit; and a margin."""
PREFIX = "LOWTIDE_"
OWN = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
"""What an operator puts in the place of each example of a secret."""
OWN_SECRET = {"LOWTIDE_SERVER__UPLOAD_SECRET": OWN}


def yaml_of(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE = yaml_of(DEPLOY / "compose.yaml")[0]
API, SERVICE, BUDGET = yaml_of(KUBERNETES / "api.yaml")
WORKER, WORKER_BUDGET = yaml_of(KUBERNETES / "worker.yaml")
(SECRET,) = yaml_of(KUBERNETES / "secret.example.yaml")
(KUSTOMIZATION,) = yaml_of(KUBERNETES / "kustomization.yaml")
OURS = {n: each for n, each in COMPOSE["services"].items() if each["image"].startswith("lowtide:")}
POLICIES = {each["metadata"]["name"]: each for each in yaml_of(KUBERNETES / "network-policy.yaml")}
IMAGE = dict(re.findall(r"(LOWTIDE_\w+)=(\S+)", DOCKERFILE))


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.+)$", DOCKERFILE, re.M)


def container(deployment: Mapping[str, Any]) -> dict[str, Any]:
    (found,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(found)


def unit(path: Path) -> dict[str, list[str]]:
    """Each directive with its values, in order."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", path.read_text(), re.M):
        found.setdefault(name, []).append(value)
    return found


# ---- names ----


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_variable_of_ours_is_a_setting(path: Path) -> None:
    sections = {field.name: field.type for field in msgspec.structs.fields(config.Settings)}
    for name in re.findall(r"LOWTIDE_\w+", path.read_text()):
        section, _, key = name.removeprefix(PREFIX).lower().partition("__")
        fields = {field.name for field in msgspec.structs.fields(sections[section])}
        assert key in fields, name


def environments() -> Iterator[tuple[str, Path, Mapping[str, str]]]:
    for name, each in OURS.items():
        yield f"compose {name}", DEPLOY / "lowtide.toml", IMAGE | filled(each["environment"])
    yield "kubernetes", KUBERNETES / "lowtide.toml", IMAGE | SECRET["stringData"] | OWN_SECRET
    yield "image alone", ROOT / "lowtide.example.toml", IMAGE


def filled(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: re.sub(r"\$\{.*?\}", OWN, value) for name, value in environment.items()}


@pytest.mark.parametrize(
    ("file", "environ"), [each[1:] for each in environments()], ids=[e[0] for e in environments()]
)
def test_the_settings_are_taken_as_they_are(file: Path, environ: Mapping[str, str]) -> None:
    settings = config.load(file, environ)
    assert settings.auth.mode == "keys", "the address is public"
    assert str(settings.server.data_dir).startswith(instructions("VOLUME")[0])


@pytest.mark.parametrize("settings", [DEPLOY / "lowtide.toml", KUBERNETES / "lowtide.toml"])
def test_many_processes_have_one_database_one_bucket_and_one_secret(settings: Path) -> None:
    (environ,) = {tuple(sorted(e[2].items())) for e in environments() if e[1] == settings}
    server = config.load(settings, dict(environ)).server
    assert server.database_url.startswith("postgresql://")
    assert server.blob_url.startswith("s3://")
    assert server.upload_secret is not None
    assert "asyncpg==" in (ROOT / "requirements.txt").read_text(), "the image has the driver"


def test_no_server_starts_with_the_secret_of_an_example() -> None:
    example = re.search(
        r'^# (upload_secret = ".+")$', (ROOT / "lowtide.example.toml").read_text(), re.M
    )
    assert example is not None
    for secret in (example[1].split('"')[1], SECRET["stringData"]["LOWTIDE_SERVER__UPLOAD_SECRET"]):
        with pytest.raises(ConfigError, match=r"UPLOAD_SECRET: .* is an example") as refused:
            config.load(None, {"LOWTIDE_SERVER__UPLOAD_SECRET": secret})
        assert secret not in str(refused.value)


def test_every_variable_of_the_compose_file_is_in_the_example_of_its_environment() -> None:
    wanted = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    given = set(re.findall(r"^(\w+)=", (DEPLOY / "compose.env.example").read_text(), re.M))
    assert wanted == given


def test_the_pods_find_their_settings_and_secrets() -> None:
    (generated,) = KUSTOMIZATION["configMapGenerator"]
    for deployment in (API, WORKER):
        assert container(deployment)["envFrom"] == [
            {"secretRef": {"name": SECRET["metadata"]["name"]}}
        ]
        volumes = {v["name"]: v for v in deployment["spec"]["template"]["spec"]["volumes"]}
        assert volumes["settings"]["configMap"]["name"] == generated["name"]
        assert {mount["name"] for mount in container(deployment)["volumeMounts"]} == volumes.keys()


def test_selectors_find_their_pods_and_no_others() -> None:
    api, worker = (d["spec"]["template"]["metadata"]["labels"] for d in (API, WORKER))
    assert API["spec"]["selector"]["matchLabels"] == api
    assert WORKER["spec"]["selector"]["matchLabels"] == worker
    assert SERVICE["spec"]["selector"] == api
    assert BUDGET["spec"]["selector"]["matchLabels"] == api
    assert WORKER_BUDGET["spec"]["selector"]["matchLabels"] == worker
    assert api != worker


def test_no_image_is_named_with_the_host_of_a_registry() -> None:
    images = [each.split()[0] for each in instructions("FROM")]
    images += [each["image"] for each in COMPOSE["services"].values()]
    images += [container(deployment)["image"] for deployment in (API, WORKER)]
    assert images
    for image in images:
        host, slash, _ = image.partition("/")
        assert not (slash and ("." in host or ":" in host)), image
    assert {container(deployment)["image"] for deployment in (API, WORKER)} == {"lowtide"}
    assert [image["name"] for image in KUSTOMIZATION["images"]] == ["lowtide"]


def test_every_image_has_a_version_and_ours_is_this_one() -> None:
    images = [each.split()[0] for each in instructions("FROM")]
    images += [each["image"] for each in COMPOSE["services"].values()]
    for image in images:
        assert re.fullmatch(r"[\w/-]+:(RELEASE\.)?\d[\w.-]*[.-]\d[\w.-]*", image), image
    assert {each["image"] for each in OURS.values()} == {f"lowtide:{__version__}"}
    assert [image["newTag"] for image in KUSTOMIZATION["images"]] == [__version__]


def test_the_network_lets_in_only_who_has_to_come_in() -> None:
    assert "network-policy.yaml" in KUSTOMIZATION["resources"]
    for name, deployment in {"lowtide-api": API, "lowtide-worker": WORKER}.items():
        spec = POLICIES[name]["spec"]
        assert spec["policyTypes"] == ["Ingress"]
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert spec["podSelector"]["matchLabels"] == labels
        ports = {port["name"] for port in container(deployment)["ports"]}
        assert {port["port"] for rule in spec["ingress"] for port in rule["ports"]} == ports
    assert all("from" in rule for rule in POLICIES["lowtide-worker"]["spec"]["ingress"])
    (engines,) = POLICIES["lowtide-engines"]["spec"]["ingress"]
    (callers,) = engines["from"]
    ours = callers["podSelector"]["matchLabels"].items()
    for deployment in (API, WORKER):
        assert ours <= deployment["spec"]["template"]["metadata"]["labels"].items()


# ---- commands ----


def commands() -> Iterator[list[str]]:
    for path in UNITS:
        (line,) = unit(path)["ExecStart"]
        program, *words = shlex.split(line)
        assert program.endswith("/lowtide")
        yield words
    for each in OURS.values():
        yield each["command"]
    for deployment in (API, WORKER):
        yield container(deployment)["args"]
    (words,) = re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.M)
    yield yaml.safe_load(words)
    for text in map(Path.read_text, FILES):
        for line in re.findall(r"exec api-1 lowtide (.+)$", text, re.M):
            yield shlex.split(line)


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_command_is_one_that_lowtide_takes(words: list[str]) -> None:
    command: Any = typer.main.get_command(command_line())
    while hasattr(command, "commands"):
        name, *words = words
        assert name in command.commands, name
        command = command.commands[name]
    command.make_context(name, list(words))  # raises for an option that it does not have


# ---- addresses and ports ----


def test_every_probe_asks_a_route_that_is_there_and_open_to_all() -> None:
    app = create_app(cast(Services, None))
    routes = {route.path for route in app.routes if isinstance(route, Route)}
    texts = "\n".join(path.read_text() for path in FILES)
    asked = set(re.findall(r"127\.0\.0\.1:\d+(/[a-z]+)'", texts))
    asked |= set(re.findall(r"httpGet: \{path: (\S+),", texts))
    assert asked == {"/health", "/ready"}
    assert asked <= routes
    assert all(is_public("GET", path) for path in asked)


def test_only_readiness_depends_on_the_storage() -> None:
    """A restart mends no database: liveness that asked for it would stop the whole fleet."""
    api = container(API)
    assert api["livenessProbe"]["httpGet"]["path"] == "/health"
    assert api["startupProbe"]["httpGet"]["path"] == "/health"
    assert api["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert api["readinessProbe"]["timeoutSeconds"] > limits.READY_CHECK_S
    probes = {"startupProbe", "livenessProbe", "readinessProbe"}
    assert not probes & container(WORKER).keys(), "a worker has no HTTP API"


def test_ports_agree() -> None:
    port = IMAGE["LOWTIDE_SERVER__PORT"]
    assert instructions("EXPOSE") == [port]
    texts = DOCKERFILE + (DEPLOY / "compose.yaml").read_text()
    assert set(re.findall(r"http://127\.0\.0\.1:(\d+)/", texts)) == {port}
    assert container(API)["ports"] == [{"name": "http", "containerPort": int(port)}]
    assert [each["targetPort"] for each in SERVICE["spec"]["ports"]] == ["http"]
    published = [spec for each in OURS.values() for spec in each.get("ports", ())]
    assert {spec.rpartition(":")[2] for spec in published} == {port}
    assert all(spec.startswith("127.0.0.1:") for spec in published)


def test_workers_show_their_metrics_to_their_network_because_the_files_say_so() -> None:
    assert config.ServerSettings().metrics_host == "127.0.0.1"
    workers = [each for name, each in OURS.items() if name.startswith("worker")]
    for words in (container(WORKER)["args"], *(each["command"] for each in workers)):
        assert words[words.index("--metrics-host") + 1] == "0.0.0.0"
        assert words[words.index("--metrics-port") + 1] == "9100"
    assert container(WORKER)["ports"] == [{"name": "metrics", "containerPort": 9100}]
    assert all("ports" not in each for each in workers), "not published on the machine"


# ---- users and rights ----


def test_it_runs_as_one_user_who_is_not_root() -> None:
    user, _, group = instructions("USER")[0].partition(":")
    assert user == group != "0"
    for deployment in (API, WORKER):
        pod = deployment["spec"]["template"]["spec"]["securityContext"]
        assert pod["runAsNonRoot"] is True
        assert {pod[k] for k in ("runAsUser", "runAsGroup", "fsGroup")} == {int(user)}
    for each in OURS.values():
        assert any(f"uid={user},gid={user}" in mount for mount in each["tmpfs"])
    assert {unit(path)["User"][0] for path in UNITS} == {"lowtide"}


def test_it_can_write_to_its_own_folder_alone() -> None:
    (home,) = instructions("VOLUME")
    for deployment in (API, WORKER):
        found = container(deployment)
        assert found["securityContext"]["readOnlyRootFilesystem"] is True
        assert found["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        writable = {m["mountPath"] for m in found["volumeMounts"] if not m.get("readOnly")}
        assert writable == {home, "/tmp"}
    for each in OURS.values():
        assert each["read_only"] is True
        assert {mount.partition(":")[0] for mount in each["tmpfs"]} == {home, "/tmp"}
    server, worker = map(unit, sorted(UNITS, key=lambda path: "@" in path.name))
    for directives in (server, worker):
        data_dir = re.findall(r"DATA_DIR=(\S+)", directives["Environment"][0])
        assert data_dir == [f"/var/lib/{directives['StateDirectory'][0]}"]
    differ = {"Description", "Environment", "ExecStart", "StateDirectory", "WorkingDirectory"}
    assert {k: v for k, v in server.items() if k not in differ} == {
        k: v for k, v in worker.items() if k not in differ
    }


# ---- times ----


def seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+)s?", str(text))
    assert found is not None, text
    return float(found[1])


def test_whoever_is_told_to_stop_gets_the_time_that_a_drain_takes() -> None:
    for each in OURS.values():
        assert seconds(each["stop_grace_period"]) >= STOP_S
    for path in UNITS:
        assert seconds(unit(path)["TimeoutStopSec"][0]) >= STOP_S
        assert unit(path)["KillSignal"] == instructions("STOPSIGNAL") == ["SIGTERM"]
        assert unit(path)["Restart"] == ["on-failure"]
    for deployment in (API, WORKER):
        hook = container(deployment).get("lifecycle", {}).get("preStop")
        before = seconds(hook["exec"]["command"][1]) if hook else 0
        assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= (
            before + STOP_S
        )
    assert "lifecycle" in container(API), "balancers must hear of it before the API stops"


def test_workers_go_one_at_a_time_and_no_api_stops_before_another_is_ready() -> None:
    assert WORKER["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0
    assert API["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert API["spec"]["replicas"] > BUDGET["spec"]["minAvailable"] >= 1
    assert WORKER["spec"]["replicas"] > WORKER_BUDGET["spec"]["maxUnavailable"] == 1


# ---- the image ----


def test_the_image_is_made_of_what_is_sent_to_the_builder() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    sent = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = [line.split() for line in instructions("COPY") if not line.startswith("--from")]
    sources = {source for words in copied for source in words[:-1]}
    assert sources == sent
    assert all((ROOT / source).exists() for source in sources)


def test_the_image_has_the_pages_of_the_console_compiled() -> None:
    (step,) = [each for each in instructions("RUN") if "python -c" in each]
    assert "lowtide.api.console import rendering" in step
    assert rendering.keep_in_package.__name__ in step


def test_nothing_is_installed_that_is_not_pinned() -> None:
    installs = re.findall(r"pip install (.+)$", DOCKERFILE, re.M)
    assert len(installs) == 2
    assert installs[0] == "--require-hashes -r requirements.txt"
    assert "--no-deps" in installs[1]
    assert "--no-build-isolation" in installs[1]


def test_the_python_of_the_image_is_one_that_lowtide_runs_on() -> None:
    versions = {re.findall(r"python:3\.(\d+)\.\d+-slim", line)[0] for line in instructions("FROM")}
    assert len(versions) == 1
    assert 11 <= int(versions.pop()) <= 13
