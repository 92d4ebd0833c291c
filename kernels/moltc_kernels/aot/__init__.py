"""Ahead-of-time builds of every shipped kernel, which check its resources without a GPU.

``python -m moltc_kernels.aot --check`` compiles each kernel for each dtype and device, and compares
the assembler's statistics with hard limits and with ``budget.json``.
"""
