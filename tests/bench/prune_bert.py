"""How much of a BERT-like network is needed: heads and hidden units are pruned to a tenth of them. The task is made of the
handwritten digits under shared/models/data: a sequence of 28 rows, of which a digit is told. The network begins with
random weights, is trained by `burin train` and pruned by `burin prune`; accuracy is what ONNX Runtime finds on images that
neither has seen.

    prune_bert.py [--burin=PATH] [--folder=KEPT] [--epochs=20] [--recovery=4] [--rounds=4]"""
import argparse
import json
import os
import subprocess
import tempfile
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

HERE = os.path.dirname(os.path.abspath(__file__))
LAYERS, HEADS, SIZE, HIDDEN, ROWS, CLASSES = 2, 10, 8, 320, 28, 10
WIDTH = HEADS * SIZE


class Encoder:
    """Nodes and weights of an encoder as Devlin et al. (2018) have it: attention and two products, each with a norm behind."""

    def __init__(self, seed):
        self.rng, self.nodes, self.weights = np.random.default_rng(seed), [], []

    def weight(self, name, array):
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def op(self, kind, name, *inputs, **attributes):
        self.nodes.append(helper.make_node(kind, list(inputs), [name + ":0"], name=name, **attributes))
        return name + ":0"

    def dense(self, name, x, n, out):
        w = self.rng.standard_normal((n, out)).astype(np.float32) / np.float32(np.sqrt(n))
        y = self.op("MatMul", name, x, self.weight(name + ".weight", w))
        return self.op("Add", name + "/bias", y, self.weight(name + ".bias", np.zeros(out, np.float32)))

    def norm(self, name, x):
        return self.op("LayerNormalization", name, x, self.weight(name + ".scale", np.ones(WIDTH, np.float32)),
                       self.weight(name + ".bias", np.zeros(WIDTH, np.float32)), axis=-1)

    def heads(self, name, x, perm):
        y = self.op("Reshape", name + "/split", x, "split")
        return self.op("Transpose", name + "/heads", y, perm=perm)

    def attention(self, name, x):
        q, k, v = (self.heads(f"{name}/{part}", self.dense(f"{name}/{part}", x, WIDTH, WIDTH), perm)
                   for part, perm in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])))
        scores = self.op("Mul", name + "/scaled", self.op("MatMul", name + "/scores", q, k), "scale")
        y = self.op("MatMul", name + "/context", self.op("Softmax", name + "/softmax", scores, axis=-1), v)
        y = self.op("Reshape", name + "/join", self.op("Transpose", name + "/back", y, perm=[0, 2, 1, 3]), "join")
        return self.dense(name + "/output", y, WIDTH, WIDTH)

    def layer(self, name, x):
        x = self.norm(name + "/norm1", self.op("Add", name + "/add1", x, self.attention(name + "/attention", x)))
        y = self.op("Gelu", name + "/gelu", self.dense(name + "/intermediate", x, WIDTH, HIDDEN))
        y = self.dense(name + "/output", y, HIDDEN, WIDTH)
        return self.norm(name + "/norm2", self.op("Add", name + "/add2", x, y))

    def model(self):
        for name, value in (("rows", [0, ROWS, ROWS]), ("split", [0, ROWS, HEADS, SIZE]), ("join", [0, ROWS, -1]), ("mean", [1])):
            self.weight(name, np.array(value, np.int64))
        self.weight("scale", np.float32(1 / np.sqrt(SIZE)))
        places = self.weight("places", self.rng.standard_normal((ROWS, WIDTH)).astype(np.float32))
        x = self.dense("embedding", self.op("Reshape", "tokens", "x", "rows"), ROWS, WIDTH)
        x = self.norm("embedding/norm", self.op("Add", "embedding/places", x, places))
        for k in range(LAYERS):
            x = self.layer(f"layer{k}", x)
        x = self.op("ReduceMean", "pooler", x, "mean", keepdims=0)
        y = self.dense("classifier", x, WIDTH, CLASSES)
        graph = helper.make_graph(self.nodes, "encoder", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, ROWS, ROWS])],
                                  [helper.make_tensor_value_info(y, TensorProto.FLOAT, ["N", CLASSES])], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def samples(shared):
    """Images and labels in three parts: to train with, to choose by, and to measure."""
    digits = np.load(os.path.join(shared, "models", "data", "mnist.npz"))
    order = np.random.default_rng(1).permutation(len(digits["labels"]))
    x = (digits["images"][order, None] / np.float32(255)).astype(np.float32)
    return [(x[part], digits["labels"][order][part].astype(np.int64)) for part in (slice(1000, None), slice(0, 500), slice(500, 1000))]


def accuracy(path, x, y):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return 100 * float(np.mean(np.argmax(session.run(None, {"x": x})[0], axis=1) == y))


def run(*command):
    begin = time.time()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return time.time() - begin


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--burin", default=os.path.join(HERE, "..", "..", "build", "burin"))
    p.add_argument("--shared", default=os.environ.get("BURIN_SHARED", os.path.join(HERE, "..", "..", "..", "shared")))
    p.add_argument("--folder", help="where models and data stay")
    p.add_argument("--epochs", type=int, default=20)
    p.add_argument("--recovery", type=int, default=4)
    p.add_argument("--rounds", type=int, default=4)
    p.add_argument("--again", action="store_true", help="prune what --folder has")
    o = p.parse_args()
    folder = o.folder or tempfile.mkdtemp()
    os.makedirs(folder, exist_ok=True)
    path = {name: os.path.join(folder, name) for name in ("random.onnx", "original.onnx", "pruned.onnx", "train.npz", "choose.npz", "report.json")}
    train, choose, held = samples(o.shared)
    np.savez(path["train.npz"], x=train[0], y=train[1])
    np.savez(path["choose.npz"], x=choose[0], y=choose[1])
    data = (f"--data={path['train.npz']}", "--labels=y", f"--validation={path['choose.npz']}", "--augment=shift:2", "--threads=1")
    if not o.again:
        onnx.save(Encoder(0).model(), path["random.onnx"])
        took = run(o.burin, "train", path["random.onnx"], *data, f"--epochs={o.epochs}", "--metric=accuracy",
                   "--optimizer=adamw,lr=0.002,warmup=200,schedule=cosine", "-o", path["original.onnx"])
        print(f"trained: {took:.0f} s, accuracy {accuracy(path['original.onnx'], *held):.2f} %", flush=True)
    took = run(o.burin, "prune", path["original.onnx"], *data, "--only=*query,*intermediate", "--scope=layer", "--channels=0.1",
               f"--rounds={o.rounds}", f"--epochs={o.recovery}", "--repeat=1", "--optimizer=adamw,lr=0.002", f"--report={path['report.json']}", "-o", path["pruned.onnx"])
    with open(path["report.json"]) as f:
        report = json.load(f)
    for layer in report["layers"]:
        if layer["channels"]:
            print(f"  {layer['left']:4d} of {layer['channels']:4d}  {layer['name']}")
    first, last = report["original"], report["rounds"][-1]
    before, after = (accuracy(path[name], *held) for name in ("original.onnx", "pruned.onnx"))
    print(f"pruned: {took:.0f} s; {last['parameters'] / first['parameters']:.1%} of the parameters, {last['macs'] / first['macs']:.1%} of the "
          f"multiply-adds, kernels {first['us'] / last['us']:.1f} times as fast")
    print(f"accuracy on {len(held[1])} images that neither saw: {before:.2f} %, pruned {after:.2f} %: {after / before:.1%} of it")
    assert after >= 0.95 * before, "more than a twentieth of the accuracy is lost"


if __name__ == "__main__":
    main()
