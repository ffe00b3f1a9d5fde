"""Databases from lists: records, faults, kills."""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
from PIL import Image

from data_prep import duplicates, sample, verify
from data_prep.__main__ import _parser, main
from data_prep.classes import Classes
from data_prep.databases import write_databases
from data_prep.decode import Unreadable, decode
from data_prep.folder import DataFolder
from data_prep.lists import Entry, write_parts
from data_prep.verify import verify_pair
from xresnet.basics import files
from xresnet.basics.cli import UserError
from xresnet.caffeproto import BlobProto, Datum, databases

NAMES = [f"{part}_{kind}_lmdb" for part in ("train", "test") for kind in ("image", "label")]


def records(path: Path) -> list[tuple[bytes, bytes]]:
    return list(databases.items(path))


def picture(seed: int = 0, height: int = 40, width: int = 56) -> np.ndarray:
    noise = np.random.RandomState(seed).randint(0, 256, (8, 8, 3)).astype(np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(suffix: str, pixels: np.ndarray, *options: int) -> bytes:
    return cv2.imencode(suffix, pixels, list(options))[1].tobytes()


def exif_rotated(orientation: int) -> bytes:
    jpeg = encoded(".jpg", picture(orientation))
    tiff = (
        b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + bytes([0, orientation, 0, 0]) + b"\0" * 4
    )
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + jpeg[2:]


def exif_rotated_by_pillow(kind: str) -> bytes:
    exif, out = Image.Exif(), io.BytesIO()
    exif[0x112] = 6
    Image.fromarray(picture(5)).save(out, kind, exif=exif)
    return out.getvalue()


def odd_images() -> dict[str, bytes]:
    """Images that OpenCV reads, though each is unusual in its way."""
    color, jpeg = picture(), encoded(".jpg", picture(1, 300, 400))
    grey = cv2.cvtColor(color, cv2.COLOR_BGR2GRAY)
    return {
        "grey.jpg": encoded(".jpg", grey),
        "progressive.jpg": encoded(".jpg", color, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        "png named.jpg": encoded(".png", color),
        "alpha.png": encoded(".png", np.dstack([color, grey])),
        "cmyk.jpg": CMYK_JPEG,
        "moving.png": ANIMATED_PNG,
        "deep.png": encoded(".png", color.astype(np.uint16) * 257 + 3),
        "bmp.bmp": encoded(".bmp", color),
        "webp named.jpg": encoded(".webp", color),
        "tiff.tif": encoded(".tiff", color),
        "one pixel.jpg": encoded(".jpg", color[:1, :1]),
        "long and thin.jpg": encoded(".jpg", picture(2, 3, 900)),
        "exact.jpg": encoded(".jpg", picture(3, 48, 48)),
        "größe 東京.jpg": jpeg,
        "x" * 251 + ".jpg": jpeg,
        "trailing bytes.jpg": jpeg + b"\0" * 100,
        **{f"exif{i}.jpg": exif_rotated(i) for i in range(1, 9)},
        **{f"exif.{kind}": exif_rotated_by_pillow(kind) for kind in ("png", "webp", "tiff")},
        **{f"truncated{n}.jpg": jpeg[: len(jpeg) * n // 10] for n in (5, 8, 9)},
    }


# 24 x 16 CMYK; three frames each. OpenCV writes none of these.
CMYK_JPEG = base64.b85decode(
    "|JeWT01iQ9Z(?NtWB>pF0095n07C!}3k(hn3J?wr4iXU%6BsBO7#0>7F(V}%C^|DeJUKHsH$X^SPC!IgMK?H5ZBbWWVr"
    "OV)K233XaAbH~WoKjmzyK5o01yBe1Va%3O%VWD5dcdO0RO}Q7XSeP0RaF20000000000000I61PA}b03{Fr0RjdA0|fv80"
    "0000000000R;mQ5*0yW1Og#K6CyD(f&bb74g^C0O#oQ{O8@{r09@mdE#G0xXtWK2?l~*I#u&~tc@SO4C3o1v8TyYhI)jct"
    "cYTe{acG$Z+;Ufaf-Y_}PuxLw9F^Z=8+&gx>KgJrZk{g^YKa%E6<4e0>Y4A^R%!bsLO=i6"
)
ANIMATED_WEBP = base64.b85decode(
    "Qb|Te4gmlFS4BclR!}%t3IG5A0ssI23jhEK002QwNlgX-0000000000K~7CZNB{r;00000000XB00{s9G5`PqR!}$~FaQ7"
    "mFaZFa0V)gt3IG8>CMBQ%18@NT`F+3t{p=V2?!kZl>=*kn|No0a`+5Hcwv+$>K~7CZLI3~&00000000XB00{s9G5`PoR!}"
    "$~DgXcgGywpe0V)gt3IG5ACMBQ%18@NT^(SBd`)Ggvwuk@wXn)jq+hw9Q002QwO-4un00000000003jhEK001%o0034{I3"
    "O?p001-r0G$CU3;+rM001T>pa27K0RHcG*Z=)mAOFik|M_Tt2@n7I>7V-p|B^ly000"
)
ANIMATED_PNG = base64.b85decode(
    "iBL{Q4GJ0x0000DNk~Le0000C0000A2m$~A01r+mtpET32w`JXOaK4?0{{R30M6~YzyJUM8fIfuOaK4?000003;+NC3IG5"
    "A00000000316aWCF7>H{C000(AL_t(|oMU9rIKe;&FcDNSs)%Ss0B9`%1pR7l<NyEw8fIfuOaK4?0RR913;+NC3IG5A000"
    "00000316aWA|Yhu3u000_hWI<E_0007boMQ~oIKe;&FcDNSs)%Ss0NZ^5R5o(%8~^|S8fIfuOaK4?0{{R33;+NC3IG5A00"
    "000000316aWCz{jpX6000_hWI<E_000DdoMT*|ae{#mU?QkuR1wjN08ZQiq;N*iApigX07*qoM6N<$f&"
)

UNREADABLE = {
    "empty.jpg": (b"", "empty file"),
    "page.jpg": (b"\n<!DOCTYPE html><html>gone</html>", "a web page, not an image"),
    "moving.webp": (ANIMATED_WEBP, "an animated WebP, which Caffe does not read"),
    "gif.jpg": (b"GIF89a" + b"\0" * 99, "a GIF, which Caffe does not read"),
    "zip.jpg": (b"PK\3\4 something else", "not an image: it begins with b'PK"),
    "header.jpg": (encoded(".jpg", picture())[:100], "damaged"),
    "damaged.png": (encoded(".png", picture())[:40], "damaged"),
}


class Data:
    """A data folder with images of two ANPs, dark_moon (0) and tiny_star (1)."""

    def __init__(self, root: Path, files: dict[str, bytes]) -> None:
        self.images, self.out = root / "images", root / "data"
        self.folder = DataFolder(self.out)
        self.classes = Classes.of(["dark_moon", "tiny_star"])
        self.classes.write(self.folder.classes)
        self.folder.record("filter", {"classes": self.classes.facts})
        entries = []
        for i, (name, content) in enumerate(files.items()):
            anp = self.classes.anp[i % 2]
            (self.images / anp).mkdir(parents=True, exist_ok=True)
            (self.images / anp / name).write_bytes(content)
            entries.append(Entry(f"{anp}/{name}", i % 2))
        self.entries = entries
        write_parts(self.folder, [entries, entries])

    def lmdb(self, *options: str) -> int:
        return main(
            ["lmdb", "--images", str(self.images), "--out", str(self.out), "--size", "48", *options]
        )

    def command(self, *options: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "data_prep",
            "lmdb",
            "--images",
            str(self.images),
            "--out",
            str(self.out),
            *options,
        ]

    def there(self) -> list[str]:
        return [name for name in NAMES if (self.out / name).exists()]


@pytest.fixture
def plain(tmp_path):
    return Data(tmp_path, {f"{i}.jpg": encoded(".jpg", picture(i)) for i in range(30)})


def test_records(plain):
    assert plain.lmdb() == 0
    images, labels = (records(plain.folder.lmdb("train", kind)) for kind in ("image", "label"))
    assert [key for key, _ in images] == [key for key, _ in labels]
    assert images[11][0] == b"00000011_tiny_star/11.jpg"
    for (_, image), (_, label), entry in zip(images, labels, plain.entries):
        datum = Datum.FromString(image)
        pixels = cv2.imread(str(plain.images / entry.path))
        expected = cv2.resize(pixels, (48, 48)).transpose(2, 0, 1)
        assert datum.data == expected.tobytes()
        assert datum.label == entry.label
        assert list(Datum.FromString(label).float_data) == list(
            plain.classes.combinations[entry.label]
        )
    for part in ("train", "test"):
        assert verify_pair(plain.folder, part, plain.classes) == (30, [])


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """2,000 images and all odd and unreadable ones among them."""
    files = {f"{i}.jpg": encoded(".jpg", picture(i, 60 + i % 50, 50 + i % 70)) for i in range(2000)}
    files.update(odd_images())
    files.update({name: content for name, (content, _) in UNREADABLE.items()})
    return Data(tmp_path_factory.mktemp("odd"), files)


@pytest.mark.caffe
@pytest.mark.parametrize(
    ("ours", "theirs"), [([], []), (["--encoded"], ["-encoded", "-encode_type", "jpg"])]
)
def test_records_and_mean_are_caffes(odd, tmp_path, monkeypatch, caffe_tools, ours, theirs):
    """Real convert_imageset and we agree byte for byte; so do compute_image_mean and we."""
    monkeypatch.setenv("GLOG_logtostderr", "1")  # no log files
    odd.lmdb("--allow-dropped", "--replace", *ours)
    reference, mean = tmp_path / "reference", tmp_path / "mean.binaryproto"
    size = ["-resize_width", "48", "-resize_height", "48"]
    listed = [f"{odd.images}/", odd.folder.list("train"), reference]
    tool = caffe_tools["convert_imageset"]
    subprocess.run([tool, *theirs, *size, *listed], check=True, capture_output=True)
    tool = caffe_tools["compute_image_mean"]
    subprocess.run([tool, reference, mean], check=True, capture_output=True)
    expected, found = records(reference), records(odd.folder.lmdb("train", "image"))
    assert [key for key, _ in found] == [key for key, _ in expected]
    assert len(found) == len(odd.entries) - len(UNREADABLE)
    if not theirs:
        assert [key for (key, a), (_, b) in zip(found, expected) if a != b] == []
        assert odd.folder.mean.read_bytes() == mean.read_bytes()
    else:  # another release of the JPEG library may compress in another way
        for (_, a), (_, b) in zip(found, expected):
            a, b = Datum.FromString(a), Datum.FromString(b)
            assert (a.encoded, a.label, a.channels) == (b.encoded, b.label, b.channels)
            one, other = (cv2.imdecode(np.frombuffer(d.data, np.uint8), 1) for d in (a, b))
            assert np.abs(one.astype(int) - other).max() <= 8
    blob = BlobProto.FromString(odd.folder.mean.read_bytes())
    values = np.array(blob.data).reshape(3, -1).mean(axis=1)
    told = odd.folder.read_manifest()["lmdb"]["train"]["mean_values"]
    assert np.allclose(values, told, atol=1e-2)
    assert verify_pair(odd.folder, "train", odd.classes) == (len(found), [])


def test_unreadable_files_are_named_and_leave_both_databases(tmp_path, capsys):
    files = {f"{i}.jpg": encoded(".jpg", picture(i)) for i in range(10)}
    files.update({name: content for name, (content, _) in UNREADABLE.items()})
    data = Data(tmp_path, files)
    (data.images / "dark_moon" / "0.jpg").unlink()
    with pytest.raises(UserError, match=r"more than 1% of 17 images .*--allow-dropped"):
        data.lmdb()
    assert data.there() == []
    capsys.readouterr()
    data.lmdb("--allow-dropped", "--json")
    output = capsys.readouterr()
    summary = json.loads(output.out)
    dropped = {Path(path).name: reason for path, reason in summary["train"]["dropped"]}
    assert dropped.pop("0.jpg") == "No such file or directory"
    assert dropped.keys() == UNREADABLE.keys()
    for name, (_, reason) in UNREADABLE.items():
        assert dropped[name].startswith(reason)
        assert f"{name}: {reason}" in output.err
    assert json.loads(data.folder.manifest.read_text())["lmdb"]["train"] == summary["train"]
    # The numbers of the lines that were left out stay free, as convert_imageset leaves them.
    keys = [key for key, _ in records(data.folder.lmdb("test", "label"))]
    assert [int(key[:8]) for key in keys] == list(range(1, 10))
    assert keys == [key for key, _ in records(data.folder.lmdb("test", "image"))]


def test_one_percent_may_be_missing(tmp_path):
    files = {f"{i}.jpg": encoded(".jpg", picture(i)) for i in range(99)}
    data = Data(tmp_path, {**files, "empty.jpg": b""})
    data.lmdb()
    assert len(records(data.folder.lmdb("train", "image"))) == 99


def test_truncated_jpegs_are_kept_and_named_or_dropped(tmp_path, capsys):
    files = {f"{i}.jpg": encoded(".jpg", picture(i)) for i in range(9)}
    data = Data(tmp_path, {**files, "cut.jpg": encoded(".jpg", picture(1, 300, 400))[:6000]})
    data.lmdb()
    assert "damaged tiny_star/cut.jpg: the JPEG ends early" in capsys.readouterr().err
    assert len(records(data.folder.lmdb("train", "image"))) == 10
    data.lmdb("--drop-damaged", "--allow-dropped", "--replace")
    assert len(records(data.folder.lmdb("train", "image"))) == 9


def test_a_decompression_bomb_is_left_out(tmp_path):
    """A PNG that claims 60,000 x 60,000 pixels."""
    png = bytearray(encoded(".png", picture()))
    png[16:24] = (60_000).to_bytes(4, "big") * 2
    png[29:33] = zlib.crc32(png[12:29]).to_bytes(4, "big")
    data = Data(tmp_path, {"good.jpg": encoded(".jpg", picture()), "bomb.png": bytes(png)})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data.lmdb("--allow-dropped")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KB
    assert len(records(data.folder.lmdb("train", "image"))) == 1


# What `python -m data_prep` does, and then its peak of memory on a last line, in KB. The
# system's own figure for a child begins with what its parent had, which here is all tests'.
PEAK = """\
import runpy
try:
    runpy.run_module("data_prep", run_name="__main__", alter_sys=True)
finally:
    print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def _left_out(data: Data) -> tuple[dict[str, str], int]:
    """What `python -m data_prep lmdb` leaves out, and its peak of memory in MB."""
    python, _, _, *arguments = data.command("--allow-dropped")
    command = [python, "-c", PEAK, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    dropped = data.folder.read_manifest()["lmdb"]["train"]["dropped"]
    kilobytes = int(done.stdout.strip().splitlines()[-1].split()[1])
    return {Path(path).name: reason for path, reason in dropped}, kilobytes >> 10


def test_images_of_too_many_pixels_are_left_out_by_the_command(tmp_path):
    """In a process of its own: OpenCV reads its limit when it is loaded, whoever loads it."""
    large = encoded(".png", np.zeros((9_000, 9_000), np.uint8))
    data = Data(tmp_path, {"good.jpg": encoded(".jpg", picture()), "81.png": large})
    dropped, megabytes = _left_out(data)
    assert dropped == {"81.png": "too many pixels (over 64 million)"}
    assert megabytes < 250


def test_files_of_too_many_bytes_are_not_read(tmp_path):
    data = Data(tmp_path, {"good.jpg": encoded(".jpg", picture()), "sparse.jpg": b"\xff\xd8\xff"})
    sparse = data.images / data.entries[1].path
    os.truncate(sparse, 6 << 30)
    dropped, megabytes = _left_out(data)
    assert dropped == {"sparse.jpg": "6,442,450,944 bytes, too large for an image (268,435,456)"}
    assert megabytes < 250
    assert duplicates.find(data.images, [data.entries[1].path] * 2) == []


def test_the_limit_holds_where_opencv_came_first():
    """A program that loads cv2 before us has no limit in OpenCV; ours refuses all the same."""
    code = (
        "import cv2, numpy, os, tempfile\n"
        "from data_prep.decode import Unreadable, decode\n"
        "with tempfile.NamedTemporaryFile(suffix='.png') as file:\n"
        "    file.write(cv2.imencode('.png', numpy.zeros((9000, 9000), 'u1'))[1])\n"
        "    file.flush()\n"
        "    try: decode(file.name)\n"
        "    except Unreadable as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "too many pixels (over 64 million)\n", done.stderr


def test_pipes_and_folders_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, reason in (("pipe.jpg", "not a file"), ("", "Is a directory")):
        with pytest.raises(Unreadable, match=reason):
            decode(str(tmp_path / name))


def test_names_that_are_not_utf_8_do_not_kill_opencv(tmp_path):
    cut = encoded(".jpg", picture(1, 300, 400))[:6000]
    (tmp_path / "plain.jpg").write_bytes(cut)
    odd = os.path.join(os.fsencode(tmp_path), b"caf\xe9.jpg")
    Path(os.fsdecode(odd)).write_bytes(cut)
    pixels, wrong = decode(os.fsdecode(odd))
    assert "ends early" in wrong
    assert (pixels == cv2.imread(str(tmp_path / "plain.jpg"))).all()


def test_nothing_is_written_twice_and_changes_are_noticed(plain, capsys):
    def stamps() -> list[int]:
        return [(plain.out / name / "data.mdb").stat().st_mtime_ns for name in NAMES]

    plain.lmdb()
    first = stamps()
    plain.lmdb()
    assert stamps() == first
    assert "already there" in capsys.readouterr().out
    plain.lmdb("--fresh")
    second = stamps()
    assert not set(second) & set(first)
    write_parts(plain.folder, [plain.entries, plain.entries[:5]])
    plain.lmdb()
    assert [new == old for new, old in zip(stamps(), second)] == [True, True, False, False]
    assert len(records(plain.folder.lmdb("test", "label"))) == 5
    # The same name with another picture in it.
    (plain.images / plain.entries[20].path).write_bytes(encoded(".jpg", picture(99)))
    third = stamps()
    plain.lmdb()
    assert [new == old for new, old in zip(stamps(), third)] == [False, False, True, True]


def test_a_foreign_database_is_left_alone(plain):
    foreign = plain.folder.lmdb("test", "label")
    foreign.mkdir()
    (foreign / "data.mdb").write_bytes(b"somebody's")
    with pytest.raises(UserError, match="was not made by data_prep"):
        plain.lmdb()
    assert (foreign / "data.mdb").read_bytes() == b"somebody's"


def test_two_runs_at_once(plain):
    with plain.folder.lock(), pytest.raises(UserError, match="another run is writing there"):
        plain.lmdb()
    plain.lmdb()


def test_databases_are_held_to_their_ranges(plain):
    for option in ({"size": 0}, {"size": 5000}, {"threads": 0}):
        with pytest.raises(UserError, match=f"{next(iter(option))}: expected"):
            write_databases(plain.out, plain.images, **{"size": 48, **option})


def test_stale_lists_are_refused(plain):
    Classes.of(["dark_moon", "bright_moon", "tiny_star"]).write(plain.folder.classes)
    with pytest.raises(UserError, match=r"train.txt:\d+: label \d is .* run .*split.* again"):
        plain.lmdb()


@pytest.mark.parametrize(
    "option",
    [
        *("--size 0", "--size 9999", "--size 1e2", "--threads 0", "--train 80", "--train 0"),
        *("--train nan", "--seed -1", "--min-images -50", "--min-nouns -1", "--min-images 1.5"),
    ],
)
def test_wrong_numbers_fail_before_anything_is_looked_at(tmp_path, capsys, option):
    missing = str(tmp_path / "missing")
    command = ["run", "--ontology", missing, "--images", missing, "--out", str(tmp_path / "data")]
    with pytest.raises(SystemExit) as stopped:
        main([*command, *option.split()])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"argument {option.split()[0]}: expected " in said
    assert os.listdir(tmp_path) == []


def test_every_number_of_every_command_has_a_range():
    """A number that takes anything takes -1 and 10^9 too."""
    (commands,) = (a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    numbers = [
        (name, action.option_strings[0], action.type)
        for name, command in commands.choices.items()
        for action in command._actions
        if action.type is not None or isinstance(action.default, (int, float, Fraction))
        if not isinstance(action.default, bool)
    ]
    assert len(numbers) > 15
    for name, option, kind in numbers:
        for text in ("-1", "nan", "inf", "", "1e9", str(10**10)):
            with pytest.raises(argparse.ArgumentTypeError):
                kind(text)
                pytest.fail(f"{name} {option} {text}")


def test_another_size_or_form_replaces_nothing_unasked(plain, capsys):
    """58 GB of databases must not go because of a forgotten --size."""
    place = ["--images", str(plain.images), "--out", str(plain.out)]
    whole = ["run", "--labels", str(plain.folder.classes), *place]
    main([*whole, "--size", "48"])
    before = {path: path.read_bytes() for path in plain.out.rglob("*") if path.is_file()}
    for command in (["lmdb", *place], whole):
        for form in (["--size", "32"], ["--size", "48", "--encoded"], []):
            with pytest.raises(UserError, match=r"with --size 48; to replace it .* add --replace"):
                main([*command, *form])
    assert {path: path.read_bytes() for path in plain.out.rglob("*") if path.is_file()} == before
    main([*whole, "--size", "32", "--replace"])
    assert plain.folder.read_manifest()["lmdb"]["size"] == 32
    main([*whole, "--size", "32"])
    assert capsys.readouterr().out.count("(already there)") == 2


@pytest.mark.parametrize("text", ["[]", "{}", '{"job": {}, "report": {"nonsense": 1}}', "{"])
def test_a_database_with_another_note_is_a_foreign_one(plain, text):
    plain.lmdb()
    (plain.folder.lmdb("train", "image") / "job.json").write_text(text)
    with pytest.raises(UserError, match="was not made by data_prep"):
        plain.lmdb()
    with pytest.raises(UserError, match="was not made by data_prep"):
        main(["verify", "--out", str(plain.out)])


def test_a_note_that_cannot_be_read_is_no_sign_of_another_maker(plain):
    """As without the right to: nobody should move databases away, or make them anew, for that."""
    plain.lmdb()
    for name, error in (("crc32", OSError), ("job.json", UserError)):
        (plain.folder.lmdb("train", "image") / name).unlink()
        (plain.folder.lmdb("train", "image") / name).mkdir()
        with pytest.raises(error, match="Is a directory"):
            main(["verify", "--out", str(plain.out)])


def test_output_that_cannot_be_written(plain, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        main(["filter", "--labels", str(plain.folder.classes), "--out", str(tmp_path / "file")])


def test_a_full_disk_is_one_clear_line(plain):
    """A limit on file size stops the write in the middle, as a full disk does."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    done = subprocess.run(
        plain.command("--size", "224"),
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "cannot write the train databases" in done.stderr.splitlines()[-1]
    assert plain.there() == []
    plain.lmdb()
    assert not plain.folder.partial.exists()


# --- verify finds what is wrong -----------------------------------------------------------------


def _change(path: Path, change) -> None:
    with lmdb.open(str(path), map_size=1 << 30) as env, env.begin(write=True) as txn:
        change(txn)


def _swap(txn) -> None:
    a, b = b"00000003_tiny_star/3.jpg", b"00000004_dark_moon/4.jpg"
    first, second = txn.get(a), txn.get(b)
    txn.put(a, second)
    txn.put(b, first)


@pytest.mark.parametrize("kind", ["image", "label"])
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_swap, "00000003_tiny_star/3.jpg: label"),
        (lambda txn: txn.delete(b"00000005_tiny_star/5.jpg"), "5.jpg"),
        (lambda txn: txn.delete(b"00000029_tiny_star/29.jpg"), "29.jpg"),
        (lambda txn: txn.put(b"00000030_tiny_star/30.jpg", b""), "30.jpg"),
        (lambda txn: txn.put(b"00000007_tiny_star/7.jpg", b"\x08"), "7.jpg: not a Datum"),
    ],
)
def test_verify_finds_one_wrong_record(plain, kind, change, complaint):
    plain.lmdb()
    assert main(["verify", "--out", str(plain.out)]) == 0
    _change(plain.folder.lmdb("train", kind), change)
    with pytest.raises(UserError) as error:
        main(["verify", "--out", str(plain.out)])
    assert complaint in str(error.value)


@pytest.mark.parametrize("kind", ["image", "label"])
@pytest.mark.parametrize("left", [0.4, 0.7, 0.98])
def test_a_database_that_was_cut_kills_nobody(plain, tmp_path, kind, left):
    """Half a copy: read through a memory map, it would end the process by SIGBUS."""
    plain.lmdb()
    path = plain.folder.lmdb("train", kind) / "data.mdb"
    os.truncate(path, int(path.stat().st_size * left))
    for argv in (
        ["verify", "--out", plain.out],
        ["reorder", plain.out, "--seed", "1", "--out", tmp_path / "other"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "data_prep", *argv], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1 and f"{kind}_lmdb" in done.stderr


def test_verify_reads_on_after_a_window(plain, monkeypatch):
    monkeypatch.setattr(verify, "_WINDOW", 20_000)  # three records
    plain.lmdb()
    assert verify_pair(plain.folder, "train", plain.classes) == (30, [])


def test_verify_misses_no_record_gone_from_both(plain):
    plain.lmdb()
    for kind in ("image", "label"):
        _change(
            plain.folder.lmdb("test", kind), lambda txn: txn.delete(b"00000002_dark_moon/2.jpg")
        )
    with pytest.raises(UserError, match="29 records, 30 were written"):
        main(["verify", "--out", str(plain.out)])


def _flip(txn) -> None:
    key = b"00000009_tiny_star/9.jpg"
    record = bytearray(txn.get(key))
    record[500] ^= 1
    txn.put(key, bytes(record))


def _swap_alike(txn) -> None:
    a, b = b"00000003_tiny_star/3.jpg", b"00000005_tiny_star/5.jpg"
    first, second = txn.get(a), txn.get(b)
    txn.put(a, second)
    txn.put(b, first)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda path: path.unlink(), "crc32 is missing or damaged: run .*--fresh"),
        (lambda path: path.write_bytes(path.read_bytes()[:-3]), "crc32 is missing or damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-4]), "29 checksums of 30 records"),
    ],
)
def test_verify_does_not_pass_what_it_cannot_check(plain, change, complaint):
    plain.lmdb()
    change(plain.folder.lmdb("train", "image") / "crc32")
    with pytest.raises(UserError, match=complaint):
        main(["verify", "--out", str(plain.out)])


