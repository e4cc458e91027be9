"""The composition root: the only place where adapters meet ports.

`open_application` builds everything a process needs from its settings, starts the loops, and on
the way out drains and closes it all in the reverse order. Called by the command line and by tests
that want the real thing.
"""

from lowtide.wiring.application import Application, Role, open_application
from lowtide.wiring.replicas.embedded_model import EmbeddedModel

__all__ = ["Application", "EmbeddedModel", "Role", "open_application"]
