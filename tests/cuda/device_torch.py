#!/usr/bin/env python3
"""On a machine with a GPU: PyTorch's times for networks that device.sh times, in f16: eager, as a CUDA graph, and by
torch.compile(mode="max-autotune"). device_torch.py [--no-compile] [NAME.BATCH …]"""
import statistics
import sys

import torch


def resnet50(batch):
    import torchvision
    model = torchvision.models.resnet50(weights=None).eval().half().cuda().to(memory_format=torch.channels_last)
    return model, (torch.randn(batch, 3, 224, 224, device="cuda").half().to(memory_format=torch.channels_last),)


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


def main():
    names = [a for a in sys.argv[1:] if not a.startswith("--")] or ["resnet50.1", "bert.1", "resnet50.32", "bert.32"]
    for name in names:
        which, batch = name.split(".")
        with torch.no_grad():
            model, args = {"resnet50": resnet50, "bert": bert}[which](int(batch))
            line = f"torch {name}: eager {median_ms(lambda: model(*args)):.3f} ms"
            line += f", graph {median_ms(graph_of(model, args)):.3f} ms"
            print(line, flush=True)
            if "--no-compile" not in sys.argv:
                compiled = torch.compile(model, mode="max-autotune")
                print(f"torch {name}: max-autotune {median_ms(lambda: compiled(*args)):.3f} ms", flush=True)
        torch._dynamo.reset()


main()
