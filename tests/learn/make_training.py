"""Makes tests/learn/training.npz: what PyTorch says of the cases of training_cases.py. Needs torch; run by hand.

    make_training.py FILE"""
import sys

import numpy as np
import torch
import torch.nn.functional as F

import training_cases as cases


def keys_of(spec):
    return dict(pair.split("=") for pair in spec.split(",") if pair)


def tensor(a):
    return torch.tensor(a)


def softmax_loss(y, teacher, labels, spec, dim):
    """y: logits with classes along dim."""
    k = keys_of(spec)
    weight = torch.tensor([float(v) for v in k["weights"].split(":")], dtype=y.dtype) if "weights" in k else None
    classes = y.movedim(dim, 1)
    loss = F.cross_entropy(classes, labels, weight, label_smoothing=float(k.get("label_smoothing", 0)),
                           ignore_index=int(k.get("ignore_index", -100)), reduction=k.get("reduction", "mean"))
    if "distill" not in k:
        return loss
    a, t = float(k["distill"]), float(k["temperature"])
    soft = F.kl_div(F.log_softmax(y / t, dim), F.log_softmax(teacher / t, dim), reduction="batchmean", log_target=True)
    return (1 - a) * loss + a * t * t * soft


def value_loss(loss, y, teacher, labels, spec):
    k = keys_of(spec)
    reduction = k.get("reduction", "mean")
    if loss == "sigmoid_cross_entropy":
        weight = torch.tensor(float(k["pos_weight"]), dtype=y.dtype) if "pos_weight" in k else None
        plain = F.binary_cross_entropy_with_logits(y, labels, pos_weight=weight)
        if "distill" not in k:
            return plain
        a, t = float(k["distill"]), float(k["temperature"])
        return (1 - a) * plain + a * t * t * F.binary_cross_entropy_with_logits(y / t, torch.sigmoid(teacher / t))
    if loss == "mse":
        plain = F.mse_loss(y, labels, reduction=reduction)
        a = float(k.get("distill", 0))
        return (1 - a) * plain + a * F.mse_loss(y, teacher)
    if loss == "l1":
        return F.l1_loss(y, labels)
    if loss == "huber":
        return F.huber_loss(y, labels, delta=float(k["delta"]))
    if loss == "kl":
        return F.kl_div(F.log_softmax(y, 1), labels, reduction="batchmean")
    p, s = torch.sigmoid(y), float(k.get("smooth", 1e-5))
    return (1 - (2 * (p * labels).sum(1) + s) / (p.sum(1) + labels.sum(1) + s)).mean()


def layer(x, w, end):
    return F.conv2d(x, w) if end == "image" else x @ w


def losses(out):
    for name, spec, dim, end in cases.softmax_losses():
        x, w, labels, _, teacher = (tensor(a) for a in cases.loss_data(name, end))
        w.requires_grad_()
        loss = softmax_loss(layer(x, w, end), teacher, labels, spec, dim)
        loss.backward()
        out[f"softmax/{name}/loss"], out[f"softmax/{name}/w"] = loss.item(), w.grad.numpy()
    for name, kind, spec, end in cases.value_losses():
        x, w, _, labels, teacher = (tensor(a) for a in cases.loss_data(name, end))
        if kind == "kl":
            labels = labels / labels.sum(1, keepdim=True)
        w.requires_grad_()
        loss = value_loss(kind, layer(x, w, end), teacher, labels, spec)
        loss.backward()
        out[f"value/{name}/loss"], out[f"value/{name}/w"] = loss.item(), w.grad.numpy()


class Lion(torch.optim.Optimizer):
    """Algorithm 2 of Chen et al., 2023."""

    def __init__(self, params, lr, weight_decay, betas):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "betas": betas})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                update = torch.sign(b1 * m + (1 - b1) * p.grad)
                p.sub_(group["lr"] * (update + group["weight_decay"] * p))
                m.mul_(b2).add_((1 - b2) * p.grad)


