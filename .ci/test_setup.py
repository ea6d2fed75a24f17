"""`make` sets itself up on a machine that is not quite ready, or says what the machine lacks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PYTHON = f"""#!/bin/sh
case $1 in -m) {{lacks}} "{sys.executable}" "$@" --without-pip && cp pip.py .venv/lib/*/*/;;
-c) "{sys.executable}" -c "import sys; {{old}}; $2";; *) {{other}} "{sys.executable}" "$@";; esac"""
MAKE = ["make", "--file", str(Path(__file__).parents[1] / "Makefile"), ".venv/demo"]


def has(name="python3", lacks="", old="pass", other=""):
    """Give the machine this Python."""
    Path(name).write_text(PYTHON.format(lacks=lacks, old=old, other=other))
    Path(name).chmod(0o755)


def demo(*arguments, pip=""):
    """Set up the demo, and return whether that made or kept `.venv`, or what it failed with."""
    environment, mark = {"PATH": f".:{os.environ['PATH']}", "PIP": pip}, Path(".venv/mark")
    done = subprocess.run([*MAKE, *arguments], env=environment, capture_output=True, text=True)
    kept = "kept" if mark.exists() else "made"
    return done.stdout + done.stderr if done.returncode else mark.touch() or kept


@pytest.fixture(autouse=True)
def clone_on_a_machine_with_a_python3(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("setup.cfg").touch()
    Path("pip.py").write_text("import os\nif __name__ == '__main__': exec(os.environ['PIP'])")
    has()


def test_an_old_or_missing_python_is_named_with_the_way_out_and_another_one_stays():
    has(old="sys.version_info = (3, 10)")
    for name in "python3", "python3.99":
        assert f"{name} is not Python 3.11 or later. Name one that is:" in demo(f"PYTHON={name}")
    has("python3.12")
    assert "make .venv/demo PYTHON=python3.12" in demo()
    assert [demo("PYTHON=python3.12"), demo()] == ["made", "kept"]
    has("python3.99", other="echo Python 3.99;")
    assert [demo("PYTHON=python3.99"), demo("PYTHON=python3.12")] == ["made", "made"]


def test_an_installation_that_failed_resumes_without_what_is_half_there():
    assert "cut" in demo(pip="os.makedirs('.venv/lib/a/b/x.dist-info'); exit('cut')")
    assert [demo(pip="os.mkdir('.venv/lib/a/b/x.dist-info')"), demo(pip="1/0")] == ["made", "kept"]


def test_a_broken_venv_is_made_anew(monkeypatch):
    has(lacks="mkdir .venv; echo 'apt install python3-venv'; exit 1;")
    assert ["apt install" in demo(), has(), demo()] == [True, None, "made"]
    for harm in "rm .venv/lib/*/*/pip.py", "ln -sf gone .venv/bin/python", "cp -R . ../moved":
        subprocess.run(["sh", "-c", harm], check=True)
        monkeypatch.chdir("../moved" if "moved" in harm else ".")
        assert [demo(), demo()] == ["made", "kept"]
