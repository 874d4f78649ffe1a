#!/usr/bin/env bash
# Runs a command in this checkout's own Python environment, which the first use creates from the pinned versions:
#   launch/local.sh COMMAND …
#
#   PYTHON=python3.12          the interpreter to build it with (3.11 to 3.13)
#   GROUNDWORK_EXTRAS=cuda12   what to install beside the development tools: cuda12, cuda13, tpu, hf, or several by comma
#   GROUNDWORK_VENV=FOLDER     where it lies, from the root of the checkout (.venv)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${GROUNDWORK_VENV:-.venv}
[[ $venv = /* ]] || venv=$root/$venv
stamp=$venv/groundwork.stamp
extras=dev${GROUNDWORK_EXTRAS:+,$GROUNDWORK_EXTRAS}

say() { echo "launch/local.sh: $*" >&2; }

fail() {
  say "$*"
  exit 2
}

# Running it, not finding it, tells: a version manager's shim may stand on the path for a Python that is switched off.
suits() {
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    suits "$PYTHON" || fail "PYTHON=$PYTHON is not a Python of 3.11 to 3.13; name another, or leave it unset"
    echo "$PYTHON"
    return
  fi
  for candidate in python3.11 python3 python3.12 python3.13 python \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[123].*/bin/python; do
    if suits "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  # uv brings a Python of its own where there is none.
  if command -v uv >/dev/null 2>&1; then
    echo 3.11
    return
  fi
  fail "found no Python of 3.11 to 3.13; install one, or set PYTHON=/path/to/python3.11"
}

# The content of the stamp: what the environment was made from. It says "unfinished" while an installation runs.
wanted() {
  { echo "$extras" && cat "$root/pyproject.toml" "$root/constraints.txt"; } | cksum
}

found() {
  if [ -x "$venv/bin/python" ]; then
    cat "$stamp" 2>/dev/null || true
  fi
}

install() {
  local python
  if [ -f "$stamp" ] && { [ "$(found)" = unfinished ] || ! suits "$venv/bin/python"; }; then
    say "an earlier installation in $venv did not finish or has lost its Python; starting afresh"
    rm -rf "$venv"
  fi
  if [ ! -x "$venv/bin/python" ]; then
    python=$(find_python)
    mkdir -p "$venv"
    echo unfinished >"$stamp"
    say "creating $venv with $python (once; a minute or two)"
    if command -v uv >/dev/null 2>&1; then
      uv venv --quiet --allow-existing --python "$python" "$venv"
    else
      "$python" -m venv "$venv" || fail "$python cannot make environments; install its venv package, or uv"
    fi
  else
    say "bringing $venv to the versions of constraints.txt"
  fi
  echo unfinished >"$stamp"
  cd "$root"
  if command -v uv >/dev/null 2>&1; then
    uv pip install --quiet --compile-bytecode --python "$venv/bin/python" -c constraints.txt -e ".[$extras]"
  else
    "$venv/bin/python" -m pip install -qq --disable-pip-version-check -c constraints.txt -e ".[$extras]"
  fi
  wanted >"$stamp"
}

{ [ $# -gt 0 ] && [[ $1 != -* ]]; } || fail "which command? for example: launch/local.sh pytest"

if [ "$(found)" != "$(wanted)" ]; then
  # One installs while others wait. The lock is released at the end of the parentheses, not held by the command.
  (
    if command -v flock >/dev/null 2>&1; then
      flock 9
    fi
    if [ "$(found)" != "$(wanted)" ]; then
      install
    fi
  ) 9>"$venv.lock"
fi

export VIRTUAL_ENV=$venv PATH=$venv/bin:$PATH
unset PYTHONHOME
exec "$@"
