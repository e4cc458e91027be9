"""The child process of the embedded engine: one llama.cpp server on 127.0.0.1.

Started by `EmbeddedEngine` as `python -m lowtide.engines.embedded.child`, never by hand. It speaks
to its parent over three pipes: standard output carries exactly one JSON line (`ready` or `failed`),
standard error carries the log, and the end of standard input means that the parent is gone.
Invariant: it never outlives its parent, however that died.
"""

import argparse
import ctypes
import errno
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from typing import Any, Final, TextIO

from lowtide import limits

READY: Final = "ready"
FAILED: Final = "failed"
PORT_TAKEN: Final = "port_taken"
MODEL_REFUSED: Final = "model_refused"
POOL_AS_TRAINED: Final = "as_trained"  # the model names its own pooling
POOL_MEAN: Final = "mean"  # it does not: take the mean over the input's tokens
POOLINGS: Final = (POOL_AS_TRAINED, POOL_MEAN)

KEY_VARIABLE: Final = "LOWTIDE_EMBEDDED_KEY"
"""Holds the key that callers need; without it no key is asked for."""

_HOST: Final = "127.0.0.1"
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until the parent goes away. Returns 1 when the server could not be started."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which decides
    options = _parse(arguments)
    _die_with_parent(options.parent)
    reports = _claim_stdout()
    # Imported after the belts are on: the library is 100 MB and takes its time from a cold disk.
    import xllamacpp  # type: ignore[import-untyped]

    try:
        server = xllamacpp.Server(_parameters(options))
    except RuntimeError:  # says nothing itself; the reason is in the log
        code = MODEL_REFUSED if _port_is_free(options.port) else PORT_TAKEN
        _report(reports, event=FAILED, code=code)
        return 1
    _report(reports, event=READY, address=server.listening_address)
    threading.Event().wait()  # the server's own threads do the work; _leave_at_eof ends the process
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="lowtide.engines.embedded.child")
    parser.add_argument("--parent", type=int, required=True, help="process id of the parent")
    parser.add_argument("--model", required=True, help="path of the GGUF")
    parser.add_argument("--model-id", required=True, help="the name that answers carry")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--context", type=int, required=True, help="tokens per slot")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--pooling", choices=POOLINGS, help="serve embeddings, pooled this way")
    return parser.parse_args(arguments)


def _die_with_parent(parent: int) -> None:
    """Ends the process with its parent, in two ways. Linux's death signal works even while
    llama.cpp loads a model, holding the GIL. The watch on standard input works everywhere, but only
    once Python runs again.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above: no signal will come
            os._exit(1)
    threading.Thread(target=_leave_at_eof, daemon=True, name="parent-watch").start()


def _leave_at_eof() -> None:
    while os.read(0, limits.KIB):
        pass
    os._exit(0)  # at once: nothing here needs saving, and llama.cpp's own exit waits for its slots


def _claim_stdout() -> TextIO:
    """Keeps standard output for the one line of the child; whatever native code prints
    goes to the log.
    """
    ours = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(ours, "w", encoding="utf-8")


def _report(reports: TextIO, **fields: str) -> None:
    reports.write(json.dumps(fields) + "\n")
    reports.flush()


def _parameters(options: argparse.Namespace) -> Any:  # the library has no types
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.model_alias = {options.model_id}
    params.hostnames = [_HOST]
    params.port = options.port
    params.n_parallel = options.slots
    params.n_ctx = options.slots * options.context
    params.n_threads_http = limits.EMBEDDED_HTTP_THREADS
    params.cache_ram_mib = limits.EMBEDDED_PROMPT_CACHE_MIB
    for cpu in (params.cpuparams, params.cpuparams_batch):
        cpu.n_threads = options.threads
        cpu.poll = 0  # waiting threads sleep instead of spinning: faster here, and a good neighbour
    if options.pooling is not None:
        params.embedding = True
        if options.pooling == POOL_MEAN:
            params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        # An embedding input must fit one physical batch; a chat prompt may take several.
        params.n_ubatch = min(options.context, limits.EMBEDDED_EMBEDDING_TOKENS)
        params.n_batch = params.n_ubatch
    if key := os.environ.pop(KEY_VARIABLE, ""):
        params.api_keys = [key]
    params.endpoint_metrics = True
    params.endpoint_slots = True
    params.cors_origins = ""  # no web page has business with it
    params.ui = False
    params.offline = True  # a model that is not there is an error, never a download
    params.verbosity = 2  # warnings and errors; level 3 writes seven lines for each request
    return params


def _port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
            probe.listen()
        except OSError as exc:
            return exc.errno != errno.EADDRINUSE
    return True


if __name__ == "__main__":
    sys.exit(main())
