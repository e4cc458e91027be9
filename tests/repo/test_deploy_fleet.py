"""What deploy/ says of engines that are found, KEDA, alerts and the board agrees with the code."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase
from tree import ROOT

import lowtide.wiring  # noqa: F401 - with the API, so that every metric is registered
from lowtide import config
from lowtide.api.app import openapi_document
from lowtide.api.objects.scale import ScaleObject
from lowtide.wiring.replicas.found_replicas import check_template
from lowtide.wiring.replicas.scalers import open_scaler
from lowtide.wiring.replicas.sources import open_source

DEPLOY = ROOT / "deploy"
FOUND = DEPLOY / "kubernetes-discovery"
SCALED = DEPLOY / "kubernetes-scaler"
KEDA = sorted((DEPLOY / "keda").glob("*.yaml"))
RULES = DEPLOY / "prometheus" / "lowtide.rules.yaml"
BOARD = DEPLOY / "grafana" / "lowtide.json"
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def yaml_of(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


def metrics() -> dict[str, tuple[str, ...]]:
    """The names of all samples of ours, with their labels."""
    return {
        name + suffix: (*each._labelnames, "le") if suffix == "_bucket" else each._labelnames
        for each, names in REGISTRY._collector_to_names.items()
        if isinstance(each, MetricWrapperBase)
        for name in names[:1]
        if name.startswith("lowtide_")
        for suffix in SUFFIXES[each._type]
    }


def queries() -> list[str]:
    """Every query of the rules, the board and KEDA's trigger."""
    rules = [rule["expr"] for group in yaml_of(RULES)[0]["groups"] for rule in group["rules"]]
    board = json.loads(BOARD.read_text())["panels"]
    shown = [target["expr"] for panel in board for target in panel["targets"]]
    asked = [t["metadata"]["query"] for t in triggers() if t["type"] == "prometheus"]
    return [*rules, *shown, *asked]


def scaled_objects() -> list[Any]:
    return [e for path in KEDA for e in yaml_of(path) if e["kind"] == "ScaledObject"]


def triggers() -> list[Any]:
    return [trigger for each in scaled_objects() for trigger in each["spec"]["triggers"]]


@pytest.mark.parametrize("query", queries())
def test_every_metric_that_is_asked_for_is_there_with_its_labels(query: str) -> None:
    known = metrics()
    named = re.findall(r"\b(lowtide_\w+)(?:\{([^}]*)\})?", query)
    assert named
    labels = set()
    for name, selector in named:
        assert name in known, name
        labels |= set(known[name])
        assert set(re.findall(r"(\w+)(?:=|!=|=~|!~)\"", selector)) <= set(known[name]), selector
    grouped = re.findall(r"\bby \(([\w, ]+)\)", query)
    assert {each.strip() for group in grouped for each in group.split(",")} <= labels | {"instance"}


def test_a_metric_that_was_renamed_would_be_noticed() -> None:
    assert "lowtide_requests_total" in metrics()
    assert "lowtide_requests" not in metrics()


def test_every_label_that_a_legend_shows_is_left_by_its_query() -> None:
    for panel in json.loads(BOARD.read_text())["panels"]:
        for target in panel["targets"]:
            known = {
                label for name in metrics() if name in target["expr"] for label in metrics()[name]
            }
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= known, panel[
                "title"
            ]


def test_panels_lie_beside_each_other() -> None:
    panels = json.loads(BOARD.read_text())["panels"]
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len({panel["id"] for panel in panels}) == len(panels)


def test_alerts_say_what_to_look_at_and_the_page_has_the_same() -> None:
    (group,) = yaml_of(RULES)[0]["groups"]
    page = (ROOT / "docs" / "how-to" / "monitoring.md").read_text()
    for rule in group["rules"]:
        assert rule["annotations"]["see"]
    on_page = dict(re.findall(r"- alert: (\w+).*?\n\s+expr: (.+?)\n", page))
    ours = {rule["alert"]: rule["expr"] for rule in group["rules"]}
    for name, expression in on_page.items():
        assert expression == ">" or ours[name] == expression, name


