"""Small networks with random weights and sizes, each with another way for channels to be tied to each other."""
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from net_maker import Net, pick


# ---- the networks: a function of Net and its random numbers ----
def chain(t, rng):
    x = t.input(2, 3, 9, 8)
    for out in rng.integers(2, 7, 3) * 4:
        x = t.block(x, int(out), pick(rng, "Relu", "Sigmoid", "HardSwish"), kernel=int(pick(rng, 1, 3)))
    return t.classify(x)


def residual(t, rng):
    x = t.block(t.input(None, 3, 8, 8), 16)
    for _ in range(3):
        y = t.norm(t.conv(t.block(x, int(rng.integers(2, 6)) * 4), 16))
        x = t.op("Relu", t.op("Add", x, y))
    return t.classify(x)


def downsample(t, rng):
    x = t.block(t.input(1, 3, 12, 12), 8)
    y = t.norm(t.conv(t.block(x, 12, stride=2), 20))
    x = t.op("Relu", t.op("Add", t.norm(t.conv(x, 20, kernel=1, stride=2)), y))
    return t.classify(t.block(x, 16))


def concat(t, rng):
    x = t.block(t.input(2, 3, 7, 7), 12)
    for _ in range(3):
        y = t.block(x, 8)
        n, c, *size = t.shape[x]
        x = t.op("Concat", *((x, y) if rng.integers(2) else (y, x)), axis=1, shape=[n, c + 8, *size])
    return t.classify(t.block(x, 10))


def depthwise(t, rng):
    x = t.block(t.input(1, 3, 10, 10), 8)
    for out in (12, 16):
        wide = t.block(x, 4 * out, "Clip" if rng.integers(2) else "Relu", kernel=1)
        x = t.norm(t.conv(t.block(wide, 4 * out, group=4 * out), out, kernel=1))
    return t.classify(x)


def multiplier(t, rng):
    x = t.block(t.input(1, 3, 8, 8), 6)
    return t.classify(t.block(t.block(x, 18, group=6), 8))


def grouped(t, rng):
    x = t.block(t.input(1, 4, 8, 8), 24, group=2)
    x = t.block(t.block(x, 32, group=8), 12, kernel=1)
    return t.classify(x)


def equal_parts(t, rng):
    """Few groups of many channels: as many of each go. The first reads what must stay, one has several results of a channel."""
    x = t.block(t.input(1, 4, 8, 8), 24, group=2)
    x = t.block(t.block(x, 32, group=2), 24, group=4, kernel=1)
    y = t.op("ConvTranspose", x, t.weight(24, 8, 2, 2), t.vector(16), strides=[2, 2], group=2, shape=[1, 16, 16, 16])
    return t.conv(t.op("Relu", y), 3)


def multiplied(t, rng):
    """Depthwise of the input itself: results of each channel go, channels do not."""
    return t.classify(t.block(t.block(t.input(1, 3, 8, 8), 24, group=3), 8))


def squeeze(t, rng):
    x = t.block(t.input(2, 3, 8, 8), 16)
    s = t.op(pick(rng, "HardSigmoid", "Sigmoid"), t.conv(t.op("Relu", t.conv(t.pool(x), 8, kernel=1)), 16, kernel=1))
    return t.classify(t.block(t.op("Mul", x, s), 12))


def flatten(t, rng):
    x = t.block(t.input(None, 2, 6, 6), 8, stride=2)
    n, c, h, w = t.shape[x]
    if rng.integers(2):
        x = t.op("Flatten", x, shape=[n, c * h * w])
    else:
        x = t.reshape(x, 0, -1, shape=[n, c * h * w])
    return t.gemm(t.op("Relu", t.gemm(x, 20)), 5)


def channels_last(t, rng):
    x = t.transpose(t.block(t.input(1, 3, 6, 5), 8), 0, 2, 3, 1)
    x = t.op("Tanh", t.dense(x, 12))
    n, h, w, c = t.shape[x]
    return t.gemm(t.reshape(x, n, h * w * c, shape=[n, h * w * c]), 4)


