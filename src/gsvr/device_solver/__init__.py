"""The solver of `gsvr.solver` on tensors of a device: the same rounds, without a trip to the host inside of one."""
