"""core/validation/first_line.py: whose form a file has, by what its first line says."""

import pytest

from lowtide.core.validation.first_line import FirstLine, read_first_line


@pytest.mark.parametrize(
    ("head", "purpose", "url"),
    [
        (b'{"custom_id": "a", "body": {"url": "/v1/completions"}}\n', "batch-api", None),
        (b'{"method": "FILE", "body": {}}', "batch-api", None),
        (b'\xef\xbb\xbf\n \n{"method": "POST"}\n', "batch", None),
        (b'{"url": "/v1/embeddings", "body": {}}\n{}\n', "batch", "/v1/embeddings"),
        (b'{"method": "POST", "url": "/v1/embeddings", "body": {"in', "batch", "/v1/embeddings"),
        (b"no JSON", "batch-api", None),
        (b"", "batch-api", None),
    ],
)
def test_the_first_line_tells_whose_form_the_lines_have_and_where_they_go(
    head: bytes, purpose: str, url: str | None
) -> None:
    first = read_first_line(head)
    assert (first.purpose, first.url) == (purpose, url)


def test_a_line_that_says_nothing_is_addressed_nowhere() -> None:
    assert FirstLine().url is None
