"""An engine that behaves like vLLM without a GPU: its scheduler, its KV cache, its step times.

The core has no clock and no I/O: `engine.SimEngine.begin_step` says how long a step takes and
`end_step` what came of it. `profiles` has the measured costs of a step, `state` the requests and
the KV cache, `scheduling` decides what a step computes. `real_time` runs that engine on the clock
and `http` serves it, for `lowtide simulate-engine`; `benchmarks` runs engines and a gateway's
policy in virtual time. Nothing else in production imports it.
"""
