#!/usr/bin/env bash
# Compiles SqueezeNet into one static program and lets it name the photo dog.png.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
burin=${BURIN:-$(cd "$here/../.." && pwd)/build/burin}
out=${1:-$here/../../build/demo}
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$here"

echo "\$ burin squeezenet.onnx -o squeezenet"
"$burin" squeezenet.onnx -o "$out/squeezenet" 2>&1 | sed "s|$out/||g"
echo
echo "\$ readelf -d squeezenet"
readelf -d "$out/squeezenet" | grep .
echo
echo "\$ ./squeezenet --input data_0=@dog.png,mean=104:117:123,color=bgr --labels labels.txt"
"$out/squeezenet" --input data_0=@dog.png,mean=104:117:123,color=bgr --labels labels.txt
echo
echo "class, probability, name of the five most likely. The picture: examples/photo/dog.png"
