"""What the pages for people have in common: one file each, no network, fit for a phone."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

STYLE = """:root { --ink:#1f2933; --soft:#616e7c; --line:#e4e7eb; --blue:#2563eb; --red:#c8352b; --green:#2f855a;
--amber:#b7791f }
* { box-sizing:border-box }
body { margin:0; background:#f5f7fa; color:var(--ink); font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif }
main { max-width:880px; margin:0 auto; padding:24px 16px 64px }
h1 { font-size:26px; margin:0 0 4px; overflow-wrap:anywhere } h2 { font-size:18px; margin:0 0 4px }
p { margin:4px 0 12px } .soft { color:var(--soft) } code { font-size:14px; overflow-wrap:anywhere }
section { background:#fff; border:1px solid var(--line); border-radius:10px; padding:18px 20px; margin-top:16px }
img { display:block; width:100%; min-width:540px; max-width:760px; height:auto; margin:8px 0 }
.badge { display:inline-block; border-radius:99px; padding:2px 12px; color:#fff; font-size:14px }
.promoted { background:var(--green) } .refused { background:var(--red) } .waiting { background:var(--amber) }
.cards { display:grid; grid-template-columns:repeat(auto-fit,minmax(150px,1fr)); gap:12px; margin-top:16px }
.card { background:#fff; border:1px solid var(--line); border-radius:10px; padding:12px 14px }
.card b { display:block; font-size:22px; line-height:1.3 } .card span { color:var(--soft); font-size:13px }
.note { border-left:4px solid var(--amber) }
.wide { overflow-x:auto } table { border-collapse:collapse; width:100%; font-size:14px }
th,td { text-align:left; padding:6px 12px 6px 0; border-bottom:1px solid var(--line); vertical-align:top }
td:first-child,td:last-child { overflow-wrap:anywhere } td:first-child { min-width:76px }
td:last-child { min-width:100px }
.yes { color:var(--green) } .no { color:var(--red); font-weight:600 }
details summary { cursor:pointer }
"""


def section(title: str, text: str, body: str) -> str:
    told = f'<p class="soft">{escape(text)}</p>' if text else ""
    return f"<section><h2>{escape(title)}</h2>{told}{body}</section>"


def image(uri: str, alt: str) -> str:
    # On a phone it scrolls: shrunk, its text could not be read.
    return f'<div class="wide"><img src="{uri}" alt="{escape(alt)}"></div>'


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    top = "<thead><tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr></thead>" if any(head) else ""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table>{top}<tbody>{body}</tbody></table></div>'
