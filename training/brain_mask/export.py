"""Writes the averaged weights of a checkpoint as ONNX, normalisation folded into the convolutions.

``python -m training.brain_mask.export --checkpoint RUN/checkpoint.pt --output src/gsvr/masks/automatic/brain.onnx``
"""

from __future__ import annotations

import argparse
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn

from training.brain_mask.network import CHANNELS, BrainNetwork


class _Probability(nn.Module):
    def __init__(self, network: BrainNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.network(slices))


def export(checkpoint: Path, output: Path) -> None:
    """Network of ``slices`` (batch, 3, rows, columns) to ``probability`` (batch, 1, rows, columns)."""
    saved = torch.load(checkpoint, weights_only=True, map_location="cpu")
    network = BrainNetwork()
    network.load_state_dict(saved["averaged"])
    torch.onnx.export(
        _Probability(network).eval(),
        (torch.zeros(1, CHANNELS, 128, 128),),
        output,
        input_names=["slices"],
        output_names=["probability"],
        dynamic_axes={name: {0: "batch", 2: "rows", 3: "columns"} for name in ("slices", "probability")},
        opset_version=17,
        dynamo=False,
    )
    model = onnx.load(output)
    _halve(model)
    model.doc_string = f"Fetal brain in three neighbouring slices of 2 mm pixels; {saved['step']} steps of training"
    onnx.checker.check_model(model)
    onnx.save(model, output)


@torch.no_grad()
def load_exported(network: BrainNetwork, weights: Path, images: torch.Tensor) -> None:
    """Puts exported weights back into a network, so that training can go on from them.

    `export` folded the normalisation into the convolutions. It is set from ``images`` (batch, 3, rows, columns): what a
    convolution makes of them is normalised and then restored, so that the network computes what the file does.

    Raises
    ------
    ValueError
        If the file is of another network.
    """
    graph = onnx.load(weights).graph
    stored = {i.name.removesuffix("_half"): numpy_helper.to_array(i).astype(np.float32) for i in graph.initializer}
    convolutions = [node.input for node in graph.node if node.op_type == "Conv"]
    modules = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    if [module.weight.shape for module in modules] != [stored[weight].shape for _, weight, _ in convolutions]:
        raise ValueError(f"{weights} holds the weights of another network")
    biases: dict[nn.Module, torch.Tensor] = {}
    for module, (_, weight, bias) in zip(modules, convolutions, strict=True):
        module.weight.copy_(torch.from_numpy(stored[weight]))
        biases[module] = torch.from_numpy(stored[bias])
        if module.bias is not None:
            module.bias.copy_(biases[module])

    def restore(bias: torch.Tensor, normalisation: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        assert isinstance(normalisation, nn.BatchNorm2d)
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
        scale = (variance + normalisation.eps).sqrt()
        stored = {"running_mean": mean, "running_var": variance, "weight": scale, "bias": mean + bias}
        normalisation.load_state_dict(stored, strict=False)

    hooks = [
        after.register_forward_pre_hook(partial(restore, biases[before]))
        for group in network.modules()
        if isinstance(group, nn.Sequential)
        for before, after in pairwise(group)
        if isinstance(after, nn.BatchNorm2d)
    ]
    network.eval()(images)
    for hook in hooks:
        hook.remove()


def _halve(model: onnx.ModelProto) -> None:
    """Keeps the weights in half precision; a cast before their use makes them float32 again."""
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != onnx.TensorProto.FLOAT or len(weight.dims) < 2:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), name + "_half"))
        casts.append(helper.make_node("Cast", [name + "_half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    export(given.checkpoint, given.output)


if __name__ == "__main__":
    main()
