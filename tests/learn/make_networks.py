"""Makes tests/learn/networks: small networks in training form in double, as ONNX, and what PyTorch says of
them (.npz: inputs, loss, a gradient for each parameter). Needs torch; run by hand, the results are stored.

    make_networks.py FOLDER"""
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class Sequential(nn.Module):
    """Layers, then the mean cross-entropy with labels 0, 1, 2 …"""

    def __init__(self, *layers, classes=5):
        super().__init__()
        self.net, self.classes = nn.Sequential(*layers), classes

    def forward(self, x):
        y = self.net(x)
        return F.cross_entropy(y, torch.arange(y.shape[0]) % self.classes)


class Residual(nn.Module):
    def __init__(self, inside, outside=None):
        super().__init__()
        self.inside, self.outside = inside, outside or nn.Identity()

    def forward(self, x):
        return F.relu(self.inside(x) + self.outside(x))


class Recurrent(nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.cell, self.head = cell, nn.Linear(cell.hidden_size * (2 if cell.bidirectional else 1), 5)

    def forward(self, x):
        y = self.head(self.cell(x)[0].mean(1))
        return F.cross_entropy(y, torch.arange(x.shape[0]) % 5)


class Encoder(nn.Module):
    """A transformer layer over embedded tokens; patches: of pictures instead."""

    def __init__(self, patches=False, width=12, heads=3):
        super().__init__()
        self.heads, self.patches = heads, patches
        self.embed = nn.Conv2d(3, width, 4, 4) if patches else nn.Embedding(11, width)
        self.position = nn.Parameter(torch.randn(1, 9 if patches else 7, width) * 0.1)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.n1, self.n2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down, self.head = nn.Linear(width, 20), nn.Linear(20, width), nn.Linear(width, 5)

    def forward(self, x):
        v = self.embed(x)
        v = (v.flatten(2).transpose(1, 2) if self.patches else v) + self.position
        n, t, w = v.shape
        q, k, u = self.qkv(self.n1(v)).reshape(n, t, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        a = torch.softmax(q @ k.transpose(-1, -2) / (w // self.heads) ** 0.5, -1) @ u
        v = v + self.out(a.transpose(1, 2).reshape(n, t, w))
        v = v + self.down(F.gelu(self.up(self.n2(v))))
        return F.cross_entropy(self.head(v.mean(1)), torch.arange(n) % 5)


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.deep = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.up, self.mix, self.out = nn.ConvTranspose2d(8, 6, 2, 2), nn.Conv2d(12, 4, 3, padding=1), nn.Conv2d(4, 1, 1)

    def forward(self, x):
        a = F.relu(self.down(x))
        b = F.leaky_relu(self.deep(F.max_pool2d(a, 2)))
        y = F.relu(self.mix(torch.cat([a, self.up(b)], 1)))
        y = F.interpolate(self.out(y), scale_factor=2.0, mode="bilinear")
        p, t = torch.sigmoid(y), (torch.arange(y.numel()).reshape(y.shape) % 3 == 0).to(y.dtype)
        return 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)


class Graph(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 10), nn.Linear(10, 5)
        edges = torch.tensor([[0, 1, 1, 2, 3, 4, 5, 5], [1, 0, 2, 3, 4, 5, 0, 2]])
        self.register_buffer("source", edges[0])
        self.register_buffer("target", edges[1])

    def forward(self, x):
        def spread(v):
            return torch.zeros_like(v).scatter_add(0, self.target[:, None].expand(-1, v.shape[1]), v[self.source]) + v
        y = spread(self.b(F.elu(spread(self.a(x)))))
        return F.cross_entropy(y, torch.arange(6) % 5)


def networks():
    yield "mlp", Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 16), nn.SiLU(), nn.Linear(16, 5)), (7, 6)
    yield "cnn", Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(),
                            nn.AvgPool2d(2), nn.Flatten(), nn.Linear(72, 5)), (4, 2, 14, 14)
    yield "resnet", Sequential(nn.Conv2d(3, 6, 3, 1, 1), nn.BatchNorm2d(6), nn.ReLU(),
                               Residual(nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(),
                                                      nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8)),
                                        nn.Sequential(nn.Conv2d(6, 8, 1, 2), nn.BatchNorm2d(8))),
                               nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)), (4, 3, 9, 9)
    yield "mobilenet", Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Hardswish(), nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16),
                                  nn.ReLU6(), nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.BatchNorm2d(16), nn.ReLU6(),
                                  nn.Conv2d(16, 8, 1), nn.GroupNorm(2, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                                  nn.Linear(8, 5)), (3, 3, 10, 10)
    yield "tcn", Sequential(nn.Conv1d(3, 8, 3, padding=2, dilation=2), nn.PReLU(), nn.Conv1d(8, 8, 3, padding=4, dilation=4),
                            nn.ELU(), nn.InstanceNorm1d(8, affine=True), nn.AdaptiveMaxPool1d(1), nn.Flatten(),
                            nn.Linear(8, 5)), (4, 3, 15)
    yield "lstm", Recurrent(nn.LSTM(4, 6, batch_first=True, bidirectional=True)), (3, 5, 4)
    yield "gru", Recurrent(nn.GRU(4, 7, batch_first=True)), (3, 6, 4)
    yield "encoder", Encoder(), None
    yield "vit", Encoder(patches=True), (3, 3, 12, 12)
    yield "unet", UNet(), (2, 2, 8, 8)
    yield "graph", Graph(), (6, 4)
    yield "volume", Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Softplus(), nn.MaxPool3d(2), nn.Conv3d(4, 6, (1, 3, 3)),
                               nn.Flatten(), nn.Linear(6 * 3, 5)), (3, 1, 6, 6, 6)


def store(folder, name, net, shape):
    torch.manual_seed(len(name))
    net = net.double().train()
    x = torch.randn(*shape, dtype=torch.float64) if shape else torch.arange(21).reshape(3, 7) % 11
    path = os.path.join(folder, f"{name}.onnx")
    torch.onnx.export(net, (x,), path, input_names=["x"], output_names=["loss"], opset_version=17, dynamo=False,
                      training=torch.onnx.TrainingMode.TRAINING, do_constant_folding=False,
                      keep_initializers_as_inputs=False)
    for m in net.modules():
        if hasattr(m, "running_mean") and m.running_mean is not None:
            m.reset_running_stats()
    loss = net(x)
    loss.backward()
    arrays = {"x": x.numpy(), "loss": loss.detach().numpy()}
    arrays.update({f"grad/{k}": p.grad.numpy() for k, p in net.named_parameters()})
    np.savez_compressed(os.path.join(folder, f"{name}.npz"), **arrays)
    print(name, sum(p.numel() for p in net.parameters()))


def main():
    os.makedirs(sys.argv[1], exist_ok=True)
    for name, net, shape in networks():
        store(sys.argv[1], name, net, shape)


if __name__ == "__main__":
    main()
