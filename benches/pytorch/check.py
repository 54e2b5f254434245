"""Checks models.py against stored outputs of the public reference implementations.

DIR holds NAME.safetensors (state dict, `input.*`, `output`) and NAME.json (its configuration).
"""

import argparse
import json
import sys
from pathlib import Path
from unittest.mock import patch

import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from models import GPHT, Autoformer, DLinear, Informer, ITransformer, NLinear, OLinear, weighted_l1

FILES = [
    "dlinear",
    "dlinear_individual",
    "nlinear",
    "itransformer",
    "itransformer_nomark",
    "olinear",
    "autoformer",
    "autoformer_train",
    "informer",
    "informer_train",
    "gpht",
]
TOLERANCE = 1e-5
INPUTS = ("input.x_enc", "input.x_mark_enc", "input.x_mark_dec")
# Whatever else a file holds belongs to its state dict.
NOT_STATE = (
    "input.",
    "grad.",
    "adam3.",
    "target",
    "output",
    "loss",
    "pe_head",
    "index_sample.",
    "selected_",
    "rollout",
)
# One of two public versions calls its head by another name.
RENAMED = {"itransformer": ("projection.", "projector."), "informer": ("decoder.projection.", "projection.")}


def build(model, config, tensors):
    """The model that a configuration describes, in the names of the reference implementations."""
    if model == "gpht":
        sizes = {key: config[f"GT_{key}"] for key in ("d_model", "d_ff")} | {"layers": config["GT_e_layers"]}
        tokens = {"token": config["token_len"], "pooling": config["GT_pooling_rate"]}
        shape = (config["seq_len"], tensors["rollout"].shape[1], tensors["rollout"].shape[2])
        return GPHT(*shape, **tokens, **sizes, heads=config["n_heads"], dropout=0.0)
    shape = (config["seq_len"], config["pred_len"], config["enc_in"])
    if model == "nlinear":
        return NLinear(*shape, individual=config["individual"])
    if model == "dlinear":
        return DLinear(*shape, individual=config["individual"], moving_avg=config["moving_avg"])
    sizes = {key: config[key] for key in ("d_model", "d_ff")} | {"dropout": 0.0}
    if model in ("autoformer", "informer"):
        names = {"heads": "n_heads", "encoder_layers": "e_layers", "decoder_layers": "d_layers", "label": "label_len"}
        sizes |= {ours: config[theirs] for ours, theirs in names.items()} | {"factor": config["factor"]}
        shape += (tensors["input.x_mark_enc"].shape[2],)
        if model == "autoformer":
            return Autoformer(*shape, **sizes, moving_average=config["moving_avg"])
        return Informer(*shape, **sizes, distil=config["distil"], tslib=True)
    sizes["layers"] = config["e_layers"]
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
    model_name = stored["model"].split("_")[0]
    model = build(model_name, stored["config"], tensors)
    theirs, ours = RENAMED.get(model_name, ("", ""))
    state = {
        ours + key.removeprefix(theirs) if key.startswith(theirs) else key: value
        for key, value in tensors.items()
        if not key.startswith(NOT_STATE)
    }
    model.load_state_dict(state)
    model.train(stored["mode"] == "train")
    inputs = [tensors[key] for key in INPUTS if key in tensors]
    # The keys that Informer drew, call by call.
    samples = [tensors[key].long() for key in sorted(tensors) if key.startswith("index_sample.")]
    with torch.inference_mode(), patch.object(torch, "randint", side_effect=samples):
        if model_name == "gpht":
            found = {"output": model.next_tokens(*inputs), "rollout": model(*inputs)}
        else:
            found = {"output": model(*inputs)}
        if "loss_weighted_l1" in tensors:
            found["loss_weighted_l1"] = weighted_l1(found["output"], tensors["target"])
    return torch.stack([(value - tensors[key]).abs().max() for key, value in found.items()]).max().item()


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
