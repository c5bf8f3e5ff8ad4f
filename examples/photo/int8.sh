#!/usr/bin/env bash
# Quantizes SqueezeNet with a dozen pictures made of dog.png, and shows size, speed and answers of both side by side.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
burin=${BURIN:-$(cd "$here/../.." && pwd)/build/burin}
out=${1:-$here/../../build/demo}
python=${PYTHON:-python3}
mkdir -p "$out/pictures"
out=$(cd "$out" && pwd)
cd "$here"
options=mean=104:117:123,color=bgr

"$python" variants.py dog.png "$out/pictures"
echo "\$ burin squeezenet.onnx -o squeezenet"
"$burin" squeezenet.onnx -o "$out/squeezenet" -q
echo "\$ burin squeezenet.onnx --quantize=int8 --calibrate=pictures,$options -o squeezenet_int8"
"$burin" squeezenet.onnx --quantize=int8 --calibrate="$out/pictures,$options" -o "$out/squeezenet_int8" 2>&1 |
  grep -E "^  (calibration|biases|layers|result)"

# answer PROGRAM PICTURE: probability and name of the most likely class
answer() {
  "$1" --input "data_0=@$2,$options" --labels labels.txt | awk '$1 ~ /^[0-9]+$/ { $1 = ""; print substr($0, 2, 34); exit }'
}

milliseconds() { "$1" --bench --threads 1 | sed -n 's/.*min \([0-9.]*\) ms.*/\1/p'; }

row() { printf "%-16s  %-36s  %s\n" "$@"; }

echo
row "" float32 int8
row "program, bytes" "$(stat -c %s "$out/squeezenet")" "$(stat -c %s "$out/squeezenet_int8")"
row "one thread, ms" "$(milliseconds "$out/squeezenet")" "$(milliseconds "$out/squeezenet_int8")"
row dog.png "$(answer "$out/squeezenet" dog.png)" "$(answer "$out/squeezenet_int8" dog.png)"
for p in 02 05 08 11; do
  row "pictures/$p.png" "$(answer "$out/squeezenet" "$out/pictures/$p.png")" "$(answer "$out/squeezenet_int8" "$out/pictures/$p.png")"
done
echo
echo "The dozen pictures are parts of examples/photo/dog.png, mirrored, brighter and darker: enough to show the way, too few to judge accuracy by."
