"""The check of `lowtide doctor` on each replica: what will fail fails here, with its own remedy.

Two calls, neither of which generates: the list of models, and an empty request to see whether path
and key are right where work will go. What an answer means stands in core/faults/fault.py, the same
table that the dispatcher goes by. Invariant: nothing that is shown holds a key or a password.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from lowtide import limits
from lowtide.cli.doctor.engine_metrics import check_metrics
from lowtide.cli.doctor.finding import Finding
from lowtide.cli.terminal.units import human_seconds, listed
from lowtide.config import ReplicaSettings
from lowtide.config.sources import ConfigError
from lowtide.core.faults.fault import FAULTS, FaultKind, fault_of_status, fault_of_transport
from lowtide.core.faults.outcome import NoReply, Reply, words_of
from lowtide.core.replicas.served_models import ALL
from lowtide.core.reporting.shown_url import shown_url
from lowtide.engines.http.connect import NO_HANDSHAKE
from lowtide.engines.http.tls_guess import SPEAKS_TLS
from lowtide.engines.models.model_list import models_of
from lowtide.ports.engine import Engine
from lowtide.wiring.replicas.engine_clients import engine_client

_NO_LIST: Final = frozenset({404, 405, 501})
"""Answers to GET /models of an engine that has no such list, or of a wrong path."""

_PROBES: Final = ("/chat/completions", "/completions", "/embeddings")
"""Where an empty request is sent, until one of them is there."""


async def check_replicas(
    replicas: Sequence[ReplicaSettings], engine_names: Mapping[str, str]
) -> list[Finding]:
    """The findings on these replicas, then those on their metrics. `engine_names`: see
    `check_replica`.
    """
    findings = await asyncio.gather(*(check_replica(each, engine_names) for each in replicas))
    reported = await asyncio.gather(*map(check_metrics, replicas))
    return [*findings, *(each for each in reported if each is not None)]


async def check_replica(replica: ReplicaSettings, engine_names: Mapping[str, str]) -> Finding:
    """The finding on a replica: it answers, accepts the configured key, and serves the
    configured models.

    `engine_names` maps a model to what its engine calls it, where that differs.
    """
    name = f"replica {shown_url(replica.url)}"
    try:
        engine = engine_client(replica, 1)
    except ConfigError as error:
        return Finding(name, "fail", str(error), "Correct this [[replica]].")
    named = {model: engine_names.get(model, model) for model in replica.models if model != ALL}
    wanted = list(dict.fromkeys((named | dict(replica.names)).values()))
    try:
        return await _check(name, engine, wanted)
    finally:
        await engine.aclose()


async def _check(name: str, engine: Engine, wanted: Sequence[str]) -> Finding:
    started = time.monotonic()
    listed = await engine.get("/models", limits.CONNECT_TIMEOUT_S)
    took = human_seconds(time.monotonic() - started)
    if isinstance(listed, NoReply):
        kind = fault_of_transport(listed.kind, listed.detail)
        finding = _failed(name, kind, listed.detail)
        return msgspec.structs.replace(finding, remedy=_way_remedy(listed.detail) or finding.remedy)
    if listed.status != 200 and listed.status not in _NO_LIST:
        return _refused(name, "GET /models", listed)
    if listed.status == 200:
        finding = _compare_models(name, wanted, listed.body, took)
        if finding.verdict != "ok":
            return finding
    else:
        what = f"answers in {took}, and has no list of models to compare"
        finding = Finding(name, "ok", what)
    return await _check_path(engine, finding)


def _way_remedy(detail: str) -> str | None:
    """What would repair the connection to an engine, where the words say more than
    the kind of fault.
    """
    if "self-signed" in detail or "unable to get local issuer" in detail:
        return "Name the authority of its certificate with ca_file."
    if "certificate has expired" in detail:
        return "The engine needs a new certificate."
    if "CERTIFICATE_VERIFY_FAILED" in detail:
        return "Use the name that its certificate has."
    if any(words in detail for words in ("WRONG_VERSION", "record layer failure", NO_HANDSHAKE)):
        return "It speaks no TLS on this port: is the url http:// and not https://?"
    if detail == SPEAKS_TLS.detail:
        return "It speaks TLS on this port: the url has to begin with https://."
    if "through the proxy" in detail:
        return "Check proxy, and that the proxy may reach the engine."
    return None


async def _check_path(engine: Engine, finding: Finding) -> Finding:
    """The finding on path and key: an engine refuses an empty request for what it is, a wrong path
    or key for something else.
    """
    refusals = []
    for path in _PROBES:
        answer = await engine.post(path, b"{}", limits.CONNECT_TIMEOUT_S)
        if isinstance(answer, NoReply) or answer.status not in _NO_LIST:
            break
        refusals.append(answer)
    else:
        return _refused(finding.name, f"POST {_PROBES[0]}", refusals[0])
    if isinstance(answer, Reply) and answer.status in (401, 402, 403, 407):
        return _refused(finding.name, f"POST {path}", answer)
    return finding


def _refused(name: str, call: str, reply: Reply) -> Finding:
    words = words_of(reply.body)
    said = f"{call} gave {reply.status}{f' ({words})' if words else ''}"
    return _failed(name, fault_of_status(reply.status, words), said)


def _failed(name: str, kind: FaultKind, said: str) -> Finding:
    fault = FAULTS[kind]
    reported = f"the engine {fault.public_text}: " if fault.public_text else ""
    remedy = fault.remedy or "Is the engine running, and is the url right (most end in /v1)?"
    return Finding(name, "fail", f"{reported}{said}", remedy)


def _compare_models(name: str, wanted: Sequence[str], body: bytes, took: str) -> Finding:
    served = models_of(body)
    if served is None:
        page = FAULTS["page"]
        what = f"answers in {took}, but its list of models cannot be read"
        return Finding(name, "fail", what, page.remedy)
    # Ollama lists its models with their tags, and takes a bare name for the tag "latest".
    missing = [m for m in wanted if m not in served and f"{m}:latest" not in served]
    if missing:
        what = f"answers in {took}, but serves {_shown(served)}, not {_shown(missing)}"
        remedy = "Correct models, or give the engine's own word in names of this [[replica]]."
        return Finding(name, "fail", what, remedy)
    return Finding(name, "ok", f"answers in {took}, serves {_shown(wanted or served)}")


def _shown(models: Sequence[str]) -> str:
    return listed(models) or "no model"
