#!/usr/bin/env bash
# On a machine with a GPU: runs what device_kit.py made, checks first, then times. Needs nothing but that folder; with
# --sanitize compute-sanitizer looks at up to five programs. What PyTorch takes: device_torch.py.
#   device.sh KIT [--rtol R] [--sanitize]
kit=$1 rtol=2e-3 sanitize=no
shift
while [ $# -gt 0 ]; do
  case $1 in
    --rtol) rtol=$2; shift 2 ;;
    --sanitize) sanitize=yes; shift ;;
    *) echo "device.sh: $1?" >&2; exit 2 ;;
  esac
done
nvidia-smi --query-gpu=name,driver_version,clocks.sm --format=csv,noheader 2>/dev/null || echo "no nvidia-smi"
passed=0 failed=0
for folder in "$kit"/*/; do
  name=$(basename "$folder")
  mapfile -t arguments < <(grep '^--' "$folder/arguments")
  [ ${#arguments[@]} -gt 0 ] || continue
  if out=$(cd "$folder" && timeout 60 ./program "${arguments[@]}" --rtol "$rtol" --atol 1e-3 --quiet 2>&1); then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    printf 'FAILED %s: %s\n' "$name" "$(head -c 400 <<<"$out")"
  fi
done
echo "checks: $passed passed, $failed failed"
if [ "$sanitize" = yes ] && command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    for folder in $(ls -d "$kit"/*/ | head -n 60 | awk 'NR%10==1' | head -n 5); do
      mapfile -t arguments < <(grep '^--input' "$folder/arguments")
      [ ${#arguments[@]} -gt 0 ] || continue
      printf '%s %s: %s\n' "$tool" "$(basename "$folder")" \
        "$(cd "$folder" && timeout 100 compute-sanitizer --tool "$tool" ./program "${arguments[@]}" --quiet 2>&1 | tail -n 1)"
    done
  done
fi
for folder in "$kit"/*/; do
  (cd "$folder" && printf '%-28s %s\n' "$(basename "$folder")" "$(timeout 60 ./program --bench=200 --quiet 2>&1 | tail -n 2 | tr '\n' ' ')")
done
