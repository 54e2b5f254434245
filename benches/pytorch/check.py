"""Checks models.py against stored outputs of the public reference implementations.

DIR holds NAME.safetensors (state dict, `input.*`, `output`) and NAME.json (its configuration).
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from models import DLinear, ITransformer, NLinear, OLinear, weighted_l1

FILES = ["dlinear", "dlinear_individual", "nlinear", "itransformer", "itransformer_nomark", "olinear"]
TOLERANCE = 1e-5
# Whatever else a file holds belongs to its state dict.
NOT_STATE = ("input.", "grad.", "adam3.", "target", "output", "loss")


def build(model, config, tensors):
    """The model that a configuration describes, in the names of the reference implementations."""
    shape = (config["seq_len"], config["pred_len"], config["enc_in"])
    if model == "nlinear":
        return NLinear(*shape, individual=config["individual"])
    if model == "dlinear":
        return DLinear(*shape, individual=config["individual"], moving_avg=config["moving_avg"])
    sizes = {key: config[key] for key in ("d_model", "d_ff")} | {"layers": config["e_layers"], "dropout": 0.0}
    if model == "olinear":
        bases = {"basis_in": tensors["input.q_mat"], "basis_out": tensors["input.q_out_mat"]}
        return OLinear(*shape, embed_size=config["embed_size"], **sizes, **bases)
    activation = getattr(F, config["activation"])
    use_norm = config.get("use_norm", True)
    return ITransformer(*shape, heads=config["n_heads"], **sizes, use_norm=use_norm, activation=activation)


def difference(folder, name):
    """The largest difference from what is stored."""
    tensors = load_file(folder / f"{name}.safetensors")
    stored = json.loads((folder / f"{name}.json").read_text())
    model = build(stored["model"].removesuffix("_individual").removesuffix("_nomark"), stored["config"], tensors)
    # One of two public versions of iTransformer calls its head `projection`.
    state = {
        key.replace("projection.", "projector.") if key.startswith("projection.") else key: value
        for key, value in tensors.items()
        if not key.startswith(NOT_STATE)
    }
    model.load_state_dict(state)
    model.eval()
    with torch.inference_mode():
        output = model(tensors["input.x_enc"], tensors.get("input.x_mark_enc"))
        largest = (output - tensors["output"]).abs().max().item()
        if "loss_weighted_l1" in tensors:
            loss = weighted_l1(output, tensors["target"])
            largest = max(largest, (loss - tensors["loss_weighted_l1"]).abs().item())
    return largest


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    folder = parser.parse_args().folder
    failed = False
    for name in FILES:
        try:
            largest = difference(folder, name)
        except (OSError, RuntimeError, KeyError) as error:
            failed = True
            print(f"{name}: FAILED, {error}")
            continue
        right = largest <= TOLERANCE
        failed |= not right
        print(f"{name}: {'ok' if right else 'FAILED'}, largest difference {largest:.1e}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
