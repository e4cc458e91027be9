"""Whether the report of coverage tells a module that no test reaches from one with a reason."""

from tools.module_coverage import faults, shares


def test_the_share_of_each_module_of_the_product_is_read_and_empty_modules_are_left_out() -> None:
    def measured(statements: int, percent: float) -> dict[str, object]:
        return {"summary": {"num_statements": statements, "percent_covered": percent}}

    report = {
        "files": {
            "src/lowtide/core/a.py": measured(4, 75.0),
            "src/lowtide/core/__init__.py": measured(0, 100.0),
            "testkit/clock.py": measured(4, 50.0),
        }
    }
    assert shares(report) == {"core/a.py": 75.0}


def test_a_low_module_needs_a_reason_and_a_reason_goes_when_its_module_is_covered() -> None:
    found = faults({"a.py": 84.9, "b.py": 40.0, "c.py": 85.0}, ["b.py", "c.py"])
    assert found == ["a.py: 84.9 %, and no reason", "c.py: has a reason but is at least 85 %"]