def optimizer(spec, params):
    name, _, rest = spec.partition(",")
    k = keys_of(rest)
    lr, decay = float(k["lr"]), float(k.get("weight_decay", 0.01 if name == "adamw" else 0))
    if name == "sgd":
        o = torch.optim.SGD(params, lr, momentum=float(k.get("momentum", 0)), dampening=float(k.get("dampening", 0)),
                            weight_decay=decay, nesterov=k.get("nesterov") == "true")
    elif name == "lion":
        o = Lion(params, lr, decay, (0.9, 0.99))
    else:
        kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
        o = kind(params, lr, (float(k.get("beta1", 0.9)), float(k.get("beta2", 0.999))), float(k.get("eps", 1e-8)), decay)
    warmup, s = int(k.get("warmup", 0)), torch.optim.lr_scheduler
    after = s.ConstantLR(o, 1)
    if k.get("schedule") == "cosine":
        after = s.CosineAnnealingLR(o, int(k["steps"]) - warmup, float(k.get("min_lr", 0)))
    if k.get("schedule") == "step":
        after = s.StepLR(o, int(k["every"]), float(k["gamma"]))
    if warmup:
        after = s.SequentialLR(o, [s.LinearLR(o, 1 / warmup, 1, warmup - 1), after], [warmup])
    return o, after, float(k.get("clip", 0))


def train(spec, params, forward, xs, labels, gather=1):
    o, schedule, clip = optimizer(spec, params)
    found = []
    for i, (x, y) in enumerate(zip(xs, labels)):
        loss = F.cross_entropy(forward(x), y)
        (loss / gather).backward()
        found.append(loss.item())
        if i % gather != gather - 1:
            continue
        if clip:
            torch.nn.utils.clip_grad_norm_(params, clip)
        o.step()
        schedule.step()
        o.zero_grad()
    return found


def optimizers(out):
    for dtype in (np.float32, np.float64):
        for name, spec in cases.OPTIMIZERS.items():
            w, xs, labels = cases.mlp_data()
            w = {k: tensor(v.astype(dtype)).requires_grad_() for k, v in w.items()}

            def forward(x):
                return torch.tanh(x @ w["w1"] + w["b1"]) @ w["w2"] + w["b2"]

            found = train(spec, list(w.values()), forward, tensor(xs.astype(dtype)), tensor(labels),
                          cases.GATHER if name == "gather" else 1)
            key = f"optimizer/{name}/{dtype.__name__}"
            out[f"{key}/loss"] = found
            out.update({f"{key}/{k}": v.detach().numpy() for k, v in w.items()})


def nets(out):
    for name in cases.NETS:
        w, xs, labels = cases.net_data()
        w = {k: tensor(v) for k, v in w.items()}
        trained = {"all": ["k1", "scale", "bias", "k2", "tied"], "last": ["k2", "tied"], "but_norm": ["k1", "k2", "tied"]}[name]
        for k in trained:
            w[k].requires_grad_()

        def forward(x):
            c = F.conv2d(x, w["k1"], padding=1)
            n = F.batch_norm(c, w["mean"], w["var"], w["scale"], w["bias"], training=name == "all", momentum=0.1)
            f = F.conv2d(torch.relu(n), w["k2"], stride=2).mean((2, 3))
            return torch.sigmoid(f @ w["tied"]) @ w["tied"].T

        found = train(cases.NET_OPTIMIZER, [w[k] for k in trained], forward, tensor(xs), tensor(labels))
        out[f"net/{name}/loss"] = found
        out.update({f"net/{name}/{k}": w[k].detach().numpy() for k in trained + (["mean", "var"] if name == "all" else [])})


def main():
    out = {}
    losses(out)
    optimizers(out)
    nets(out)
    np.savez_compressed(sys.argv[1], **out)
    print(len(out), "arrays")


if __name__ == "__main__":
    main()
