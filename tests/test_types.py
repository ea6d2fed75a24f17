"""What a type checker tells a caller who has installed the wheel."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_a_caller_of_the_installed_wheel_is_type_checked(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "MYPY_CACHE_DIR": str(ROOT / ".mypy_cache" / "caller"),
        "PYTHONPATH": str(tmp_path / "site"),
    }

    def run(*arguments: str | Path) -> None:
        ran = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=tmp_path,  # away from the working tree, which mypy would prefer
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert ran.returncode == 0, ran.stdout

    left_out = shutil.ignore_patterns(".*", "build", "dist", "mutants", "*.egg-info")
    shutil.copytree(ROOT, tmp_path / "source", symlinks=True, ignore=left_out)
    shutil.copy(ROOT / "tests" / "typed_caller.py", tmp_path)
    run("pip", "install", "--no-build-isolation", "--no-deps", "--target", "site", "./source")
    run("mypy", "--strict", "typed_caller.py")
