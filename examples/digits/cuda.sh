#!/usr/bin/env bash
# Compiles the network of the digits into CUDA kernels, shows them, and lets them read a digit: on this CPU (cuda:host), and on
# the GPU where there is one. BURIN_NVRTC may name NVRTC; without it there is no machine code for GPUs, and the rest goes on.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
burin=${BURIN:-$(cd "$here/../.." && pwd)/build/burin}
out=${1:-$here/../../build/demo-cuda}
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$out"

sed -n 197,224p "$here/digits.txt" | python3 -c '
import array, sys
rows = [line[:28] for line in sys.stdin]
array.array("f", [" .:-=+*#%@".index(c) * 255 / 9 for r in rows for c in r]).tofile(open("seven.raw", "wb"))'

echo "\$ burin mnist.onnx --target=cuda:sm_90 --emit=cuda -o mnist.cu"
"$burin" "$here/mnist.onnx" --target=cuda:sm_90 --emit=cuda -o mnist.cu -q
echo "its kernels:"
sed -n 's/^extern "C" __global__ void __launch_bounds__(\([0-9]*\)) \([a-z0-9_]*\)(.*/  \2, blocks of \1 threads/p' mnist.cu
echo "one of them:"
sed -n '/^extern "C" __global__ .*maxpool(/,/^}/p' mnist.cu | sed 's/^/  /;/^  }$/q'
echo

# The GPU of this machine where there is one.
target=cuda:native
"$burin" "$here/mnist.onnx" --target=$target --emit=cuda -o native.cu -q 2>/dev/null || target=cuda:sm_90
echo "\$ burin mnist.onnx --target=$target -o mnist"
rm -f mnist
"$burin" "$here/mnist.onnx" --target=$target -o mnist 2>log || [ $? = 4 ] || { cat log >&2; exit 1; }
sed "s|$here/||g" log
echo

sed -n 197,224p "$here/digits.txt" | grep '[^ |]' | cut -c1-28
echo "\$ burin mnist.onnx --target=cuda:host -o mnist_host; ./mnist_host --input Input3=@seven.raw     # the same text, on this CPU"
"$burin" "$here/mnist.onnx" --target=cuda:host -o mnist_host -q
./mnist_host --input Input3=@seven.raw
if [ $target = cuda:native ] && [ -x mnist ]; then
  echo "\$ ./mnist --input Input3=@seven.raw     # on the GPU"
  ./mnist --input Input3=@seven.raw
else
  echo "and no GPU, driver, or NVRTC here to run mnist with"
fi
