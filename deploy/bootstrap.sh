#!/bin/sh
# Build the virtual environment $2 with the interpreter $1 from requirements.lock, hashes checked.
# Everything that is installed, uv included, is pinned there.
set -eu
python=$1
venv=$2

bring_own_uv() { # there is none on this machine: the environment gets the locked one
    rm -rf "$venv"
    "$python" -m venv "$venv" || {
        echo "Could not make a virtual environment. Install the venv module (Debian: apt install python3-venv) or uv, then try again." >&2
        exit 2
    }
    sed -n '/^uv==/,/[^\\]$/p' requirements.lock >"$venv/uv.txt"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
        --require-hashes -r "$venv/uv.txt"
}

if [ -x "$venv/bin/uv" ] && "$venv/bin/uv" --version >/dev/null 2>&1; then
    uv=$venv/bin/uv
elif command -v uv >/dev/null 2>&1 && uv --version >/dev/null 2>&1; then
    uv=uv
    [ -x "$venv/bin/python" ] || "$uv" venv --quiet --python "$python" "$venv"
else
    bring_own_uv
    uv=$venv/bin/uv
fi

quiet=--quiet
[ ! -t 2 ] || quiet= # a person watching sees the downloads
echo "Installing the locked dependencies into $venv (several GB the first time) ..."
"$uv" pip sync $quiet --python "$venv/bin/python" --require-hashes requirements.lock
"$uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation -e .
echo "Ready: $venv"
