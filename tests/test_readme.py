"""What the README shows is true: its code runs, its tables are the module's, its commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import exam_requests

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CODE = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_first_handler_and_its_unit_test_work(exam_manager, tmp_path):
    handler, unit_test, logging, cleanup = CODE
    (tmp_path / "app.py").write_text(f"{logging}\n{handler}")
    (tmp_path / "test_app.py").write_text(unit_test)
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert "2 passed" in done.stdout, done.stdout
    names = {}
    exec(handler, names)  # noqa: S102
    report = names["report_progress"]
    assert report(exam_manager.task_id, 42, exam_manager.token) == 42
    assert exam_manager.tasks[exam_manager.task_id]["progress"] == 42
    assert cleanup in (ROOT / "examples" / "handlers.py").read_text()


def test_the_table_of_outcomes_is_that_of_the_module():
    table = re.search(r"={6} =+\nstatus.*?\n={6} =+\n(.*?)\n={6} =+", exam_requests.__doc__, re.S)
    rows = re.sub(r"\n {7}", " ", table[1]).splitlines()
    shown = re.findall(r"^\| (\d\d\d|4xx) \| (.*) \|$", README, re.M)
    assert [tuple(re.split(r" {3,4}", row, maxsplit=1)) for row in rows] == shown


def test_every_command_exists():
    makefile = (ROOT / "Makefile").read_text()
    shown = set(re.findall(r"`make (\w+)`", README)) | set(re.findall(r"^make (\w+)", README, re.M))
    assert shown == set(re.findall(r"^(\w+):.*##", makefile, re.MULTILINE)) - {"help"}
