"""The simulated engine's HTTP server: OpenAI's endpoints, `/metrics`, and what operators ask."""
