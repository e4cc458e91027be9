"""A check that schemathesis runs on every answer: nothing of another tenant is in it.

Loaded by schemathesis through SCHEMATHESIS_HOOKS, in the run of fuzz_api.py that calls with one
tenant's key and knows another's ids. The file that LOWTIDE_FUZZ_FOREIGN names has what is foreign.
"""

import json
import os
from pathlib import Path
from typing import Any

import schemathesis

FOREIGN = json.loads(Path(os.environ["LOWTIDE_FUZZ_FOREIGN"]).read_text())


@schemathesis.check
def nothing_of_another_tenant(_ctx: Any, response: Any, _case: Any) -> None:
    """`marker` is in all that the other has written and in no call, so no answer may have it. Its
    ids are in the calls, and so in refusals, but in no answer that gave what was asked for.
    """
    body = response.content.decode(errors="replace")
    if FOREIGN["marker"] in body:
        raise AssertionError(f"an answer has another tenant's text: {body[:400]}")
    if response.status_code < 300:
        shown = [known for known in FOREIGN["ids"] if known in body]
        if shown:
            raise AssertionError(f"an answer has another tenant's {shown[0]}: {body[:400]}")
