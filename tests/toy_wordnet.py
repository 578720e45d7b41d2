"""A toy WordNet in the real format."""

from vwsdlib.data.wordnet import FILES

LICENCE = (
    "  1 This software and database is being provided to you\n  2 WordNet {version} Copyright 2006"
    " by Princeton University.\n"
)
# (file, words with their adjective markers, sense keys with their numbers, text after the bar)
TOY = [
    (
        "n",
        ["bat", "chiropteran"],
        [("bat%1:05:00::", 1), ("chiropteran%1:05:00::", 1)],
        "nocturnal mammal that flies; lives in a cave",
    ),
    (
        "n",
        ["Bat"],
        [("bat%1:06:00::", 3)],
        'a club for hitting a ball; "he broke his bat"; "a bat of ash wood"- A. Batter;',
    ),
    (
        "n",
        ["bat", "at-bat"],
        [("bat%1:04:00::", 2)],
        '(baseball) a turn, "at bat", trying to get a hit:"he got four hits"',
    ),
    ("v", ["bat"], [("bat%2:35:00::", 1)], "strike with a club"),
    ("a", ["remote"], [("remote%3:00:00::", 2)], "located far away"),
    (
        "a",
        ["outback(a)", "remote"],
        [("remote%5:00:00:inaccessible:00", 1), ("outback%5:00:00:inaccessible:00", 1)],
        "inaccessible",
    ),
    ("r", ["far"], [("far%4:02:00::", 1)], "at a distance"),
]


def write_dict(folder, version="3.0"):
    """The toy as dict files: byte offsets, hexadecimal word counts and an index sorted by key, as
    in the real ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files, index = {pos: LICENCE.format(version=version) for pos in FILES}, []
    for pos, words, keys, text in TOY:
        offset = f"{len(files[pos]):08d}"
        files[pos] += (
            f"{offset} 05 {pos} {len(words):02x} {' '.join(f'{w} 0' for w in words)} 001 @ 00001740"
            f" n 0000 | {text}  \n"
        )
        index += [f"{key} {offset} {number} 0\n" for key, number in keys]
    for pos, name in FILES.items():
        (folder / name).write_text(files[pos])
    (folder / "index.sense").write_text("".join(sorted(index)))
    return folder
