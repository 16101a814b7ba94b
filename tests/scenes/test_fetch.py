from __future__ import annotations

import io
import shutil
import zipfile

import pytest
from scenes.synthetic_scenes import write_layout

from attnviz.errors import AttnVizWarning, AudioError, OutputError
from attnviz.scenes import fetch, fetch_esc10, read_esc10

ALL = tuple(range(1, 11))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All five folds of all ten classes, eight recordings each."""
    root = write_layout(
        tmp_path_factory.mktemp("whole") / "esc10", ALL, folds=range(1, 6), per_fold=8, seconds=0.5
    )
    (root / "README.md").write_text("no list")
    (root / "notes.txt").write_text("not of the data set")
    return root


@pytest.fixture(scope="module")
def one_fold(tmp_path_factory):
    return write_layout(tmp_path_factory.mktemp("one") / "esc10", ALL, folds=(2,), per_fold=8, seconds=0.5)


def pack(root, archive, prefix="ESC-10-553c8f1/", extra=()):
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            file.write(path, prefix + path.relative_to(root).as_posix())
        for name in extra:
            file.writestr(name, "evil")
    return archive


def names(root):
    files = (path for path in root.rglob("*") if path.is_file() and path.name != "attnviz.json")
    return {path.relative_to(root).as_posix() for path in files}


def test_the_public_archive_is_unpacked_and_checked(whole, tmp_path, monkeypatch):
    evil = ("../evil.ogg", "ESC-10-553c8f1/../../evil.ogg", "/001 - Dog bark/../x.ogg", "other/a.ogg")
    archive = pack(whole, tmp_path / "archive.zip", extra=evil)
    monkeypatch.setattr(fetch, "ARCHIVE_URL", archive.as_uri())
    target = fetch_esc10(tmp_path / "in" / "esc10")
    assert names(target) == names(whole) - {"notes.txt"}
    assert not list(tmp_path.rglob("*evil*"))
    assert len(read_esc10(target)) == 400


def test_the_address_names_the_commit():
    assert fetch.ARCHIVE_URL == (
        "https://github.com/karoldvl/ESC-10/archive/553c8f1743b9dba6b282e1323c3ca8fa76923448.zip"
    )


def test_a_folder_without_whole_folds_is_taken_with_a_warning(one_fold, tmp_path):
    with pytest.warns(AttnVizWarning, match=r"no recordings of folds \[1, 3, 4, 5\]"):
        target = fetch_esc10(tmp_path / "esc10", source=one_fold)
    assert names(target) == names(one_fold)


def test_a_zip_file_is_taken(one_fold, tmp_path):
    archive = pack(one_fold, tmp_path / "a.zip", prefix="")
    with pytest.warns(AttnVizWarning, match="no recordings of folds"):
        target = fetch_esc10(tmp_path / "esc10", source=archive)
    assert names(target) == names(one_fold)


def test_the_public_archive_must_have_every_fold(one_fold, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "ARCHIVE_URL", pack(one_fold, tmp_path / "a.zip").as_uri())
    with pytest.raises(AudioError, match=r"40 differences: 001 - Dog bark, fold 1: 0"):
        fetch_esc10(tmp_path / "esc10")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip"]


def damage_count(root):
    next((root / "004 - Baby cry").glob("*.ogg")).unlink()


def damage_content(root):
    path = root / "004 - Baby cry" / "2-4203-A.ogg"
    path.write_bytes(path.read_bytes()[:-20])


def damage_source(root):
    (root / "004 - Baby cry" / "2-4203-A.ogg").rename(root / "004 - Baby cry" / "3-4200-B.ogg")


def damage_layout(root):
    for folder in list(root.iterdir()):
        folder.rename(root / folder.name[6:])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_count, "1 differences: 004 - Baby cry, fold 2: 7"),
        (damage_content, r"1 differences: 2-4203-A\.ogg: truncated"),
        (damage_source, "differences: .*fold 3: 0"),
        (damage_layout, "has no recordings of the form"),
    ],
)
def test_what_is_not_as_published_is_refused_and_leaves_nothing(one_fold, tmp_path, damage, message):
    source = shutil.copytree(one_fold, tmp_path / "source")
    damage(source)
    with pytest.raises(AudioError, match=message):
        fetch_esc10(tmp_path / "esc10", source=source)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


class Broken(io.BytesIO):
    headers = {"Content-Length": "1000"}  # noqa: RUF012


def test_a_download_that_breaks_off_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch.urllib.request, "urlopen", lambda address, timeout: Broken(b"x" * 10))
    with pytest.raises(AudioError, match="stopped after 10 of 1000 bytes"):
        fetch_esc10(tmp_path / "esc10")
    assert list(tmp_path.iterdir()) == []


def test_bad_sources(tmp_path, one_fold):
    (tmp_path / "text.zip").write_text("no zip file")
    with pytest.raises(AudioError, match="not a zip file"):
        fetch_esc10(tmp_path / "esc10", source=tmp_path / "text.zip")
    with pytest.raises(AudioError, match="cannot be downloaded"):
        fetch_esc10(tmp_path / "esc10", source=(tmp_path / "nothing.zip").as_uri())
    with pytest.raises(AudioError, match="there is no folder or zip file"):
        fetch_esc10(tmp_path / "esc10", source=tmp_path / "nothing")
    packed = bytearray(pack(one_fold, tmp_path / "bad.zip").read_bytes())
    packed[5000:5100] = bytes(100)
    (tmp_path / "bad.zip").write_bytes(packed)
    with pytest.raises(AudioError, match=r"bad\.zip is not a zip file that can be read"):
        fetch_esc10(tmp_path / "esc10", source=tmp_path / "bad.zip")


def test_an_existing_target_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "esc10").mkdir()
    (tmp_path / "esc10" / "mine.txt").write_text("keep")
    for overwrite in (False, True):  # what is no ESC-10 is never replaced
        with pytest.raises(OutputError):
            fetch_esc10(tmp_path / "esc10", source=tmp_path / "nothing", overwrite=overwrite)
    assert (tmp_path / "esc10" / "mine.txt").read_text() == "keep"
