"""Random graphs for run_arena.py: convolutions, Concats of what they read, sizes fixed or symbolic; and vectors whose lengths are
found while the model runs, in shapes, slices, loops and branches."""
import random

import numpy as np


def conv_net(make, seed):
    r = random.Random(seed)
    symbolic = r.random() < 0.4
    sizes = {"h": (r.choice([2, 4, 6]), 8, 12), "w": (r.choice([4, 6, 10]), 12, 4)} if symbolic else {}
    n = make(f"random_conv_{seed}", **sizes)
    n.rng, n.slack = np.random.default_rng(seed), 2e-4
    c = r.choice([3, 8, 16])
    x = n.input(f"1,{c},h,w" if symbolic else f"1,{c},{r.choice([8, 12, 16])},{r.choice([8, 14, 20])}")
    values = [(x, c, 0)]  # name, channels, halvings

    def like(channels, level):
        return [v for v in values if v[2] == level and channels in (v[1], None)]

    for _ in range(r.randint(4, 12)):
        v, c, level = r.choice(values[-4:])
        kind = r.choices(["conv", "join", "stack", "add", "half", "double", "softmax"], [45, 30, 6, 8, 6, 6, 4])[0]
        if kind == "conv":
            out, group = (c, c) if r.random() < 0.3 else (r.choice([1, 2, 4, 8, 16, 24]), 1)
            y = n.conv(v, c, out, k=r.choice([1, 3, 3, 3, 5]), dilation=r.choice([1, 1, 1, 2, 3, 7, 12]), group=group,
                       act=r.choice([None, "Relu", "Tanh", "Sigmoid"]))
            values.append((y, out, level))
        elif kind == "join":
            parts = [r.choice(like(None, level)) for _ in range(r.randint(2, 4))]
            total = sum(p[1] for p in parts)
            if total <= 120:
                values.append((n.op(f"Concat<axis=1>({', '.join(p[0] for p in parts)})"), total, level))
        elif kind == "stack":
            axis = r.choice([2, 3])
            whole = n.op(f"Concat<axis={axis}>({v}, {r.choice(like(c, level))[0]})")
            window = [2, 1] if axis == 2 else [1, 2]
            values.append((n.op(f"MaxPool<kernel_shape={window}, strides={window}>({whole})"), c, level))
        elif kind == "add":
            values.append((n.op(f"Add({v}, {r.choice(like(c, level))[0]})"), c, level))
        elif kind == "half" and level == 0:
            values.append((n.op(f"MaxPool<kernel_shape=[2,2], strides=[2,2]>({v})"), c, 1))
        elif kind == "double" and level == 1:
            values.append((n.op(f"ConvTranspose<strides=[2,2]>({v}, {n.weight(c, 8, 2, 2)})"), 8, 0))
        elif kind == "softmax":
            values.append((n.op(f"Softmax<axis=1>({v})"), c, level))
    for v in dict.fromkeys(v[0] for v in values[-2:] if v[0] != x):
        n.output(v)
    return n if n.outputs else n.output(n.conv(x, c, 4))


def found_net(make, seed):
    r = random.Random(seed)
    n = make(f"random_found_{seed}", n=(7, 1, 12), m=(4, 9, 3))
    vectors, counts = [n.input("n"), n.input("m")], []
    zero = n.ints(0)
    for k in range(r.randint(5, 14)):
        v = r.choice(vectors)
        kind = r.choice(["nonzero", "compress", "unique", "shape", "shape", "expand", "add", "concat", "slice", "map", "loop", "if", "sum"])
        c = r.choice(counts) if counts else None
        if kind == "nonzero":
            i = n.op(f"NonZero({v})")
            vectors.append(n.op(f"Reshape({n.op(f'Cast<to=1>({i})')}, {n.ints(-1)})"))
        elif kind == "compress":
            vectors.append(n.op(f"Compress({v}, {n.op(f'Greater({v}, {n.weight(values=np.float32(0))})')})"))
        elif kind == "unique":
            vectors.append(n.op(f"Unique({v})", 4)[0])
        elif kind == "shape":
            counts.append(n.op(f"Shape({v})"))
        elif kind == "concat":
            vectors.append(n.op(f"Concat<axis=0>({v}, {r.choice(vectors)})"))
        elif kind == "map":
            vectors.append(n.op(f"{r.choice(['Neg', 'Relu', 'Exp'])}({n.op(f'Tanh({v})')})"))
        elif kind == "sum":
            vectors.append(n.op(f"ReduceSum({v}, {zero})"))
        elif kind == "expand" and c:
            vectors.append(n.op(f"Expand({n.weight(values=np.float32([r.random()]))}, {c})"))
        elif kind == "add" and c:
            vectors.append(n.op(f"Add({v}, {n.op(f'Cast<to=1>({c})')})"))
        elif kind == "slice" and c:
            vectors.append(n.op(f"Slice({v}, {zero}, {c})"))
        elif kind == "loop" and c:
            body = "(int64 k, bool c) => (bool d, float e) { d = Identity(c) e = Cast<to=1>(k) }"
            vectors.append(n.op(f"Loop({n.op(f'Squeeze({c})')}, {n.weight(values=np.array(True))}) <body = b {body}>"))
        elif kind == "if" and c:
            more = n.op(f"Greater({n.op(f'Squeeze({c})')}, {n.weight(values=np.int64(5))})")
            vectors.append(n.op(f"If({more}) <then_branch = t () => (float p{k}) {{ p{k} = Neg({v}) }}, "
                                f"else_branch = e () => (float q{k}) {{ q{k} = Concat<axis=0>({v}, {v}) }}>"))
    for v in r.sample(vectors[2:], min(3, len(vectors) - 2)):
        n.output(v)
    for c in counts[-2:]:
        n.output(c, "int64")
    return n if n.outputs else n.output(n.op(f"Neg({vectors[0]})"))
