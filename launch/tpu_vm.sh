#!/usr/bin/env bash
# Runs a command on a Cloud TPU that it asks for, waits for, prepares, follows and deletes:
#   launch/tpu_vm.sh --name=NAME --zone=ZONE --type=TYPE [FLAGS] -- COMMAND …
#   launch/tpu_vm.sh --name=mlm --zone=us-west4-a --type=v5litepod-16 --spot \
#       --setup='sudo mkdir -p /bucket && sudo gcsfuse --implicit-dirs -o allow_other BUCKET /bucket' -- \
#       python -m research.pretrain --config=configs/pretrain/text_mlm.py --workdir=/bucket/mlm
#
#   --project=PROJECT          whose TPU it is (gcloud's own setting)
#   --spot                     cheaper, and may be preempted
#   --slices=N                 slices of that type, joined by the data centre's network (1)
#   --runtime-version=VERSION  what the machines boot (by type)
#   --create-flag=FLAG         one more flag for `gcloud … queued-resources create`, as often as you like
#   --repo=URL                 workers fetch the commit from there; without it they get a bundle from here
#   --setup=LINE               a line of shell that every worker runs first, to mount a disk for example
#   --retries=N                how often to start again after a preemption (10)
#   --keep                     do not delete the TPU at the end; the next command with its name takes it over
#   --poll=SECONDS             between two looks at the state (15)
#   --dry-run                  print what it would run and end
#
# The commit at HEAD is what runs, on every worker, with --distributed after the command; what is not committed is refused.
# The command runs on when the connection is lost. When it exits with 75 it is started again; when the TPU was preempted
# another one is asked for. Ctrl-C has the run saved. The exit code is the command's own.
set -euo pipefail

say() { echo "launch/tpu_vm.sh: $*" >&2; }

