"""What holds a replica back is told once for operators and once without addresses."""

from lowtide.core.replica import Replica, name_of
from lowtide.core.replica_state import READY, state_of


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
