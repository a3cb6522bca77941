"""Everything written is complete or absent: checked by failing in the middle."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from minigpt.errors import Error
from minigpt.files import alone, atomic_directory, atomic_file, write_atomic

ROOT = Path(__file__).parents[1]


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_write_replaces_and_leaves_nothing_else(tmp_path):
    write_atomic(tmp_path / "a/b.txt", "one\r\n")
    write_atomic(str(tmp_path / "a/b.txt"), b"two\xff")
    assert (tmp_path / "a/b.txt").read_bytes() == b"two\xff"
    assert names(tmp_path / "a") == ["b.txt"]


def test_text_is_written_as_it_is(tmp_path):
    write_atomic(tmp_path / "t", "é\r\n咳\n")
    assert (tmp_path / "t").read_bytes() == "é\r\n咳\n".encode()


def test_the_file_has_ordinary_permissions(tmp_path):
    mask = os.umask(0o022)
    try:
        write_atomic(tmp_path / "t", "x")
    finally:
        os.umask(mask)
    assert (tmp_path / "t").stat().st_mode & 0o777 == 0o644


def test_failed_file_keeps_the_old_one(tmp_path):
    target = tmp_path / "weights"
    write_atomic(target, "old")
    with pytest.raises(RuntimeError), atomic_file(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and names(tmp_path) == ["weights"]


def test_file_is_absent_until_the_body_ends(tmp_path):
    with atomic_file(tmp_path / "w") as temporary:
        temporary.write_text("x")
        assert not (tmp_path / "w").exists() and ".tmp-" in temporary.name
    assert names(tmp_path) == ["w"]
    with pytest.raises(Error, match="nothing was written"), atomic_file(tmp_path / "empty"):
        pass


def test_unwritable_places_say_so(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(Error, match="cannot create the folder"):
        write_atomic(tmp_path / "file/x", "")
    with pytest.raises(Error, match="cannot write"):
        write_atomic(tmp_path / "folder", "")
    with pytest.raises(Error, match="is a file"), atomic_directory(tmp_path / "file"):
        pass
    assert names(tmp_path) == ["file", "folder"]


def test_contents_reach_the_disk_before_the_rename(tmp_path, monkeypatch):
    events = []
    fsync, rename = os.fsync, type(tmp_path).replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("sync"), fsync(fd)))
    monkeypatch.setattr(type(tmp_path), "replace", lambda a, b: (events.append("rename"), rename(a, b)))
    write_atomic(tmp_path / "x", "1")
    assert events == ["sync", "rename", "sync"]


def test_directory_appears_whole(tmp_path):
    with atomic_directory(tmp_path / "deep/tokens") as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub/a").write_text("1")
        assert not (tmp_path / "deep/tokens").exists()
    assert (tmp_path / "deep/tokens/sub/a").read_text() == "1" and names(tmp_path / "deep") == ["tokens"]


def test_directory_refuses_what_is_there_unless_told(tmp_path):
    write_atomic(tmp_path / "t/old", "1")
    with pytest.raises(Error, match="not empty"), atomic_directory(tmp_path / "t"):
        pass
    with atomic_directory(tmp_path / "t", replace=True) as temporary:
        (temporary / "new").write_text("2")
    assert names(tmp_path / "t") == ["new"] and names(tmp_path) == ["t"]


def test_failed_directory_keeps_the_old_one(tmp_path):
    write_atomic(tmp_path / "t/old", "1")
    with pytest.raises(KeyboardInterrupt), atomic_directory(tmp_path / "t", replace=True) as temporary:
        (temporary / "new").write_text("2")
        raise KeyboardInterrupt
    assert names(tmp_path / "t") == ["old"] and names(tmp_path) == ["t"]


def test_failed_rename_puts_the_old_directory_back(tmp_path, monkeypatch):
    write_atomic(tmp_path / "t/old", "1")
    rename, calls = type(tmp_path).rename, []

    def second_fails(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError("disk full")
        return rename(source, target)

    monkeypatch.setattr(type(tmp_path), "rename", second_fails)
    with pytest.raises(Error, match="disk full"), atomic_directory(tmp_path / "t", replace=True) as temporary:
        (temporary / "new").write_text("2")
    assert names(tmp_path / "t") == ["old"] and names(tmp_path) == ["t"]


def test_one_writer_at_a_time_and_the_next_when_it_is_gone(tmp_path):
    with alone(tmp_path / "run"):
        with pytest.raises(Error, match="run: another process is writing here"), alone(tmp_path / "run"):
            pass
        with alone(tmp_path / "other"):  # elsewhere is free
            pass
    assert names(tmp_path / "run") == []
    with alone(tmp_path / "run"):
        pass


def test_a_writer_that_is_killed_lets_go(tmp_path):
    code = "import sys, time; from minigpt.files import alone\n"
    code += "with alone(sys.argv[1]): print('in', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout.readline() == b"in\n"
    with pytest.raises(Error, match="another process is writing here"), alone(tmp_path):
        pass
    process.kill()
    process.communicate()
    with alone(tmp_path):
        assert names(tmp_path) == [".lock"]
    assert names(tmp_path) == []
