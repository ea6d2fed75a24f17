"""What the README shows is true: its code is run, and its commands exist."""

import re
from pathlib import Path
from typing import Any

from exam_manager import ExamManager

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CODE = re.findall(r"```python\n(.*?)\n```", README, re.DOTALL)


def test_the_first_handler_reports_progress(exam_manager: ExamManager) -> None:
    names: dict[str, Any] = {}
    exec(CODE[0], names)  # noqa: S102
    assert names["report_progress"](exam_manager.task_id, 42, exam_manager.token) == 42
    assert exam_manager.tasks[exam_manager.task_id]["progress"] == 42


def test_the_other_handlers_are_lines_of_the_example() -> None:
    example = (ROOT / "examples" / "handlers.py").read_text()
    assert len(CODE) == 4
    assert all(code in example for code in CODE[1:])


def test_every_command_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    shown = set(re.findall(r"`make (\w+)`", README)) | set(re.findall(r"^make (\w+)", README, re.M))
    assert shown == set(re.findall(r"^(\w+):.*##", makefile, re.MULTILINE)) - {"help"}
