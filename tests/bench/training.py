"""Training steps (forward, backward, SGD) against PyTorch on this CPU, in turns: a step of one, a step of the other. Needs torch
and onnx in the Python that runs it.

    training.py [--models mlp,cnn,resnet18,bert_mini] [--batch 32] [--threads 1] [--seconds 4] [--optimizer sgd]"""
import argparse
import io
import os
import sys
import time
import warnings

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "python"))
import burin  # noqa: E402

warnings.simplefilter("ignore", DeprecationWarning)


class Block(nn.Module):
    def __init__(self, c_in, c, stride):
        super().__init__()
        self.a, self.b = nn.Conv2d(c_in, c, 3, stride, 1, bias=False), nn.Conv2d(c, c, 3, 1, 1, bias=False)
        self.na, self.nb = nn.BatchNorm2d(c), nn.BatchNorm2d(c)
        self.side = nn.Sequential(nn.Conv2d(c_in, c, 1, stride, bias=False), nn.BatchNorm2d(c)) if stride > 1 or c_in != c else nn.Identity()

    def forward(self, x):
        return F.relu(self.nb(self.b(F.relu(self.na(self.a(x))))) + self.side(x))


def resnet18():
    blocks = [Block(c_in, c, s) for c_in, c, s in ((64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1),
                                                   (256, 512, 2), (512, 512, 1))]
    return nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1), *blocks,
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


class Bert(nn.Module):
    """The shape of bert_mini: 4 layers of 256, 4 heads, 64 tokens."""

    def __init__(self, width=256, layers=4, heads=4, words=30522, length=64):
        super().__init__()
        self.heads = heads
        self.embed, self.position, self.norm = nn.Embedding(words, width), nn.Parameter(torch.randn(1, length, width) * 0.02), nn.LayerNorm(width)
        part = lambda a, b: nn.ModuleList(nn.Linear(a, b) for _ in range(layers))  # noqa: E731
        self.q, self.k, self.v, self.o = (part(width, width) for _ in range(4))
        self.up, self.down = part(width, 4 * width), part(4 * width, width)
        self.n1, self.n2 = (nn.ModuleList(nn.LayerNorm(width) for _ in range(layers)) for _ in range(2))
        self.head = nn.Linear(width, 10)

    def forward(self, tokens):
        x = self.norm(self.embed(tokens) + self.position)
        n, t, w = x.shape
        for i in range(len(self.q)):
            q, k, v = (m[i](x).reshape(n, t, self.heads, w // self.heads).transpose(1, 2) for m in (self.q, self.k, self.v))
            a = torch.softmax(q @ k.transpose(-1, -2) * (w // self.heads) ** -0.5, -1) @ v
            x = self.n1[i](x + self.o[i](a.transpose(1, 2).reshape(n, t, w)))
            x = self.n2[i](x + self.down[i](F.gelu(self.up[i](x))))
        return self.head(x[:, 0])


def cnn():
    return nn.Sequential(nn.Conv2d(3, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, 1, 1),
                         nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4096, 128), nn.ReLU(), nn.Linear(128, 10))


def mlp():
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))


MODELS = {"mlp": (mlp, (784,)), "cnn": (cnn, (3, 32, 32)), "resnet18": (resnet18, (3, 64, 64)), "bert_mini": (Bert, None)}


def data(shape, batch):
    return torch.randn(batch, *shape) if shape else torch.randint(0, 30522, (batch, 64))


def export(net, x):
    file = io.BytesIO()
    torch.onnx.export(net.train(), (x,), file, input_names=["x"], output_names=["y"], opset_version=17, dynamo=False, do_constant_folding=False,
                      training=torch.onnx.TrainingMode.TRAINING)
    return file.getvalue()


def torch_step(net, optimizer, x, labels):
    optimizer.zero_grad()
    loss = F.cross_entropy(net(x), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


def torch_peak(net, optimizer, x, labels):
    """Bytes that a step allocates at most at a time, beside weights and what the optimizer keeps; without scratch of oneDNN's own."""
    optimizer.zero_grad()
    with torch.autograd.profiler.profile(profile_memory=True) as found:
        torch_step(net, optimizer, x, labels)
    events = [e for e in found.kineto_results.events() if e.name() == "[memory]"]
    return int(np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]).max())


def measure(name, args):
    torch.manual_seed(0)
    make, shape = MODELS[name]
    net = make()
    x, labels = data(shape, args.batch), torch.randint(0, 10, (args.batch,))
    model = export(net, x)
    step = burin.compile(model, flags=["--train=softmax_cross_entropy", f"--optimizer={args.optimizer},lr=0.01", f"--threads={args.threads}"])
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[args.optimizer]
    optimizer, state = kind(net.train().parameters(), lr=0.01), step.state()
    inputs = {"x": x.numpy(), "labels": labels.numpy(), **state}
    times, found, end = ([], []), ([], []), time.perf_counter() + args.seconds
    while time.perf_counter() < end or len(times[0]) < 5:
        for k, work in enumerate((lambda: torch_step(net, optimizer, x, labels), lambda: float(step.run(inputs, threads=args.threads)[0]))):
            start = time.perf_counter()
            found[k].append(work())
            times[k].append(time.perf_counter() - start)
    theirs, ours = (1e3 * float(np.median(t)) for t in times)
    near = max(abs(a - b) / max(abs(a), 1e-3) for a, b in zip(found[0][:3], found[1][:3]))
    peak = torch_peak(net, optimizer, x, labels)
    print(f"{name:10} torch {theirs:8.2f} ms, burin {ours:8.2f} ms: {theirs / ours:5.2f}x; memory {peak / 1e6:.1f} MB, arena {step.arena_bytes / 1e6:.1f} MB, "
          f"first losses {found[0][0]:.4f} {found[1][0]:.4f}, relative difference {near:.1e}", flush=True)
    return theirs / ours


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--models", default=",".join(MODELS))
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--seconds", type=float, default=4)
    p.add_argument("--optimizer", default="sgd")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    ratios = [measure(name, args) for name in args.models.split(",")]
    print(f"geometric mean {np.exp(np.mean(np.log(ratios))):.2f}x")


if __name__ == "__main__":
    main()
