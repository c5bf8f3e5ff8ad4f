#!/usr/bin/env python3
"""On a machine with a GPU: PyTorch's median times in ms for a network that device.sh times, in f16: eager, as a CUDA graph, and by
torch.compile(mode="max-autotune"); "-" where one of them fails. device_torch.py [--no-compile] NETWORK.BATCH"""
import statistics
import sys

import torch


def image(batch):
    return (torch.randn(batch, 3, 224, 224, device="cuda").half().to(memory_format=torch.channels_last),)


def vision(name, batch):
    import torchvision
    model = getattr(torchvision.models, name)(weights=None).eval().half().cuda().to(memory_format=torch.channels_last)
    return model, image(batch)


def bert(batch):
    import transformers
    model = transformers.BertModel(transformers.BertConfig(), add_pooling_layer=True).eval().half().cuda()
    ids = torch.randint(0, 30000, (batch, 128), device="cuda")
    return model, (ids, torch.ones_like(ids))


def median_ms(run, n=100):
    for _ in range(10):
        run()
    times = []
    for _ in range(n):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def graph_of(model, args):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            model(*args)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        model(*args)
    return graph.replay


def attempt(make):
    """A time, as text, where it can be had."""
    try:
        return f"{median_ms(make()):.3f}"
    except Exception as why:
        print(f"{type(why).__name__}: {why}", file=sys.stderr)
        return "-"


def main():
    name, batch = next(a for a in sys.argv[1:] if not a.startswith("--")).rsplit(".", 1)
    with torch.no_grad():
        try:
            model, args = bert(int(batch)) if name == "bert_base_128" else vision(name, int(batch))
        except ImportError as why:
            print("- - -")
            return print(why, file=sys.stderr)
        times = [attempt(lambda: lambda: model(*args)), attempt(lambda: graph_of(model, args)), "-"]
        if "--no-compile" not in sys.argv:
            compiled = torch.compile(model, mode="max-autotune")
            times[2] = attempt(lambda: lambda: compiled(*args))
    print(*times)


main()
