"""The plan: the compact binary index of a batch's requests in execution order.

Validation builds it once; the store keeps its chunks as rows and the blob store its records as one
blob, and the dispatcher reads back the slice that belongs to a chunk. Invariant: chunks tile the
plan without gap or overlap, and each holds requests of one model.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from itertools import repeat
from types import MappingProxyType
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from lowtide import limits
from lowtide.core.batches.batch import BatchError
from lowtide.core.batches.prefix import RunOrder

_RECORD: Final = struct.Struct("<IQII")  # line, offset, length, input_tokens
RECORD_BYTES: Final = _RECORD.size
PLAN_DTYPE: Final = np.dtype(
    [("line", "<u4"), ("offset", "<u8"), ("length", "<u4"), ("tokens", "<u4")]
)
RecordArray = npt.NDArray[Any]

pack_record = _RECORD.pack
"""One entry as bytes, from its four numbers: what the validator's inner loop calls."""


class PlanError(ValueError):
    """The stored plan is not a whole number of records."""


class PlanEntry(msgspec.Struct, frozen=True):
    """The place of one request in the input file.

    `line` counts from 1, `offset` and `length` are bytes without the line ending,
    `input_tokens` is an estimate.
    """

    line: int
    offset: int
    length: int
    input_tokens: int


class ChunkSpec(msgspec.Struct, frozen=True):
    """`count` consecutive plan entries of one model, from index `first`; `seq` counts from 0."""

    seq: int
    model: str
    first: int
    count: int
    input_tokens: int
    input_bytes: int


class ModelTotals(msgspec.Struct, frozen=True):
    """What one model has to do in a batch.

    `output_tokens` is the sum of the bounds that its lines name; `unbounded` lines name none, and
    add nothing.
    """

    requests: int
    input_tokens: int
    output_tokens: int = 0
    unbounded: int = 0


class Plan(msgspec.Struct, frozen=True):
    """Packed records in execution order, their chunks, and each model's share. `warnings`: what
    stops nothing, and the submitter should know.
    """

    data: bytes
    chunks: tuple[ChunkSpec, ...]
    models: Mapping[str, ModelTotals]
    warnings: tuple[BatchError, ...] = ()

    @property
    def requests(self) -> int:
        return len(self.data) // RECORD_BYTES


def pack_entries(entries: Iterable[PlanEntry]) -> bytes:
    """Entries as fixed-size records, in the order given."""
    return b"".join(
        pack_record(entry.line, entry.offset, entry.length, entry.input_tokens) for entry in entries
    )


def unpack_entries(data: bytes) -> list[PlanEntry]:
    """Reads records back. Raises PlanError when `data` ends inside one."""
    if len(data) % RECORD_BYTES:
        raise PlanError(f"{len(data)} bytes are no whole number of {RECORD_BYTES}-byte records")
    return [PlanEntry(*record) for record in _RECORD.iter_unpack(data)]


def read_places(records: bytes | bytearray, start: int) -> RecordArray:
    """The records from byte `start` on as an array with the fields of PlanEntry; a copy."""
    return np.frombuffer(bytes(memoryview(records)[start:]), PLAN_DTYPE)


def build_plan(
    records_by_model: Mapping[str, bytes | bytearray],
    bounds: Mapping[str, tuple[int, int]] = MappingProxyType({}),
    orders: Mapping[str, RunOrder] = MappingProxyType({}),
    warnings: tuple[BatchError, ...] = (),
) -> Plan:
    """Lays the models' packed records end to end and cuts them into chunks.

    Models come in the order of the mapping; their records as `orders` says, else as they were
    packed. `bounds`: by model, `output_tokens` and `unbounded` of ModelTotals.
    """
    chunks: list[ChunkSpec] = []
    models: dict[str, ModelTotals] = {}
    laid: list[bytes | bytearray] = []
    first = 0
    for model, packed in records_by_model.items():
        order = orders.get(model)
        records = packed if order is None else _reordered(packed, order)
        laid.append(records)
        tokens = 0
        for count, chunk_tokens, chunk_bytes in _cut(records, order):
            chunks.append(ChunkSpec(len(chunks), model, first, count, chunk_tokens, chunk_bytes))
            first += count
            tokens += chunk_tokens
        models[model] = ModelTotals(
            len(records) // RECORD_BYTES, tokens, *bounds.get(model, (0, 0))
        )
    return Plan(b"".join(laid), tuple(chunks), models, warnings)


def _reordered(records: bytes | bytearray, order: RunOrder) -> bytes:
    return np.frombuffer(records, f"V{RECORD_BYTES}")[order.places].tobytes()


def _cut(
    records: bytes | bytearray, order: RunOrder | None = None
) -> Iterator[tuple[int, int, int]]:
    """Yields (count, input_tokens, input_bytes) of each chunk of one model's records.

    A line larger than CHUNK_BYTES_MAX gets a chunk of its own: it must run somewhere. A chunk that
    is nearly full ends where the next run of alike prompts begins, so that a run stays together.
    """
    count = tokens = size = 0
    begins = repeat(False) if order is None else order.starts.tolist()
    for (_, _, length, input_tokens), begins_run in zip(
        _RECORD.iter_unpack(records), begins, strict=False
    ):
        full = (
            count == limits.CHUNK_REQUESTS_MAX
            or size + length > limits.CHUNK_BYTES_MAX
            or (begins_run and count >= limits.CHUNK_REQUESTS_FULL)
        )
        if count and full:
            yield count, tokens, size
            count = tokens = size = 0
        count += 1
        tokens += input_tokens
        size += length
    if count:
        yield count, tokens, size
