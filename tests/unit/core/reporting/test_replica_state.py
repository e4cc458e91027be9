"""What holds a replica back is told once for operators and once without addresses."""

from lowtide.core.dispatch.replica import Replica
from lowtide.core.replicas.replica_changes import name_of
from lowtide.core.reporting.replica_state import READY, held_endpoints, state_of


def test_a_replica_that_takes_calls_is_ready() -> None:
    assert state_of(Replica("http://10.0.0.1:8000/v1", frozenset({"m"}), 4)) == READY


def test_an_open_circuit_tells_tenants_no_address() -> None:
    replica = Replica("http://10.0.0.1:8000/v1", frozenset({"m"}), 4)
    for second in range(10):
        replica.circuit.failed(float(second), "refused")
    state = state_of(replica)
    assert "10.0.0.1" in state.reason
    assert "10.0.0.1" not in state.public_reason


def test_a_replica_is_named_after_its_host_and_port_without_credentials() -> None:
    assert name_of("http://user:secret@10.0.0.1:8000/v1") == "10.0.0.1:8000"
    assert name_of("https://engine.example/v1") == "engine.example"


def test_a_held_scope_tells_what_is_wrong_and_what_to_do_for_its_model_alone() -> None:
    replica = Replica("http://10.0.0.1:8000/v1", frozenset({"m", "n"}), 4)
    replica.scope(("m", "/v1/embeddings")).hold("credentials", "Unauthorized at 10.0.0.1", 7.0)
    state = state_of(replica, "m")
    assert (state.condition, state.since_s, state.fault) == ("misconfigured", 7.0, "credentials")
    assert "Unauthorized" in state.reason
    assert "/v1/embeddings" in state.reason
    assert "10.0.0.1" not in state.public_reason
    assert "api_key" in state.remedy
    assert state_of(replica, "n") == READY


def test_an_engine_that_refuses_for_long_for_want_of_room_is_overloaded() -> None:
    replica = Replica("http://10.0.0.1:8000/v1", frozenset({"m"}), 4)
    for second in range(20):
        replica.throttled(float(second), None, "Loading model")
    state = state_of(replica)
    assert (state.condition, state.since_s) == ("overloaded", 0.0)
    assert "Loading model" in state.reason
    replica.answered(21.0)
    assert state_of(replica) == READY


def test_that_no_connection_comes_about_is_told_at_the_first_time() -> None:
    replica = Replica("http://10.0.0.1:8000/v1", frozenset({"m"}), 4)
    replica.is_away("the port speaks TLS", 3.0, "tls")
    state = state_of(replica, "m")
    assert (state.condition, state.fault, state.since_s) == ("misconfigured", "tls", 3.0)
    assert "speaks TLS" in state.reason
    replica.is_alive(4.0)
    assert state_of(replica) == READY


def test_a_failing_replica_is_so_since_its_first_failure_when_the_circuit_opens() -> None:
    replica = Replica("http://10.0.0.1:8000/v1", frozenset({"m"}), 4)
    reported = set()
    for second in range(3, 20):
        replica.is_away("no answer to the TLS handshake", float(second), "tls")
        reported.add(state_of(replica, "m").since_s)
    assert replica.circuit.state == "open"
    assert reported == {3.0}
    replica.is_alive(20.0)
    replica.is_away("refused", 21.0, "unreachable")
    assert state_of(replica).since_s == 21.0


def test_one_call_that_was_cut_holds_nothing() -> None:
    replica = Replica("http://10.0.0.1:8000/v1", frozenset({"m"}), 4)
    replica.is_lost("reset", 3.0, "cut")
    assert state_of(replica) == READY


def test_an_endpoint_that_is_held_alone_holds_no_other_calls_for_the_model() -> None:
    replica = Replica("http://10.0.0.1:8000/v1", frozenset({"m"}), 4)
    replica.scope(("m", "/v1/embeddings")).hold("path", "Not Found", 7.0)
    replica.scope(("m", "/v1/chat/completions")).succeeded(1.0, 2.0)
    assert state_of(replica, "m") == READY
    assert state_of(replica, "m", "/v1/chat/completions") == READY
    assert state_of(replica, "m", "/v1/embeddings").fault == "path"
    assert held_endpoints(replica, "m") == ("/v1/embeddings",)
    assert state_of(replica).fault == "path", "an operator sees it of the replica"
