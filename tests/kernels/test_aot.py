"""Ahead-of-time builds of every shipped kernel stay within hard limits and the budget."""

import dataclasses
import os
import re
import subprocess
import sys

import pytest
import torch
import triton
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.kernels_aot import DEFAULT
from moltc_kernels.aot import roofline
from moltc_kernels.aot.budget import Budget, limit_violations, regressions
from moltc_kernels.aot.build import KernelStatistics, amd_statistics, build, nvidia_statistics
from moltc_kernels.aot.configurations import configurations
from moltc_kernels.aot.devices import DEVICES, occupancy
from moltc_kernels.gin_stack import naive
from moltc_kernels.launch import TARGETS, target_of
from tests.kernels.cases import gin_weights, molecules

GOOD = KernelStatistics(
    registers=100,
    spill_bytes=0,
    stack_bytes=0,
    shared_bytes=50_000,
    wide_loads=8,
    tensor_instructions=40,
)


def run_aot(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "moltc_kernels.aot", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "targets",
    # Each takes most of a minute on two cores.
    [("sm_90",), pytest.param(("sm_80", "sm_100", "gfx942"), marks=pytest.mark.slow)],
    ids="-".join,
)
def test_all_kernels_build_within_limits_and_budget(tmp_path, targets):
    options = [f"--target={target}" for target in targets]
    run = run_aot("--check", *options, TRITON_CACHE_DIR=str(tmp_path))
    assert run.returncode == 0, run.stderr + run.stdout
    count = sum(config.target in targets for config in configurations().values())
    assert f"{count} kernels built" in run.stdout
    assert "all within limits and budget" in run.stdout


def test_aot_refuses_to_build_with_interpreter():
    run = run_aot("--check", TRITON_INTERPRET="1")
    assert run.returncode == 2
    assert "TRITON_INTERPRET is set" in run.stderr


def test_configurations_cover_every_kernel_dtype_and_target():
    expected = configurations()
    for kernel in ("aggregate", "readout", "attention", "gin"):
        for target in TARGETS:
            dtypes = {
                c.dtype for c in expected.values() if (c.kernel, c.target) == (kernel, target)
            }
            # The fused stack supports half precision only.
            assert dtypes == {"bf16", "fp16"} | ({"fp32"} if kernel != "gin" else set())
    assert Budget.read().kernels.keys() == expected.keys()
    if Budget.read().triton == triton.__version__:
        assert not [
            line
            for name, recorded in Budget.read().kernels.items()
            for line in limit_violations(expected[name], recorded)
        ]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"spill_bytes": 4}, "spills 4 bytes"),
        ({"stack_bytes": 8}, "8 bytes of stack"),
        ({"shared_bytes": 166_913}, "166913 bytes of shared memory, the device has 166912"),
        ({"wide_loads": 0}, "no 128-bit load"),
        ({"tensor_instructions": 0}, "no tensor-core instruction"),
        ({"serialized": True}, "serialized matrix instructions"),
    ],
)
def test_limit_violations_describe_each_violation(change, complaint):
    expected = configurations()
    gin = expected["gin/atoms32/bf16/sm_80"]
    assert limit_violations(gin, GOOD) == []
    violations = limit_violations(gin, dataclasses.replace(GOOD, **change))
    assert len(violations) == 1
    assert violations[0].startswith("gin/atoms32/bf16/sm_80 ")
    assert complaint in violations[0]
    # A configuration that expects neither wide loads nor tensor cores does not require them.
    lean = dataclasses.replace(GOOD, wide_loads=0, tensor_instructions=0)
    assert limit_violations(expected["aggregate/dim300/bf16/sm_80"], lean) == []


def test_shared_memory_limits_equal_documented_values():
    limits = {target: DEVICES[target].max_shared for target in TARGETS}
    assert limits == {"sm_80": 166_912, "sm_90": 232_448, "sm_100": 232_448, "gfx942": 65_536}


@pytest.mark.parametrize(
    ("field", "worse", "better"),
    [
        ("registers", 101, 99),
        ("shared_bytes", 50_001, 49_999),
        ("spill_bytes", 4, 0),
        ("stack_bytes", 4, 0),
        ("wide_loads", 7, 9),
        ("tensor_instructions", 39, 41),
    ],
)
def test_regressions_report_losses_only(field, worse, better):
    def changed(value):
        return {"k": dataclasses.replace(GOOD, **{field: value})}

    before = getattr(GOOD, field)
    assert regressions({"k": GOOD}, changed(worse)) == [f"k: {field} {before} -> {worse}"]
    assert regressions({"k": GOOD}, changed(better)) == []


