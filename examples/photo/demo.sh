#!/usr/bin/env bash
# Compiles SqueezeNet into one static program and lets it name the photo dog.png.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
burin=${BURIN:-$here/../../build/burin}
out=${1:-$here/../../build/demo}
mkdir -p "$out"
program=$(cd "$out" && pwd)/squeezenet

echo "\$ burin squeezenet.onnx -o squeezenet"
"$burin" "$here/squeezenet.onnx" -o "$program"
echo
echo "\$ ls -l squeezenet; file: $(stat -c %s "$program") bytes, needs no library:"
readelf -d "$program" | sed 's/^/  /' | head -n 3
echo
echo "\$ ./squeezenet --input data_0=@dog.png,mean=104:117:123,color=bgr --labels labels.txt"
"$program" --input "data_0=@$here/dog.png,mean=104:117:123,color=bgr" --labels "$here/labels.txt"
echo
echo "(class, probability, name; the picture is examples/photo/dog.png)"
