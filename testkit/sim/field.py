"""Engines and lines as they are met in the field, drawn for one world.

An `Ailment` is what is wrong at one engine from one instant until it is mended: a key that was
rotated, a path or a model that is not there, a quota that is used up, a gateway whose engine is
away, a page of a login. Some engines answer one call at a time and queue the others, without a word
of it; some stand behind a balancer that cuts long calls. And some lines are at fault themselves:
they fail wherever they go. Called by scenario.py; `engines.py` plays it. No line but those may end
in an error file for any of it (evidence.py).
"""

from collections.abc import Mapping
from random import Random
from typing import Final

import msgspec

from lowtide.core.faults.outcome import Reply
from testkit.sim.fault_kinds import FaultKind

_PAGE: Final = b"<html><head><title>%s</title></head><body>nginx</body></html>"
REPLIES: Final[Mapping[FaultKind, tuple[Reply, ...]]] = {
    FaultKind.KEY_REFUSED: (
        Reply(401, b'{"error":{"message":"Incorrect API key provided","code":"invalid_api_key"}}'),
        Reply(401, b'{"detail":"Unauthorized"}'),
        Reply(403, b'{"message":"Forbidden"}'),
        Reply(407, b""),
    ),
    FaultKind.MODEL_UNKNOWN: (
        Reply(404, b'{"object":"error","message":"The model `m` does not exist.","code":404}'),
        Reply(404, b'{"error":{"message":"model \'m\' not found, try pulling it first"}}'),
    ),
    FaultKind.PATH_UNKNOWN: (
        Reply(404, b'{"detail":"Not Found"}'),
        Reply(404, _PAGE % b"404 Not Found"),
        Reply(405, b'{"detail":"Method Not Allowed"}'),
        Reply(301, b""),
        Reply(308, b""),
    ),
    FaultKind.QUOTA_SPENT: (
        Reply(402, b'{"error":{"message":"Payment required"}}'),
        Reply(429, b'{"error":{"message":"You exceeded your quota","code":"insufficient_quota"}}'),
    ),
    FaultKind.PAGE_ANSWERED: (Reply(200, _PAGE % b"Sign in"), Reply(302, b"")),
    FaultKind.GATEWAY_AWAY: (
        Reply(502, _PAGE % b"502 Bad Gateway"),
        Reply(504, _PAGE % b"504 Gateway Time-out"),
        Reply(503, _PAGE % b"503 Service Temporarily Unavailable"),
    ),
    FaultKind.ERROR_IN_200: (
        Reply(200, b'{"error":{"message":"CUDA error: out of memory","code":500}}'),
        Reply(200, b'{"id":"x","object":"chat.completion","choices":[]}'),
        Reply(200, b""),
    ),
}
"""What an engine that has this ailment answers to every call, or to those of one model."""

FAILS: Final = " fails"
"""Marks a prompt that every engine answers with 500."""
MISTAKEN: Final = " mistaken"
"""Marks a prompt that every engine answers with 200 and an error object."""
LONG: Final = " long"
"""Marks a prompt whose answer takes longer than a balancer allows, and less than an attempt may."""
LIVE: Final = "live"
"""How the prompt of a live call begins: engines have room for it, as with a priority."""
_FAILURES: Final = (
    Reply(500, b'{"error":{"message":"internal error","type":"server_error"}}'),
    Reply(500, b"Internal Server Error"),
)
BAD_REPLIES: Final = (
    *_FAILURES,
    REPLIES[FaultKind.ERROR_IN_200][0],
    Reply(400, b'{"error":{"message":"the prompt is too long"}}'),
    Reply(403, b'{"error":{"message":"this content is not allowed"}}'),
    Reply(404, b'{"error":{"message":"file-7 was not found"}}'),
)
"""What a line at fault may draw while others succeed."""
_LASTS_S: Final = (5.0, 30.0, 120.0)
_LONG_SHARE: Final = 0.6
_CUT_SHARE: Final = 0.3
"""The share of an attempt's time that a long answer takes, and after which a balancer cuts."""
_USUAL_SHARE: Final = 0.1
"""The most that another answer takes at an engine behind a balancer, or a serial one."""


class Ailment(msgspec.Struct, frozen=True):
    """An ailment of engine number `engine`; `model` None: of all models. Instants are
    virtual seconds.
    """

    kind: FaultKind
    engine: int
    begins_s: float
    ends_s: float
    reply: Reply
    model: str | None = None


class FieldConditions(msgspec.Struct, frozen=True):
    """What one world has of all this. `failing`, `mistaken` and `long` are chances of a line."""

    ailments: tuple[Ailment, ...] = ()
    serial: frozenset[int] = frozenset()
    balanced: frozenset[int] = frozenset()
    failing: float = 0.0
    mistaken: float = 0.0
    long: float = 0.0
    failure: Reply = _FAILURES[0]

    @property
    def mended_s(self) -> float:
        """The virtual second from which on no engine ails."""
        return max((each.ends_s for each in self.ailments), default=0.0)

    def of(self, engine: int) -> tuple[Ailment, ...]:
        return tuple(each for each in self.ailments if each.engine == engine)

    def marks(self, random: Random) -> str:
        """What a line's prompt says of the line; mostly nothing."""
        for mark, chance in ((FAILS, self.failing), (MISTAKEN, self.mistaken), (LONG, self.long)):
            if chance and random.random() < chance:
                return mark
        return ""


CALM: Final = FieldConditions()


def draw_field(seed: int, engines: int, models: int, chaos_s: float) -> FieldConditions:
    """The conditions of a seed; nothing at all in a third of them."""
    random = Random(f"field {seed}")
    if random.random() < 0.33:
        return CALM
    ailing = random.sample(range(engines), random.randint(0, engines))

    def some_engines(chance: float) -> frozenset[int]:
        return frozenset(n for n in range(engines) if random.random() < chance)

    balanced = some_engines(0.3)
    return FieldConditions(
        ailments=tuple(_draw_ailment(random, n, models, chaos_s) for n in ailing),
        serial=some_engines(0.25),
        balanced=balanced,
        failing=random.choice([0.0, 0.0, 0.03, 0.1]),
        mistaken=random.choice([0.0, 0.0, 0.03]),
        long=random.choice([0.05, 0.2]) if balanced else 0.0,
        failure=random.choice(_FAILURES),
    )


def _draw_ailment(random: Random, engine: int, models: int, chaos_s: float) -> Ailment:
    kind = random.choice(list(REPLIES))
    begins_s = random.choice([0.0, random.uniform(0.0, chaos_s / 2)])
    one_model = kind == FaultKind.MODEL_UNKNOWN
    return Ailment(
        kind=kind,
        engine=engine,
        begins_s=begins_s,
        ends_s=begins_s + random.choice(_LASTS_S) * random.uniform(0.5, 1.5),
        reply=random.choice(REPLIES[kind]),
        model=f"m{random.randrange(models)}" if one_model else None,
    )


def answer_time_s(
    field: FieldConditions, engine: int, prompt: str, drawn_s: float, attempt_timeout_s: float
) -> float:
    """How long the answer takes that took `drawn_s` at an engine of the usual kind."""
    if LONG in prompt:
        return _LONG_SHARE * attempt_timeout_s
    if engine in field.serial or engine in field.balanced:
        return min(drawn_s, _USUAL_SHARE * attempt_timeout_s)
    return drawn_s


def cut_after_s(field: FieldConditions, engine: int, attempt_timeout_s: float) -> float | None:
    """When a balancer before that engine ends a call; None: there is none."""
    return _CUT_SHARE * attempt_timeout_s if engine in field.balanced else None
