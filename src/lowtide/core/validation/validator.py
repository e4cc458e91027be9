"""One streaming pass over an input file: bytes in, a plan or the list of bad lines out.

The validate loop (and `lowtide validate`, offline) feeds blocks of any size; nothing here does I/O.
A good line costs one decode into a Struct that holds only the fields that are needed or checked
(`body_fields`); a bad one goes to `line_errors`, and a file of another kind to `file_format`.
Invariants: how the file is cut into blocks never changes the result, no input raises, and memory
is bounded by the plan, the kept errors, one partial line, and for each request a hundred bytes at
most of what its custom_id and its prompt begin with.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Final

import msgspec
import numpy as np

from lowtide import limits
from lowtide.core.batches.batch import BatchError
from lowtide.core.batches.line import body_of
from lowtide.core.batches.plan import Plan, build_plan, pack_record, read_places
from lowtide.core.batches.prefix import PrefixSketch
from lowtide.core.bodies.body_bounds import BOUNDED_BYTES, line_excess
from lowtide.core.bodies.body_fields import has_misfit, line_type
from lowtide.core.bodies.output_bound import output_bound
from lowtide.core.files.file_format import FileFormat, head_of, recognise
from lowtide.core.tokens.sampler import LineEstimator
from lowtide.core.tokens.token_model import UNTRAINED, TokenModel
from lowtide.core.validation.duplicate_ids import CustomIds
from lowtide.core.validation.line_errors import diagnose, duplicate, unknown_override
from lowtide.core.validation.line_splitter import CutLine, LineSplitter
from lowtide.core.validation.model_override import ModelOverride
from lowtide.core.validation.rules import PROMPT_FIELDS, ValidationRules
from lowtide.core.validation.wanted_lines import WantedLines

_BLANK: Final = b" \t\r"
_ENDLESS: Final = 1 << 62  # tokens: of a context that is not known


class ValidationFailure(msgspec.Struct, frozen=True):
    """Why a file cannot run: the first errors in file order, how many there are, lines seen."""

    errors: tuple[BatchError, ...]
    total_errors: int
    lines: int


@cache
def _line_type(endpoint: str, *, is_strict: bool, names_model: bool) -> Any:
    """Raises KeyError for an endpoint that is not one of ENDPOINTS."""
    return line_type(
        endpoint, PROMPT_FIELDS[endpoint], is_strict=is_strict, names_model=names_model
    )


class _Share:
    """One model's requests so far: their plan records, the bounds that they name for their answers,
    what estimates their tokens, what their prompts begin with, and which are too long for it.
    """

    def __init__(
        self, token_model: TokenModel, prompt_field: bytes, context_tokens: int | None
    ) -> None:
        self.records = bytearray()
        self.context_tokens = _ENDLESS if context_tokens is None else context_tokens
        self.long_prompts = 0
        self.longest: list[tuple[int, int]] = []  # the first few: line, tokens
        self.output_tokens = 0
        self.unbounded = 0  # requests that name no bound
        self.estimate = LineEstimator(token_model).estimate
        self.sketch = PrefixSketch(prompt_field)
        self._sketched = 0  # bytes of `records`

    def note_long(self, line: int, tokens: int) -> None:
        """Records a prompt that is too long for the model, by the estimate."""
        self.long_prompts += 1
        if len(self.longest) < limits.LONG_PROMPTS_KEPT:
            self.longest.append((line, tokens))

    def sample_prompts(self, data: bytes, data_offset: int) -> None:
        """Reads the beginnings of the prompts, once for each block: the lines recorded since
        the last time lie in `data`.
        """
        places = read_places(self.records, self._sketched)
        if len(places):
            starts = places["offset"].astype("i8") - data_offset
            self.sketch.add(data, starts.tolist(), (starts + places["length"]).tolist())
            self._sketched = len(self.records)


class Validator:
    """Feed blocks, then finish once. `lines_seen` and `bytes_seen` tell the progress."""

    def __init__(
        self,
        rules: ValidationRules,
        token_models: Mapping[str, TokenModel] = MappingProxyType({}),
    ) -> None:
        """`token_models` are by canonical model id; one that is not there counts as never seen.

        Raises KeyError for an endpoint that is not one of ENDPOINTS.
        """
        self.bytes_seen = 0
        self._rules = rules
        self._cutter = LineSplitter(rules.line_bytes_max)
        names_model = rules.model_override is None
        strict = _line_type(rules.endpoint, is_strict=True, names_model=names_model)
        loose = _line_type(rules.endpoint, is_strict=False, names_model=names_model)
        self._decode = msgspec.json.Decoder(strict).decode
        self._decode_loosely = msgspec.json.Decoder(loose).decode
        self._may_wait = rules.endpoint == "/v1/responses" and rules.checks_fields
        self._head = b""
        self._format: FileFormat | None = None
        self._custom_id_chars = rules.custom_id_chars
        self._media = rules.media
        self._endpoint = rules.endpoint
        self._strict = rules.dialect == "openai"
        self._token_models = token_models
        self._requests = 0  # lines that are not blank, good or bad
        self._blanks_max = max(limits.BLANK_LINES_MAX, 2 * rules.requests_max)
        self._is_blank = False  # more of its lines are blank than that
        self._wanted = None if rules.wanted is None else WantedLines(rules.wanted)
        self._override = None
        if rules.model_override is not None:
            self._override = ModelOverride(rules.model_override, rules.models)
        self._refusal = unknown_override(rules)
        self._custom_ids = CustomIds()
        self._shares: dict[str, _Share] = {}  # by canonical model id
        self._shares_by_name: dict[str, _Share] = {}  # the same, by every name seen
        self._errors: list[BatchError] = []
        self._total_errors = 0

    @property
    def lines_seen(self) -> int:
        return self._cutter.lines

    @property
    def line_bytes(self) -> int:
        """The bytes of a line that has begun and whose end was not fed yet."""
        return self._cutter.held_bytes

    @property
    def is_decided(self) -> bool:
        """Whether the rest of the file cannot change that it is refused, nor why, or none of it is
        wanted: it need not be fed.
        """
        too_many = self._requests > self._rules.requests_max
        has_all = self._wanted is not None and self.lines_seen >= self._wanted.last
        is_refused = self._is_blank or self._format is not None or self._refusal is not None
        return too_many or has_all or is_refused

    def feed(self, block: bytes | bytearray | memoryview) -> None:
        """Takes the next bytes of the file, cut anywhere.

        Takes time and transient memory in proportion to the block: VALIDATE_BLOCK_BYTES is meant.
        """
        self.bytes_seen += len(block)
        if len(self._head) < limits.FORMAT_HEAD_BYTES:
            self._head = head_of(self._head, bytes(block[: limits.FORMAT_HEAD_BYTES]))
            if len(self._head) == limits.FORMAT_HEAD_BYTES:
                self._format = recognise(self._head)
        if block and self._format is None and self._refusal is None:
            self._take(self._cutter.cut(bytes(block)))

    def finish(self) -> Plan | ValidationFailure:
        """The result; the last line may lack its ending. Call once, after the last block."""
        if self._refusal is not None:
            return ValidationFailure((self._refusal,), 1, self.lines_seen)
        if self._format is None and len(self._head) < limits.FORMAT_HEAD_BYTES:
            self._format = recognise(self._head)
        if (known := self._format) is not None:
            error = BatchError("invalid_file_format", known.message, known.line, None)
            return ValidationFailure((error,), 1, known.line)
        self._take(self._cutter.finish())
        if self._is_blank:
            message = f"The file has more than {self._blanks_max:,} blank lines. Leave them out."
            error = BatchError("invalid_file_format", message, None, None)
            return ValidationFailure((error,), 1, self.lines_seen)
        self._report_duplicates()
        if self._requests > self._rules.requests_max:
            message = (
                f"The file has more than {self._rules.requests_max:,} requests, which is the limit "
                "for one batch. Split it into several files."
            )
            self._errors.insert(0, BatchError("too_many_tasks", message, None, None))
            self._total_errors += 1
        elif not self._requests:
            self._errors.append(BatchError("empty_file", "The file has no requests.", None, None))
            self._total_errors += 1
        if self._total_errors:
            errors = tuple(self._errors[: self._rules.errors_kept])
            return ValidationFailure(errors, self._total_errors, self.lines_seen)
        orders = {model: share.sketch.order() for model, share in self._shares.items()}
        return build_plan(
            {model: share.records for model, share in self._shares.items()},
            {
                model: (share.output_tokens, share.unbounded)
                for model, share in self._shares.items()
            },
            {model: order for model, order in orders.items() if order is not None},
            self._warnings(),
        )

    def _warnings(self) -> tuple[BatchError, ...]:
        warnings = [
            _too_long(model, share, f"body.{PROMPT_FIELDS[self._endpoint]}")
            for model, share in self._shares.items()
            if share.long_prompts
        ]
        if self._override is not None and (warning := self._override.warning) is not None:
            warnings.append(warning)
        return tuple(warnings)

    def _take(self, lines: Iterator[CutLine]) -> None:
        """Plan or refuse each line; past the limit on requests, lines are only counted."""
        requests_max, blanks_max = self._rules.requests_max, self._blanks_max
        custom_ids: list[str] = []
        numbers: list[int] = []
        if self._wanted is not None:
            lines = self._wanted.only(lines)
        applied = None if self._override is None else self._override.applied_to
        for number, offset, raw, utf8 in lines:
            if number - self._requests > blanks_max and self._wanted is None:
                self._find_blanks(number - 1)
            if self._requests > requests_max or self._is_blank:
                continue
            line = self._read(raw) if raw is not None and utf8 else None
            share = None
            if line is not None:
                name = line.body.model
                share = self._share_of(name if applied is None else applied(name))
            if line is None or share is None or raw is None:
                if (custom_id := self._refuse(number, raw)) is not None:
                    custom_ids.append(custom_id)
                    numbers.append(number)
                continue
            self._requests += 1
            custom_ids.append(line.custom_id)
            numbers.append(number)
            if (bound := output_bound(self._endpoint, line.body)) is None:
                share.unbounded += 1
            else:
                share.output_tokens += bound
            tokens = share.estimate(raw, offset)
            if tokens > share.context_tokens:
                share.note_long(number, tokens)
            share.records += pack_record(number, offset, len(raw), tokens)
        self._find_blanks(self._cutter.lines)
        self._custom_ids.add(custom_ids, numbers)
        for share in self._shares.values():
            share.sample_prompts(self._cutter.data, self._cutter.data_offset)

    def _find_blanks(self, lines: int) -> None:
        """Whether too many of the first `lines` are blank; not once the file is refused anyhow."""
        if self._requests <= self._rules.requests_max and self._wanted is None:
            self._is_blank |= lines - self._requests > self._blanks_max

    def _read(self, raw: memoryview) -> Any:
        """The line if it keeps every rule that one line can keep, save the model's; else None."""
        if len(raw) > BOUNDED_BYTES and line_excess(bytes(raw)) is not None:
            return None  # before it costs what it costs to read it
        try:
            line = self._decode(raw)
        except msgspec.ValidationError:
            line = self._read_loosely(raw)
            if line is None:
                return None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if self._strict:
            addressed = line.method == "POST" and line.url == self._endpoint
        else:
            addressed = line.url is None or line.url == self._endpoint
        acceptable = (
            addressed
            and not line.body.stream
            and not (self._may_wait and _is_unsupported(line.body))
            and 0 < len(line.custom_id) <= self._custom_id_chars
        )
        if acceptable and self._media is not None:
            acceptable = self._media.refusal(body_of(raw)) is None
        return line if acceptable else None

    def _read_loosely(self, raw: memoryview) -> Any:
        """A line whose usual fields have odd values, if an engine may take them (body_fields)."""
        try:
            line = self._decode_loosely(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        checked = self._rules.checks_fields and has_misfit(self._endpoint, line.body)
        return None if checked else line

    def _share_of(self, name: str) -> _Share | None:
        """The share of the model that this name stands for; None when it is not accepted."""
        share = self._shares_by_name.get(name)
        if share is None and (model := self._rules.resolve(name)) is not None:
            share = self._shares.get(model)
            if share is None:
                share = self._shares[model] = _Share(
                    self._token_models.get(model, UNTRAINED),
                    PROMPT_FIELDS[self._endpoint].encode(),
                    self._rules.contexts.get(model),
                )
            self._shares_by_name[name] = share
        return share

    def _refuse(self, number: int, raw: memoryview | None) -> str | None:
        """Report a line that the fast path did not take, unless it is blank.

        Its custom_id, where that could be read: a second use of it is an error, too.
        """
        text = None if raw is None else bytes(raw)
        if text is not None and not text.strip(_BLANK):
            return None
        self._requests += 1
        if self._requests > self._rules.requests_max:
            return None
        self._total_errors += 1
        if len(self._errors) >= self._rules.errors_kept:
            # Only the total grows now, so a file of nothing but bad lines costs no more than a good
            # one; the price is that later uses of this line's custom_id are not found out.
            return None
        if text is None:
            message = f"This line is longer than {self._rules.line_bytes_max:,} bytes."
            self._errors.append(BatchError("invalid_request", message, number, None))
            return None
        diagnosis = diagnose(text, number, self._rules)
        self._errors.append(diagnosis.error)
        return diagnosis.custom_id

    def _report_duplicates(self) -> None:
        """Puts the duplicates among the bad lines, in file order; as an error one comes first."""
        repeated = self._custom_ids.repeated()
        self._custom_ids = CustomIds()  # let go of them, before the plan takes its memory
        if not len(repeated):
            return
        errors = {error.line or 0: error for error in self._errors}
        known = np.isin(repeated, np.array(sorted(errors), repeated.dtype))
        self._total_errors += len(repeated) - int(np.count_nonzero(known))
        errors |= {line: duplicate(line) for line in repeated[: self._rules.errors_kept].tolist()}
        self._errors = [errors[line] for line in sorted(errors)]


def _too_long(model: str, share: _Share, param: str) -> BatchError:
    """The warning of prompts that the model has no room for, at the first of them."""
    first = share.longest[0]
    lines = ", ".join(str(line) for line, _ in share.longest)
    more = share.long_prompts - len(share.longest)
    where = f"line {lines}" if share.long_prompts == 1 else f"lines {lines}"
    message = (
        f"The prompt of {where}{f' and {more:,} more' if more else ''} is longer than the context"
        f" of {model}, {share.context_tokens:,} tokens; that of line {first[0]} has about"
        f" {first[1]:,}. Engines refuse such requests or cut them."
    )
    return BatchError("context_exceeded", message, first[0], param)


def _is_unsupported(body: Any) -> bool:
    """Whether a body of /v1/responses asks for what no batch can give."""
    return bool(body.background) or body.previous_response_id is not None
