"""A stream of events passes byte for byte, however the network cuts it."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from lowtide.core.bodies.sse import EventStream

# Without surrogates: half a character has no bytes, so that no network could carry it.
CHARACTERS = st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])
LINE = st.text(CHARACTERS, max_size=12)
END = st.sampled_from(["\n", "\r\n"])


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    events = draw(st.lists(st.tuples(LINE, END), max_size=8))
    return "".join(f"data: {line}{end}{end}" for line, end in events).encode()


@given(streams(), st.lists(st.integers(0, 120)), st.binary(max_size=5))
def test_cut_anywhere_the_same_bytes_come_out_in_whole_events(
    stream: bytes, cuts: list[int], rest: bytes
) -> None:
    data = stream + rest
    events, out = EventStream(), []
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        if start < end:
            out.append(events.feed(data[start:end]))
    assert all(not block or block.endswith((b"\n\n", b"\r\n\r\n")) for block in out)
    assert b"".join(out) + events.finish() == data
    events.usage()
