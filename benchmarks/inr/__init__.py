"""An implicit baseline: the volume as a neural network, as in NeSVoR (Xu et al., IEEE TMI 2023), in plain PyTorch.

A multi-resolution grid of features and a small head, Monte-Carlo point spread function, learned poses, gains and
variances, edge-preserving regularisation. What the reconstruction by Gaussians is compared with: same data, same
scoring. It starts from stacks that gsvr has aligned.
"""

from benchmarks.inr.options import InrOptions
from benchmarks.inr.training import InrProgress, InrResult, train

__all__ = ["InrOptions", "InrProgress", "InrResult", "train"]
