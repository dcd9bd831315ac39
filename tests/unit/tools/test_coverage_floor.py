"""Which added lines count, and when a change is below the floor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tools import coverage_floor
from tools.coverage_floor import added, missed

DIFFERENCE = """\
diff --git a/operator/a.py b/operator/a.py
--- a/operator/a.py
+++ b/operator/a.py
@@ -3,0 +4,2 @@ def f():
+    one
+    two
@@ -9 +11 @@
-old
+new
@@ -20,2 +22,0 @@
-gone
-gone
"""


def test_added_lines_are_those_of_the_new_file() -> None:
    assert added(DIFFERENCE) == {"operator/a.py": {4, 5, 11}}


def test_comments_and_files_that_are_not_measured_do_not_count() -> None:
    report = {"operator/a.py": {"executed_lines": [4], "missing_lines": [11, 12]}}
    lines = {"operator/a.py": {4, 5, 11}, "tests/b.py": {1}}
    assert missed(lines, report) == (2, {"operator/a.py": [11]})


@pytest.mark.parametrize(("missing", "code"), [([], 0), ([11], 1)])
def test_the_exit_code_says_whether_the_floor_holds(
    missing: list[int], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = {"executed_lines": [n for n in (4, 5, 11) if n not in missing], "missing_lines": missing}
    path = tmp_path / "coverage.json"
    path.write_text(json.dumps({"totals": {"percent_covered": 93.4}, "files": {"operator/a.py": file}}))
    monkeypatch.setattr(coverage_floor, "added", lambda difference: {"operator/a.py": {4, 5, 11}})
    assert coverage_floor.main([str(path)]) == code
    assert "all code: 93.4 %" in capsys.readouterr().out
