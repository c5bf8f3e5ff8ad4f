"""Models of one operator each that a runtime function does, larger than the node tests: what many threads of a device make of
them (runtime/ops/parts) is what this CPU's function makes, to the bit where nothing is said."""
import numpy as np
from onnx import TensorProto, helper
from onnx.helper import make_tensor_value_info as info

F, I, B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("ai.onnx.ml", 3)]


def model(op, feeds, outputs, values=(), domain="", **attributes):
    """feeds: name → array or None; values: those that are constants. outputs: (type, dims)."""
    names = list(feeds)
    while names and feeds[names[-1]] is None:
        names.pop()
    given = [n for n in names if feeds[n] is not None and n not in values]
    node = helper.make_node(op, [n if feeds[n] is not None else "" for n in names], [f"y{k}" for k in range(len(outputs))],
                            domain=domain, **attributes)
    inputs = [info(n, helper.np_dtype_to_tensor_dtype(feeds[n].dtype), feeds[n].shape) for n in given]
    consts = [helper.make_tensor(n, helper.np_dtype_to_tensor_dtype(feeds[n].dtype), feeds[n].shape, feeds[n].ravel()) for n in values]
    graph = helper.make_graph([node], "g", inputs, [info(f"y{k}", t, d) for k, (t, d) in enumerate(outputs)], consts)
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=9), {n: feeds[n] for n in given}


def top_k(shape, k, axis, largest, dtype=np.float32):
    """Many equal values, NaN and both zeros."""
    rng = np.random.default_rng(k + axis)
    x = rng.integers(-40, 40, shape).astype(dtype)
    if x.dtype.kind == "f":
        x.flat[rng.integers(0, x.size, 5)] = np.nan
        x.flat[rng.integers(0, x.size, 9)] = -0.0
    dims = list(shape)
    dims[axis] = k
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    return model("TopK", {"x": x, "k": np.array([k], np.int64)}, [(kind, dims), (I, dims)], ["k"], axis=axis, largest=largest)


def inverse(batch, n):
    x = np.random.default_rng(n).standard_normal((batch, n, n)).astype(np.float32)
    return model("Inverse", {"x": x}, [(F, x.shape)], domain="com.microsoft")


def nms(batches, classes, n, limit, least=None, centred=0):
    rng = np.random.default_rng(n)
    corner = rng.random((batches, n, 2), np.float32)
    boxes = np.concatenate([corner, corner + rng.random((batches, n, 2), np.float32) / 3], axis=2)
    scores = np.round(rng.random((batches, classes, n)), 2).astype(np.float32)
    feeds = {"boxes": boxes, "scores": scores, "limit": np.array([limit], np.int64), "iou": np.array([0.3], np.float32),
             "least": None if least is None else np.array([least], np.float32)}
    return model("NonMaxSuppression", feeds, [(I, ["found", 3])], center_point_box=centred)


def roi(mode, ratio, far=False):
    rng = np.random.default_rng(ratio)
    x, at = rng.random((2, 5, 20, 17), np.float32), rng.random((9, 2)) * 12
    rois = np.concatenate([at, at + 1 + rng.random((9, 2)) * 9], axis=1).astype(np.float32)
    batch = rng.integers(0, 2, 9)
    batch[4] = 2 if far else 1
    return model("RoiAlign", {"x": x, "rois": rois, "batch": batch}, [(F, [9, 5, 7, 6])], mode=mode, output_height=7, output_width=6,
                 sampling_ratio=ratio, spatial_scale=0.9)


def tree(targets, aggregate):
    """Trees of two levels over 7 features."""
    rng = np.random.default_rng(targets)
    trees, rows = 40, 500
    ids = np.repeat(np.arange(trees), 7)
    inner = np.tile([1, 1, 1, 0, 0, 0, 0], trees).astype(bool)
    leaves = np.repeat(np.arange(trees), 4)
    return model("TreeEnsembleRegressor", {"x": rng.normal(size=(rows, 7)).astype(np.float32)}, [(F, [rows, targets])], domain="ai.onnx.ml",
                 n_targets=targets, aggregate_function=aggregate, nodes_treeids=ids, nodes_nodeids=np.tile(np.arange(7), trees),
                 nodes_featureids=np.where(inner, rng.integers(0, 7, ids.size), 0), nodes_values=np.where(inner, rng.normal(size=ids.size), 0),
                 nodes_modes=[b"BRANCH_LEQ" if i else b"LEAF" for i in inner], nodes_hitrates=np.ones(ids.size),
                 nodes_truenodeids=np.where(inner, np.tile([1, 3, 5, 0, 0, 0, 0], trees), 0),
                 nodes_falsenodeids=np.where(inner, np.tile([2, 4, 6, 0, 0, 0, 0], trees), 0), target_treeids=leaves,
                 target_nodeids=np.tile([3, 4, 5, 6], trees), target_ids=rng.integers(0, targets, leaves.size),
                 target_weights=rng.normal(size=leaves.size))


