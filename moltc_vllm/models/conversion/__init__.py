"""Conversion of published MolTC and MolCA files to checkpoint folders of this package.

`pickles` reads files without executing them, `weight_names` maps published names to ours, `sizes`
infers the configuration from weight shapes, `lora` merges or keeps adapters, and `convert` writes
the checkpoint folder. `projector_split` copies a checkpoint's projectors for separate roles.
"""
