"""How the page on the disk looks: light and dark, from 320 pixels up, on paper. Neither ``<`` nor ``&`` may occur: the page
is XML, too."""

from __future__ import annotations

STYLE = """\
:root {
  color-scheme: light dark;
  --paper: #fbfaf7; --card: #ffffff; --ink: #22211e; --soft: #64615a; --line: #e4e0d8; --code: #f3f0ea;
  --good: #1c6b45; --warn: #8a5200; --bad: #a8261d; --cell: #1c6b45; --link: #1f5a8c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #151614; --card: #1e1f1d; --ink: #e8e6e0; --soft: #a5a299; --line: #35362f; --code: #262723;
    --good: #79d0a2; --warn: #efb45f; --bad: #ff9a8f; --cell: #2c6a4b; --link: #9cc7ef;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink); overflow-wrap: anywhere;
  font: 1.0625rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
header, main, footer { max-width: 44rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: clamp(1.75rem, 7vw, 4rem); }
h1, h2 { font-family: Charter, "Iowan Old Style", Cambria, Georgia, "Noto Serif", serif; line-height: 1.2; text-wrap: balance; }
h1 { font-size: clamp(1.75rem, 1.3rem + 2.6vw, 2.6rem); font-weight: 600; margin: .4rem 0 .9rem; letter-spacing: -.01em; }
h2 { font-size: 1.45rem; font-weight: 600; margin: 0 0 .75rem; }
h3 { font-size: 1.0625rem; margin: 1.75rem 0 .4rem; line-height: 1.35; }
p { margin: 0 0 .9rem; }
section { padding: 2.25rem 0 1rem; }
section + section { border-top: 1px solid var(--line); }
ul, ol { margin: 0 0 1rem; padding-left: 1.35rem; }
li { margin-bottom: .35rem; }
a { color: var(--link); text-underline-offset: .15em; }
a:focus-visible, summary:focus-visible { outline: 2px solid var(--link); outline-offset: 3px; }
.above { margin: 0; color: var(--soft); font-size: .9375rem; }
.lead { font-size: 1.1875rem; line-height: 1.55; margin-bottom: .6rem; }
.soft { color: var(--soft); font-size: .9375rem; }
.verdict { display: flex; gap: .75rem; align-items: baseline; }
.sign {
  flex: none; width: 1.25em; height: 1.25em; line-height: 1.25em; border-radius: 50%; text-align: center; font-size: .72em;
  font-family: system-ui, sans-serif; font-weight: 700; color: var(--paper); background: var(--tone); transform: translateY(-.1em);
}
.good { --tone: var(--good); }
.warn { --tone: var(--warn); }
.bad { --tone: var(--bad); }
.ways { margin: 1.1rem 0 .5rem; padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; }
.glance {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)); gap: 1.1rem 2rem; margin: 0;
  padding: 1.4rem 1.5rem; background: var(--card); border: 1px solid var(--line); border-radius: .75rem;
}
.glance dt { color: var(--soft); font-size: .875rem; }
.glance dd { margin: 0; font-weight: 600; line-height: 1.4; font-variant-numeric: tabular-nums; }
.glance small { display: block; font-weight: 400; font-size: .9375rem; color: var(--soft); }
.first { padding: 1.75rem 0 1.25rem; }
section.first + section { border-top: 0; padding-top: .75rem; }
.runs { list-style: none; margin: 0 0 .8rem; padding: 0; display: grid; grid-template-columns: repeat(30, minmax(0, 1fr)); gap: 3px; }
.runs li {
  height: 2rem; margin: 0; border-radius: .25rem; border: 1.5px solid var(--tone); color: var(--tone);
  font: 700 .75rem/1.8rem system-ui, sans-serif; text-align: center;
}
.runs .ok { --tone: var(--cell); background: var(--cell); color: #ffffff; }
.runs .partial { --tone: var(--warn); }
.runs .failed { --tone: #b3352b; background: #b3352b; color: #ffffff; }
.runs .interrupted { --tone: var(--soft); border-style: dashed; }
.aside { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.what { border-collapse: collapse; width: 100%; margin-bottom: 1rem; }
.what th, .what td { text-align: left; vertical-align: top; padding: .55rem 0; border-top: 1px solid var(--line); }
.what th { font-weight: 400; padding-right: 1.25rem; width: 34%; }
.what tr:first-child > * { border-top: 0; }
code, pre, kbd { font-family: ui-monospace, "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .875em; }
code { background: var(--code); border-radius: .25rem; padding: .08em .3em; }
pre {
  background: var(--code); border: 1px solid var(--line); border-radius: .5rem; padding: .8rem .95rem; margin: 0 0 1rem;
  white-space: pre-wrap; font-size: .8125rem; line-height: 1.55;
}
pre code { background: none; padding: 0; font-size: inherit; }
.names { list-style: none; padding: 0; font-size: .9375rem; }
.names li { padding: .3rem 0; border-top: 1px solid var(--line); margin: 0; }
.names li:first-child { border-top: 0; }
.sum { display: block; color: var(--soft); font-size: .8125rem; }
details { border: 1px solid var(--line); border-radius: .6rem; padding: 0 1.1rem; margin: 0 0 .8rem; background: var(--card); }
summary { cursor: pointer; padding: .8rem 0; font-weight: 600; }
details[open] > summary { margin-bottom: .4rem; border-bottom: 1px solid var(--line); }
details > h3:first-of-type { margin-top: 1rem; }
.note { border-left: 3px solid var(--tone, var(--line)); padding: .1rem 0 .1rem 1rem; margin: 0 0 1rem; }
.note p:last-child { margin-bottom: 0; }
footer { padding-top: 1.25rem; padding-bottom: 3.5rem; }
footer p { border-top: 1px solid var(--line); padding-top: 1.25rem; }
@media (max-width: 30rem) {
  body { font-size: 1rem; }
  .lead { font-size: 1.0625rem; }
  .glance { padding: 1.1rem; }
  .runs { grid-template-columns: repeat(15, minmax(0, 1fr)); }
  .what th, .what td { display: block; width: auto; padding: .55rem 0 0; }
  .what td { border: 0; padding: 0 0 .55rem; }
}
@media print {
  body { background: none; color: #000; }
  details, .glance { background: none; }
}
"""
