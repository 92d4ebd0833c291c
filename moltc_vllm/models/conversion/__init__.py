"""Files of the published code (MolTC, and MolCA before it) as one of our checkpoint folders.

In the order of the way: `pickles` reads a file without running anything in it, `names` says which
published weight is which of ours, `sizes` makes a configuration of their shapes, `lora` merges or
keeps adapters, `convert` puts it together.
"""
