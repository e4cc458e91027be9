#!/bin/sh
# Resolve pyproject.toml into the hashed requirement files, largest first, so that the
# smaller ones hold the very same versions. Needs uv. Where packages come from is not written down:
# that is the business of the machine that installs them. requirements-demo.txt is not made here: it
# holds one package, whose file also has its SHA-256 in src/lowtide/engines/models/demo_model.py.
#
#   make pins                       keep the versions that still fit, resolve what is new
#   make pins UV_ARGS=--upgrade     newest versions of everything
set -eu

command -v uv >/dev/null || {
    echo "make pins needs uv: python3 -m pip install --user uv" >&2
    exit 1
}

pin() {
    output=$1
    shift
    # shellcheck disable=SC2086 # UV_ARGS holds several arguments
    uv pip compile pyproject.toml --quiet --extra hub --extra postgres --group build "$@" \
        --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
        --no-emit-index-url --no-emit-find-links ${UV_ARGS:-} --output-file "$output"
}

pin requirements-dev.txt --group test --group dev
UV_ARGS=
pin requirements-test.txt --group test --constraint requirements-dev.txt
pin requirements.txt --constraint requirements-dev.txt
pin requirements-tables.txt --extra tables --constraint requirements-dev.txt
pin requirements-fuzz.txt --group fuzz --constraint requirements-dev.txt
pin requirements-plots.txt --group plots --constraint requirements-dev.txt
pin requirements-ray.txt --group ray --constraint requirements-dev.txt
pin requirements-docs.txt --group docs --constraint requirements-dev.txt
grep -c '==' requirements.txt requirements-tables.txt requirements-test.txt requirements-dev.txt requirements-fuzz.txt requirements-plots.txt requirements-ray.txt requirements-docs.txt
