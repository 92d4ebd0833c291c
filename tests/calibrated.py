"""A copy of the shipped checkpoint with a calibration and an index of three molecules."""

import shutil

from moltc_vllm.checkpoints.shipped import shipped_checkpoint
from moltc_vllm.models.calibration import (
    Calibration,
    GroupCalibration,
    TaskCalibration,
    write_calibration,
)
from moltc_vllm.models.familiarity import FamiliarityIndex

KNOWN, SIMILAR, UNLIKE = "CCCCCCCCO", "CCCCCCCCCO", "Fc1ccccc1Br"


def numbers(factor, slope):
    scores = tuple(factor * level / 50 for level in range(101))
    return GroupCalibration(rows=500, slope=slope, std_scale=factor, scores=scores)


def labels(slope):
    return GroupCalibration(rows=500, slope=slope)


def calibrated_checkpoint(folder):
    """Create the checkpoint in a new folder and return it."""
    shutil.copytree(shipped_checkpoint(), folder)
    for name in ("calibration.json", "familiarity.safetensors"):
        (folder / name).unlink(missing_ok=True)
    numeric = {"all": numbers(1, 1.0), "similar": numbers(2, 0.5), "unlike": numbers(3, 0.1)}
    label_groups = {"all": labels(1.0), "similar": labels(0.5), "unlike": labels(0.1)}
    tasks = {
        "solvation": TaskCalibration(groups=numeric),
        "ddi": TaskCalibration(groups=label_groups),
    }
    write_calibration(folder, Calibration(tasks=tasks))
    molecules = [KNOWN, "O", "c1ccccc1"]
    FamiliarityIndex.build(dict.fromkeys(tasks, molecules)).save(folder)
    return folder
