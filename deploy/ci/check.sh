#!/bin/sh
# Judges what a pull request would deploy, before anybody applies it: no cluster is needed.
#
#   helm template my-release ./chart | deploy/ci/check.sh --gpus 8xH100-80GB-HBM3,8xH100-80GB-HBM3 > report.md
#   deploy/ci/check.sh --cluster cluster.yaml manifests/ > report.md
#
# Reads manifests from standard input, or from the files and folders that are named. --gpus says what the cluster has, one item a
# node; --cluster is a file as `kubectl get nodes,pods -A -o yaml` prints. Writes Markdown for the pull request to standard output.
#
# Exit code: 1 where something would be refused, 2 where something is not decided and FAIL_ON=undecided, 0 otherwise; those of
# `shardgate verify` for what cannot be read (64 to 70).
set -u
here=$(dirname "$0")
inventory=
while [ $# -gt 0 ]; do
  case $1 in
    --gpus | --cluster)
      [ $# -ge 2 ] || { echo "check.sh: $1 needs a value" >&2; exit 64; }
      inventory="$1=$2"
      shift 2
      ;;
    -*)
      echo "check.sh: $1 is not known: --gpus ITEMS or --cluster FILE, then files" >&2
      exit 64
      ;;
    *) break ;;
  esac
done
[ -n "$inventory" ] || { echo "check.sh: say what the cluster has: --gpus 8xH100-80GB-HBM3, or --cluster FILE" >&2; exit 64; }
reports=$(mktemp) || exit 70
trap 'rm -f "$reports"' EXIT
[ $# -gt 0 ] || set -- -
for file in "$@"; do
  shift
  set -- "$@" -f "$file"
done
shardgate verify "$@" "$inventory" -o jsonl > "$reports"
code=$?
"${PYTHON:-python3}" "$here/markdown.py" < "$reports" || exit 70
[ "$code" -eq 2 ] && [ "${FAIL_ON:-refused}" != undecided ] && exit 0
exit "$code"
