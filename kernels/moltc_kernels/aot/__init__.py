"""Ahead-of-time builds of every shipped kernel: what can be known of them without a GPU.

``python -m moltc_kernels.aot --check`` compiles each kernel for each dtype and device and holds
what the assembler says against hard limits and against ``budget.json``.
"""
