"""The CSS style sheet of the report, with a light and a dark theme."""

from __future__ import annotations

from bnn_itrd.plots import COLOURS

__all__ = ["STYLE", "theme"]


def theme() -> str:
    """Returns the colours of the networks as CSS variables --s0, --s1, ..., for the light theme and the dark one."""
    light, dark = ("".join(f"--s{i}:{pair[theme]};" for i, pair in enumerate(COLOURS)) for theme in (0, 1))
    return f":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"


STYLE = """
:root{color-scheme:light dark;--page:#f4f6f9;--card:#fff;--ink:#16202e;--soft:#56637a;--faint:#8a96a8;
--line:#e3e8ef;--shade:#16202e38;--on:#fff;--good:#0b7a57;--goodbg:#dcf5ea;--bad:#c02626;--badbg:#fde5e5;
--fair:#7a4f00;--fairbg:#fdf0d0;--cell:#f1f4f8}
@media(prefers-color-scheme:dark){:root{--page:#0d131c;--card:#161e2a;--ink:#e8edf4;--soft:#a3b0c2;--faint:#74829a;
--line:#2a3546;--shade:#000000cc;--on:#0d131c;--good:#4adcae;--goodbg:#10382c;--bad:#ff8f8f;--badbg:#451d20;
--fair:#f0c35e;--fairbg:#3d300f;--cell:#1d2735}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,"DejaVu Sans",sans-serif;-webkit-text-size-adjust:100%}
header,main,footer{max-width:1180px;margin:0 auto;padding:0 24px}
header{padding-top:44px}
.over{margin:0;color:var(--soft);font-size:13px;font-weight:600;letter-spacing:.03em}
h1{margin:6px 0 8px;font-size:clamp(23px,3.4vw,34px);line-height:1.2;letter-spacing:-.015em;text-wrap:balance;
overflow-wrap:anywhere}
h2{margin:0 0 14px;font-size:19px;letter-spacing:-.01em}
h3{margin:26px 0 8px;font-size:15.5px}
.facts{margin:0;color:var(--soft)}
.tiles{display:grid;margin-top:22px;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:12px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:13px 15px}
.tile span,.tile small{display:block;color:var(--soft);font-size:12.5px;line-height:1.35}
.tile strong{display:block;margin:3px 0 2px;font-size:22px;line-height:1.25;letter-spacing:-.01em;
font-variant-numeric:tabular-nums}
.tile em{font-style:normal;font-size:15px;font-weight:600;color:var(--soft)}
.tile .none,.tile .range{display:inline}
.range{white-space:nowrap}
nav{display:flex;flex-wrap:wrap;gap:4px 18px;margin:20px 0 14px}
a{color:inherit;text-decoration:underline;text-decoration-color:var(--faint);text-underline-offset:3px}
a:hover{text-decoration-color:currentColor}
code{font:.93em ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}
nav a{font-size:14px}
.card{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:22px 24px;
margin:0 0 18px;scroll-margin-top:12px}
.lead,.note,.missing,footer{color:var(--soft)}
.lead{margin:-6px 0 16px}
.note{margin:12px 0 0;font-size:13px}
.missing{margin:0}
footer{padding-bottom:40px;font-size:13px}
small{font-size:12px;color:var(--soft);font-weight:400}
.none{color:var(--faint)}
.scroll{overflow-x:auto;margin:0 -24px;padding:0 24px;background:
linear-gradient(to right,var(--card) 40%,transparent) left/36px 100% no-repeat local,
linear-gradient(to left,var(--card) 40%,transparent) right/36px 100% no-repeat local,
linear-gradient(to right,var(--shade),transparent) left/14px 100% no-repeat scroll,
linear-gradient(to left,var(--shade),transparent) right/14px 100% no-repeat scroll}
.scroll.inside{margin:0;padding:0}
.swipe{display:none;margin:0 0 2px;font-size:12.5px;color:var(--soft);text-align:right}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th{color:var(--soft);font-size:12.5px;font-weight:500;line-height:1.3;vertical-align:bottom;
border-bottom:1px solid var(--line)}
th,td{padding:8px 9px;text-align:right;white-space:nowrap}
td{vertical-align:top;border-top:1px solid var(--line)}
tbody tr:first-child td{border-top:0}
td small{display:block}
.words{text-align:left}
th:first-child,td:first-child{padding-left:0}
th:last-child,td:last-child{padding-right:0}
.swatch{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:7px;background:var(--c)}
.swatch.hollow{background:none;border:2.5px solid var(--c)}
small .swatch{width:8px;height:8px;margin-right:5px}
.legend{display:flex;flex-wrap:wrap;gap:4px 22px;margin:0 0 12px;font-size:14px}
.legend i,.kind{margin-left:7px;color:var(--soft);font-style:normal;font-size:13px;font-weight:400}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,330px),1fr));gap:26px 34px}
figure{margin:0;min-width:0;max-width:440px}
figcaption{margin:0 0 8px;font-weight:600;font-size:14.5px;overflow-wrap:anywhere}
.chart{display:block;width:100%;height:auto;overflow:visible;font-family:inherit}
.chart text{fill:var(--soft);font-size:12px;font-variant-numeric:tabular-nums}
.chart .label{fill:var(--ink)}
.chart .count{fill:var(--ink)}
.chart .count.on{fill:var(--on)}
.axis{stroke:var(--faint);stroke-width:1}
.rule{stroke:var(--line);stroke-width:1}
.curve{fill:none;stroke:var(--c);stroke-width:1.9;stroke-linejoin:round}
.dashed{stroke-dasharray:5 3}
.dot{fill:var(--c);stroke:var(--card);stroke-width:1.2}
.ring{fill:none;stroke:var(--c);stroke-width:1.9}
.leader{stroke:var(--faint);stroke-width:.8}
.bar{fill:var(--c)}
.cell{fill:var(--cell)}
.pixelated{image-rendering:pixelated}
.framed{display:grid;grid-template-columns:20px 1fr;max-width:460px;font-size:12.5px;color:var(--soft)}
.framed span:first-child{grid-column:2}
.framed span:nth-child(2){writing-mode:vertical-rl;transform:rotate(180deg);text-align:center}
.framed img{width:100%;aspect-ratio:1;background:var(--cell);border:1px solid var(--line);border-radius:4px}
.thumbnails{display:grid;grid-template-columns:repeat(auto-fill,minmax(164px,1fr));gap:14px;margin:0;padding:0;
list-style:none}
.thumbnails.wide{grid-template-columns:repeat(auto-fill,minmax(205px,1fr))}
.difference{border:1px solid var(--line);border-radius:10px;padding:10px;min-width:0}
.thumbnail,.blank{display:block;width:100%;aspect-ratio:1;object-fit:contain;border-radius:6px;background:#000}
.blank{display:grid;place-items:center;background:var(--cell);color:var(--faint);font-size:12.5px}
.difference p{display:flex;justify-content:space-between;gap:8px;margin:8px 0 4px;font-size:14px}
.difference ul{margin:0;padding:0;list-style:none;font-size:13px}
.difference ul li{display:flex;align-items:center}
.difference .swatch{flex:none}
.who,.difference li b:first-of-type{min-width:0;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.who{flex:1 1 auto;color:var(--soft)}
.difference li .who{flex:1 0 62px;max-width:60%;margin-right:6px}
.difference p b{color:var(--ink)}
.difference small{white-space:nowrap}
b.good{color:var(--good)}
b.bad{color:var(--bad)}
.speeds,.unchecked{margin:0 0 14px;padding:0;list-style:none}
.speeds li,.unchecked li{margin:0 0 8px}
.unchecked pre,.uses pre{margin:6px 0 0;padding:9px 12px;white-space:pre-wrap;overflow-wrap:anywhere}
.unchecked pre span{display:inline-block;max-width:100%}
.uses details{margin-top:10px}
.uses summary{font-weight:400}
.uses b{overflow-wrap:anywhere}
.pill{display:inline-block;padding:1px 9px;border-radius:99px;font-size:12.5px;font-weight:600;
background:var(--cell);color:var(--soft)}
.pill.good{background:var(--goodbg);color:var(--good)}
.pill.bad{background:var(--badbg);color:var(--bad)}
.pill.fair{background:var(--fairbg);color:var(--fair)}
details{margin-top:16px}
section>h2+details{margin-top:0}
summary{cursor:pointer;font-weight:600;font-size:14.5px}
details[open]>summary{margin-bottom:12px}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(210px,1fr));gap:10px 24px;margin:0}
dt{color:var(--soft);font-size:12.5px}
dd{margin:0;overflow-wrap:anywhere}
pre{margin:0;padding:14px 16px;background:var(--cell);border-radius:10px;overflow:auto;max-height:560px;
font:12.5px/1.5 ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}
@media(min-width:1000px){.halves{grid-template-columns:repeat(2,minmax(0,1fr))}.halves figure{max-width:520px}
.halves .chart:not([style]) text{font-size:9px}.thirds figure{max-width:350px}}
@media(max-width:1000px){.swipe{display:block}}
@media(max-width:640px){header,main,footer{padding-left:14px;padding-right:14px}header{padding-top:26px}
.card{padding:17px 15px;border-radius:12px}.scroll{margin:0 -15px;padding:0 15px 0 0}
th:first-child,td:first-child{position:sticky;left:0;padding-left:15px;background:var(--card)}
dl{grid-template-columns:repeat(auto-fill,minmax(130px,1fr))}
.inside{margin:0;padding:0}
.tiles{grid-template-columns:repeat(auto-fit,minmax(140px,1fr))}.tile{padding:11px 12px}
.tile strong{font-size:19px}.thumbnails{grid-template-columns:repeat(auto-fill,minmax(118px,1fr))}
table{width:auto;min-width:100%}}
@media print{nav{display:none}.card,.tile{break-inside:avoid}body{background:none}}
"""