def attention(t, rng, fused=False):
    heads, size, width, steps = 4, int(pick(rng, 4, 8)), 16, 5
    x = t.input(None, steps, width)
    n = t.shape[x][0]
    split = [n, steps, heads, size]

    def head(v):
        return t.transpose(t.reshape(v, 0, 0, heads, size, shape=split), 0, 2, 1, 3)

    for _ in range(2):
        y = t.op("LayerNormalization", x, t.vector(width), t.vector(width))
        if fused:
            v = t.reshape(t.dense(y, 3 * heads * size), 0, steps, 3, heads, size, shape=[n, steps, 3, heads, size])
            v = t.transpose(v, 2, 0, 3, 1, 4)
            q, k, v = (t.op("Gather", v, t.const(np.int64(i)), axis=0, shape=[n, heads, steps, size]) for i in range(3))
        else:
            q, k, v = (head(t.dense(y, heads * size)) for _ in range(3))
        scores = t.op("MatMul", q, t.transpose(k, 0, 1, 3, 2), shape=[n, heads, steps, steps])
        scores = t.op("Softmax", t.op("Mul", scores, t.const(np.float32(0.3))), axis=-1)
        y = t.transpose(t.op("MatMul", scores, v, shape=[n, heads, steps, size]), 0, 2, 1, 3)
        y = t.dense(t.reshape(y, 0, 0, heads * size, shape=[n, steps, heads * size]), width)
        x = t.op("Add", x, y)
        y = t.op("LayerNormalization", x, t.vector(width), t.vector(width))
        x = t.op("Add", x, t.dense(t.op("Gelu", t.dense(y, 24)), width))
    return x


def fused_attention(t, rng):
    return attention(t, rng, fused=True)


def batched_heads(t, rng, batch=None):
    """As torch.nn.MultiheadAttention has it: steps first, and heads beside the batch in one dimension."""
    heads, size, width = 4, int(pick(rng, 4, 8)), 16
    x = t.input("S", batch, width)
    n = batch and batch * heads
    rows = t.op("Mul", t.op("Slice", t.op("Shape", x, shape=[3]), t.ints(1), t.ints(2), shape=[1]), t.ints(heads), shape=[1])
    target = t.op("Concat", t.ints(0), t.ints(n) if batch else rows, t.ints(size), axis=0, shape=[3])

    def head(v):
        return t.transpose(t.op("Reshape", v, target, shape=[None, n, size]), 1, 0, 2)

    q, k, v = (head(t.dense(x, heads * size)) for _ in range(3))
    scores = t.op("Softmax", t.op("MatMul", q, t.transpose(k, 0, 2, 1), shape=[n, None, None]), axis=-1)
    y = t.transpose(t.op("MatMul", scores, v, shape=[n, None, size]), 1, 0, 2)
    ends = t.op("Concat", t.op("Slice", t.op("Shape", x, shape=[3]), t.ints(0), t.ints(2), shape=[2]), t.ints(heads * size), axis=0, shape=[3])
    return t.dense(t.op("Reshape", y, ends, shape=[None, batch, heads * size]), 5)


def batched_heads_of_two(t, rng):
    return batched_heads(t, rng, 2)


