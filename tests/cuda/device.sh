#!/usr/bin/env bash
# On a machine with a GPU: runs the programs of a kit (device_kit.py), checks first, then five of them in compute-sanitizer, then times,
# beside PyTorch's where there is one (device_torch.py). Needs nothing but the kit.
#   device.sh KIT.tar.xz [--no-sanitizer] [--no-torch] [--no-compile]
set -o pipefail
kit=$1 sanitizer=yes torch=yes here=$(cd "$(dirname "$0")" && pwd) compile=()
shift
for word in "$@"; do
  case $word in
    --no-sanitizer) sanitizer=no ;;
    --no-torch) torch=no ;;
    --no-compile) compile=(--no-compile) ;;
    *) echo "device.sh: $word?" >&2; exit 2 ;;
  esac
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
xz -dc "$kit" | tar -C "$work" -xf - || exit 2
nvidia-smi --query-gpu=name,driver_version,clocks.sm --format=csv,noheader 2>/dev/null || echo "no nvidia-smi"

# words FILE: its lines, into `arguments`
words() { mapfile -t arguments <"$1"; }

passed=0 failed=0
for folder in "$work"/*/; do
  words "$folder/arguments"
  if out=$(cd "$folder" && timeout 60 ./program "${arguments[@]}" --quiet 2>&1); then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    printf 'FAILED %s: %s\n' "$(basename "$folder")" "$(head -c 400 <<<"$out" | tr '\n' ' ')"
  fi
done
echo "checks: $passed passed, $failed failed"

if [ $sanitizer = yes ] && command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    for mark in "$work"/*/sanitized; do
      folder=$(dirname "$mark")
      words "$folder/inputs"
      said=$(cd "$folder" && timeout 100 compute-sanitizer --error-exitcode 9 --tool $tool ./program "${arguments[@]}" --quiet 2>&1)
      status=$?
      printf '%s %s: %s\n' $tool "$(basename "$folder")" "$(tail -n 1 <<<"$said")"
      [ $status = 0 ] || failed=$((failed + 1))
    done
  done
elif [ $sanitizer = yes ]; then
  echo "no compute-sanitizer"
fi

# Least times in ms: with copies from and to the host, and of tensors that stay on the GPU.
least() { sed -n "s/^bench$1:.*: min \([0-9.e-]*\) ms.*/\1/p" <<<"$said"; }
[ $torch = yes ] && python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null || torch=no
printf '%-20s %10s %10s %10s %10s %12s\n' network 'burin ms' 'on the GPU' eager graph max-autotune
for mark in "$work"/*/timed; do
  [ -e "$mark" ] || break
  folder=$(dirname "$mark") name=$(basename "$(dirname "$mark")")
  words "$folder/inputs"
  said=$(cd "$folder" && timeout 60 ./program "${arguments[@]}" --bench=200 --quiet 2>&1)
  times=(- - -)
  if [ $torch = yes ]; then read -ra times < <(timeout 240 python3 "$here/device_torch.py" "${compile[@]}" "$name" 2>/dev/null); fi
  with=$(least '') on=$(least ', tensors on the GPU')
  [ -n "$with" ] || failed=$((failed + 1))
  printf '%-20s %10s %10s %10s %10s %12s\n' "$name" "${with:--}" "${on:--}" "${times[0]:--}" "${times[1]:--}" "${times[2]:--}"
done
[ $failed = 0 ]
