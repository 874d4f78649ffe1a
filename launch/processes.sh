#!/usr/bin/env bash
# Starts N processes of one distributed run on this machine:
#   launch/processes.sh [FLAGS] N COMMAND …
#   launch/processes.sh 2 launch/local.sh python -m research.pretrain --config=configs/quickstart.py --workdir=runs/two
#
#   --retries=K   how often to start again what was preempted and has saved (0)
#   --port=PORT   where the processes meet (a free port)
#   --dry-run     print the commands and end
#
# Process I gets --coordinator_address, --num_processes and --process_id=I after the command, and its lines begin with
# "I| ". Once one ends badly the others are asked to end too. The exit code is 75 (preempted and saved) if a process gave
# it, else the first that is not 0.
set -euo pipefail

say() { echo "launch/processes.sh: $*" >&2; }

fail() {
  say "$*"
  exit 2
}

count() { [[ $1 =~ ^(0|[1-9][0-9]{0,5})$ ]]; }

# Those that were asked to end get this many seconds to save.
grace=120
retries=0 port='' dry_run='' signal='' given=''

while [[ ${1:-} = --* ]]; do
  case $1 in
    --retries=*) retries=${1#*=} && { count "$retries" || fail "$1 is not a count; write --retries=3"; } ;;
    --port=*) given=${1#*=} && { count "$given" || fail "$1 is not a port; write --port=12355"; } ;;
    --dry-run) dry_run=1 ;;
    *) fail "unknown flag $1; flags for the command come after it: launch/processes.sh N COMMAND …" ;;
  esac
  shift
done
number=${1:-}
{ count "$number" && [ "$number" -gt 0 ]; } || fail "how many processes? for example: launch/processes.sh 2 COMMAND …"
shift
[ $# -gt 0 ] || fail "which command? for example: launch/processes.sh $number launch/local.sh python -m research.pretrain …"

free_port() {
  local port
  while port=$((20000 + RANDOM % 12000)); (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  echo "$port"
}

# distributed INDEX: the flags by which a door finds the others, in `flags`.
distributed() {
  flags=("--coordinator_address=127.0.0.1:$port" "--num_processes=$number" "--process_id=$1")
}

# Each process leads a group of its own, so that a signal reaches what it has started.
tell() {
  local index
  for index in "${!running[@]}"; do
    kill "-$1" -- "-${running[index]}" 2>/dev/null || true
  done
}

# Looks at those that run: `code` takes the first bad code, and 75 before any other.
look() {
  local index ended
  for index in "${!running[@]}"; do
    if ! kill -0 "${running[index]}" 2>/dev/null; then
      ended=0
      wait "${running[index]}" || ended=$?
      kill -KILL -- "-${running[index]}" 2>/dev/null || true
      unset "running[index]"
      if [ "$code" -eq 0 ] || [ "$ended" -eq 75 ]; then
        code=$ended
      fi
    fi
  done
}

run_all() {
  local index deadline printers=() flags
  code=0 running=()
  for ((index = 0; index < number; index++)); do
    distributed "$index"
    mkfifo "$pipes/$index"
    "$@" "${flags[@]}" </dev/null >"$pipes/$index" 2>&1 &
    running[index]=$!
    while IFS= read -r line || [ -n "$line" ]; do printf '%s| %s\n' "$index" "$line"; done <"$pipes/$index" &
    printers+=($!)
  done
  while [ ${#running[@]} -gt 0 ] && [ "$code" -eq 0 ]; do
    sleep 0.1
    look
  done
  # Those that end for the same reason do so within a second or two. What the others end with later is our doing.
  deadline=$((SECONDS + 2))
  while [ ${#running[@]} -gt 0 ] && [ $SECONDS -lt $deadline ]; do
    sleep 0.1
    look
  done
  if [ ${#running[@]} -gt 0 ]; then
    local own=$code
    say "a process ended with $code; asking the others to end"
    [ -n "$signal" ] || tell TERM # unless a signal has told them already
    deadline=$((SECONDS + grace))
    while [ ${#running[@]} -gt 0 ]; do
      [ $SECONDS -lt $deadline ] || tell KILL
      sleep 0.1
      look
    done
    code=$own
  fi
  wait "${printers[@]}" || true
  rm -f "$pipes"/*
}

port=${given:-$(free_port)}
if [ -n "$dry_run" ]; then
  for ((index = 0; index < number; index++)); do
    distributed "$index"
    printf '%q ' "$@" "${flags[@]}" | sed 's/ $//'
    echo
  done
  exit
fi

pipes=$(mktemp -d)
trap 'rm -rf "$pipes"' EXIT
trap 'signal=INT; tell INT' INT
trap 'signal=TERM; tell TERM' TERM
set -m
for ((attempt = 0; ; attempt++)); do
  run_all "$@"
  if [ "$code" -ne 75 ] || [ -n "$signal" ] || [ "$attempt" -ge "$retries" ]; then
    exit "$code"
  fi
  say "preempted and saved; starting again ($((attempt + 1)) of $retries)"
  port=${given:-$(free_port)}
done