def repeated_heads(t, rng):
    """Keys are copied for the queries that share them, to sizes that the run computes."""
    heads, few, size = 8, 4, 4
    x = t.input(None, "S", 16)
    shape = t.op("Shape", x, shape=[3])
    n, steps = (t.op("Slice", shape, t.ints(k), t.ints(k + 1), shape=[1]) for k in (0, 1))

    def head(count):
        return t.transpose(t.reshape(t.dense(x, count * size), 0, 0, count, size, shape=[None, None, count, size]), 0, 2, 1, 3)

    def copied(v):
        v = t.op("Unsqueeze", v, t.ints(2), shape=[None, few, 1, None, size])
        sizes = t.op("Concat", n, t.ints(few), t.ints(heads // few), steps, t.ints(size), axis=0, shape=[5])
        v = t.op("Expand", v, sizes, shape=[None, few, heads // few, None, size])
        return t.reshape(v, 0, heads, -1, size, shape=[None, heads, None, size])

    q, k, v = head(heads), copied(head(few)), copied(head(few))
    scores = t.op("Softmax", t.op("MatMul", q, t.transpose(k, 0, 1, 3, 2), shape=[None, heads, None, None]), axis=-1)
    y = t.transpose(t.op("MatMul", scores, v, shape=[None, heads, None, size]), 0, 2, 1, 3)
    return t.dense(t.reshape(y, 0, 0, heads * size, shape=[None, None, heads * size]), 5)


def open_steps(t, rng):
    """Two sizes that only the run knows are computed for a Reshape, and a matrix goes through products of them."""
    x = t.input(None, "S", 12)
    shape = t.op("Shape", x, shape=[3])
    rows = t.op("Reshape", x, t.ints(-1, 12), shape=[None, 12])
    rows = t.op("Relu", t.gemm(rows, 16))
    target = t.op("Concat", t.op("Slice", shape, t.ints(0), t.ints(2), t.ints(0)), t.ints(4), t.ints(4), axis=0)
    y = t.op("Reshape", rows, target, shape=[None, None, 4, 4])
    y = t.op("Reshape", t.op("Tanh", y), t.ints(0, 0, 16), shape=[None, None, 16])
    return t.dense(y, 5)


def split(t, rng):
    x = t.block(t.input(1, 3, 7, 7), 16)
    n, _, h, w = t.shape[x]
    if rng.integers(2):
        a, b = t.op("Split", x, t.ints(6, 10), axis=1, outputs=2, shape=[n, 6, h, w])
    else:
        a, b = (t.op("Slice", x, t.ints(f), t.ints(e), t.ints(1), shape=[n, e - f, h, w]) for f, e in ((0, 6), (6, 2**62)))
    t.shape[b] = [n, 10, h, w]
    return t.classify(t.op("Concat", t.block(b, 8), a, axis=1, shape=[n, 14, h, w]))


def gated(t, rng):
    x = t.dense(t.input(3, 6, 10), 32)
    a, b = t.op("Split", x, axis=2, num_outputs=2, outputs=2, shape=[3, 6, 16])
    return t.dense(t.op("Mul", a, t.op("Sigmoid", b)), 7)


def padded(t, rng):
    x = t.block(t.input(1, 3, 6, 6), 8)
    y = t.norm(t.conv(t.block(x, 12), 16))
    p = t.op("Pad", x, t.ints(0, 4, 0, 0, 0, 4, 0, 0), shape=[1, 16, 6, 6])
    return t.classify(t.op("Relu", t.op("Add", p, y)))


def slopes(t, rng):
    x = t.conv(t.input(2, 3, 8, 8), 12)
    x = t.op("PRelu", x, t.vector(12, 1, 1))
    x = t.op("PRelu", t.conv(x, 8), t.vector(1))
    x = t.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], shape=[2, 8, 4, 4])
    return t.classify(t.op("Mul", x, t.vector(1, 8, 1, 1)))


def norms(t, rng):
    x = t.conv(t.input(1, 3, 8, 8), 16)
    x = t.op("GroupNormalization", x, t.vector(16), t.vector(16), num_groups=int(pick(rng, 4, 8)))
    x = t.conv(t.op("Relu", x), 12)
    return t.classify(t.op("Relu", t.op("InstanceNormalization", x, t.vector(12), t.vector(12))))


def upscaled(t, rng):
    x = t.block(t.input(1, 3, 5, 5), 16)
    if rng.integers(2):
        x = t.op("Resize", x, "", t.const(np.array([1, 1, 2, 2], np.float32)), mode="nearest", shape=[1, 16, 10, 10])
    else:
        x = t.op("Resize", x, "", "", t.ints(1, 16, 9, 10), mode="linear", shape=[1, 16, 9, 10])
    x = t.op("DepthToSpace", t.conv(x, 24), blocksize=2, mode=pick(rng, "CRD", "DCR"),
             shape=[1, 6, 2 * t.shape[x][2], 2 * t.shape[x][3]])
    return t.conv(t.op("Relu", x), 3)


def transposed(t, rng):
    x = t.block(t.input(1, 3, 5, 5), 8)
    group = int(pick(rng, 1, 4, 8))
    y = t.op("ConvTranspose", x, t.weight(8, 16 // group, 2, 2), t.vector(16), strides=[2, 2], group=group, shape=[1, 16, 10, 10])
    return t.conv(t.op("Relu", y), 2)


def permuted(t, rng):
    x = t.block(t.input(1, 3, 6, 6), 12)
    x = t.op("Gather", x, t.ints(*[int(i) for i in rng.permutation(12)]), axis=1)
    return t.classify(t.block(x, 8))


def shuffled(t, rng):
    x = t.block(t.input(1, 3, 6, 6), 16)
    x = t.reshape(x, 1, 2, 8, 6, 6, shape=[1, 2, 8, 6, 6])
    x = t.reshape(t.transpose(x, 0, 2, 1, 3, 4), 1, 16, 6, 6, shape=[1, 16, 6, 6])
    return t.classify(t.block(x, 8))


def shuffled_groups(t, rng):
    """Between two convolutions with groups, as ShuffleNet has it."""
    x = t.conv(t.block(t.input(1, 3, 6, 6), 16), 24, kernel=1, group=2)
    x = t.reshape(x, 1, 2, 12, 6, 6, shape=[1, 2, 12, 6, 6])
    x = t.reshape(t.transpose(x, 0, 2, 1, 3, 4), 1, 24, 6, 6, shape=[1, 24, 6, 6])
    return t.classify(t.op("Relu", t.conv(x, 16, kernel=1, group=2)))


def heads_of_any_steps(t, rng):
    """[batch, heads, steps, size] as [-1, steps, size], where steps are taken of the value itself."""
    heads, size = 4, 8
    x = t.input(None, "S", 16)

    def head(v):
        v = t.transpose(t.reshape(v, 0, 0, heads, size, shape=[None, None, heads, size]), 0, 2, 1, 3)
        steps = t.op("Slice", t.op("Shape", v, shape=[4]), t.ints(2), t.ints(3), shape=[1])
        return t.op("Reshape", v, t.op("Concat", t.ints(-1), steps, t.ints(size), axis=0, shape=[3]), shape=[None, None, size])

    q, k, v = (head(t.dense(x, heads * size)) for _ in range(3))
    scores = t.op("Softmax", t.op("MatMul", q, t.transpose(k, 0, 2, 1), shape=[None, None, None]), axis=-1)
    y = t.op("MatMul", scores, v, shape=[None, None, size])
    shape = t.op("Shape", x, shape=[3])
    target = t.op("Concat", t.op("Slice", shape, t.ints(0), t.ints(1), shape=[1]), t.ints(heads),
                  t.op("Slice", shape, t.ints(1), t.ints(2), shape=[1]), t.ints(size), axis=0, shape=[4])
    y = t.transpose(t.op("Reshape", y, target, shape=[None, heads, None, size]), 0, 2, 1, 3)
    return t.dense(t.reshape(y, 0, 0, heads * size, shape=[None, None, heads * size]), 5)


def pixels_attend(t, rng):
    """Attention over all pixels, of open height and width: at usual sizes of images it would take minutes."""
    def pointwise(x, out):
        n, c, *size = t.shape[x]
        return t.op("Conv", x, t.weight(out, c, 1, 1), t.vector(out), shape=[n, out, *size])

    def row(x):
        return t.reshape(x, 0, 8, -1, shape=[None, 8, None])

    x = t.op("Relu", pointwise(t.input(None, 3, "S", "T"), 16))
    q, k, v = (row(pointwise(x, 8)) for _ in range(3))
    scores = t.op("Softmax", t.op("MatMul", t.transpose(q, 0, 2, 1), k, shape=[None, None, None]), axis=-1)
    y = t.transpose(t.op("MatMul", scores, t.transpose(v, 0, 2, 1), shape=[None, None, 8]), 0, 2, 1)
    size = t.op("Slice", t.op("Shape", x, shape=[4]), t.ints(2), t.ints(4), shape=[2])
    y = t.op("Reshape", y, t.op("Concat", t.ints(0, 8), size, axis=0, shape=[4]), shape=[None, 8, "S", "T"])
    return t.classify(t.op("Add", x, pointwise(y, 16)))


def scattered(t, rng):
    """A graph network: rows are sent along edges, by both operators that scatter."""
    edges = 9
    source, to = (t.ints(*[int(i) for i in rng.integers(0, 7, edges)]) for _ in range(2))
    x = t.op("Relu", t.dense(t.input(7, 6), 16))
    for nd in (False, True):
        c = t.shape[x][1]
        sent = t.op("Gather", x, source, axis=0, shape=[edges, c])
        zeros = t.op("Mul", x, t.const(np.zeros(1, np.float32)))
        if nd:
            at = t.op("Unsqueeze", to, t.ints(1), shape=[edges, 1])
            y = t.op("ScatterND", zeros, at, sent, reduction="add", shape=[7, c])
        else:
            at = t.op("Expand", t.op("Unsqueeze", to, t.ints(1), shape=[edges, 1]), t.op("Shape", sent, shape=[2]), shape=[edges, c])
            y = t.op("ScatterElements", zeros, at, sent, axis=0, reduction="add", shape=[7, c])
        x = t.op("Relu", t.dense(t.op("Add", x, y), 12))
    return t.dense(x, 4)


def chosen(t, rng):
    """The largest values of each channel."""
    x = t.conv(t.input(2, 3, 14), 12)
    x, _ = t.op("TopK", x, t.ints(5), axis=2, outputs=2, shape=[2, 12, 5])
    return t.classify(t.op("Relu", t.conv(x, 8)))


def regions(t, rng):
    t.opset = 16  # the last one whose RoiAlign ONNX Runtime has
    x = t.block(t.input(1, 3, 8, 8), 12)
    boxes, images = t.const(np.array([[0, 0, 4, 4], [1, 2, 7, 6]], np.float32)), t.ints(0, 0)
    x = t.op("RoiAlign", x, boxes, images, output_height=3, output_width=3, shape=[2, 12, 3, 3])
    return t.classify(t.block(x, 8))


def deformed(t, rng):
    x = t.block(t.input(1, 3, 6, 6), 12)
    offsets = t.op("Mul", t.conv(x, 18), t.const(np.full(1, 0.1, np.float32)))
    x = t.op("DeformConv", x, t.weight(16, 12, 3, 3), offsets, t.vector(16), pads=[1] * 4, kernel_shape=[3, 3], shape=[1, 16, 6, 6])
    return t.classify(t.op("Relu", x))


def other_ranks(t, rng):
    x = t.block(t.input(2, 3, 14), 12)
    x = t.op("AveragePool", x, kernel_shape=[2], strides=[2], shape=[2, 12, 7])
    a = t.classify(t.block(x, 8))
    y = t.block(t.input(2, 2, 4, 5, 3), 8)
    return t.op("Add", a, t.classify(t.block(y, 8)))


def shared_weights(t, rng):
    x = t.block(t.input(1, 4, 7, 7), 12)
    w = t.weight(12, 12, 3, 3)
    for _ in range(2):
        x = t.op("Relu", t.op("Conv", x, w, pads=[1] * 4, shape=[1, 12, 7, 7]))
    return t.classify(x)


def expanded(t, rng):
    x = t.dense(t.op("Relu", t.dense(t.input(2, 8), 12)), 16)
    x = t.op("Unsqueeze", x, t.ints(2), shape=[2, 16, 1])
    x = t.op("Expand", x, t.ints(2, 16, 5), shape=[2, 16, 5])
    return t.conv(t.op("Relu", x), 4)


def joined_steps(t, rng):
    """Pieces of open sizes lie one behind the other along another dimension."""
    parts = [t.dense(t.input(None, steps, 6), 16) for steps in ("S", "T")]
    y = t.op("Concat", *parts, axis=1, shape=[None, None, 16])
    return t.dense(t.op("Relu", y), 4)


def einsum(t, rng):
    x = t.dense(t.input(2, 5, 6), 12)
    y = t.op("Einsum", t.op("Relu", x), t.weight(12, 8), equation="bsc,cd->bsd", shape=[2, 5, 8])
    return t.dense(t.op("Relu", y), 3)


def cell(t, kind, x, hidden, directions, bias=True, peephole=False, state=None, **attributes):
    """Results of an LSTM, GRU or RNN."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    steps, batch, size = t.shape[x]
    inputs = [x, t.weight(directions, gates * hidden, size, scale=1 / np.sqrt(size)),
              t.weight(directions, gates * hidden, hidden, scale=1 / np.sqrt(hidden)),
              t.weight(directions, 2 * gates * hidden, scale=0.3) if bias else "", "", state or ""]
    if kind == "LSTM":
        inputs += ["", t.weight(directions, 3 * hidden, scale=0.5) if peephole else ""]
    outputs = t.op(kind, *inputs, hidden_size=hidden, direction={1: "forward", 2: "bidirectional"}[directions], outputs=3 if kind == "LSTM" else 2,
                   shape=[directions, batch, hidden], **attributes)
    t.shape[outputs[0]] = [steps, directions, batch, hidden]
    return outputs


def joined(t, y):
    steps, directions, batch, hidden = t.shape[y]
    return t.reshape(t.transpose(y, 0, 2, 1, 3), 0, 0, -1, shape=[steps, batch, directions * hidden])


def recurrent(t, rng, kind="LSTM", **attributes):
    """Two layers; the second one's last state and all steps of it are read."""
    x = t.op("Relu", t.dense(t.input(5, 2, 6), 8))
    first = cell(t, kind, x, 12, 2, peephole=True, **attributes)
    second = cell(t, kind, joined(t, first[0]), 8, int(pick(rng, 1, 2)), bias=bool(rng.integers(2)), **attributes)
    last = t.transpose(second[1], 1, 0, 2)
    a = t.dense(t.reshape(last, 0, -1, shape=[2, t.shape[last][1] * 8]), 4)
    return t.op("Add", t.dense(joined(t, second[0]), 4), a, shape=[5, 2, 4])


def gru(t, rng):
    return recurrent(t, rng, "GRU", linear_before_reset=int(rng.integers(2)))


def rnn(t, rng):
    return recurrent(t, rng, "RNN")


def initial_state(t, rng):
    """A state that a layer makes, and one that is a constant."""
    x = t.input(4, 2, 6)
    made = t.dense(t.op("ReduceMean", x, t.ints(0), keepdims=1, shape=[1, 2, 6]), 10)
    y = cell(t, "GRU", x, 10, 1, state=made)[0]
    y = t.op("Squeeze", y, t.ints(1), shape=[4, 2, 10])
    y = cell(t, "LSTM", y, 8, 1, state=t.vector(1, 2, 8))[0]
    return t.dense(t.op("Squeeze", y, t.ints(1), shape=[4, 2, 8]), 3)


def open_state(t, rng):
    """Zeros for a state, of sizes that the run knows."""
    x = t.input("S", None, 6)
    batch = t.op("Slice", t.op("Shape", x, shape=[3]), t.ints(1), t.ints(2), shape=[1])
    zeros = t.op("ConstantOfShape", t.op("Concat", t.ints(2), batch, t.ints(12), axis=0, shape=[3]), shape=[2, None, 12])
    y = cell(t, "LSTM", x, 12, 2, state=zeros)[0]
    return t.dense(t.op("Relu", t.dense(joined(t, y), 8)), 3)


# ---- operators that count heads ----
def attention_op(t, rng, projected=True):
    """The operator of opset 23 with fewer heads of keys than of queries."""
    n, steps, heads, few, size = 2, 5, 8, 4, 4
    x = t.input(n, steps, 16)
    q, k, v = t.dense(x, heads * size), t.dense(x, few * size), t.dense(x, few * size)
    y = t.op("Attention", q, k, v, q_num_heads=heads, kv_num_heads=few, is_causal=int(rng.integers(2)), shape=[n, steps, heads * size])
    return t.dense(y, 6)


def attention_of_four(t, rng):
    """Heads are a dimension; their mask is one for all."""
    n, steps, heads, size = 2, 5, 6, 4
    x = t.input(n, steps, 16)
    q, k, v = (t.transpose(t.reshape(t.dense(x, heads * size), 0, 0, heads, size, shape=[n, steps, heads, size]), 0, 2, 1, 3) for _ in range(3))
    mask = t.const(np.triu(np.full((steps, steps), -9, np.float32), 1))
    y = t.transpose(t.op("Attention", q, k, v, mask, shape=[n, heads, steps, size]), 0, 2, 1, 3)
    return t.dense(t.reshape(y, 0, 0, heads * size, shape=[n, steps, heads * size]), 6)


def packed_attention(t, rng):
    n, steps, heads, size = 2, 5, 4, 8
    x = t.op("Gelu", t.dense(t.input(n, steps, 6), 16))
    sizes = {"qkv_hidden_sizes": [heads * size, heads * size, heads * 4]} if rng.integers(2) else {}
    wide = heads * 4 if sizes else heads * size
    columns = 2 * heads * size + wide
    y = t.op("Attention", x, t.weight(16, columns, scale=0.3), t.vector(columns), domain="com.microsoft", num_heads=heads, shape=[n, steps, wide], **sizes)
    return t.dense(y, 5)


def multi_head(t, rng):
    n, steps, heads, size = 2, 5, 6, 4
    x = t.input(n, steps, 12)
    parts = [t.dense(x, heads * size, bias=False) for _ in range(3)]
    if rng.integers(2):
        parts.append(t.vector(3 * heads * size))
    y = t.op("MultiHeadAttention", *parts, domain="com.microsoft", num_heads=heads, shape=[n, steps, heads * size])
    return t.dense(y, 5)


def grouped_query(t, rng):
    n, steps, heads, few, size = 2, 5, 8, 4, 8
    x = t.input(n, steps, 12)
    lengths, total = t.const(np.full(n, steps - 1, np.int32)), t.const(np.array(steps, np.int32))
    if rng.integers(2):
        parts = [t.dense(x, (heads + 2 * few) * size), "", ""]
    else:
        parts = [t.dense(x, heads * size), t.dense(x, few * size), t.dense(x, few * size)]
    y = t.op("GroupQueryAttention", *parts, "", "", lengths, total, domain="com.microsoft", num_heads=heads, kv_num_heads=few,
             outputs=3, shape=[n, steps, heads * size])[0]
    return t.dense(y, 5)


def rotary(t, rng):
    """Queries and keys turn by their places."""
    n, steps, heads, size = 2, 5, 4, 8
    x = t.input(n, steps, 12)
    angles = np.outer(np.arange(steps), 0.5 ** np.arange(size // 2)).astype(np.float32)
    cos, sin = t.const(np.tile(np.cos(angles), (n, 1, 1))), t.const(np.tile(np.sin(angles), (n, 1, 1)))
    q, k = (t.op("RotaryEmbedding", t.dense(x, heads * size), cos, sin, num_heads=heads) for _ in range(2))
    y = t.op("Attention", q, k, t.dense(x, heads * size), q_num_heads=heads, kv_num_heads=heads, shape=[n, steps, heads * size])
    return t.dense(y, 5)


def fused(t, rng):
    """What ONNX Runtime makes of products and activations."""
    x = t.input(3, 4, 10)
    y = t.op("FusedMatMul", x, t.weight(16, 10), transB=1, alpha=0.5, domain="com.microsoft", shape=[3, 4, 16])
    y = t.op("BiasGelu", y, t.vector(16), domain="com.microsoft")
    y = t.op("FastGelu", t.dense(y, 12, bias=False), t.vector(12), domain="com.microsoft")
    y = t.op("FusedGemm", t.reshape(y, -1, 12, shape=[12, 12]), t.weight(8, 12), t.vector(8), transB=1, activation="Relu", domain="com.microsoft", shape=[12, 8])
    return t.dense(y, 4)


def fused_batched_heads(t, rng):
    """Heads beside the batch, and products that are fused."""
    heads, size = 4, 4
    x = t.input("S", None, 16)
    q, k = (t.transpose(t.reshape(t.dense(x, heads * size), 0, -1, size, shape=[None, None, size]), 1, 0, 2) for _ in range(2))
    y = t.op("FusedMatMul", q, k, transB=1, alpha=0.5, domain="com.microsoft", shape=[None, None, None])
    y = t.transpose(t.op("ReduceSum", y, t.ints(1), keepdims=0, shape=[None, None]), 1, 0)
    return t.dense(t.op("Relu", t.reshape(y, 0, -1, heads, shape=[None, None, heads])), 3)


def fused_conv(t, rng):
    x = t.input(1, 3, 7, 7)
    for out, group in ((16, 1), (24, 2), (8, 1)):
        n, c, *size = t.shape[x]
        x = t.op("FusedConv", x, t.weight(out, c // group, 3, 3), t.vector(out), group=group, pads=[1] * 4, activation="Relu", domain="com.microsoft", shape=[n, out, *size])
    return t.classify(x)


def two_outputs(t, rng):
    x = t.block(t.input(1, 3, 6, 6), 8)
    y = t.block(x, 12)
    return t.conv(y, 3), t.classify(t.block(y, 10))


# ---- models with something to show ----
def halves(axis):
    """Images of which one half is brighter, 0 the upper or left one, and a network that tells which."""
    rng = np.random.default_rng(axis)
    y = rng.integers(0, 2, 120)
    x = rng.random((120, 1, 16, 16)).astype(np.float32)
    for k in range(len(y)):
        half = slice(8 * y[k], 8 * y[k] + 8)
        x[(k, 0, half) if axis == 0 else (k, 0, slice(None), half)] += 1
    tells = np.ones((2, 8, 16, 16), np.float32) / 64
    tells[0, :, 8:] = tells[1, :, :8] = -1 / 64
    tells = tells if axis == 0 else tells.transpose(0, 1, 3, 2)
    constants = {"w": rng.random((8, 1, 3, 3)).astype(np.float32) / 9, "v": np.ascontiguousarray(tells).reshape(2, -1)}
    nodes = [helper.make_node("Conv", ["x0", "w"], ["c"], "first", pads=[1] * 4), helper.make_node("Relu", ["c"], ["r"], "relu"),
             helper.make_node("Flatten", ["r"], ["f"], "flat"), helper.make_node("Gemm", ["f", "v"], ["y"], "head", transB=1)]
    value = lambda name, *dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
    graph = helper.make_graph(nodes, "halves", [value("x0", "N", 1, 16, 16)], [value("y", "N", 2)],
                                   [numpy_helper.from_array(v, k) for k, v in constants.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), x, y


def doubled():
    """Half of the channels are small multiples of the others, over which a product adds up: it needs no more than these."""
    rng = np.random.default_rng(3)
    w = rng.standard_normal((16, 3, 3, 3)).astype(np.float32)
    w /= np.sqrt((w**2).sum((1, 2, 3), keepdims=True))
    w[1::2] = w[::2] * rng.uniform(0.3, 0.5, (8, 1, 1, 1)).astype(np.float32)
    constants = {"w": w, "v": rng.standard_normal((8, 16, 3, 3)).astype(np.float32)}
    nodes = [helper.make_node("Conv", ["x0", "w"], ["c"], "first", pads=[1] * 4), helper.make_node("Relu", ["c"], ["r"], "relu"),
             helper.make_node("Conv", ["r", "v"], ["y"], "second", pads=[1] * 4)]
    value = lambda name, *dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
    graph = helper.make_graph(nodes, "doubled", [value("x0", "N", 3, 8, 8)], [value("y", "N", 8, 8, 8)],
                                   [numpy_helper.from_array(v, k) for k, v in constants.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


NETS = [chain, residual, downsample, concat, depthwise, multiplier, grouped, squeeze, flatten, channels_last, attention,
        fused_attention, batched_heads, batched_heads_of_two, repeated_heads, open_steps, split, gated, padded, slopes, norms, upscaled, transposed, permuted, shuffled, shuffled_groups, heads_of_any_steps, pixels_attend, scattered, chosen, regions, deformed, other_ranks,
        shared_weights, expanded, joined_steps, einsum, two_outputs, equal_parts, multiplied, recurrent, gru, rnn, initial_state, open_state,
        attention_op, attention_of_four, packed_attention, multi_head, grouped_query, rotary, fused, fused_conv, fused_batched_heads]


# Layers of which nothing can go, at most: the last, and of `deformed` what makes the offsets.
WHOLE = {shuffled_groups: 1, heads_of_any_steps: 1, scattered: 1, chosen: 1, regions: 1, deformed: 2}


def seeds(make):
    """Two for those that choose what they are made of, one for those whose weights alone are random."""
    return (1, 2) if {"integers", "pick", "permutation"} & set(make.__code__.co_names) else (1,)


def build(make, seed):
    rng = np.random.default_rng(seed)
    net = Net(rng, make.__name__)
    outputs = make(net, rng)
    model = net.model(*(outputs if isinstance(outputs, tuple) else (outputs,)))
    feeds = {i.name: np.random.default_rng(seed + 1).standard_normal(
        [{None: 2, "S": 3, "T": 4}.get(d, d) for d in net.shape[i.name]]).astype(np.float32) for i in net.inputs}
    return model, feeds
