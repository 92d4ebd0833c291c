"""Ahead-of-time builds of every shipped kernel, to check without a GPU what they will use on one.

``python -m moltc_kernels.aot --check`` compiles each kernel for each dtype and device, and compares
the assembler's statistics with hard limits and with ``budget.json``.
"""
