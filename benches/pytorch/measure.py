"""Measures one case of cases.toml in PyTorch on the CPU and prints one line of JSON."""

import time

# The start, where MEASURE_STARTED (Unix seconds, set by compare.py) does not tell it: before torch is imported.
LOADED = time.time()

import argparse
import json
import os
import resource
import statistics
import sys
import tomllib
from pathlib import Path

import torch

from models import GPHT, LOSSES, build

CASES = Path(__file__).with_name("cases.toml")
WARM_UP = 3
FEWEST = 3


def batch_of(case, size):
    """Random inputs and a target."""
    lookback, horizon, features = case["lookback"], case["horizon"], case["time_features"]
    x = torch.randn(size, lookback, case["variates"])
    past = torch.rand(size, lookback, features) - 0.5 if features else None
    inputs = (x, past)
    if label := case["network"].get("label"):  # it has a decoder
        future = torch.rand(size, horizon, features) - 0.5
        inputs += (torch.cat([past[:, -label:], future], dim=1),)
    return inputs, torch.randn(size, horizon, case["variates"])


def training_step(case, model):
    """One step of Adam on the same batch each time."""
    inputs, target = batch_of(case, case["batch"])
    forward = model
    if isinstance(model, GPHT):  # trained on what follows each token
        forward = model.next_tokens
        target = torch.cat([inputs[0], target[:, : model.token]], dim=1)[:, model.token :]
    loss_of = LOSSES[case["training"]["loss"]]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    model.train()

    def step():
        optimizer.zero_grad()
        loss = loss_of(forward(*inputs), target)
        loss.backward()
        optimizer.step()

    return step


def forecast(case, model, windows):
    """One forward pass."""
    inputs, _ = batch_of(case, windows)
    model.eval()

    @torch.inference_mode()
    def step():
        model(*inputs)

    return step


def peak_mb():
    """The most memory this process held, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def main():
    cases = {case["name"]: case for case in tomllib.loads(CASES.read_text())["case"]}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=cases, metavar="CASE", help=", ".join(cases))
    parser.add_argument("--what", choices=["step", "latency", "throughput"], required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    case = cases[arguments.case]
    shape = (case["lookback"], case["horizon"], case["variates"])
    model = build(case["model"], *shape, case["network"], case["time_features"])
    if arguments.what == "step":
        run = training_step(case, model)
    else:
        run = forecast(case, model, 1 if arguments.what == "latency" else 32)

    run()
    launch = time.time() - float(os.environ.get("MEASURE_STARTED", LOADED))
    for _ in range(WARM_UP - 1):
        run()

    times = []
    end = time.perf_counter() + arguments.seconds
    while len(times) < FEWEST or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))

    result = {
        "case": arguments.case,
        "what": arguments.what,
        "median_ms": round(statistics.median(times), 4),
        "best_ms": round(min(times), 4),
        "runs": len(times),
        "peak_mb": round(peak_mb(), 1),
        "launch_ms": round(1e3 * launch, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
