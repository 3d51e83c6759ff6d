"""Free Gaussians on a device: their geometry, and halves of them, as `gsvr.model.fields` and the host define both."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from gsvr.backends.torch.gaussian_reference import covariances, rotation_from_quaternion
from gsvr.backends.torch.lattice_tiles import exact_type
from gsvr.model.fields import GaussianField
from gsvr.solver.geometry_refinement import APART


@dataclass(frozen=True)
class DeviceField:
    """Tensors of what `gsvr.model.fields.GaussianField` explains."""

    means: Float32[Tensor, "n 3"]
    log_scales: Float32[Tensor, "n 3"]
    quaternions: Float32[Tensor, "n 4"]
    amplitudes: Float32[Tensor, " n"]

    @staticmethod
    def of(field: GaussianField, device: torch.device) -> DeviceField:
        """Copy a field to a device."""
        parts = (field.means, field.log_scales, field.quaternions, field.amplitudes)
        return DeviceField(*(torch.as_tensor(np.ascontiguousarray(part)).to(device) for part in parts))

    def on_host(self) -> GaussianField:
        """A copy."""
        return GaussianField(**{name: part.cpu().numpy() for name, part in vars(self).items()})

    def shape_gradient(
        self, covariance_gradient: Float[Tensor, "n 3 3"]
    ) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 4"]]:
        """Gradients by log-scales and quaternions from the gradient by the covariances."""
        exact = exact_type(self.means.device)
        shapes = [part.detach().to(exact).requires_grad_() for part in (self.log_scales, self.quaternions)]
        with torch.enable_grad():
            made = covariances(*shapes)
        by_scale, by_quaternion = torch.autograd.grad(made, shapes, covariance_gradient)
        return by_scale, by_quaternion

    def subset(self, keep: Bool[Tensor, " n"]) -> DeviceField:
        """Some of the Gaussians; asks the device how many."""
        index = keep.nonzero()[:, 0]
        return DeviceField(**{name: part[index] for name, part in vars(self).items()})

    def joined(self, other: DeviceField) -> DeviceField:
        """These Gaussians, then those of another field."""
        return DeviceField(**{name: torch.cat([part, vars(other)[name]]) for name, part in vars(self).items()})

    def halves(self) -> DeviceField:
        """Two Gaussians for each, see `gsvr.solver.geometry_refinement.halves`."""
        exact = exact_type(self.means.device)
        longest = self.log_scales.argmax(1, keepdim=True)
        rotation = rotation_from_quaternion(self.quaternions.to(exact))
        axes = rotation.gather(2, longest[:, None].expand(-1, 3, -1))[:, :, 0]
        offset = APART * self.log_scales.gather(1, longest).to(exact).exp() * axes
        narrower = (1 - APART**2) ** 0.5
        along = torch.zeros_like(self.log_scales).scatter(1, longest, float(np.log(narrower)))
        half = replace(self, log_scales=self.log_scales + along, amplitudes=self.amplitudes / (2 * narrower))
        return replace(half, means=(self.means - offset).float()).joined(
            replace(half, means=(self.means + offset).float())
        )
