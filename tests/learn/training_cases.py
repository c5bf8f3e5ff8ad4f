"""Cases of part training: small models, data and flags. make_training.py computes with PyTorch what run_training.py compares."""
import numpy as np
from onnx import TensorProto as T, helper, numpy_helper

TYPES = {np.float32: T.FLOAT, np.float64: T.DOUBLE}
CLASSES = 4


def rng(name):
    return np.random.default_rng([ord(c) for c in name])


def model(nodes, inputs, output, weights, dtype=np.float64, opset=17):
    """inputs: {name: shape}; weights: {name: array}, floats of any type."""
    kinds = {k: T.INT64 if k == "tokens" else TYPES[dtype] for k in inputs}
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(k, kinds[k], s) for k, s in inputs.items()],
        [helper.make_tensor_value_info(o, TYPES[dtype], None) for o in output.split()],
        [numpy_helper.from_array(w if w.dtype.kind == "i" else w.astype(dtype), k) for k, w in weights.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


# ---- losses: the last layer alone; weights after one step of sgd with lr=1 are w - gradient ----
def softmax_losses():
    """name, spec, axis of classes, what stands at the end."""
    yield "plain", "", 1, None
    yield "end", "", 1, "Softmax"
    yield "logs", "", 1, "LogSoftmax"
    yield "sum", "reduction=sum", 1, None
    yield "smooth", "label_smoothing=0.2", 1, None
    yield "weights", "weights=0.5:2:1:0.25", 1, None
    yield "ignore", "ignore_index=2", 1, None
    yield "all", "label_smoothing=0.1,weights=0.5:2:1:0.25,ignore_index=1", 1, None
    yield "image", "label_smoothing=0.1,weights=0.5:2:1:0.25", 1, "image"
    yield "tokens", "axis=-1,ignore_index=0", -1, "tokens"
    yield "distill", "distill=0.7,temperature=3", 1, None
    yield "distill_end", "distill=0.7,temperature=2", 1, "Softmax"


def value_losses():
    """name, loss, keys, at the end."""
    yield "bce", "sigmoid_cross_entropy", "", None
    yield "bce_end", "sigmoid_cross_entropy", "", "Sigmoid"
    yield "bce_weight", "sigmoid_cross_entropy", "pos_weight=3", None
    yield "bce_distill", "sigmoid_cross_entropy", "distill=0.5,temperature=2", None
    yield "mse", "mse", "", None
    yield "mse_sum", "mse", "reduction=sum", None
    yield "mse_distill", "mse", "distill=0.25", None
    yield "l1", "l1", "", None
    yield "huber", "huber", "delta=0.5", None
    yield "kl", "kl", "", None
    yield "kl_end", "kl", "", "Softmax"
    yield "dice", "dice", "", None
    yield "dice_end", "dice", "smooth=1", "Sigmoid"


def loss_data(name, end):
    """Input, weight, labels as classes and as values, teacher as logits."""
    r = rng(name)
    shape = {"image": (3, 2, 5, 4), "tokens": (3, 5, 6)}.get(end, (7, 6))
    axis = 1 if end == "image" else len(shape) - 1
    out = tuple(CLASSES if d == axis else n for d, n in enumerate(shape))
    w = r.standard_normal((CLASSES, 2, 1, 1) if end == "image" else (6, CLASSES))
    labels = r.integers(0, CLASSES, tuple(n for d, n in enumerate(out) if d != axis))
    return r.standard_normal(shape), w, labels, r.random(out), r.standard_normal(out)


def loss_model(name, end):
    x, w, *_ = loss_data(name, end)
    last = "h" if end in ("Softmax", "LogSoftmax", "Sigmoid") else "y"
    nodes = [helper.make_node("Conv" if end == "image" else "MatMul", ["x", "w"], [last], name="layer")]
    if last == "h":
        nodes.append(helper.make_node(end, ["h"], ["y"], **({"axis": 1} if end != "Sigmoid" else {})))
    return model(nodes, {"x": ("N",) + x.shape[1:]}, "y", {"w": w})


# ---- optimizers: two layers, new data each step ----
STEPS = 6
OPTIMIZERS = {
    "sgd": "sgd,lr=0.1",
    "sgd_decay": "sgd,lr=0.1,weight_decay=0.05",
    "momentum": "sgd,lr=0.1,momentum=0.9,weight_decay=0.05",
    "dampening": "sgd,lr=0.1,momentum=0.9,dampening=0.3",
    "nesterov": "sgd,lr=0.1,momentum=0.9,nesterov=true,weight_decay=0.05",
    "adam": "adam,lr=0.02",
    "adam_decay": "adam,lr=0.02,beta1=0.8,beta2=0.99,eps=1e-6,weight_decay=0.05",
    "adamw": "adamw,lr=0.02",
    "adamw_decay": "adamw,lr=0.02,weight_decay=0.2",
    "lion": "lion,lr=0.02,weight_decay=0.1",
    "clip": "sgd,lr=0.5,clip=0.3",
    "clip_adamw": "adamw,lr=0.02,clip=0.1",
    "cosine": "sgd,lr=0.3,schedule=cosine,steps=7,warmup=2,min_lr=0.02",
    "step": "adam,lr=0.05,schedule=step,every=2,gamma=0.5",
    "warmup": "sgd,lr=0.3,warmup=4",
    "gather": "adamw,lr=0.02,clip=0.2,weight_decay=0.1",  # with --accumulate=3
}
GATHER = 3


def mlp_data():
    r = rng("mlp")
    w = {"w1": r.standard_normal((6, 8)) / 2, "b1": r.standard_normal(8) / 4, "w2": r.standard_normal((8, CLASSES)) / 2,
         "b2": r.standard_normal(CLASSES) / 4}
    return w, r.standard_normal((STEPS, 5, 6)), r.integers(0, CLASSES, (STEPS, 5))


def mlp_model(dtype):
    w, *_ = mlp_data()
    nodes = [helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="one"), helper.make_node("Tanh", ["h"], ["a"]),
             helper.make_node("Gemm", ["a", "w2", "b2"], ["y"], name="two")]
    return model(nodes, {"x": ("N", 6)}, "y", w, dtype)


