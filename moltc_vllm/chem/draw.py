"""Draw molecules as SVG."""

from __future__ import annotations

from typing import Any

from rdkit.Chem.Draw import rdMolDraw2D

from moltc_vllm.chem.parse import parse_smiles


def draw_svg(smiles: str, width: int = 180, height: int = 120) -> str:
    """Draw a molecule as an ``<svg>`` element without an XML header.

    Args:
        smiles: SMILES of the molecule.
        width: Width in pixels.
        height: Height in pixels.

    Raises:
        MoleculeError: If the SMILES cannot be read.
    """
    drawer = rdMolDraw2D.MolDraw2DSVG(width, height)
    options: Any = drawer.drawOptions()
    options.clearBackground = False
    options.padding = 0.08
    rdMolDraw2D.PrepareAndDrawMolecule(drawer, parse_smiles(smiles))
    drawer.FinishDrawing()
    text: str = drawer.GetDrawingText()
    return text[text.index("<svg") :].replace("\n", " ")
