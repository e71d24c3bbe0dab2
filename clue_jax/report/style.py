"""The look of a report: light or dark as the reader's system asks, readable on a phone."""

CSS = """
:root {
  color-scheme: light dark;
  --page: #f7f7f5; --card: #ffffff; --ink: #1c1e21; --soft: #5d636b; --line: #dfe1e4;
  --accent: #1f66b5; --muted: #8a9099; --reference: #b3541e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14161a; --card: #1d2025; --ink: #e8eaed; --soft: #a5abb3; --line: #33373e;
    --accent: #6cb0f5; --muted: #868d97; --reference: #e39a6b;
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
.tiles, .charts { display: grid; gap: 16px; }
.tiles { grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); margin-top: 20px; }
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
/* Drawn to be printed, dark on light. */
.print { background: #ffffff; } .print img { display: block; width: 100%; height: auto; }
.print figcaption { color: #5d636b; }
.scroll { overflow-x: auto; }
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
