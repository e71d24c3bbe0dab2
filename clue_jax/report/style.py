"""The look of a report: light or dark as the reader's system asks, readable on a phone."""

CSS = """
:root {
  color-scheme: light dark;
  --page: #f7f7f5; --card: #ffffff; --ink: #1c1e21; --soft: #5d636b; --line: #dfe1e4;
  --accent: #1f66b5; --muted: #8a9099; --reference: #b3541e;
  /* Groups, told apart with every common colour vision, and by shape. */
  --g0: #0a45cc; --g1: #cc7a00; --g2: #00a078; --g3: #a865b4; --g4: #733a00; --g5: #303030;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14161a; --card: #1d2025; --ink: #e8eaed; --soft: #a5abb3; --line: #33373e;
    --accent: #6cb0f5; --muted: #868d97; --reference: #e39a6b;
    --g0: #5a9dfc; --g1: #de7a14; --g2: #2cd890; --g3: #c88abe; --g4: #f0e640; --g5: #f2f2f2;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
main { max-width: 1080px; margin: 0 auto; padding: 24px 16px 48px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 1.2rem; margin: 36px 0 12px; }
h3 { font-size: 0.95rem; margin: 0 0 8px; font-weight: 600; }
p { margin: 0 0 12px; max-width: 70ch; }
.soft { color: var(--soft); }
.status { font-weight: 600; }
progress {
  display: block; width: 100%; max-width: 70ch; margin-top: 6px; accent-color: var(--accent);
}
.tiles, .charts { display: grid; gap: 16px; }
.tiles { grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); margin-top: 20px; }
.tile { overflow-wrap: anywhere; } .tile b { white-space: nowrap; }
.charts { grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); }
figure { margin: 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 14px; }
.tile b { display: block; font-size: 1.5rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 0.85rem; }
figcaption { color: var(--soft); font-size: 0.85rem; margin-top: 6px; }
svg { display: block; width: 100%; height: auto; font-size: 12px; }
svg text {
  fill: var(--soft); font-variant-numeric: tabular-nums;
  stroke: var(--card); stroke-width: 3px; paint-order: stroke; stroke-linejoin: round;
}
.grid { stroke: var(--line); } .axis { stroke: var(--muted); }
.curve { fill: none; stroke: var(--accent); stroke-width: 2; stroke-linejoin: round; }
.band { fill: var(--accent); opacity: 0.18; } .dot { fill: var(--accent); }
svg .end { fill: var(--ink); font-weight: 600; }
.reference { stroke: var(--reference); stroke-dasharray: 5 4; stroke-width: 1.5; }
.bar { stroke-width: 3; stroke-linecap: round; }
.model .bar { stroke: var(--accent); } .model circle { fill: var(--accent); }
svg .model text { fill: var(--ink); font-weight: 600; }
.baseline .bar { stroke: var(--muted); } .baseline circle { fill: var(--muted); }
.charts.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr)); }
@media (min-width: 940px) { .wide svg { font-size: 9px; } }
/* Drawn to be printed, dark on light. */
.print { background: #ffffff; } .print img { display: block; width: 100%; height: auto; }
.print figcaption { color: #5d636b; }
.g0 { fill: var(--g0); stroke: var(--g0); }
.g1 { fill: var(--g1); stroke: var(--g1); }
.g2 { fill: var(--g2); stroke: var(--g2); }
.g3 { fill: var(--g3); stroke: var(--g3); }
.g4 { fill: var(--g4); stroke: var(--g4); }
.g5 { fill: var(--g5); stroke: var(--g5); }
.g { opacity: 0.85; stroke-width: 0.4; stroke-linecap: round; } .g5 { stroke-width: 1.4; }
.others { stroke: var(--muted); stroke-linecap: round; fill: none; opacity: 0.6; }
.tie { stroke: var(--ink); stroke-width: 0.9; fill: none; opacity: 0.8; }
.hist { stroke-width: 1.8; stroke-linejoin: round; fill-opacity: 0.22; }
.h0 { fill: var(--g0); stroke: var(--g0); }
.h1 { fill: var(--g1); stroke: var(--g1); stroke-dasharray: 5 3; }
.legend { list-style: none; margin: 0 0 8px; padding: 0; font-size: 0.85rem; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; color: var(--soft); }
.legend li { display: inline-flex; align-items: center; gap: 5px; }
svg.mark { width: 14px; height: 14px; flex: none; }
.swatch { width: 22px; height: 0; border-top: 3px solid; flex: none; }
.s0 { border-color: var(--g0); } .s1 { border-color: var(--g1); border-top-style: dashed; }
.warning { border-left: 4px solid var(--reference); padding: 6px 12px; max-width: none; }
.people { margin-top: 16px; } .people h4 { margin: 18px 0 8px; font-size: 0.9rem; }
.texts { display: grid; gap: 8px 20px; font-size: 0.85rem; }
.texts { grid-template-columns: repeat(auto-fit, minmax(min(100%, 210px), 1fr)); }
.texts b { color: var(--soft); } .texts p { margin: 0; color: var(--soft); }
.texts ul { margin: 2px 0 0; padding-left: 1.1em; } .texts li { overflow-wrap: anywhere; }
.after { margin-top: 16px; }
.glossary { margin: 0 0 16px; font-size: 0.85rem; color: var(--soft); }
.glossary { display: grid; gap: 6px 20px; align-items: start; }
.glossary { grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); }
.glossary div { overflow-wrap: anywhere; }
.glossary dt { display: inline; font-weight: 600; color: var(--ink); }
.glossary dd { display: inline; margin: 0; }
.scroll { overflow-x: auto; } .scroll + p, .scroll + ul { margin-top: 14px; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; }
th, td { text-align: left; padding: 6px 12px 6px 0; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
td.number, th.number {
  text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap;
}
th:last-child, td:last-child { padding-right: 0; }
tr.group th { padding-top: 18px; color: var(--ink); }
pre {
  margin: 0; padding: 12px; font-size: 0.85rem; line-height: 1.6;
  white-space: pre-wrap; overflow-wrap: anywhere;
  background: var(--card); border: 1px solid var(--line); border-radius: 8px;
}
summary { cursor: pointer; color: var(--accent); }
details { margin-top: 16px; } details > :not(summary) { margin-top: 10px; }
"""
