"""The check of dependencies refuses what it should."""

from pathlib import Path

import pytest

import dependencies

pytestmark = pytest.mark.any_server


def test_a_licence_is_permitted_when_one_of_ours_can_be_chosen() -> None:
    for licence in ("MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "(GPL-3.0 OR MIT) AND ISC"):
        assert dependencies.permitted(licence), licence
    for licence in ("none", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND SSPL-1.0", "SSPL-1.0"):
        assert not dependencies.permitted(licence), licence


def test_each_fault_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = "".join(
        f'[[package]]\nname = "{name}"\nversion = "{version}"\n{source}\n'
        for name, version, source in [
            ("rustls", "0.23.44", f'source = "{dependencies.CRATES_IO}"\nchecksum = "1"'),
            ("twice", "1.0.0", 'source = "git+https://example.org/twice"'),
            ("twice", "2.0.0", ""),
        ]
    )
    (tmp_path / "Cargo.lock").write_text(lock)
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["a"]\n'
        '[project]\ndependencies = ["b>=1,<2"]\noptional-dependencies = {c = ["d>=1"]}\n'
    )
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "requirements.txt").write_text("# pinned\ne==1\nf>=2\n")
    monkeypatch.setattr(dependencies, "ROOT", tmp_path)
    monkeypatch.setattr(dependencies, "DUPLICATES", {"once": "no reason"})
    assert list(dependencies.advisories()) == [
        "rustls 0.23.44: RUSTSEC-2026-0285; it must be 0.23.45 or later"
    ]
    assert list(dependencies.sources()) == [
        "twice 1.0.0: it comes from git+https://example.org/twice, not from crates.io",
        "twice: it comes from a folder that is not ours",
    ]
    assert list(dependencies.duplicates()) == [
        "twice: built in the versions 1.0.0, 2.0.0",
        "once: it has one version; DUPLICATES need not name it",
    ]
    assert list(dependencies.bounds()) == [
        "pyproject.toml: a needs a lower and an upper bound",
        "pyproject.toml: d>=1 needs a lower and an upper bound",
        "tests/requirements.txt: f>=2 is not pinned",
    ]
