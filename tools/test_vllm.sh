#!/bin/sh
# Tests the scheduler class for vLLM beside vLLM itself, in an environment of its own (`make test-vllm`).
# The wheel is built and installed as an operator would.
set -eu
venv=build/vllm
sh tools/vllm_env.sh "$venv" ${1:+"$1"}
rm -rf build/vllm-wheel
"$venv/bin/python" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build/vllm-wheel integrations/vllm
"$venv/bin/python" -m pip install --quiet --no-deps --force-reinstall build/vllm-wheel/*.whl
cd integrations/vllm
VLLM_LOGGING_LEVEL=ERROR HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 \
  "../../$venv/bin/python" -m pytest -q -c /dev/null --rootdir . -p no:cacheprovider tests
