#!/bin/sh
# Make a virtual environment and install a requirement file, then this tree, into it.
#
#   sh tools/install.sh .venv requirements.txt
#
# Called by the Makefile. Uses $PYTHON, else the first suitable interpreter on the path. Installs
# nothing that is not pinned by a hash, and nothing outside the environment. With $WHEEL that wheel is
# installed and not this tree, so that what is tested is what will be released.
set -eu

venv=$1
requirements=$2

fail() {
    printf '\nCannot set up: %s\n' "$1" >&2
    shift
    for line in "$@"; do printf '  %s\n' "$line" >&2; done
    exit 1
}

version_of() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        found=$(version_of "$PYTHON")
        [ -n "$found" ] || fail "PYTHON=$PYTHON is not a Python that can be run."
        is_new_enough "$PYTHON" || fail "$PYTHON is Python $found; Lowtide needs 3.11 or newer."
        python=$PYTHON
        return
    fi
    for python in python3 python3.13 python3.12 python3.11 python; do
        if is_new_enough "$python"; then return; fi
    done
    found=$(version_of python3)
    fail "Lowtide needs Python 3.11 or newer, and python3 here is ${found:-missing}: install one\
 (on a Mac: brew install python), or name one that you have: make run PYTHON=/path/to/python3.12"
}

make_venv() {
    find_python
    echo "Making $venv with $python (Python $(version_of "$python"))"
    # venv leaves half an environment where pip is not to be had, so that is asked first.
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "the venv module is missing (Debian and Ubuntu: sudo apt install\
 python$(version_of "$python")-venv); install it and run the same command again."
    if ! said=$("$python" -m venv "$venv" 2>&1); then
        rm -rf "$venv"
        printf '%s\n' "$said" >&2
        fail "this Python cannot make virtual environments; it says above why."
    fi
}

# An environment whose interpreter is gone, or that has no pip, is made again.
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || make_venv

count=$(grep -c '==' "$requirements")
echo "Installing $count pinned packages from $requirements (the first time takes a minute or two)"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
"$venv/bin/python" -m pip install --quiet --require-hashes -r "$requirements" ||
    fail "pip could not install the packages; its last lines above say why." \
        "Without a network, a proxy or a package mirror is set in pip's own configuration."
if [ -n "${WHEEL:-}" ]; then
    "$venv/bin/python" -m pip install --quiet --no-deps --force-reinstall "$WHEEL" ||
        fail "the wheel $WHEEL could not be installed into $venv."
    exit
fi
"$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable . ||
    fail "this tree could not be installed into $venv."
