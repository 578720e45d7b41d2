"""What is done to one file: each mutation is (path, dice) -> None and leaves something else at the
path.

HARMLESS ones leave the meaning: the command must print the numbers that it prints of the file as it
was. All others may be refused, noted, or answered with what the file now says, and may crash
nothing.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

Mutation = Callable[[Path, random.Random], None]
HARMLESS: dict[str, dict[str, Mutation]] = {}  # kind of file -> name -> mutation
HARMFUL: dict[str, dict[str, Mutation]] = {}
ANY = "any"


def kinds(*names: str, harmless: bool = False) -> Callable[[Mutation], Mutation]:
    """Register a mutation for these kinds of files."""

    def register(function: Mutation) -> Mutation:
        for name in names:
            (HARMLESS if harmless else HARMFUL).setdefault(name, {})[function.__name__] = function
        return function

    return register


def put(path: Path, data: bytes | str) -> None:
    """Write anew: the file as it was may be linked from elsewhere."""
    path.unlink()
    path.write_bytes(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def put_lines(path: Path, lines: list[str]) -> None:
    put(path, "".join(f"{line}\n" for line in lines))


# ---------------------------------------------------------------- any file


@kinds(ANY)
def flipped_bytes(path, dice):
    data = bytearray(path.read_bytes())
    for _ in range(dice.randint(1, 8)):
        if data:
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    put(path, bytes(data))


@kinds(ANY)
def cut_short(path, dice):
    data = path.read_bytes()
    put(path, data[: dice.randrange(len(data) or 1)])


@kinds(ANY)
def emptied(path, dice):
    put(path, b"")


@kinds(ANY)
def noise(path, dice):
    put(path, dice.randbytes(dice.choice((1, 100, 5000))))


@kinds(ANY)
def twice_over(path, dice):
    put(path, path.read_bytes() * 2)


@kinds(ANY)
def zeros_inside(path, dice):
    data = path.read_bytes()
    place = dice.randrange(len(data) or 1)
    put(path, data[:place] + b"\0" * 7 + data[place:])


@kinds(ANY)
def a_folder(path, dice):
    path.unlink()
    path.mkdir()


@kinds(ANY)
def gone(path, dice):
    path.unlink()


FOUND = (
    "picture",
    "tar",
    "zip",
    "pickle",
    "safetensors",
    "bytes",
    "json",
    "yaml",
)  # of what is found in a folder nobody means a pipe


@kinds(*FOUND)
def a_fifo(path, dice):
    path.unlink()
    os.mkfifo(path)


@kinds(*FOUND)
def endless(path, dice):
    path.unlink()
    path.symlink_to("/dev/zero")


@kinds(ANY)
def a_device(path, dice):
    path.unlink()
    path.symlink_to("/dev/null")


@kinds(ANY)
def a_circle_of_links(path, dice):
    path.unlink()
    path.symlink_to(path.name)


@kinds(ANY)
def a_link_to_nothing(path, dice):
    path.unlink()
    path.symlink_to("nowhere/at/all")


@kinds(ANY)
def unreadable(path, dice):
    put(path, path.read_bytes())
    path.chmod(0)


@kinds(ANY)
def a_web_page(path, dice):
    put(path, "<!DOCTYPE html><html><body>Quota exceeded</body></html>\n")


@kinds(ANY)
def a_large_file_pointer(path, dice):
    put(path, f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n")


# ---------------------------------------------------------------- lines of text


@kinds("table", "key", "jsonl", "xml", harmless=True)
def crlf(path, dice):
    put(path, path.read_bytes().replace(b"\n", b"\r\n"))


@kinds("table", "key", "scores", harmless=True)
def with_byte_order_mark(path, dice):
    put(path, b"\xef\xbb\xbf" + path.read_bytes())


@kinds("table", "key", "scores", harmless=True)
def without_final_newline(path, dice):
    put(path, path.read_bytes().removesuffix(b"\n"))


@kinds("table", "key", "scores", harmless=True)
def blank_lines_at_the_end(path, dice):
    put(path, path.read_bytes() + b"\n" * dice.randint(1, 3))


@kinds("scores", harmless=True)
def commas_for_tabs(path, dice):
    put(path, path.read_bytes().replace(b"\t", b","))


@kinds("ranking", harmless=True)
def in_a_zip(path, dice):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("prediction.en.txt", path.read_bytes())
    put(path, buffer.getvalue())


@kinds("gold", harmless=True)
def gold_without_suffixes(path, dice):
    put_lines(path, [line.rpartition(".")[0] for line in lines_of(path)])


LINES = ("table", "key", "scores", "jsonl")


@kinds(*LINES)
def a_line_twice(path, dice):
    lines = lines_of(path)
    lines.insert(dice.randrange(len(lines)), dice.choice(lines))
    put_lines(path, lines)


@kinds(*LINES)
def a_line_over_another(path, dice):
    lines = lines_of(path)
    lines[dice.randrange(len(lines))] = dice.choice(lines)
    put_lines(path, lines)


@kinds(*LINES)
def a_line_less(path, dice):
    lines = lines_of(path)
    del lines[dice.randrange(len(lines))]
    put_lines(path, lines)


@kinds(*LINES)
def lines_swapped(path, dice):
    lines = lines_of(path)
    dice.shuffle(lines)
    put_lines(path, lines)


@kinds(*LINES)
def a_blank_line_inside(path, dice):
    lines = lines_of(path)
    lines.insert(dice.randrange(len(lines)), dice.choice(("", " ", "\t", "\u00a0")))
    put_lines(path, lines)


@kinds(*LINES, "xml", "yaml", "json")
def another_encoding(path, dice):
    text = path.read_text(encoding="utf-8")
    put(
        path,
        text.encode(dice.choice(("utf-16", "utf-32", "utf-16-le", "cp037", "utf-7")), "replace"),
    )


@kinds(*LINES, "xml", "yaml", "json")
def latin_letters(path, dice):
    put(path, path.read_bytes().replace(b"a", "é".encode("latin-1"), 2))


def one_field(path: Path, dice: random.Random, change: Callable[[str], str]) -> None:
    """Change one field of one line, told by tabs (or by spaces, in a key)."""
    lines = lines_of(path)
    number = dice.randrange(len(lines))
    mark = "\t" if "\t" in lines[number] else " "
    fields = lines[number].split(mark)
    place = dice.randrange(len(fields))
    fields[place] = change(fields[place])
    lines[number] = mark.join(fields)
    put_lines(path, lines)


@kinds(*LINES)
def a_field_emptied(path, dice):
    one_field(path, dice, lambda field: "")


@kinds(*LINES)
def a_field_too_many(path, dice):
    one_field(path, dice, lambda field: f"{field}\tmore")


@kinds(*LINES)
def a_huge_field(path, dice):
    one_field(path, dice, lambda field: field + "x" * 300_000)


@kinds(*LINES)
def a_path_for_a_field(path, dice):
    one_field(
        path,
        dice,
        lambda field: dice.choice(
            (
                "../../outside",
                "/etc/passwd",
                "a/../b.png",
                "a[1]*.png",
                "-x",
                "~root",
                "con\rtrol",
                "a%00b",
            )
        ),
    )


@kinds(*LINES)
def letters_that_look_alike(path, dice):
    tricks = (
        lambda s: unicodedata.normalize("NFD", s + "é"),
        lambda s: f"\u202e{s}\u202c",
        lambda s: s.replace("a", "\u0430"),
        lambda s: s[:1] + "\u00ad" + s[1:],
        lambda s: f"\u00a0{s}",
        lambda s: s + "\u200b",
        lambda s: s + "\u2028",
        lambda s: s.upper(),
        lambda s: f" {s} ",
    )
    one_field(path, dice, dice.choice(tricks))


@kinds(*LINES)
def half_a_character(path, dice):
    one_field(path, dice, lambda field: field + "\ud83d")


ODD_NUMBERS = (
    "nan",
    "inf",
    "-inf",
    "1e999",
    "1_000",
    "\uff11\uff12",
    "\u0663",
    "0x10",
    "1,5",
    "--1",
    "",
    "1e-400",
    "-0.0",
    "True",
    "9" * 400,
)


@kinds("scores")
def an_odd_number(path, dice):
    lines = lines_of(path)
    number = dice.randrange(1, len(lines))
    fields = lines[number].split("\t")
    fields[dice.randrange(len(fields))] = dice.choice(ODD_NUMBERS)
    lines[number] = "\t".join(fields)
    put_lines(path, lines)


@kinds("scores")
def columns_swapped(path, dice):
    rows = [line.split("\t") for line in lines_of(path)]
    one, other = dice.sample(range(len(rows[0])), 2)
    for row in rows:
        row[one], row[other] = row[other], row[one]
    put_lines(path, ["\t".join(row) for row in rows])


@kinds("scores")
def two_columns_of_one_name(path, dice):
    lines = lines_of(path)
    put_lines(path, [lines[0].replace("score_2", "score_1"), *lines[1:]])


@kinds("scores")
def all_scores_equal(path, dice):
    lines = lines_of(path)
    rows = [line.split("\t") for line in lines[1:]]
    put_lines(path, [lines[0], *("\t".join([*row[:-10], *["0.5"] * 10]) for row in rows)])


@kinds("scores")
def an_index_column(path, dice):
    lines = lines_of(path)
    rows = [f"{number}\t{line}" for number, line in enumerate(lines[1:])]
    dice.shuffle(rows)
    put_lines(path, [f"index\t{lines[0]}", *rows])


# ---------------------------------------------------------------- JSON, YAML, XML

ODD_VALUES = (
    None,
    True,
    -1,
    0,
    1e308,
    10**400,
    "",
    "x",
    "\ud800",
    "../../x",
    [],
    {},
    [[]],
    [None],
    {"a": None},
    "2024-01-01",
    float("nan"),
    float("inf"),
)


def change_one(value: object, dice: random.Random) -> object:
    """`value` with one thing inside it replaced, lost or doubled."""
    if isinstance(value, dict) and value and dice.random() < 0.9:
        key = dice.choice(sorted(value))
        what = dice.random()
        if what < 0.15:
            return {name: inner for name, inner in value.items() if name != key}
        if what < 0.25:
            return {**value, dice.choice(("../x", "", "new")): value[key]}
        return {**value, key: change_one(value[key], dice)}
    if isinstance(value, list) and value and dice.random() < 0.8:
        place = dice.randrange(len(value))
        if dice.random() < 0.2:
            return [*value[:place], *value[place + 1 :]]
        return [*value[:place], change_one(value[place], dice), *value[place + 1 :]]
    return dice.choice(ODD_VALUES)


@kinds("json")
def another_value(path, dice):
    put(path, json.dumps(change_one(json.loads(path.read_text()), dice), indent=1))


@kinds("jsonl")
def another_value_in_a_line(path, dice):
    lines = lines_of(path)
    number = dice.randrange(len(lines))
    lines[number] = json.dumps(change_one(json.loads(lines[number]), dice))
    put_lines(path, lines)


@kinds("json", "jsonl")
def another_shape(path, dice):
    put(
        path,
        dice.choice(
            ("[]", "{}", "null", "1", '"x"', "[1]", '{"a": 1}', "[[", "NaN", '{"a": 1, "a": 2}')
        ),
    )


@kinds("json", "jsonl", "yaml")
def nested_deeply(path, dice):
    put(path, dice.choice(("[", '{"a":')) * dice.choice((500, 100_000)))


@kinds("json", "jsonl")
def nested_deeply_and_closed(path, dice):
    depth = dice.choice((300, 50_000))
    put(path, "[" * depth + "]" * depth)


@kinds("yaml")
def odd_yaml(path, dice):
    put(
        path,
        dice.choice(
            (
                "profiles: 3\n",
                "- a\n",
                "profiles: {demo: [1]}\nnotebooks: {}\n",
                "profiles: {2024-01-01: {}}\nnotebooks: {a: 1}\n",
                "&a [*a]\n",
                "!!python/object/apply:os.getcwd []\n",
                "profiles: {demo: {x: 2024-01-01}}\nnotebooks: {1: {needs: 2}}\n",
                "a: b: c\n",
                "\tx\n",
                "profiles:\nnotebooks:\n",
                "profiles: {demo: }\nnotebooks: {n: {minutes: often}}\n",
                "profiles: {demo: {}}\nnotebooks: {n: {produces: 5}}\n",
                "profiles: {demo: {}}\nnotebooks: {../n: {}}\n",
            )
        ),
    )


@kinds("xml")
def odd_xml(path, dice):
    text = path.read_text()
    put(
        path,
        dice.choice(
            (
                f'<?xml version="1.0" encoding="no-such"?>{text}',
                f'<?xml version="1.0" encoding="utf-16"?>{text}',
                '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;"><!ENTITY c'
                ' "&b;&b;&b;&b;">]>' + text.replace("ball", "&c;"),
                '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]>'
                + text.replace("ball", "&a;"),
                text.replace("lemma=", "lema=", 1),
                text.replace('pos="NOUN"', 'pos=""'),
                text.replace("</sentence>", ""),
                text.replace("<wf>", "<wf><wf>", 1),
                text.replace('id="d0.s0.t1"', 'id="d0.s0.t0"'),
                text.replace('id="d0', 'id="../d0'),
                "<a/>",
                "<corpus/>",
                "<a>" * 3000,
                text.replace("bat", "\u200bbat"),
            )
        ),
    )


# ---------------------------------------------------------------- pictures and archives


def as_picture(path: Path, picture, kind: str, **how) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **how)
    put(path, buffer.getvalue())


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG whose head says a size that its data do not have."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


@kinds("picture")
def an_odd_picture(path, dice):
    from PIL import Image

    choice = dice.randrange(7)
    if choice == 0:
        as_picture(path, Image.new("RGB", (1, dice.choice((1, 3000)))), "PNG")
    elif choice == 1:
        as_picture(path, Image.new("I;16", (9, 9)), "PNG")
    elif choice == 2:
        as_picture(path, Image.new("CMYK", (9, 9)), "JPEG")
    elif choice == 3:
        as_picture(
            path,
            Image.new("P", (9, 9)),
            "GIF",
            save_all=True,
            append_images=[Image.new("P", (9, 9), 1)],
        )
    elif choice == 4:
        as_picture(path, Image.new("RGBA", (9, 9), (0, 0, 0, 0)), "WEBP")
    elif choice == 5:
        put(
            path,
            png_that_claims(*dice.choice(((60_000, 60_000), (0, 5), (2**31 - 1, 1), (300, 300)))),
        )
    else:
        put(path, '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')


@kinds("tar")
def an_odd_tar(path, dice):
    from PIL import Image

    picture = io.BytesIO()
    Image.new("RGB", (9, 9)).save(picture, "PNG")
    names = (
        "../outside.png",
        "/absolute.png",
        "a/b/../c.png",
        ".hidden.png",
        "image.0.png",
        "x" * 300 + ".png",
        "a\nb.png",
        "[a]*.png",
        "image.JPG",
    )
    path.unlink()
    with tarfile.open(path, "w") as tar:
        for _ in range(dice.randint(0, 5)):
            member = tarfile.TarInfo(dice.choice(names))
            member.type = dice.choice(
                (
                    tarfile.REGTYPE,
                    tarfile.REGTYPE,
                    tarfile.SYMTYPE,
                    tarfile.LNKTYPE,
                    tarfile.FIFOTYPE,
                    tarfile.DIRTYPE,
                    tarfile.CHRTYPE,
                )
            )
            member.linkname = "/etc/passwd"
            member.size = len(picture.getvalue()) if member.type == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(picture.getvalue()) if member.size else None)


@kinds("zip", "ranking")
def an_odd_zip(path, dice):
    buffer = io.BytesIO()
    names = (
        "../outside.txt",
        "/absolute.txt",
        "prediction.en.txt",
        "prediction.it.txt",
        "a/../b.txt",
        "\\windows.txt",
        "__MACOSX/._prediction.en.txt",
        "",
    )
    with zipfile.ZipFile(
        buffer,
        "w",
        dice.choice(
            (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
        ),
    ) as archive:
        for name in dice.sample(names, dice.randint(0, 4)):
            archive.writestr(
                zipfile.ZipInfo(name), dice.choice((b"", b"x\ty\n", b"\0" * 3_000_000))
            )
    put(path, buffer.getvalue())


# ---------------------------------------------------------------- weights


class _Hostile:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@kinds("pickle", "safetensors")
def a_hostile_pickle(path, dice):
    put(
        path,
        pickle.dumps(dice.choice((_Hostile(), {"a": _Hostile()}, [1] * 10, {"image": None}, 3.5))),
    )


@kinds("safetensors")
def a_head_that_lies(path, dice):
    head = dice.choice(
        (
            b"{}",
            b"[]",
            b'{"a": 1}',
            b'{"a": {"dtype": "F32", "shape": [1000000000000], "data_offsets": [0, 4]}}',
            b"{" * 1000,
        )
    )
    put(path, struct.pack("<Q", dice.choice((len(head), 2**62, 0))) + head + b"\0" * 4)


@kinds("safetensors")
def tensors_of_nan(path, dice):
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(path, "pt") as f:
        facts = f.metadata()
        tensors = {name: f.get_tensor(name) for name in f.keys()}
    name = dice.choice(sorted(tensors))
    change = dice.choice(
        (
            lambda t: torch.full_like(t, float("nan")) if t.is_floating_point() else t,
            lambda t: t[:0],
            lambda t: t.to(torch.float16),
            lambda t: t.reshape(-1),
        )
    )
    tensors[name] = change(tensors[name]).contiguous()
    path.unlink()
    save_file(tensors, path, facts)


def available(kind: str, harmless: bool) -> list[Mutation]:
    """Mutations of a kind of file, in a fixed order; `kind` may name several, "gold+table"."""
    book = HARMLESS if harmless else HARMFUL
    found: dict[str, Mutation] = {}
    for part in (*kind.split("+"), *(() if harmless else (ANY,))):
        found |= book.get(part, {})
    return [found[name] for name in sorted(found)]
