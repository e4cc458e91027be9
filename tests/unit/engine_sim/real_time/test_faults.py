"""How faults are written."""

import math

import pytest

from lowtide.engine_sim.real_time.faults import EngineFault, EngineFaults, parse_fault


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("crash@30+5", EngineFault("crash", 30, 35, 0)),
        ("slow@60+30=4.5", EngineFault("slow", 60, 90, 4.5)),
        ("429@5", EngineFault("429", 5, math.inf, 0)),
        ("stale-metrics", EngineFault("stale-metrics", 0, math.inf, 0)),
        ("truncate=0.2", EngineFault("truncate", 0, math.inf, 0.2)),
        ("noise", EngineFault("noise", 0, math.inf, 0.03)),
        ("hang+2", EngineFault("hang", 0, 2, 0)),
    ],
)
def test_a_fault_has_a_start_a_duration_and_a_value(spec: str, fault: EngineFault) -> None:
    assert parse_fault(spec) == fault


@pytest.mark.parametrize("spec", ["", "flood", "crash@", "slow=", "slow=fast", "crash@1+2+3"])
def test_what_is_no_fault_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="is no fault"):
        parse_fault(spec)


def test_a_fault_is_on_from_its_start_to_before_its_end() -> None:
    faults = EngineFaults(("slow@10+5=2", "slow@20=3"))
    assert [faults.value("slow", at) for at in (9.9, 10, 14.9, 15, 20)] == [None, 2, 2, None, 3]
    assert not faults.is_on("hang", 12)