def test_regressions_report_missing_and_unknown_kernels(tmp_path):
    assert regressions({}, {"new": GOOD}) == ["new is not in the budget"]
    assert regressions({"old": GOOD}, {}) == ["old is only in the budget"]
    Budget("1.2", {"b": GOOD, "a": GOOD}).write(tmp_path / "budget.json")
    assert Budget.read(tmp_path / "budget.json") == Budget("1.2", {"a": GOOD, "b": GOOD})


def test_nvidia_statistics_parse_ptxas_and_sass():
    log = (
        "ptxas info : 48 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads\n"
        "ptxas info : Used 250 registers, used 1 barriers, 48 bytes cumulative stack size\n"
    )
    sass = "LDG.E.128 R4\n LDGSTS.E.BYPASS.128 [R1]\n LDG.E.64 R2\n LDS.128 R8\n HMMA.16816 R1\n"
    statistics = nvidia_statistics(log, sass + "HGMMA.64x32 R1\n UTCHMMA R2\n", 99)
    assert statistics == KernelStatistics(250, 12, 48, 99, 2, 3, serialized=False)
    for code in ("(C7511) Potential Performance Loss", "(C7512) Potential", "wgmma is serialized"):
        assert nvidia_statistics(log + code, sass, 0).serialized
    with pytest.raises(ValueError, match="registers"):
        nvidia_statistics("nothing", sass, 0)


def test_amd_statistics_parse_assembly():
    assembly = (
        "global_load_dwordx4 v[0:3]\n buffer_load_dwordx4 v[0:3]\n global_load_dwordx2 v[0:1]\n"
        "v_mfma_f32_32x32x8_bf16_1k a[0:15]\n .private_segment_fixed_size: 40\n"
        ".vgpr_count:     300\n .vgpr_spill_count: 2\n .sgpr_spill_count: 1\n"
    )
    assert amd_statistics(assembly, 7) == KernelStatistics(300, 12, 40, 7, 2, 1)


def test_build_refuses_with_interpreter(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET"):
        build(next(iter(configurations().values())))


def test_occupancy_is_limited_by_each_resource():
    h100, mi300x = DEVICES["sm_90"], DEVICES["gfx942"]
    assert occupancy(h100, 32, 0, 4) == 1
    assert occupancy(h100, 128, 0, 8) == 0.25
    assert occupancy(h100, 32, 232_448, 8) == 0.125
    assert occupancy(mi300x, 512, 0, 4) == 4 / 32
    assert occupancy(mi300x, 64, 32_768, 4) == 8 / 32


def test_cpu_tensor_uses_sm_90_configurations():
    assert target_of(torch.zeros(1)) == "sm_90"


def test_roofline_counts_flops_of_naive_implementation():
    _, linear = roofline.gin_layer_by_layer(4)
    batch = molecules([roofline.ATOMS])
    weights = gin_weights(300, 600, 5, torch.float32)
    with FlopCounterMode(display=False) as counter:
        naive.gin_stack(*batch, weights)
    assert linear.flops == counter.get_total_flops()


def test_one_launch_is_estimated_faster_exactly_where_selected():
    for batch, tiles in ((1, 1), (66, 1), (1, 2), (33, 2)):
        assert roofline.gin_latency(batch, tiles) < roofline.gin_latency(batch, None)
    for batch, tiles in ((132, 1), (66, 2), (1024, 1)):
        assert roofline.gin_latency(batch, tiles) > roofline.gin_latency(batch, None)


def test_written_table_matches_committed_budget():
    text = DEFAULT.read_text()
    assert "Computed, not measured" in text
    if Budget.read().triton not in text:
        pytest.skip("table and budget were written with different Triton releases")
    rows = re.findall(r"^\| (?:aggregate|attention|gin|readout) \|.*$", text, flags=re.M)
    assert len(rows) == len(configurations())
    for name, recorded in Budget.read().kernels.items():
        kernel, variant, dtype, target = name.split("/")
        start = f"| {kernel} | {variant} | {dtype} | {target} ("
        (row,) = (row for row in rows if row.startswith(start))
        assert row.split(" | ")[5] == str(recorded.registers)
