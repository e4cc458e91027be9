"""The clients that `make test-clients` runs, each in an environment of its own.

`requires` is what `pin.py` resolves into `requirements-NAME.txt`; `scripts` are run one after the
other with that environment's Python, in a fresh folder, against one server.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
SCRIPTS: Final = HERE / "scripts"


@dataclass(frozen=True, slots=True)
class Client:
    """One version of one client. `together_base` is what its TOGETHER_BASE_URL must end with."""

    name: str
    requires: str
    scripts: tuple[str, ...]
    together_base: str = "/v1"
    limit_s: float = 120.0

    @property
    def pins(self) -> Path:
        return HERE / f"requirements-{self.name}.txt"


TOGETHER_1X: Final = Client(
    "together-1.6.0", "together==1.6.0", ("together_1x.py", "together_1x_cli.py")
)

CLIENTS: Final = (
    TOGETHER_1X,
    Client("together-2.42.0", "together==2.42.0", ("together_life.py", "together_cli.py")),
    Client("openai-1.109.1", "openai==1.109.1", ("openai_life.py",)),
    Client("openai-2.54.0", "openai==2.54.0", ("openai_life.py",)),
    Client("litellm-1.109.1", "litellm==1.109.1", ("litellm_life.py",)),
    Client("autobatcher-0.12.0", "autobatcher==0.12.0", ("autobatcher_life.py",)),
    Client("curator-0.1.31", "bespokelabs-curator==0.1.31", ("curator_life.py",), limit_s=240.0),
    Client("pydantic-ai-2.68.0", "pydantic-ai-slim[openai]==2.68.0", ("pydantic_ai_life.py",)),
    Client("instructor-1.17.0", "instructor==1.17.0", ("instructor_life.py",)),
)

OURS: Final = (
    Client("together-3.1.1", "", ("together_life.py",), together_base=""),
    Client("together-cli-3.1.1", "", ("together_cli.py",), together_base=""),
    Client("openai-3.51.0", "", ("openai_life.py",)),
    Client("curl", "", ("curl_life.py",)),
)
"""What needs no environment of its own. In `make test` as well, see tests/api/test_clients.py."""
