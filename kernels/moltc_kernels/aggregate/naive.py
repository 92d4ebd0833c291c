"""GIN aggregation: the reference in plain torch, differentiable."""

from __future__ import annotations

from torch import Tensor

from moltc_kernels.types import SELF_LOOP_CODE, BondCsr, ShapeError


def aggregate(h: Tensor, csr: BondCsr, bond_table: Tensor) -> Tensor:
    """Sum each atom's neighbor states, bond embeddings and self loop.

    ``a[v] = h[v] + table[0] + sum over bonds (u -> v) of (h[u] + table[code])``

    Args:
        h: Atom states, ``[V, dim]``, float32, bfloat16 or float16.
        csr: Incoming bonds of every atom.
        bond_table: Embeddings of (bond type, direction), ``[18, dim]``, in ``h``'s dtype.

    Returns:
        ``[V, dim]`` in ``h``'s dtype, accumulated in at least float32.

    Raises:
        ShapeError: If ``dim`` or the number of atoms differs between the arguments.

    Source: Hu et al. 2020 (edge features in GIN); MolTC section 3.1;
    ``docs/concepts/published-model.md``, "Graph encoder (GIN)".
    """
    check_shapes(h, csr, bond_table)
    wide = h if h.dtype.itemsize >= 4 else h.float()
    table = bond_table.to(wide.dtype)
    # The gradient of `index_select` is a plain sum; that of indexing sorts the indices first.
    message = wide.index_select(0, csr.source) + table.index_select(0, csr.code)  # E x d
    total = wide + table[SELF_LOOP_CODE]  # V x d
    return total.index_add(0, csr.target(), message).to(h.dtype)


def check_shapes(h: Tensor, csr: BondCsr, bond_table: Tensor) -> None:
    """Check that the arguments of `aggregate` fit together.

    Raises:
        ShapeError: If they do not.
    """
    if h.shape[0] != csr.num_atoms:
        raise ShapeError.of("h", h.shape, f"[{csr.num_atoms}, dim]")
    if bond_table.shape[1] != h.shape[1]:
        raise ShapeError.of("bond_table", bond_table.shape, f"[codes, {h.shape[1]}]")
