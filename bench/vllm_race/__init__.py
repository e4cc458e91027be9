"""One real vLLM on the CPU: the same work by `run-batch`, through Lowtide, and by others."""
