"""The borders between folders (the rules stand in CONTRIBUTING.md): who may import whom, read from the sources."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SLICER = {"slicer", "qt", "ctk", "vtk", "vtkmodules", "vtkSegmentationCorePython", "mrml", "PythonQt"}
TORCH = {"torch", "monai", "safetensors", "triton", "torchvision"}
KERNELS = {"mamba_ssm", "causal_conv1d", "triton", "numba", "llvmlite", "torchvision"}
TORCH_FREE = {
    *("audit", "bundle", "bundle_schema", "card", "catalogue", "corrections", "errors", "image", "job", "label_file"),
    *("dicom_series", "metrics", "nifti_check", "postprocessing", "preprocessing", "regrid", "review", "roi"),
    *("normalisation", "picture", "volume", "worker", "request", "steps", "uncertainty", "cli_segment"),
    *("clicks", "edit_learning", "card_page", "folder_lock", "model_store", "model_versions"),
    *("corrected_case", "label_table", "safe_file", "thumbnail", "comparison", "dicom_seg", "dicom_source", "worklist"),
    *("batch", "batch_case", "batch_receipt", "case_files", "scores_file"),
    *("cli_audit", "cli_batch", "cli_corrections", "cli_dicom"),
    *("dicom_codes", "dicom_file", "dicom_report", "surface_file", "review_file"),
    *("packages", "package_download", "weights_storage", "wording"),
    *("remote", "remote_computer", "remote_files", "remote_link", "remote_protocol", "remote_worker"),
    *("bundle_archive", "export", "import_source", "model_add", "nnunet_plan", "provenance"),
}


def sources(folder):
    return sorted(p for p in (ROOT / folder).rglob("*.py") if "__pycache__" not in p.parts)


def imports(path, top_level_only=False):
    """Absolute names of all imported modules; relative ones resolved within their package."""
    found = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside_functions = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            inside_functions |= {id(child) for child in ast.walk(node)}
    for node in ast.walk(tree):
        if top_level_only and id(node) in inside_functions:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += _absolute(path, node)
    return found


def _absolute(path, node):
    if node.level == 0:
        return [node.module]
    package = list(path.relative_to(ROOT).parts[:-1])
    package = package[1:] if package[0] == "Training" else package
    base = ".".join(package[: len(package) - node.level + 1])
    return [f"{base}.{node.module}"] if node.module else [f"{base}.{alias.name}" for alias in node.names]


def roots(names):
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", sources("MambaSegLib"), ids=lambda p: str(p.relative_to(ROOT)))
def test_library_knows_neither_slicer_nor_training(path):
    assert not roots(imports(path)) & (SLICER | {"MambaSegTraining", "MambaSegmentationLib"})


@pytest.mark.parametrize("path", sources("Training"), ids=lambda p: str(p.relative_to(ROOT)))
def test_training_knows_no_slicer(path):
    assert not roots(imports(path)) & SLICER


@pytest.mark.parametrize("path", sources("MambaSegmentation"), ids=lambda p: str(p.relative_to(ROOT)))
def test_panel_knows_no_torch_and_only_torch_free_library_modules(path):
    names = imports(path)
    assert not roots(names) & (TORCH | KERNELS | {"MambaSegTraining"})
    for name in names:
        if name.startswith("MambaSegLib."):
            assert name.split(".")[1] in TORCH_FREE, f"{path.name} imports {name}, which is not torch-free"


@pytest.mark.parametrize("path", sources("MambaSegLib"), ids=lambda p: str(p.relative_to(ROOT)))
def test_layers_of_the_library(path):
    """ops <- blocks <- networks <- inference; kernels' packages only inside functions of ops."""
    parts = path.relative_to(ROOT / "MambaSegLib").parts
    names = imports(path)
    inner = {name.split(".")[1] for name in names if name.startswith("MambaSegLib.")}
    if parts[0] == "ops":
        assert not inner & {"blocks", "networks", "inference", "segment", "cli"}
        # Files that hold kernels are themselves imported only inside functions.
        allowed = {"llvmlite"} if path.name.startswith("llvm_") else set()
        allowed |= {"triton"} if path.name == "triton_scan_kernels.py" else set()
        assert not roots(imports(path, top_level_only=True)) & (KERNELS - allowed)
    else:
        assert not roots(names) & (KERNELS - {"llvmlite"})
    if parts[0] == "blocks":
        assert not inner & {"networks", "inference", "segment", "cli"}
    if parts[0] == "networks":
        assert not inner & {"inference", "segment", "cli"}


@pytest.mark.parametrize("path", sources("MambaSegLib") + sources("Training"), ids=lambda p: str(p.relative_to(ROOT)))
def test_monai_stands_where_it_may(path):
    if "monai" in roots(imports(path)):
        assert path.stem in {"inference", "patches", "augment", "losses", "evaluate", "monai_bridge"}


@pytest.mark.parametrize("module", [m for m in sorted(TORCH_FREE) if (ROOT / "MambaSegLib" / f"{m}.py").is_file()])
def test_torch_free_modules_load_no_torch(module):
    code = f"import sys, MambaSegLib.{module}; print(sorted({{'torch', 'monai', 'vtk', 'slicer'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_operators_load_without_a_jit(tmp_path):
    """On a platform without llvmlite the operators import, and say why the JIT is off."""
    pytest.importorskip("torch")
    (tmp_path / "llvmlite.py").write_text("raise ImportError('no wheel for this platform')")
    code = (
        "from MambaSegLib.ops.selective_scan import LADDER\n"
        "import torch, MambaSegLib.ops.selective_scan as s\n"
        "jit = next(b for b in LADDER.backends if b.name == 'jit')\n"
        "print(jit.refuses('cpu', 'float32'))\n"
        "x = torch.rand(1, 4, 9)\n"
        "print(s.selective_scan(x, x, -torch.rand(4, 2), torch.rand(1, 2, 9), torch.rand(1, 2, 9)).shape)\n"
    )
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "llvmlite" in done.stdout and "torch.Size([1, 4, 9])" in done.stdout
