"""Memory for request bodies that are read whole: shared by organizations, bounded in a process.

`json_body` takes bytes as they come, `AuthMiddleware` gives all of a request's back when it has
been answered, because a live call keeps its body until then. Guards: whatever callers send at one
time, no more than `JSON_BODIES_BYTES_MAX` is held, and no organization takes the room of the others
(`core.scheduling.byte_budget`).
"""

from typing import TYPE_CHECKING

from starlette.types import Scope

from lowtide import limits
from lowtide.core.errors import LowtideError

if TYPE_CHECKING:
    from lowtide.api.middleware.caller import Caller
    from lowtide.core.scheduling.byte_budget import ByteBudget


def hold(scope: Scope, amount: int) -> None:
    """Counts `amount` more bytes of the request's body as held in memory.

    Raises LowtideError: `rate_limit_exceeded` when the organization's own bodies fill its share,
    `server_busy` when the bodies of others fill the memory.
    """
    state = scope.get("state", {})
    caller: Caller | None = state.get("caller")
    if caller is None:
        return  # a public route keeps no body
    budget: ByteBudget = scope["app"].state.json_bodies
    owner = caller.organization_id
    if budget.take(owner, amount):
        state["held_bytes"] = state.get("held_bytes", 0) + amount
    elif 2 * budget.held_by(owner) >= budget.total - budget.held:
        raise LowtideError(
            "rate_limit_exceeded",
            f"The bodies of this organization's calls under way hold {budget.held_by(owner)} bytes"
            " of this server's memory, which is its share. Send fewer large ones at a time.",
            retry_after_s=limits.BODIES_RETRY_AFTER_S,
        )
    else:
        raise LowtideError(
            "server_busy",
            "The bodies of other calls fill the memory that there is for them; try again.",
            retry_after_s=limits.BODIES_RETRY_AFTER_S,
        )


def release(scope: Scope) -> None:
    """Gives back all bytes that the request held, once it is over."""
    state = scope["state"]
    if (amount := state.pop("held_bytes", 0)) > 0:
        budget: ByteBudget = scope["app"].state.json_bodies
        budget.give_back(state["caller"].organization_id, amount)
