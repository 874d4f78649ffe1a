#!/usr/bin/env bash
# Runs a command on TPU slices of a GKE cluster, as a JobSet (the operator must be installed there) that restarts it:
#   launch/gke/launch.sh --name=NAME --image=IMAGE --type=TYPE --topology=TOPOLOGY [FLAGS] -- COMMAND …
#   launch/gke/launch.sh --name=mlm --image=IMAGE --type=tpu-v5-lite-podslice --topology=4x4 --bucket=BUCKET -- \
#       python -m research.pretrain --config=configs/pretrain/text_mlm.py --workdir=/bucket/mlm
#
#   --bucket=BUCKET      mounted as the folder /bucket, by the cluster's Cloud Storage FUSE driver
#   --slices=N           slices of that topology (1)
#   --chips-per-host=N   chips of a node: 4, and up to 8 on a v5e or v6e of one host
#   --retries=N          restarts of all slices (10)
#   --spot               on spot nodes
#   --dry-run            print the manifest and end
#
# launch/gke/Dockerfile makes the image; launch/gke/jobset.yaml is the manifest. --distributed comes after the command.
# Exit code 75, a lost node and a signal restart all slices; 1 and 2 do not.
set -euo pipefail

say() { echo "launch/gke/launch.sh: $*" >&2; }

fail() {
  say "$*"
  exit 2
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
name='' image='' type='' topology='' slices=1 per_host='' retries=10 spot='' bucket='' dry_run=''

number() { [[ ${1#*=} =~ ^[0-9]{1,6}$ ]] || fail "$1 is not a whole number"; }

while [ $# -gt 0 ]; do
  case $1 in
    --name=*) name=${1#*=} ;;
    --image=*) image=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --topology=*) topology=${1#*=} ;;
    --slices=*) number "$1" && slices=$((10#${1#*=})) ;;
    --chips-per-host=*) number "$1" && per_host=$((10#${1#*=})) ;;
    --retries=*) number "$1" && retries=$((10#${1#*=})) ;;
    --bucket=*) bucket=${1#*=} ;;
    --spot) spot=1 ;;
    --dry-run) dry_run=1 ;;
    --) shift && break ;;
    *) fail "unknown flag $1; the command comes after --: launch/gke/launch.sh --name=NAME … -- COMMAND …" ;;
  esac
  shift
done

[ -n "$name" ] || fail "--name is missing; it names the JobSet, for example --name=mlm"
[[ $name =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
  fail "--name=$name: use small letters, digits and dashes, a letter first, 40 at most"
[ -n "$image" ] || fail "--image is missing; launch/gke/Dockerfile says how to build one"
[[ $image =~ ^[A-Za-z0-9][-A-Za-z0-9._/:@]*$ ]] || fail "--image=$image is not the name of an image"
[ -n "$type" ] || fail "--type is missing; for example --type=tpu-v5-lite-podslice"
[[ $type =~ ^[a-z0-9-]+$ ]] || fail "--type=$type is not a TPU of GKE; for example --type=tpu-v5-lite-podslice"
[ -n "$topology" ] || fail "--topology is missing; for example --topology=4x4"
[[ $topology =~ ^[1-9][0-9]{0,3}(x[1-9][0-9]{0,3}){1,2}$ ]] || fail "--topology=$topology is not like 4x4 or 2x2x4"
[[ $bucket =~ ^([a-z0-9][-a-z0-9_.]{1,220}[a-z0-9])?$ ]] || fail "--bucket=$bucket is no bucket's name; leave gs:// out"
[ "$slices" -gt 0 ] || fail "--slices=0 is no TPU; use 1 or more"
[ $# -gt 0 ] || fail "which command? it comes after --: launch/gke/launch.sh --name=$name … -- python -m research.pretrain …"

chips=$((${topology//x/*}))
if [ -z "$per_host" ]; then
  case $type in
    tpu-v5-lite-* | tpu-v6e-*) per_host=$((chips > 8 ? 4 : chips)) ;;
    *) per_host=$((chips > 4 ? 4 : chips)) ;;
  esac
fi
{ [ "$per_host" -gt 0 ] && [ $((chips % per_host)) -eq 0 ]; } ||
  fail "--chips-per-host=$per_host does not divide the $chips chips of --topology=$topology; 4 does on most machines"

# A string of JSON, which YAML reads too. Kubernetes makes one $ of two, and would expand $(NAME).
json() {
  local text=$1
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  text=${text//$'\n'/\\n}
  text=${text//$'\t'/\\t}
  text=${text//$'\r'/\\r}
  text=${text//\$/\$\$}
  [[ ! $text =~ [[:cntrl:]] ]] || fail "the command holds a control character, which a manifest cannot carry; remove it"
  printf '"%s"' "$text"
}

command='['
for argument in "$@" --distributed; do
  command+="$(json "$argument"), " || exit
done
command=${command%, }]

volume() {
  printf '\n                - name: bucket\n                  csi:\n'
  printf '                    driver: gcsfuse.csi.storage.gke.io\n                    volumeAttributes:\n'
  printf '                      bucketName: %s\n                      mountOptions: implicit-dirs' "$bucket"
}

# In one pass from left to right, so that nothing within a filled value is taken for a place.
fill() {
  local rest=$1 filled='' place
  while [[ $rest =~ @([A-Z]+)@ ]]; do
    place=${BASH_REMATCH[1]}
    filled+=${rest%%"@$place@"*}
    rest=${rest#*"@$place@"}
    case $place in
      NAME) filled+=$name ;;
      IMAGE) filled+=$image ;;
      TYPE) filled+=$type ;;
      TOPOLOGY) filled+=$topology ;;
      SLICES) filled+="$slices" ;;
      HOSTS) filled+=$((chips / per_host)) ;;
      CHIPS) filled+="$per_host" ;;
      RETRIES) filled+="$retries" ;;
      SPOT) filled+=${spot:+$'\n                cloud.google.com/gke-spot: "true"'} ;;
      COMMAND) filled+=$command ;;
      MOUNTED) filled+=${bucket:+$'\n            metadata:\n              annotations:\n                gke-gcsfuse/volumes: "true"'} ;;
      MOUNT) filled+=${bucket:+$'\n                    - name: bucket\n                      mountPath: /bucket'} ;;
      VOLUME) [ -z "$bucket" ] || filled+=$(volume) ;;
    esac
  done
  echo "$filled$rest"
}

# Without the first line, which speaks of the template.
manifest=$(fill "$(tail -n +2 "$here/jobset.yaml")")
if [ -n "$dry_run" ]; then
  echo "$manifest"
  exit
fi
command -v kubectl >/dev/null || fail "kubectl is not here; install it and point it at the cluster"
kubectl apply -f - <<<"$manifest"
say "follow it: kubectl logs --follow --selector=jobset.sigs.k8s.io/jobset-name=$name --prefix"
say "end it: kubectl delete jobset $name"
