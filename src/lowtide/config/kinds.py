"""Checks that `[[source]]` and `[[scaler]]` share: keys by kind, addresses, Kubernetes names.

Called by engine_sources.py and scalers.py for one entry each.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from lowtide.config.problems import Problem, unless
from lowtide.config.sections import is_http_url

Where = tuple[str, int]
"""The table and the number of the entry, from 0."""

API_KEYS: Final = frozenset({"token_file", "api_ca_file"})
"""The keys of an entry that calls the API of Kubernetes or Ray."""

_KUBERNETES_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""A name of a namespace, a Service or a Deployment (RFC 1123, one label)."""


class KeysByKind(msgspec.Struct, frozen=True):
    """`needed`: what an entry of that kind must have; `own`: all that it may have and others may
    not.
    """

    needed: Mapping[str, Sequence[str]]
    own: Mapping[str, frozenset[str]]

    def problems(
        self, kind: str, entry: msgspec.Struct, defaults: msgspec.Struct, where: Where
    ) -> Iterator[Problem]:
        """Keys that are missing or of another kind. `defaults`: an entry that says nothing."""
        for key in self.needed[kind]:
            is_given = bool(getattr(entry, key))
            yield from unless(is_given, (*where, key), f'given, for kind = "{kind}"')
        foreign = frozenset[str]().union(*self.own.values()) - self.own[kind]
        for key in sorted(foreign):
            if getattr(entry, key) != getattr(defaults, key):
                yield Problem((*where, key), f'goes not with kind = "{kind}"')


def address_problems(entry: msgspec.Struct, where: Where) -> Iterator[Problem]:
    """Addresses of the API server and of Ray's dashboard that are none."""
    for key in ("api_url", "dashboard"):
        url = getattr(entry, key)
        yield from unless(
            url is None or (is_http_url(url) and "@" not in url),
            (*where, key),
            "an address that begins with http:// or https:// and names a host, without a user",
        )


def name_problems(entry: msgspec.Struct, where: Where, keys: Sequence[str]) -> Iterator[Problem]:
    """Values of `keys` that Kubernetes takes for no name."""
    for key in keys:
        name = getattr(entry, key)
        yield from unless(
            name is None or _KUBERNETES_NAME.fullmatch(name) is not None,
            (*where, key),
            "a name of Kubernetes: small letters, digits and hyphens",
        )
