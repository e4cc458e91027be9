"""Batches that wait for enqueued tokens of their organization: who is let in next.

The store asks `let_in` in the transaction that plans a batch and in the one that lets waiting ones
in. Pure. Invariants: the enqueued tokens of a model stay within the limit; and no batch passes one
that waits before it for a model of its own, so that a large one is not passed for ever.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec


class TokenLimitReached(msgspec.Struct, frozen=True):
    """Planning the batch would pass the bound on enqueued tokens of a model."""

    model: str
    limit: int
    enqueued: int
    asked: int


class PlanQueued(msgspec.Struct, frozen=True):
    """The batch waits, planned, until tokens are free."""


class QueuedBatch(msgspec.Struct, frozen=True):
    """A batch, and the estimated input tokens that it asks for, by model."""

    id: str
    tokens: Mapping[str, int]


class TokenDecision(NamedTuple):
    """`let_in`: ids of batches that begin. `too_large`: of those that ask alone for more than the
    limit, and can never begin.
    """

    let_in: tuple[str, ...]
    too_large: tuple[str, ...]


class TokenWait(msgspec.Struct, frozen=True):
    """What one batch waits for. `place`: 1 for the next one. `lack` None: there is room, and those
    before it are let in first.
    """

    place: int
    lack: TokenLimitReached | None


def lack_of(
    tokens: Mapping[str, int], enqueued: Mapping[str, int], limit: int
) -> TokenLimitReached | None:
    """The model of which there is no room for that many more tokens; None: all fit."""
    for model, asked in sorted(tokens.items()):
        if enqueued.get(model, 0) + asked > limit:
            return TokenLimitReached(model, limit, enqueued.get(model, 0), asked)
    return None


def decide(queue: Iterable[QueuedBatch], enqueued: Mapping[str, int], limit: int) -> TokenDecision:
    """Who of the queue, which is in order, begins now."""
    room, held_up = dict(enqueued), set[str]()
    let_in, too_large = [], []
    for batch in queue:
        if lack_of(batch.tokens, {}, limit) is not None:
            too_large.append(batch.id)
        elif held_up.isdisjoint(batch.tokens) and lack_of(batch.tokens, room, limit) is None:
            let_in.append(batch.id)
            for model, tokens in batch.tokens.items():
                room[model] = room.get(model, 0) + tokens
        else:
            held_up |= batch.tokens.keys()
    return TokenDecision(tuple(let_in), tuple(too_large))


def wait_of(
    batch_id: str, queue: Sequence[QueuedBatch], enqueued: Mapping[str, int], limit: int
) -> TokenWait | None:
    """What that batch waits for; None: it is not in the queue. Only batches that wait for a model
    of its own are before it.
    """
    at = next((n for n, each in enumerate(queue) if each.id == batch_id), None)
    if at is None:
        return None
    mine = queue[at].tokens
    before = sum(not mine.keys().isdisjoint(each.tokens) for each in queue[:at])
    return TokenWait(before + 1, lack_of(mine, enqueued, limit))
