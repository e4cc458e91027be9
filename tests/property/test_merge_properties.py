"""core.batches.merge.Merge and core.batches.segment together: any set of commits, one ordered
result file."""

from hypothesis import given, settings
from hypothesis import strategies as st

from lowtide.core.batches.chunk import ChunkKey
from lowtide.core.batches.merge import INPUT, Merge
from lowtide.core.batches.plan import PlanEntry, pack_entries
from lowtide.core.batches.segment import Finished, Slice, encode_segment
from property_profiles import examples


def index_offset(piece: Slice) -> int:
    """Where the index begins, behind the lines."""
    return piece.offset + piece.ok_bytes + piece.failed_bytes


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, list[list[list[Finished]]]]:
    """`(lines of the file, segments of slices of outcomes)`; no line has two outcomes."""
    total = draw(st.integers(0, 60))
    settled = draw(st.lists(st.integers(1, total), unique=True)) if total else []
    segments: list[list[list[Finished]]] = []
    for line in settled:
        if not segments or draw(st.booleans()):
            segments.append([])
        if not segments[-1] or draw(st.booleans()):
            segments[-1].append([])
        output = b"%d:" % line + b"x" * draw(st.integers(0, 40)) + b"\n"
        segments[-1][-1].append(Finished(0, line, draw(st.booleans()), output))
    return total, segments


@settings(max_examples=examples(200))
@given(history=histories(), run_bytes=st.integers(1, 200), unexecuted=st.booleans())
def test_every_line_stands_once_in_order_in_the_file_it_belongs_to(
    history: tuple[int, list[list[list[Finished]]]], run_bytes: int, unexecuted: bool
) -> None:
    total, segments = history
    blobs, merge, expected = [], Merge(), {}
    for number, slices_of in enumerate(segments):
        data, slices = encode_segment(
            (ChunkKey("b", seq), 1, finished) for seq, finished in enumerate(slices_of)
        )
        blobs.append(data)
        for piece in slices:
            index = data[index_offset(piece) : index_offset(piece) + 8 * piece.count]
            merge.add_slice(
                number, piece.offset, index, completed=piece.completed, failed=piece.failed
            )
        expected |= {item.line: item for finished in slices_of for item in finished}
    if unexecuted:
        merge.add_unexecuted(
            pack_entries(PlanEntry(line, line * 10, line, 1) for line in range(total, 0, -1))
        )
    output = [item.output for _, item in sorted(expected.items()) if item.ok]
    errors = [
        expected[line].output if line in expected else (line * 10, line)
        for line in range(1, total + 1)
        if (line in expected and not expected[line].ok) or (line not in expected and unexecuted)
    ]
    for kind, wanted in (("output", output), ("errors", errors)):
        found: list[object] = []
        for run in merge.runs(kind, run_bytes):  # type: ignore[arg-type]
            size = sum(length for _, _, _, length in run.places)
            assert size <= run_bytes or len(run.places) == 1
            for _, source, offset, length in run.places:
                where = (offset, length)
                found.append(where if source == INPUT else blobs[source][offset : offset + length])
        assert found == wanted
        assert merge.count(kind) == len(wanted)  # type: ignore[arg-type]
    assert merge.doubled == 0