def nonzero(shape):
    return model("NonZero", {"x": np.random.default_rng(1).integers(0, 3, shape).astype(np.float32)}, [(I, [len(shape), "found"])])


def compress(axis):
    x = np.arange(70 * 30 * 5, dtype=np.float32).reshape(70, 30, 5)
    dims = {"axis": axis} if axis is not None else {}
    wanted = np.random.default_rng(2).random(30 if axis == 1 else 70 if axis == 0 else 9000) < 0.4
    shape = ["found"] if axis is None else ["found", 30, 5] if axis == 0 else [70, "found", 5]
    return model("Compress", {"x": x, "wanted": wanted}, [(F, shape)], **dims)


def scatter(depth, reduction, far=False):
    """Many updates of the same elements."""
    rng = np.random.default_rng(depth)
    shape = (9, 8, 70)
    index = rng.integers(-8, 8, (400, depth))
    index[7, 0] = 9 if far else 0
    up = rng.normal(size=(400, *shape[depth:])).astype(np.float32)
    return model("ScatterND", {"x": rng.normal(size=shape).astype(np.float32), "i": index, "u": up}, [(F, shape)], reduction=reduction)


CASES = {
    "TopK of rows": (top_k((300, 90), 7, 1, 1), 0), "TopK of columns": (top_k((90, 300), 20, 0, 0), 0),
    "TopK of one row": (top_k((3000,), 3000, 0, 1), 0), "TopK of many rows": (top_k((33000, 24), 3, 1, 1), 0),
    "TopK of many columns": (top_k((4, 24, 9000), 5, 1, 0), 0), "TopK i64": (top_k((5, 4000), 50, 1, 1, np.int64), 0),
    "TopK f64": (top_k((50, 40), 9, 1, 0, np.float64), 0), "TopK u8": (top_k((50, 40), 9, 1, 1, np.uint8), 0),
    "NonMaxSuppression": (nms(1, 1, 700, 200), 0), "NonMaxSuppression of classes": (nms(2, 5, 150, 9, 0.2), 0),
    "NonMaxSuppression centred": (nms(2, 3, 90, 40, None, 1), 0), "NonMaxSuppression of none": (nms(1, 2, 50, 0), 0),
    "NonMaxSuppression above all": (nms(1, 2, 50, 9, 2), 0),
    "RoiAlign avg": (roi("avg", 2), 1e-6), "RoiAlign max": (roi("max", 0), 1e-6),
    "Inverse": (inverse(3, 40), 0), "Inverse of one": (inverse(1, 1), 0),
    "trees": (tree(1, "SUM"), 0), "trees of targets": (tree(6, "AVERAGE"), 0), "trees min": (tree(3, "MIN"), 0),
    "NonZero": (nonzero((70, 3, 55)), 0), "NonZero of few": (nonzero((5,)), 0),
    "Compress": (compress(None), 0), "Compress rows": (compress(0), 0), "Compress inside": (compress(1), 0),
    **{f"ScatterND {depth} {how}": (scatter(depth, how), 0) for depth in (1, 3) for how in ("none", "add", "max")},
}
REFUSED = {"RoiAlign of no batch": roi("avg", 2, True), "ScatterND outside": scatter(2, "none", True)}


def check(burin, target, name):
    """(result, detail) of a case."""
    if name in REFUSED:
        case, feeds = REFUSED[name]
        for where in ("native", target):
            try:
                burin.compile(case, target=where).run(feeds)
                return "failed", f"{where} takes it"
            except burin.RunError as e:
                if "impossible index" not in str(e) and "outside" not in str(e):
                    return "failed", f"{where}: {e}"
        return "passed", ""
    (case, feeds), tolerance = CASES[name]
    want = burin.compile(case).run(feeds)
    got = burin.compile(case, target=target).run(feeds)
    for w, g in zip(want, got):
        same = w.shape == g.shape and (np.allclose(g, w, tolerance, tolerance) if tolerance else np.array_equal(g, w, equal_nan=w.dtype.kind == "f"))
        if not same:
            return "failed", f"{g.shape} {g.ravel()[:8]}, not {w.shape} {w.ravel()[:8]}"
    return "passed", ""