@pytest.mark.parametrize(("change", "name"), [(_flip, "9.jpg"), (_swap_alike, "3.jpg")])
def test_verify_finds_one_changed_pixel_and_a_swap_within_a_class(plain, change, name):
    plain.lmdb()
    _change(plain.folder.lmdb("train", "image"), change)
    with pytest.raises(UserError, match=f"{name}: its bytes are not those that were written"):
        main(["verify", "--out", str(plain.out)])


@pytest.mark.parametrize("options", [[], ["--encoded"]])
def test_contact_sheet(plain, tmp_path, options):
    plain.lmdb(*options)
    sheet = tmp_path / "sheet.jpg"
    main(["verify", "--out", str(plain.out), "--sheet", str(sheet)])
    pixels = cv2.imread(str(sheet))
    assert pixels.shape[1] == 8 * 160
    first = cv2.resize(cv2.imread(str(plain.images / plain.entries[0].path)), (48, 48))
    shown = cv2.resize(first, (156, 156))
    assert np.abs(pixels[2:158, 2:158].astype(int) - shown).mean() < 12


def test_a_link_out_of_the_folder_is_refused(plain, tmp_path):
    (tmp_path / "secret.jpg").write_bytes(encoded(".jpg", picture(0)))
    path = plain.images / plain.entries[4].path
    path.unlink()
    path.symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(UserError, match=r"4\.jpg: a link that leaves the image folder"):
        plain.lmdb()


