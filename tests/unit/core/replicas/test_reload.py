"""What a running process takes of settings that were read again."""

from lowtide.config import (
    AuthSettings,
    DispatchSettings,
    LimitSettings,
    ReplicaSettings,
    ServerSettings,
    Settings,
)
from lowtide.core.replicas.reload import merged, unreloadable

MAY = {"replica", "limits", "dispatch.hours"}
OLD = Settings()
NEW = Settings(
    server=ServerSettings(port=1),
    auth=AuthSettings(mode="keys"),
    limits=LimitSettings(line_bytes=5),
    dispatch=DispatchSettings(hours="22:00-06:00", commit_interval_s=2.0),
    replica=(ReplicaSettings(url="http://h", models=("m",)),),
)


def test_what_needs_a_restart_is_named_key_by_key() -> None:
    assert unreloadable(OLD, NEW, MAY) == ("server.port", "auth.mode", "dispatch.commit_interval_s")
    assert unreloadable(OLD, NEW, ()) == (
        "server.port",
        "auth.mode",
        "limits.line_bytes",
        "dispatch.commit_interval_s",
        "dispatch.hours",
        "replica",
    )
    assert unreloadable(OLD, OLD, MAY) == ()


def test_the_rest_is_taken_and_nothing_else() -> None:
    taken = merged(OLD, NEW, MAY)
    assert (taken.replica, taken.limits) == (NEW.replica, NEW.limits)
    assert (taken.server, taken.auth) == (OLD.server, OLD.auth)
    assert (taken.dispatch.hours, taken.dispatch.commit_interval_s) == (
        "22:00-06:00",
        OLD.dispatch.commit_interval_s,
    )
    assert unreloadable(OLD, taken, MAY) == ()
