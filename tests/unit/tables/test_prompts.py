"""Templates: what they may name, what they may not do, and one row's fault."""

import pytest

from lowtide.tables.errors import TableError
from lowtide.tables.prompts import Prompt, RowFault

COLUMNS = ["text", "n", "two words"]


def rendered(prompt: str, **row: object) -> str:
    return Prompt(prompt, COLUMNS, "--prompt").render(
        {"text": "hi", "n": 1, "two words": "x"} | row
    )


@pytest.mark.parametrize(
    ("text", "result", "columns"),
    [
        ("Say {{ text }}!", "Say hi!", {"text"}),
        ("{{ text | upper }} {% for i in range(n) %}{{ i }}{% endfor %}", "HI 0", {"text", "n"}),
        ('{{ row["two words"] }}', "x", {"two words"}),
        ("{{ row.text }}", "hi", {"text"}),
        ("{{ row | length }}", "3", set(COLUMNS)),
        ("{% set a = text %}{{ a }}", "hi", {"text"}),
        ("no column", "no column", set()),
        ("{{ '{{' }}", "{{", set()),
    ],
)
def test_a_prompt_reads_the_columns_that_it_names(
    text: str, result: str, columns: set[str]
) -> None:
    assert rendered(text) == result
    assert Prompt(text, COLUMNS, "--prompt").columns == columns


def test_a_null_is_an_empty_text() -> None:
    assert rendered("[{{ text }}]", text=None) == "[]"


def test_nothing_is_escaped_as_for_a_web_page() -> None:
    assert rendered("{{ text }}", text="<a & b>") == "<a & b>"


def test_a_column_called_row_is_that_column() -> None:
    assert Prompt("{{ row }}", ["row"], "--prompt").render({"row": "mine"}) == "mine"


@pytest.mark.parametrize("text", ["{{ txt }}", '{{ row["txt"] }}', "{% if txt %}a{% endif %}"])
def test_an_unknown_column_is_named_with_what_was_meant(text: str) -> None:
    with pytest.raises(TableError, match=r"names \{\{ txt \}\}") as caught:
        Prompt(text, COLUMNS, "--prompt")
    assert caught.value.hint == (
        "Did you mean text? Its columns: text, n, two words."
        ' A name like that is reached by {{ row["two words"] }}.'
    )


@pytest.mark.parametrize(
    "text", ["{{ text", "{% if %}", '{% include "/etc/passwd" %}', '{% import "os" as os %}']
)
def test_what_is_no_template_or_reads_others_is_refused(text: str) -> None:
    with pytest.raises(TableError) as caught:
        Prompt(text, COLUMNS, "--system-file")
    assert caught.value.code == "bad_template"
    assert caught.value.message.startswith("--system-file")


@pytest.mark.parametrize(
    "text",
    [
        "{{ text.__class__.__mro__ }}",
        "{{ text.format.__globals__ }}",
        "{{ row.update({'a': 1}) }}",
        "{{ ''.__class__ }}",
        "{{ range(10000000) | list }}",
        "{{ 1 // 0 }}",
        "{{ text + n }}",
        "{{ text.no_such }}",
    ],
)
def test_what_the_sandbox_or_a_value_forbids_is_the_row_s_fault(text: str) -> None:
    columns = [*COLUMNS, "update"]
    with pytest.raises(RowFault, match="The prompt cannot be made"):
        Prompt(text, columns, "--prompt").render({"text": "hi", "n": 1})
