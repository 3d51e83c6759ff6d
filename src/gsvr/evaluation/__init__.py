"""How good a result is: volumes and poses against the truth, or stacks left out against their prediction."""

from gsvr.evaluation.agreement import SliceAgreement, slice_agreement
from gsvr.evaluation.image import Comparison, Quality, compare, fit_gain_offset, measure, ncc, nrmse, psnr, ssim
from gsvr.evaluation.pose import PoseErrors, pose_errors

__all__ = [
    "Comparison",
    "PoseErrors",
    "Quality",
    "SliceAgreement",
    "compare",
    "fit_gain_offset",
    "measure",
    "ncc",
    "nrmse",
    "pose_errors",
    "psnr",
    "slice_agreement",
    "ssim",
]