fail() {
  say "$*"
  exit 2
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
name='' zone='' type='' project='' spot='' slices=1 version='' repo='' setup='' retries=10 keep='' poll=15 dry_run=''
more=()

number() { [[ ${1#*=} =~ ^[0-9]{1,6}$ ]] || fail "$1 is not a whole number"; }

while [ $# -gt 0 ]; do
  case $1 in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --spot) spot=1 ;;
    --slices=*) number "$1" && slices=$((10#${1#*=})) ;;
    --runtime-version=*) version=${1#*=} ;;
    --create-flag=*) more+=("${1#*=}") ;;
    --repo=*) repo=${1#*=} ;;
    --setup=*) setup=${1#*=} ;;
    --retries=*) number "$1" && retries=$((10#${1#*=})) ;;
    --keep) keep=1 ;;
    --poll=*) number "$1" && poll=$((10#${1#*=})) ;;
    --dry-run) dry_run=1 ;;
    --) shift && break ;;
    *) fail "unknown flag $1; the command comes after --: launch/tpu_vm.sh --name=NAME … -- COMMAND …" ;;
  esac
  shift
done

[ -n "$name" ] || fail "--name is missing; it names the TPU, for example --name=mlm"
[[ $name =~ ^[a-z]([-a-z0-9]{0,58}[a-z0-9])?$ ]] || fail "--name=$name: use small letters, digits and dashes, a letter first"
[ -n "$zone" ] || fail "--zone is missing; for example --zone=us-west4-a"
[ -n "$type" ] || fail "--type is missing; for example --type=v5litepod-16"
[ "$slices" -gt 0 ] || fail "--slices=0 is no TPU; use 1 or more"
[ $# -gt 0 ] || fail "which command? it comes after --: launch/tpu_vm.sh --name=$name … -- python -m research.pretrain …"
for ((place = 1; place <= $#; place++)); do
  workdir=${!place}
  [ "$workdir" != --workdir ] || { next=$((place + 1)) && workdir=--workdir=${!next:-}; }
  if [[ $workdir = --workdir=* && ! $workdir =~ ^--workdir=(/|[a-z0-9]+://) ]]; then
    fail "$workdir lies on the TPU's own disk and is lost with it; give a bucket, or a mounted disk by its whole path"
  fi
done
if [ -z "$version" ]; then
  case $type in
    v2-* | v3-* | v4-*) version=tpu-ubuntu2204-base ;;
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    v5p-*) version=v2-alpha-tpuv5 ;;
    v6e-*) version=v2-alpha-tpuv6e ;;
    *) fail "no runtime version is known here for --type=$type; give --runtime-version" ;;
  esac
fi

where=("--zone=$zone" ${project:+"--project=$project"} --quiet)
if [ "$slices" -eq 1 ]; then
  nodes=("$name")
  shape=("--node-id=$name")
else
  nodes=()
  for ((slice = 0; slice < slices; slice++)); do nodes+=("$name-$slice"); done
  shape=("--node-count=$slices" "--node-prefix=$name")
fi
bundle=${TMPDIR:-/tmp}/groundwork-$name.bundle
started='' ours=''

quoted() {
  local all
  printf -v all ' %q' "$@"
  echo "${all:1}"
}

# Everything that changes something goes through here.
run() {
  if [ -n "$dry_run" ]; then
    quoted "$@"
  else
    "$@"
  fi
}

queued() {
  local verb=$1
  shift
  run gcloud compute tpus queued-resources "$verb" "$name" "${where[@]}" "$@"
}

# Empty where there is no such resource, or no answer.
state() { gcloud compute tpus queued-resources describe "$name" "${where[@]}" '--format=value(state.state)' 2>/dev/null || true; }

# on_workers LINE: a line of shell on every worker of every slice at once.
on_workers() {
  local node pid pids=() code=0
  for node in "${nodes[@]}"; do
    if [ -n "$dry_run" ]; then
      run gcloud compute tpus tpu-vm ssh "$node" "${where[@]}" --worker=all "--command=$1"
    else
      gcloud compute tpus tpu-vm ssh "$node" "${where[@]}" --worker=all "--command=$1" </dev/null &
      pids+=($!)
    fi
  done
  for pid in ${pids[@]+"${pids[@]}"}; do
    wait "$pid" || code=$?
  done
  return "$code"
}

create() {
  say "asking for $slices × $type in $zone"
  ours=1
  if ! queued create "--accelerator-type=$type" "--runtime-version=$version" "${shape[@]}" ${spot:+--spot} \
    ${more[@]+"${more[@]}"} --async; then
    # Refused, so what has this name, if anything, is not to be deleted.
    ours=''
    say "the request was refused; gcloud says why"
    exit 1
  fi
}

delete() { queued delete --force; }

# Waits for the TPU, and asks for it where there is none. Fails when it was lost before it came.
obtain() {
  local now before='' silent=0
  now=$(state)
  case $now in
    '') create ;;
    FAILED | SUSPENDING | SUSPENDED) delete && create ;;
    *) say "taking over $name ($now)" && ours=1 ;;
  esac
  while now=$(state) && [ "$now" != ACTIVE ]; do
    if [ -n "$now" ] && [ "$now" != "$before" ]; then
      say "$name is $now"
      before=$now
    fi
    case $now in
      FAILED | SUSPENDING | SUSPENDED) return 1 ;;
      '') silent=$((silent + 1)) ;;
      *) silent=0 ;;
    esac
    [ "$silent" -lt 4 ] || return 1
    sleep "$poll"
  done
}

# Whether the TPU is gone. A preemption shows in the state only after it was felt, hence several looks.
lost() {
  local look now
  for look in 1 2 3 4; do
    [ "$look" -eq 1 ] || sleep "$poll"
    now=$(state)
    case $now in FAILED | SUSPENDING | SUSPENDED | DELETING) return 0 ;; esac
  done
  [ -z "$now" ]
}