def test_a_file_without_the_right_to_read(plain):
    path = plain.images / plain.entries[4].path
    path.chmod(0)
    if os.access(path, os.R_OK):
        path.unlink()
        path.mkdir()  # root reads everything, but no folder
    plain.lmdb("--allow-dropped")
    (dropped,) = plain.folder.read_manifest()["lmdb"]["train"]["dropped"]
    assert dropped[1] in ("Permission denied", "Is a directory")


# --- the sample, and the whole way --------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    out = tmp_path_factory.mktemp("sample")
    sample.make(out, per_anp=8)
    return out


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_sample_is_deterministic(drawn, tmp_path):
    first = _contents(drawn)
    sample.make(tmp_path, per_anp=8, threads=1)
    assert _contents(tmp_path) == first
    sample.make(tmp_path, per_anp=2, seed=1)  # replaces the other; nothing of it stays
    second = _contents(tmp_path)
    assert len(second) < len(first)
    assert not {v for k, v in second.items() if k.endswith(".jpg")} & set(first.values())


def test_sample_leaves_other_folders_alone(tmp_path):
    (tmp_path / "bi_concepts").mkdir()
    with pytest.raises(UserError, match="was not made by `sample`"):
        sample.make(tmp_path)
    with pytest.raises(UserError, match="per_anp: expected a number of images from 1 to 10,000"):
        sample.make(tmp_path, per_anp=0)


