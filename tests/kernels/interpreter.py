"""Run the kernels on CPU in Triton's interpreter, with its bfloat16 arithmetic corrected.

`triton.jit` decides at a function's definition whether it is compiled or interpreted, also for
Triton's own library (`tl.sum`). So this module does the first import of Triton and of the kernels
in a test process with ``TRITON_INTERPRET`` set. It unsets the variable afterwards, because servers
that other tests start must not inherit it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
from collections.abc import Iterator

INTERPRET_ENV = "TRITON_INTERPRET"

KERNEL_MODULES = (
    "moltc_kernels.triton_runtime",
    "moltc_kernels.aggregate.triton",
    "moltc_kernels.readout.triton",
    "moltc_kernels.cross_attention.triton",
    "moltc_kernels.gin_stack.molecule_kernel",
    "moltc_kernels.gin_stack.triton",
)


@contextlib.contextmanager
def interpreted_definitions() -> Iterator[None]:
    """Make `triton.jit` inside the block define interpreted functions."""
    before = os.environ.get(INTERPRET_ENV)
    os.environ[INTERPRET_ENV] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[INTERPRET_ENV]
        else:
            os.environ[INTERPRET_ENV] = before


def import_triton() -> None:
    """Import Triton interpreted; it takes half a second, as torch is not imported."""
    with interpreted_definitions():
        # Triton would import gluon at the first launch, when the variable is not set anymore.
        for name in ("triton", "triton.language", "triton.experimental.gluon"):
            importlib.import_module(name)
    check_interpreted(sys.modules["triton.language"].sum)


@functools.cache  # The check fails after a first launch, which replaces names of the modules.
def import_kernels() -> None:
    """Import every module that defines a kernel, interpreted, and correct bfloat16."""
    import_triton()
    correct_bfloat16()
    with interpreted_definitions():
        for name in KERNEL_MODULES:
            module = importlib.import_module(name)
            for function in vars(module).values():
                if type(function).__module__.startswith("triton.runtime"):
                    check_interpreted(function)


def check_interpreted(function: object) -> None:
    """Fail if a kernel was defined as a compiled function."""
    name = type(function).__name__
    assert name == "InterpretedFunction", f"{function} was imported too early: it is a {name}"


def correct_bfloat16() -> None:
    """Replace the interpreter's bfloat16 casts and products, which are wrong in Triton 3.9.

    The interpreter stores bfloat16 as the upper 16 bits of a float32 in unsigned integers. It
    truncates where the hardware rounds to nearest even, and `tl.dot` multiplies the bits as
    integers.
    """
    import numpy as np
    import triton.language as tl
    from triton.runtime import interpreter

    builder, handle = interpreter.InterpreterBuilder, interpreter.TensorHandle
    if getattr(builder, "moltc_bfloat16", False):
        return
    original_cast, original_convert, original_dot = (
        builder.cast_impl,
        builder.create_fp_to_fp,
        builder.create_dot,
    )

    def widen(source):
        if source.dtype.scalar != tl.bfloat16:
            return source
        bits = np.asarray(source.data).astype(np.uint32) << 16
        return handle(bits.view(np.float32), tl.float32)

    def narrow(source):
        values = np.ascontiguousarray(source.data, np.float32)
        bits = values.view(np.uint32)
        nearest_even = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        rounded = np.where(np.isnan(values), 0x7FC0, nearest_even).astype(np.uint16)
        return handle(rounded, tl.bfloat16)

    def cast(self, source, dtype):
        is_bfloat16 = source.dtype.scalar == tl.bfloat16
        if dtype.scalar == tl.bfloat16:
            return source if is_bfloat16 else narrow(source)
        # Equal types are cast as well: a comparison is declared int32, but its data are bool.
        return original_cast(self, widen(source), dtype)

    def convert(self, source, dtype, rounding):
        if tl.bfloat16 in (source.dtype.scalar, dtype.scalar):
            return cast(self, source, dtype)
        return original_convert(self, source, dtype, rounding)

    def dot(self, a, b, accumulator, precision, imprecise):
        return original_dot(self, widen(a), widen(b), accumulator, precision, imprecise)

    builder.cast_impl, builder.create_fp_to_fp, builder.create_dot = cast, convert, dot
    builder.moltc_bfloat16 = True