prepare() {
  local node source
  if [ -n "$repo" ]; then
    source=$(quoted "$repo" "$commit")
  else
    run git -C "$root" bundle create --quiet "$bundle" HEAD || return 1
    for node in "${nodes[@]}"; do
      run gcloud compute tpus tpu-vm scp "$bundle" "$node:groundwork.bundle" "${where[@]}" --worker=all || return 1
    done
    # shellcheck disable=SC2016 # expanded by the worker
    source='"$HOME/groundwork.bundle" HEAD'
  fi
  # uv brings a Python of its own: some of these machines have one that is too old.
  on_workers "git init --quiet groundwork && cd groundwork && git fetch --quiet $source\
 && git checkout --quiet --force --detach FETCH_HEAD\
 && { command -v uv >/dev/null || [ -x ~/.local/bin/uv ] || curl -LsSf https://astral.sh/uv/install.sh | sh; }\
 && PATH=\$PATH:~/.local/bin GROUNDWORK_EXTRAS=tpu launch/local.sh true"
}

start() {
  started=1
  on_workers "cd groundwork && ${setup:+{ $setup; \} && }PATH=\$PATH:~/.local/bin GROUNDWORK_EXTRAS=tpu\
 launch/detached.sh start launch/local.sh $(quoted "$@") --distributed"
}

# Shows what the workers print until all have ended; again after a lost connection, while the TPU is there.
# Sets `code`: 75 where a worker gave it or the TPU is lost, else the first that is not 0.
follow() {
  local line drops ended answer
  for ((drops = 0; drops < 20; drops++)); do
    code='' answer=''
    while IFS= read -r line; do
      if [[ $line =~ ^followed\ ([0-9]+)$ ]]; then
        answer=${BASH_REMATCH[1]}
        continue
      fi
      printf '%s\n' "$line"
      if [[ $line =~ ^launch/detached\.sh:\ [^\ ]+\ ended\ with\ ([0-9]+)$ ]]; then
        ended=${BASH_REMATCH[1]}
        if [ "${code:-0}" -eq 0 ] || [ "$ended" -eq 75 ]; then
          code=$ended
        fi
      fi
    done < <(
      ended=0
      on_workers "cd groundwork && launch/detached.sh follow" 2>&1 || ended=$?
      echo "followed $ended"
    )
    if [ "$answer" = 0 ] || [ "${code:-0}" -ne 0 ]; then
      code=${code:-0}
      return
    fi
    if lost; then
      break
    fi
    say "the connection was lost; following again"
  done
  code=75
}

# Sets `code`.
run_once() {
  code=75
  obtain || return 0
  if ! prepare || ! start "$@"; then
    lost || code=1
    return 0
  fi
  follow
  if [ "$code" -ne 0 ] && [ "$code" -ne 2 ] && lost; then
    code=75
  fi
}

finish() {
  local code=$?
  trap '' INT TERM
  if [ -n "$ours" ] && [ -z "$keep" ]; then
    say "deleting $name"
    delete || say "$name may be left; delete it: $(quoted gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force)"
  fi
  rm -f "$bundle"
  exit "$code"
}

interrupted() {
  trap '' INT TERM
  if [ -n "$started" ]; then
    say "having the run saved"
    on_workers "cd groundwork && launch/detached.sh stop" || true
  fi
  exit 130
}

commit=$(git -C "$root" rev-parse HEAD) || fail "$root is no git checkout, and the commit at HEAD is what runs"

if [ -n "$dry_run" ]; then
  create 2>/dev/null
  run gcloud compute tpus queued-resources describe "$name" "${where[@]}" '--format=value(state.state)'
  prepare
  start "$@"
  on_workers "cd groundwork && launch/detached.sh follow"
  [ -n "$keep" ] || delete
  exit
fi

command -v gcloud >/dev/null || fail "gcloud is not here; install the Google Cloud CLI and log in"
[ -z "$(git -C "$root" status --porcelain --untracked-files=no)" ] ||
  fail "this checkout has changes that are not committed, and the commit at HEAD is what runs; commit or stash them"
trap finish EXIT
trap interrupted INT TERM
for ((attempt = 0; ; attempt++)); do
  run_once "$@"
  if [ "$code" -ne 75 ] || [ "$attempt" -ge "$retries" ]; then
    exit "$code"
  fi
  say "preempted; starting again ($((attempt + 1)) of $retries)"
  sleep "$poll"
done