# ---- what else there is: normalization, tied weights, views ----
def net_data():
    r = rng("net")
    w = {"k1": r.standard_normal((5, 2, 3, 3)) / 3, "scale": 1 + r.random(5), "bias": r.standard_normal(5),
         "mean": np.zeros(5), "var": np.ones(5), "k2": r.standard_normal((3, 5, 3, 3)) / 4,
         "tied": r.standard_normal((3, 3)) / 2}
    return w, r.standard_normal((STEPS, 4, 2, 6, 5)), r.integers(0, 3, (STEPS, 4))


def net_model():
    """Conv, BatchNormalization, Relu, Conv, mean, then twice the same matrix: once as it is, once turned round."""
    node = helper.make_node
    nodes = [node("Conv", ["x", "k1"], ["c"], name="first", pads=[1, 1, 1, 1]),
             node("BatchNormalization", ["c", "scale", "bias", "mean", "var"], ["n"], name="norm"), node("Relu", ["n"], ["r"]),
             node("Conv", ["r", "k2"], ["d"], name="second", strides=[2, 2]), node("GlobalAveragePool", ["d"], ["p"]),
             node("Flatten", ["p"], ["f"]), node("MatMul", ["f", "tied"], ["t"], name="head"), node("Sigmoid", ["t"], ["s"]),
             node("Transpose", ["tied"], ["turned"], perm=[1, 0]), node("MatMul", ["s", "turned"], ["y"], name="last")]
    return model(nodes, {"x": ("N", 2, 6, 5)}, "y", net_data()[0])


NETS = {"all": None, "last": "k2,tied", "but_norm": "-scale,-bias"}
NET_OPTIMIZER = "sgd,lr=0.2,momentum=0.5"