def test_sample_writes_through_no_link_and_not_twice_at_once(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".bi_concepts.partial").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="cannot write"):
        sample.make(tmp_path, per_anp=1)
    assert os.listdir(tmp_path / "elsewhere") == []
    with DataFolder(tmp_path).lock(), pytest.raises(UserError, match="another run is writing"):
        sample.make(tmp_path, per_anp=1)


def test_a_lock_is_no_way_into_other_files(tmp_path):
    precious, data = tmp_path / "precious", tmp_path / "data"
    precious.write_text("mine")
    data.mkdir()
    (data / ".lock").symlink_to(precious)
    with pytest.raises(UserError, match="cannot write"), DataFolder(data).lock():
        pass
    assert precious.read_text() == "mine"


def test_a_folder_without_the_right_to_write_is_one_line(tmp_path):
    """As the user `nobody` where we are root, who may write anywhere."""
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    code = (
        "import os, sys\n"
        "from xresnet.basics.cli import run\n"
        "from data_prep.__main__ import main\n"
        "if os.getuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "sys.argv[1:] = ['sample', '--per-anp', '1', '--out', sys.argv[1]]\n"
        "run(main, 'data_prep')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, locked / "x"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "Permission denied" in done.stderr


def test_from_sample_to_databases(drawn, tmp_path, capsys):
    out = tmp_path / "data"
    images = ["--images", str(drawn), "--out", str(out), "--json"]
    main(["filter", "--ontology", str(drawn / "ontology.txt"), "--min-images", "6", *images])
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert all(step["dropped"] for step in steps[1:])  # every criterion has something to catch
    assert steps[-1]["adjectives"] >= 6
    assert steps[-1]["nouns"] >= 6
    assert steps[-1]["anps"] >= 36
    main(["split", *images])
    lists = json.loads(capsys.readouterr().out)["lists"]
    assert lists["train"]["images"] == 6 * steps[-1]["anps"]  # floor(0.8 * 8)
    main(["lmdb", "--size", "32", *images])
    capsys.readouterr()
    main(["verify", "--out", str(out), "--json"])
    counts = json.loads(capsys.readouterr().out)
    assert counts == {part: lists[part]["images"] for part in ("train", "test")}


def test_run_does_it_all_and_goes_on(drawn, tmp_path, capsys):
    out = tmp_path / "data"
    command = ["run", "--ontology", str(drawn / "ontology.txt"), "--min-images", "6"]
    command += ["--images", str(drawn), "--size", "32", "--out", str(out), "--json"]
    main(command)
    first = json.loads(capsys.readouterr().out)
    assert first["verify"] == {p: first["split"]["lists"][p]["images"] for p in ("train", "test")}
    shutil.rmtree(out / "test_label_lmdb")
    stamp = (out / "train_image_lmdb" / "data.mdb").stat().st_mtime_ns
    main(command)
    assert json.loads(capsys.readouterr().out) == first
    assert (out / "train_image_lmdb" / "data.mdb").stat().st_mtime_ns == stamp


def test_the_manifest_forgets_what_is_out_of_date(drawn, tmp_path):
    out = tmp_path / "data"
    images = ["--images", str(drawn), "--out", str(out)]
    select = ["filter", "--ontology", str(drawn / "ontology.txt"), "--min-images", "6", *images]
    main(select)
    main(["split", *images])
    folder = DataFolder(out)
    assert {"filter", "split"} <= folder.read_manifest().keys()
    main(select)  # the same classes: what was made for them stands
    assert {"filter", "split"} <= folder.read_manifest().keys()
    main([*select, "--min-nouns", "1"])
    assert "split" not in folder.read_manifest()


def _names_of_another_list(out: Path) -> Path:
    """A folder of class lists, as large as those of the data folder, with other names."""
    lists = out.parent / "other"
    for task in ("adj", "anp", "noun"):
        text = (out / "classes" / f"{task}.txt").read_text()
        for old, new in (("moon", "horse"), ("star", "boy"), ("striped", "golden")):
            text = text.replace(old, new)
        files.write(lists / f"{task}.txt", text)
    return lists


def test_lists_serve_only_the_classes_that_they_were_made_for(drawn, tmp_path):
    """After another `filter`, striped_moon must not become golden_horse."""
    out = tmp_path / "data"
    images = ["--images", str(drawn), "--out", str(out)]
    main(["run", "--ontology", str(drawn / "ontology.txt"), "--min-images", "6", *images])
    lists = [str(out / "train.txt"), str(out / "test.txt")]
    main(["filter", "--labels", str(_names_of_another_list(out)), "--out", str(out)])
    for command in (["lmdb", *images], ["verify", "--out", str(out)]):
        with pytest.raises(UserError, match=r"train\.txt.*golden_\w+.*run .*split.* again"):
            main(command)
    with pytest.raises(UserError, match=r"train\.txt:\d+: label \d+ is .*, not "):
        main(["split", "--lists", *lists, *images])


def test_lists_without_class_folders_serve_only_their_classes_too(tmp_path, capsys):
    """Paths that say nothing: only the manifest knows what the numbers stand for."""
    data = Data(tmp_path, {f"{i}.jpg": encoded(".jpg", picture(i)) for i in range(6)})
    flat = data.images / "all"
    flat.mkdir()
    for entry in data.entries:
        (data.images / entry.path).rename(flat / Path(entry.path).name)
    lists = [tmp_path / "train", tmp_path / "test"]
    for path, part in zip(lists, (data.entries[:4], data.entries[4:])):
        files.write(path, "".join(f"all/{Path(e.path).name} {e.label}\n" for e in part))
    place = ["--images", str(data.images), "--out", str(data.out)]
    main(["split", "--lists", *map(str, lists), *place])
    assert "6 images lie in no folder of their class" in capsys.readouterr().out
    data.lmdb()
    main(["verify", "--out", str(data.out)])
    other = Classes.of(["golden_horse", "little_boy"])
    other.write(tmp_path / "other")
    main(["filter", "--labels", str(tmp_path / "other"), "--out", str(data.out)])
    for command in (["lmdb", "--size", "48", *place], ["verify", "--out", str(data.out)]):
        with pytest.raises(UserError, match=r"train\.txt was not made for the classes in .*split"):
            main(command)


@pytest.mark.parametrize(
    ("path", "change", "complaint"),
    [
        ("train.txt", lambda text: text[text.index("\n") + 1 :], "not the list that `split` wrote"),
        ("classes/anp.txt", lambda text: text.replace("moon", "sun"), "sun has no class"),
        ("classes/noun.txt", lambda text: f"{text}sun\n", "other classes than `filter` wrote"),
        ("manifest.json", lambda text: "{}", "other classes than `filter` wrote"),
        ("manifest.json", lambda text: '{"lmdb": 3}', "not a manifest"),
    ],
)
def test_lists_and_classes_changed_by_hand(plain, path, change, complaint):
    plain.lmdb()
    place = plain.out / path
    place.write_text(change(place.read_text()))
    for command in (plain.lmdb, lambda: main(["verify", "--out", str(plain.out)])):
        with pytest.raises(UserError, match=complaint):
            command()


def test_a_kill_while_classes_are_written_leaves_no_data_of_others(plain, tmp_path, monkeypatch):
    """The manifest must not tell of databases for classes that are being replaced."""
    plain.lmdb()
    assert "lmdb" in plain.folder.read_manifest()

    def killed(*_):
        raise KeyboardInterrupt

    Classes.of(["golden_horse", "little_boy"]).write(tmp_path / "other")
    monkeypatch.setattr(Classes, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        main(["filter", "--labels", str(tmp_path / "other"), "--out", str(plain.out)])
    assert plain.folder.read_manifest() == {"format": 1}


def test_a_mistake_is_one_line(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "data_prep",
            "split",
            "--images",
            str(tmp_path),
            "--out",
            str(tmp_path / "data"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "run `python -m data_prep filter` first" in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
@pytest.mark.caffe
def test_real_images(shared, tmp_path, capsys, monkeypatch, caffe_tools):
    """50,000 real images: 44 ANPs have at least 500, and every record is convert_imageset's."""
    monkeypatch.setenv("GLOG_logtostderr", "1")  # no log files
    archive = shared / "data" / "cifar_anp.tar.gz"
    shutil.unpack_archive(archive, tmp_path / "img")
    out = tmp_path / "data"
    images = ["--images", str(tmp_path / "img"), "--out", str(out), "--json"]
    main(["filter", "--ontology", str(shared / "data" / "cifar_anp_ontology.txt"), *images])
    assert json.loads(capsys.readouterr().out)["classes"]["anp"]["count"] == 44
    main(["split", *images])
    main(["lmdb", "--size", "32", *images])
    main(["verify", "--out", str(out)])
    for part in ("train", "test"):
        reference = tmp_path / part
        subprocess.run(
            [
                caffe_tools["convert_imageset"],
                "-resize_width",
                "32",
                "-resize_height",
                "32",
                f"{tmp_path / 'img'}/",
                out / f"{part}.txt",
                reference,
            ],
            check=True,
            capture_output=True,
        )
        assert records(out / f"{part}_image_lmdb") == records(reference)