def test_keda_asks_what_lowtide_answers() -> None:
    paths = openapi_document()["paths"]
    (asked,) = [each["metadata"] for each in triggers() if each["type"] == "metrics-api"]
    path = asked["url"].partition(".svc")[2].rpartition("/")[0]
    assert f"{path}/{{model}}" in paths
    assert asked["valueLocation"] in ScaleObject.__struct_fields__
    assert msgspec.structs.fields(ScaleObject)
    for each in triggers():
        assert each["metricType"] == "AverageValue"
        target = each["metadata"].get("targetValue") or each["metadata"]["threshold"]
        assert target == "1", "so that the value is the number of replicas"


def test_keda_scales_to_zero_and_takes_no_error_for_zero() -> None:
    for each in scaled_objects():
        spec = each["spec"]
        assert spec["minReplicaCount"] == 0
        assert "fallback" not in spec, "an error leaves the number as it is"
    (prometheus,) = [each for each in triggers() if each["type"] == "prometheus"]
    assert prometheus["metadata"]["ignoreNullValues"] == "false"


def test_keda_has_a_key_and_no_more_replicas_than_are_asked_for() -> None:
    (authentication, _) = yaml_of(DEPLOY / "keda" / "metrics-api.yaml")
    (reference,) = authentication["spec"]["secretTargetRef"]
    assert reference["parameter"] == "token"
    (asking,) = [each for each in triggers() if each["type"] == "metrics-api"]
    assert asking["authenticationRef"]["name"] == authentication["metadata"]["name"]
    wanted = config.load(FOUND / "lowtide.toml", {}).scale.replicas_max
    assert {each["spec"]["maxReplicaCount"] for each in scaled_objects()} == {wanted}


def test_pods_that_look_for_engines_may_do_that_and_nothing_else() -> None:
    account, role, binding = yaml_of(FOUND / "role.yaml")
    assert role["rules"] == [
        {
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "verbs": ["get", "list", "watch"],
        }
    ]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert [each["name"] for each in binding["subjects"]] == [account["metadata"]["name"]]
    (patch,) = yaml_of(FOUND / "service-account.yaml")
    pod = patch["spec"]["template"]["spec"]
    assert pod == {
        "serviceAccountName": account["metadata"]["name"],
        "automountServiceAccountToken": True,
    }
    (overlay,) = yaml_of(FOUND / "kustomization.yaml")
    assert overlay["resources"] == ["../kubernetes", "role.yaml"]
    target = overlay["patches"][0]["target"]
    for name in ("lowtide-api", "lowtide-worker"):
        assert re.fullmatch(target["name"], name)


def test_the_settings_with_a_source_can_be_opened() -> None:
    settings = config.load(FOUND / "lowtide.toml", {})
    (source,) = settings.source
    check_template(source)
    open_source(source)
    assert {model.id for model in settings.model} <= set(source.models)


def test_a_scaler_may_set_the_number_of_its_deployment_and_nothing_else(tmp_path: Path) -> None:
    settings = config.load(SCALED / "lowtide.toml", {})
    (scaler,) = settings.scaler
    role, binding = yaml_of(SCALED / "role.yaml")
    assert role["rules"] == [
        {
            "apiGroups": ["apps"],
            "resources": ["deployments/scale"],
            "resourceNames": [scaler.deployment],
            "verbs": ["get", "patch"],
        }
    ]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    account = yaml_of(FOUND / "role.yaml")[0]["metadata"]["name"]
    assert [each["name"] for each in binding["subjects"]] == [account]
    (overlay,) = yaml_of(SCALED / "kustomization.yaml")
    assert overlay["resources"] == ["../kubernetes-discovery", "role.yaml"]
    open_scaler(scaler, tmp_path)
    assert set(scaler.models) <= {model.id for model in settings.model}


def test_with_a_scaler_the_settings_are_otherwise_those_of_discovery() -> None:
    found, scaled = (config.load(place / "lowtide.toml", {}) for place in (FOUND, SCALED))
    assert msgspec.structs.replace(scaled, scaler=()) == found
