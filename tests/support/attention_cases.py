"""Cases of template_cases.py that are attention: as exporters write it, and the operator."""
import numpy as np

from tests.support.template_case import TRIALS, Case, epilogue


def softmax(x):
    with np.errstate(invalid="ignore"):
        e = np.exp(x - x.max(-1, keepdims=True, initial=-np.inf))
        return e / e.sum(-1, keepdims=True)


def masked_scores(c, s, lead, ms, ns, kinds):
    """Elementwise nodes behind the scores: what exporters put there."""
    low = lambda: c.constant(np.float32(-np.inf))
    fixed = len(set(ms)) == len(set(ns)) == 1
    for kind in kinds:
        c.title += " " + kind
        if kind == "scale":
            s = c.node("Div", [s, c.constant(np.float32(2.5))], np.divide)
        elif kind == "cap":
            t = c.constant(np.float32(1.5))
            s = c.node("Mul", [c.node("Tanh", [c.node("Div", [s, t], np.divide)], np.tanh), t], np.multiply)
        elif kind == "bias":  # one row for all queries, or a matrix; for all heads or for each
            one, each = c.rng.random() < 0.5, c.rng.random() < 0.5
            s = c.node("Add", [s, c.input([(*(lead if each else ()), 1 if one else m, n) for m, n in zip(ms, ns)])], np.add)
        elif kind in ("some", "few", "none"):  # so much is left of a row
            one = c.rng.random() < 0.5
            limit = c.constant(np.float32({"some": 0, "few": 2.5, "none": 9}[kind]))
            keep = c.node("Greater", [c.input([(1 if one else m, n) for m, n in zip(ms, ns)]), limit], np.greater)
            s = c.node("Where", [keep, s, low()], np.where)
        elif kind == "causal" and fixed:
            s = c.node("Where", [c.constant(np.tri(ms[0], ns[0], ns[0] - ms[0], dtype=bool)), s, low()], np.where)
        elif kind == "late" and fixed:  # the first blocks of keys are masked wholly
            s = c.node("Add", [s, c.constant(np.where(np.arange(ns[0]) < ns[0] - 3, -np.inf, 0))], np.add)
        elif kind in ("infinite", "nan") and fixed:  # one key of every fifth row
            odd = np.zeros((ms[0], ns[0]))
            odd[2::5, ns[0] // 2] = np.inf if kind == "infinite" else np.nan
            s = c.node("Add", [s, c.constant(odd)], np.add)
    return s


def attention(rng, tag, dtype, lead, ms, ns, dk, dv, kinds, form="heads", ending="plain", turned=False, wide=False):
    """MatMul, masks, Softmax, MatMul. form: heads (batch dims first), middle ([b, len, h, d], transposed), ready (keys lie transposed).
    ending: plain, views (heads merged between softmax and product), nan (what is NaN becomes 0)."""
    c = Case(rng, tag, dtype)
    c.title = f"attention {lead}x{ms}x{ns} dk {dk} dv {dv} {form} {ending}"
    rank = len(lead) + 2
    if rank != 4 and form == "middle":
        form = "heads"

    def operand(lengths, size, transposed):
        order = [*range(rank - 2), rank - 1, rank - 2] if transposed else [*range(rank)]
        if form == "middle":
            x = c.input([(lead[0], n, lead[1], size) for n in lengths])
            order = [0, 2, 3, 1] if transposed else [0, 2, 1, 3]
        elif form == "ready" and transposed:
            return c.input([(*lead, size, n) for n in lengths])
        else:
            x = c.input([(*lead, n, size) for n in lengths])
        return c.node("Transpose", [x], lambda a: a.transpose(order), perm=order) if order != [*range(rank)] else x

    q, k, v = operand(ms, dk, False), operand(ns, dk, True), operand(ns, dv, False)
    if wide:
        q = c.node("Mul", [q, c.constant(np.float32(dk ** -0.5))], np.multiply)
    s = masked_scores(c, c.node("MatMul", [q, k], np.matmul), lead, ms, ns, kinds)
    p = c.node("Softmax", [s], softmax, axis=-1)
    if ending == "nan":
        p = c.node("Where", [c.node("IsNaN", [p], np.isnan), c.constant(np.float32(0)), p], np.where)
    if ending == "views" and rank == 4 and len(set(ms)) == len(set(ns)) == 1:
        def view(x, *shape):
            return c.node("Reshape", [x, c.constant(np.array(shape))], lambda a, _: a.reshape(shape))
        flat = view(p, lead[0] * lead[1], ms[0], ns[0])
        y = view(c.node("MatMul", [flat, view(v, lead[0] * lead[1], ns[0], dv)], np.matmul), *lead, ms[0], dv)
    else:
        y = c.node("MatMul", [p, v], np.matmul)
    shapes = [(*lead, m, dv) for m in ms]
    if turned and rank == 4:
        y = c.node("Transpose", [y], lambda a: a.transpose(0, 2, 1, 3), perm=[0, 2, 1, 3])
        shapes = [(lead[0], m, lead[1], dv) for m in ms]
    return c.finish(epilogue(c, y, shapes, rank - 1))


def attention_case(rng, tag, dtype=np.float32):
    pick = lambda items: items[int(rng.integers(len(items)))]
    lead = [pick([1, 2, 3, 4]) for _ in range(int(pick([0, 1, 2, 2, 2, 3])))]
    m, n = pick([1, 8, 13, 16, 33, 100, 197]), pick([1, 7, 16, 33, 64, 100, 197, 257, 520, 601])
    ms, ns = [m] * TRIALS, [n] * TRIALS
    if rng.random() < 0.3:
        ms = [m, pick([3, 64, 121]), 1]
    if rng.random() < 0.3:
        ns = [n, pick([5, 300, 530]), 1]
    if rng.random() < 0.2:
        ns = ms
    kinds = [k for k in ("scale", "cap", "bias", "some", "causal", "few", "late", "none") if rng.random() < 0.25]
    return attention(rng, tag, dtype, lead, ms, ns, pick([1, 3, 8, 16, 20, 64]), pick([1, 5, 8, 16, 20, 32, 64]), kinds,
                     form=pick(["heads", "middle", "middle", "ready"]), ending=pick(["plain", "plain", "views", "nan"]),
                     turned=rng.random() < 0.5, wide=rng.random() < 0.5)


def ordered_attention(rng, tag, dtype, heads, ms, ns, dk, dv, causal, left, cap=0.0, batch=2):
    """The operator: its order and window are known, and hide whole blocks of keys. heads: of queries, of keys."""
    c = Case(rng, tag, dtype)
    c.title = f"Attention {heads}x{ms}x{ns} dk {dk} dv {dv} causal {causal} left {left} cap {cap}"

    def oracle(q, k, v):
        k, v = (np.repeat(x, heads[0] // heads[1], 1) for x in (k, v))
        s = q @ k.swapaxes(2, 3) / np.sqrt(dk)
        s = np.tanh(s / cap) * cap if cap else s
        i, j = np.arange(s.shape[2])[:, None], np.arange(s.shape[3])
        keep = (j <= i) | (causal == 0) if left < 0 else ((j <= i) | (causal == 0)) & (j >= i - left)
        return np.nan_to_num(softmax(np.where(keep, s, -np.inf))) @ v

    inputs = [c.input([(batch, heads[0], m, dk) for m in ms]), *(c.input([(batch, heads[1], n, d) for n in ns]) for d in (dk, dv))]
    y = c.node("Attention", inputs, oracle, is_causal=causal, left_window_size=left, softcap=cap)
    return c.finish(epilogue(c, y, [(batch, heads[0], m, dv) for m in ms], 3))


def ordered_case(rng, tag, dtype=np.float32):
    pick = lambda items: items[int(rng.integers(len(items)))]
    m, n = pick([1, 16, 100, 197, 400]), pick([1, 16, 129, 300, 400])
    ms = [m] * TRIALS if rng.random() < 0.7 else [m, pick([20, 150]), 1]
    ns = ms if rng.random() < 0.5 else [n] * TRIALS if rng.random() < 0.7 else [n, 260, 5]
    return ordered_attention(rng, tag, dtype, pick([(2, 2), (3, 1), (4, 2)]), ms, ns, pick([8, 16, 20]), pick([8, 16, 24]), pick([0, 1, 1]),
                             pick([-1, -1, 0, 40, 150]), pick([0.0, 0.0, 2.0]), pick([1, 2]))
