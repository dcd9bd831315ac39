"""Which added lines count, and when a change is below the floor."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tools import coverage_floor
from tools.coverage_floor import added, branched_from, missed

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
    assert coverage_floor.main([str(path), "--base", "HEAD"]) == code
    assert "all code: 93.4 %" in capsys.readouterr().out


def test_a_change_begins_where_its_branch_left_main(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *identity, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(text: str) -> str:
        git("commit", "--quiet", "--allow-empty", "--message", text)
        return git("rev-parse", "HEAD")

    git("init", "--quiet", "--initial-branch", "main")
    commit("one")
    left = commit("two")
    assert branched_from(tmp_path) == "HEAD~1"
    git("checkout", "--quiet", "-b", "change")
    commit("three")
    commit("four")
    assert branched_from(tmp_path) == left


def test_a_base_that_does_not_exist_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        coverage_floor.main([str(tmp_path / "coverage.json"), "--base", "no-such-branch"])
    assert ended.value.code == 2
    assert "--base no-such-branch: git knows no such commit" in capsys.readouterr().err
