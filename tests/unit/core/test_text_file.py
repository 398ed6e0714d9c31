"""Byte order marks: of a file, and of a folder that somebody else reads."""

from pathlib import Path

from stages.core.text_file import read_text_file, without_marks

MARK = b"\xef\xbb\xbf"


def test_a_mark_is_left_out_once_and_only_in_front(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for content, expected in (
        (MARK + b"a", b"a"),
        (b"a" + MARK, b"a" + MARK),
        (MARK * 2, MARK),
        (b"\xef\xbb", b"\xef\xbb"),
    ):
        path.write_bytes(content)
        assert read_text_file(path) == expected


def test_a_folder_without_marks_is_read_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_bytes(b"{}")
    (tmp_path / "model.bin").write_bytes(MARK)
    (tmp_path / "folder.json").mkdir()
    with without_marks(tmp_path) as folder:
        assert folder == tmp_path


def test_a_folder_with_a_mark_is_copied_without_it_and_the_copy_goes(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_bytes(b"{}")
    (tmp_path / "merges.txt").write_bytes(MARK + b"#version: 0.2\n")
    (tmp_path / "model.bin").write_bytes(b"large")
    with without_marks(tmp_path) as folder:
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
            "vocab.json": b"{}",
            "merges.txt": b"#version: 0.2\n",
        }
    assert not folder.exists()
    assert (tmp_path / "merges.txt").read_bytes().startswith(MARK)
