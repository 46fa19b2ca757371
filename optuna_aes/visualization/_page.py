"""The frame of the report: its style sheet and its script. No data here."""

from __future__ import annotations

from string import Template

from optuna_aes.visualization import _style as style

# The policy makes "no external requests" a rule that the browser keeps: nothing may load but what is in the page.
PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline';
  script-src 'unsafe-inline'; img-src data: blob:">
<title>$title</title>
<style>$css</style>
</head>
<body>
<main>
$body
</main>
<script>$plotly</script>
<script>$script</script>
</body>
</html>
""")

CSS = f"""
:root {{ --ink: {style.INK}; --muted: {style.MUTED}; --line: #DFE4EA; --soft: #F4F6F9; --blue: {style.FRONT};
  --best: {style.BEST}; --uniform: #9A5F00; }}
* {{ box-sizing: border-box; }}
html {{ -webkit-text-size-adjust: 100%; }}
body {{ margin: 0; background: var(--soft); color: var(--ink); font: 16px/1.55 {style.FONT}; }}
main {{ max-width: 1160px; margin: 0 auto; padding: 44px 28px 56px; }}
header {{ margin-bottom: 28px; }}
.over {{ margin: 0 0 6px; font-size: 13px; font-weight: 600; letter-spacing: .06em; text-transform: uppercase;
  color: var(--blue); }}
h1 {{ margin: 0 0 10px; font-size: 34px; line-height: 1.15; letter-spacing: -.02em; overflow-wrap: anywhere; }}
.lead {{ margin: 0; max-width: 74ch; font-size: 17px; color: #364253; overflow-wrap: anywhere; }}
.lead b {{ color: var(--ink); }}
.tiles {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: 14px; margin: 0 0 22px; }}
.tile {{ margin: 0; padding: 16px 18px 14px; background: #fff; border: 1px solid var(--line); border-radius: 12px; }}
.tile dt {{ font-size: 13px; color: var(--muted); }}
.tile dd {{ margin: 0; font-size: 13px; color: var(--muted); }}
.tile .value {{ margin: 2px 0 3px; font-size: 27px; line-height: 1.2; font-weight: 650; letter-spacing: -.02em;
  color: var(--ink); font-variant-numeric: tabular-nums; }}
.tile.best .value {{ color: var(--best); }}
section {{ margin: 0 0 22px; padding: 24px 26px 18px; background: #fff; border: 1px solid var(--line);
  border-radius: 12px; }}
h2 {{ margin: 0; font-size: 20px; line-height: 1.3; letter-spacing: -.01em; overflow-wrap: anywhere; }}
.note {{ margin: 4px 0 12px; font-size: 14px; color: var(--muted); overflow-wrap: anywhere; }}
.figure {{ width: 100%; }}
.scroll {{ overflow-x: auto; margin: 0 -26px; padding: 0 26px; }}
table {{ width: 100%; border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 9px 12px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line);
  vertical-align: top; }}
th:first-child, td:first-child {{ padding-left: 0; }}
th {{ font-size: 12.5px; font-weight: 600; color: var(--muted); border-bottom-color: #B9C2CE; }}
tr:last-child td {{ border-bottom: 0; }}
.text {{ text-align: left; }}
tr.best td {{ background: #FDF4F0; }}
tr.out td {{ color: var(--muted); }}
.tag {{ display: inline-block; margin-right: 4px; padding: 1px 8px; font-size: 12px; font-weight: 600;
  border-radius: 99px; background: #E5F1F9; color: #005C91; }}
.tag.best {{ background: var(--best); color: #fff; }}
.tag.uniform {{ background: #FCF0DC; color: #85520A; }}
.tag.out {{ background: #ECEFF3; color: #566172; }}
details summary {{ cursor: pointer; color: var(--ink); }}
details[open] summary {{ margin-bottom: 6px; }}
.chips {{ display: flex; flex-wrap: wrap; gap: 4px; min-width: 300px; max-width: 460px; white-space: normal; }}
.chips span {{ padding: 0 7px; font-size: 12.5px; border: 1px solid var(--line); border-radius: 6px; background: #fff;
  overflow-wrap: anywhere; }}
.stages {{ display: flex; flex-wrap: wrap; gap: 8px 28px; margin: 10px 0 6px; padding: 0; list-style: none; }}
.stages b {{ font-variant-numeric: tabular-nums; }}
pre {{ margin: 10px 0 6px; padding: 12px 14px; overflow-x: auto; font: 13.5px/1.5 ui-monospace, Menlo, Consolas,
  monospace; background: var(--soft); border-radius: 8px; }}
footer {{ margin-top: 26px; font-size: 13px; color: var(--muted); }}
@media (max-width: 640px) {{
  main {{ padding: 26px 12px 40px; }}
  header {{ padding: 0 4px; }}
  h1 {{ font-size: 27px; }}
  .lead {{ font-size: 16px; }}
  .tiles {{ grid-template-columns: 1fr 1fr; gap: 10px; }}
  .tile {{ padding: 12px 14px; }}
  .tile:last-child:nth-child(odd) {{ grid-column: 1 / -1; }}
  .tile .value {{ font-size: 22px; }}
  section {{ padding: 18px 14px 12px; }}
  .scroll {{ margin: 0 -14px; padding: 0 14px; }}
  th, td {{ padding: 8px 9px; }}
}}
@media print {{ body {{ background: #fff; }} section, .tile {{ break-inside: avoid; }} }}
"""

SCRIPT = """
(() => {
  const narrow = window.matchMedia("(max-width: 640px)");
  // Buttons are listed, not left out: plotly's own bar has one that sends the chart to its makers' server.
  const buttons = [["toImage"], ["zoom2d", "pan2d", "resetScale2d"]];
  const config = {responsive: true, displaylogo: false, plotlyServerURL: "", modeBarButtons: buttons};
  const put = (layout, path, value) => {
    const keys = path.split("."), last = keys.pop();
    let at = layout;
    for (const key of keys) at = at[key] = at[key] || {};
    at[last] = value;
  };
  const draw = () => {
    for (const div of document.querySelectorAll(".figure")) {
      const figure = JSON.parse(document.getElementById(div.dataset.figure).textContent);
      if (narrow.matches)
        for (const [path, value] of Object.entries(figure.layout.meta.narrow))
          put(path.startsWith("data.") ? figure : figure.layout, path, value);
      div.style.height = figure.layout.height + "px";
      Plotly.react(div, figure.data, figure.layout, {...config, displayModeBar: narrow.matches ? false : "hover"});
    }
  };
  narrow.addEventListener("change", draw);
  draw();
})();
"""
