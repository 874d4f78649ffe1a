#!/usr/bin/env bash
# Runs one command on this machine apart from the connection that started it:
#   launch/detached.sh start COMMAND …   ends what an earlier start left, as `stop` does, then starts
#   launch/detached.sh follow            shows what it prints until it ends, and exits with its code
#   launch/detached.sh stop              asks it to save and end, and kills it after five minutes
#
# launch/tpu_vm.sh uses it on every worker; it serves on any machine that is reached by ssh. Its output is kept in
# runs/detached/log. A command whose machine went down under it counts as preempted (75): it goes on from its checkpoint.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=$root/runs/detached

say() { echo "launch/detached.sh: $*" >&2; }

fail() {
  say "$*"
  exit 2
}

# The process group of what was started last.
group() { [ ! -e "$folder/group" ] || echo "$(<"$folder/group")"; }

runs() { [ -n "$(group)" ] && [ ! -e "$folder/code" ] && kill -0 -- "-$(group)" 2>/dev/null; }

stop() {
  local deadline=$((SECONDS + 300))
  if runs; then
    say "asking the command of an earlier start to end"
    kill -TERM -- "-$(group)"
    while [ $SECONDS -lt $deadline ]; do
      runs || return 0
      sleep 0.2
    done
    kill -KILL -- "-$(group)" 2>/dev/null || true
  fi
}

start() {
  stop
  mkdir -p "$folder"
  rm -f "$folder/code" "$folder/group"
  # The shell outlives a SIGTERM to its group, so as to write down the code that the command gives after saving.
  # shellcheck disable=SC2016 # expanded by the shell that is started
  setsid bash -c '
    trap : TERM
    folder=$1 code=0
    shift
    echo $$ >"$folder/group.new" && mv "$folder/group.new" "$folder/group"
    "$@" || code=$?
    echo "$code" >"$folder/code.new" && mv "$folder/code.new" "$folder/code"
  ' detached "$folder" "$@" </dev/null >"$folder/log" 2>&1 &
  # Only from here on can it be followed and stopped.
  while [ ! -e "$folder/group" ]; do
    kill -0 $! 2>/dev/null || [ -e "$folder/group" ] || fail "the command did not start: $(<"$folder/log")"
    sleep 0.05
  done
}

follow() {
  local code
  [ -n "$(group)" ] || fail "nothing was started here; start it: launch/detached.sh start COMMAND …"
  while runs; do sleep 0.2; done &
  # The last lines, since whoever follows again after a lost connection has seen the others.
  tail -n 100 -s 0.2 -f --pid=$! "$folder/log"
  code=$(cat "$folder/code" 2>/dev/null || echo 75)
  echo "launch/detached.sh: $(uname -n) ended with $code"
  exit "$code"
}

case ${1:-} in
  start) shift && { [ $# -gt 0 ] || fail "which command? for example: launch/detached.sh start sleep 60"; } && start "$@" ;;
  follow | stop) [ $# -eq 1 ] || fail "$1 takes nothing after it" && "$1" ;;
  *) fail "which of start, follow and stop? for example: launch/detached.sh follow" ;;
esac
