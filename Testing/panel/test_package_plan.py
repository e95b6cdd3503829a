"""What is missing, what stands in the way and what pip said: found by facts, each with a name and a repair."""

import sys

import pytest

PLACES = {"site": "/opt/Slicer/lib", "writable": True, "free_mb": 50_000, "temporary_free_mb": 50_000}


def findings(torch="ok", monai="ok", driver=False, build="", long_paths=True, **places) -> dict:
    """As the job "packages" gives them."""
    states = {"torch>=2.2": torch, "monai>=1.3": monai, "safetensors>=0.4": "ok"}
    packages = [
        {
            "name": text.split(">")[0],
            "requirement": text,
            "installed": "2.9" if state != "missing" else "",
            "state": state,
        }
        for text, state in states.items()
    ]
    return {
        "python": sys.executable,
        "packages": [{**package, "problem": ""} for package in packages],
        "kept": {"numpy": "2.0.2"},
        "gpu": {"driver": driver, "build": build},
        "places": {**PLACES, **places},
        "long_paths": long_paths,
    }


def test_a_torch_that_works_is_never_in_the_plan(module):
    from MambaSegmentationLib.PackagePlan import Plan

    plan = Plan.of(findings(monai="missing"))
    assert plan.install == ("monai>=1.3",) and plan.repair == ()
    assert plan.keep == ("numpy==2.0.2", "torch==2.9"), "pip must not replace them on the way"
    assert not Plan.of(findings())


def test_half_installed_torch_is_repaired_and_nothing_else(module):
    from MambaSegmentationLib.PackagePlan import Plan

    plan = Plan.of(findings(torch="broken", monai="broken"))
    assert plan.repair == ("torch>=2.2",) and plan.install == (), "monai cannot be judged without torch"
    assert plan.sizesMb["torch"] > 100 and "torch" in plan.text()


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({"writable": False}, "no permission"),
        ({"free_mb": 900}, "disk full"),
        ({"temporary_free_mb": 500}, "disk full"),
        ({"long_paths": False}, "long path"),
    ],
)
def test_hindrances_are_found_by_facts(module, facts, name):
    from MambaSegmentationLib import InstallCauses

    cause = InstallCauses.hindrance(findings(torch="missing", **facts), 600)
    assert cause.name == name and cause.repair
    assert InstallCauses.hindrance(findings(torch="missing"), 600) is None


def test_flaws_of_torch_are_found_by_facts(module):
    from MambaSegmentationLib import InstallCauses

    assert InstallCauses.flaw(findings(torch="broken")).name == "half installed"
    assert InstallCauses.flaw(findings(torch="broken", long_paths=False)).name == "long path"
    assert InstallCauses.flaw(findings(driver=True, build="")).name == "wrong build"
    assert InstallCauses.flaw(findings(driver=True, build="12.8")) is None
    assert InstallCauses.flaw(findings()) is None


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("OSError: [WinError 206] The filename or extension is too long", "long path"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk full"),
        ("OSError: [Errno 13] Permission denied: '/opt/Slicer/lib/x.so'", "no permission"),
        ("PermissionError: [WinError 32] The file is being used by another process", "in use"),
        ("NewConnectionError('Failed to establish: [Errno -2] Name not known')", "no network"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]'))", "certificate"),
        ("ERROR: No matching distribution found for torch>=2.2", "not found"),
        ("Segmentation fault", "unknown"),
    ],
)
def test_pip_is_understood(module, line, name):
    from MambaSegmentationLib import InstallCauses

    cause = InstallCauses.recognise("Collecting torch\n" + line)
    assert cause.name == name and cause.text and cause.repair
