"""An engine that behaves like vLLM without a GPU: its scheduler, its KV cache, its step times.

The core (`profiles`, `kv`, `scheduler`, `engine`) has no clock and no I/O: `SimEngine.begin_step`
says how long a step takes and `end_step` what came of it. `virtual` runs engines and a gateway's
policy in virtual time, for benchmarks; `server` puts HTTP around the same core in real time, for
`lowtide simulate-engine`. Never imported by production, that one command aside.
"""
