"""DICOM: examinations as scanners export them, read into stacks and written for tests; volumes as derived series.

The geometry is read with pydicom alone. A slice's place is stated in its header, so that nothing has to be guessed,
nothing is written on the way, and each slice keeps its acquisition time, which converters to NIfTI mostly drop.
What identifies a patient is read only to tell patients apart, as a digest, and never leaves this package.
"""
