"""``report.html``: one page that works offline, drawn by Plotly, which is written into it."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from string import Template
from typing import Any

from strop.core.evaluation import TOP1_AGREEMENT, Goal, Measurement
from strop.core.figures import spelled
from strop.engine.ledger import Trial
from strop.engine.outcome import Circumstances, Outcome, figure
from strop.report.frontier import frontier
from strop.report.markdown import how
from strop.report.table import Row, beside, rows
from strop.report.waterfall import waterfall
from strop.report.words import (
    comparison,
    gain,
    headline,
    not_quantized,
    percent,
    quality,
    quantity,
)

_ACCENT, _GOOD, _BAD, _QUIET = "#0f766e", "#0f766e", "#b4533c", "#94a3b8"


def page(outcome: Outcome, circumstances: Circumstances) -> str:
    """Return the whole page, self-contained: no request leaves it (its own policy forbids them)."""
    from plotly.offline import get_plotlyjs

    parts = _parts(outcome, circumstances)
    charts = {
        "tradeoff": _tradeoff(outcome, circumstances),
        "waterfall": waterfall(outcome, circumstances.goal),
    }
    # "</" would end the script element early, whatever string it stands in.
    steps = _STEPS if charts["waterfall"]["data"] else ""
    data = json.dumps(spelled(charts), default=str, allow_nan=False).replace("</", "<\\/")
    return _PAGE.substitute(
        parts, steps=steps, plotly=get_plotlyjs(), charts=data, style=_STYLE, script=_SCRIPT
    )


def notebook(outcome: Outcome, circumstances: Circumstances) -> str:
    """Return table and picture for a notebook's cell: the page in a frame of its own."""
    framed = html.escape(page(outcome, circumstances), quote=True)
    return f'<iframe srcdoc="{framed}" style="width:100%;height:720px;border:0"></iframe>'


def _parts(outcome: Outcome, circumstances: Circumstances) -> dict[str, str]:
    found = rows(outcome, circumstances)
    best = outcome.best
    return {
        "title": html.escape(f"{circumstances.source_name}: {headline(outcome, circumstances)}"),
        "name": html.escape(circumstances.source_name),
        "figure": _figure(outcome, circumstances),
        "side": "right" if circumstances.goal.minimize == "throughput" else "left",
        "said": html.escape(_said(outcome, circumstances)),
        "cards": _cards(outcome, circumstances),
        "recipe": html.escape(str(best.recipe) if best else ""),
        "toml": html.escape(best.recipe.to_toml() if best else "nothing met the limits"),
        "beside": _beside(outcome, circumstances),
        "left": _left_in_float(best),
        "warning": _warning(circumstances),
        "rows": "\n".join(map(_table_row, found)),
        "count": str(len(found)),
        "how": "".join(f"<li>{html.escape(line)}</li>" for line in how(outcome, circumstances)),
        "command": html.escape(circumstances.command),
        "versions": html.escape(", ".join(f"{n} {v}" for n, v in circumstances.versions.items())),
        "date": html.escape(circumstances.date),
    }


def _figure(outcome: Outcome, circumstances: Circumstances) -> str:
    """Return the one number that people look at first."""
    if outcome.best is None:
        return "nothing met the limits"
    if outcome.best.key == outcome.baseline.key:
        return "keep the original"
    return html.escape(
        comparison(gain(outcome, outcome.best, circumstances) or 1.0, circumstances.goal.minimize)
    )


def _said(outcome: Outcome, circumstances: Circumstances) -> str:
    if outcome.best is None or outcome.best.key == outcome.baseline.key:
        return headline(outcome, circumstances)
    pair = outcome.pair_of(outcome.best)
    said = quality(outcome)
    if pair and pair.rounds and circumstances.goal.minimize in ("latency", "throughput"):
        said += f" · between {1 / pair.ratio.high:.2f}× and {1 / pair.ratio.low:.2f}× in {pair.rounds} paired rounds"
        if pair.ratio.high >= 1:
            said += " · not proved faster than the original"
    return said


def _cards(outcome: Outcome, circumstances: Circumstances) -> str:
    if outcome.best is None:
        return ""
    batch = circumstances.goal.batch
    names = {
        f"latency_p50@{batch}": f"median latency, batch {batch}",
        f"throughput@{batch}": "throughput",
        "size": "on disk",
        "zipped_size": "zipped",
        "cold_start": "cold start",
        "peak_memory": "peak memory",
    }
    cards = []
    for name, label in names.items():
        before, after = (
            figure(outcome.baseline.evaluation, name),
            figure(outcome.best.evaluation, name),
        )
        pair = outcome.pair_of(outcome.best)
        if (
            pair and pair.latency and name.startswith("latency")
        ):  # beside the headline's own figure
            before, after = pair.reference_latency, pair.latency
        if after:
            cards.append(_card(quantity(after), label, f"from {quantity(before)}"))
    return "".join([*cards, *_drop_card(outcome)])


def _drop_card(outcome: Outcome) -> list[str]:
    """Return the card with what quality the winner lost, and how much it may be."""
    if outcome.confirmed is None:
        return []
    drop = outcome.confirmed.drop
    label = f"drop ({outcome.confirmed.drop_of}), {outcome.confirmed.samples} unseen samples"
    known = math.isfinite(drop.high)
    bound = (
        f"at most {drop.high:.3g} at {percent(drop.confidence)}" if known else "bound not known"
    )
    return [_card(f"{drop.value:.3g}", label, bound)]


def _card(shown: str, label: str, beside: str) -> str:
    texts = (html.escape(text) for text in (shown, label, beside))
    return '<div class="card"><b>{}</b><span>{}</span><i>{}</i></div>'.format(*texts)


def _beside(outcome: Outcome, circumstances: Circumstances) -> str:
    """Return the table of all that was measured of the original and of the winner."""
    lines = "\n".join(
        "<tr><td>{}</td><td>{}</td><td>{}</td></tr>".format(*map(html.escape, row))
        for row in beside(outcome, circumstances)
    )
    if not lines:
        return ""
    head = "<tr><th></th><th>original</th><th>best</th></tr>"
    return (
        "<h2>The winner beside the original</h2><div class='scroll'>"
        f"<table id='beside'><thead>{head}</thead><tbody>\n{lines}\n</tbody></table></div>"
    )


def _left_in_float(best: Trial | None) -> str:
    shown = ""
    for title, left in not_quantized(best) if best else ():
        items = "".join(
            f"<li><code>{html.escape(n)}</code>: {html.escape(str(r))}</li>"
            for n, r in left.items()
        )
        shown += f"<h3>{title}</h3><ul class='notes'>{items}</ul>"
    return shown


def _warning(circumstances: Circumstances) -> str:
    if not circumstances.synthetic:
        return ""
    return (
        '<p class="warning">No samples were given, so inputs were made up. That the answers agree with the '
        "original's on them shows that the computation survived; it does not show that accuracy on real data did. "
        "Give real samples with <code>--data</code> before relying on it.</p>"
    )


def _table_row(row: Row) -> str:
    cells = [
        (str(row.number), row.number),
        (row.state, row.state),
        (row.time, _sortable(row.time)),
        (row.gain, float(row.gain.rstrip("×")) if row.gain != "–" else -1),
        (row.quality, row.quality),
        (row.size, _sortable(row.size)),
    ]
    plain = "".join(
        f'<td data-sort="{html.escape(str(key))}">{html.escape(text)}</td>' for text, key in cells
    )
    recipe = f'<td class="wide"><code>{html.escape(row.recipe)}</code><small>{html.escape(row.reason)}</small></td>'
    return f'<tr class="{html.escape(row.state)}">{plain}{recipe}</tr>'


def _sortable(text: str) -> float:
    """Return the number that a quantity stands for, so that 900 µs sorts before 2 ms."""
    number, _, unit = text.partition(" ")
    scale = {"µs": 1e-3, "ms": 1.0, "s": 1e3, "kB": 1e3, "MB": 1e6, "GB": 1e9, "bytes": 1.0}.get(
        unit
    )
    try:
        return float(number.replace(",", "")) * (scale or 1.0)
    except ValueError:
        return -1.0


def _tradeoff(outcome: Outcome, circumstances: Circumstances) -> dict[str, Any]:
    """Return the picture of cost against quality as Plotly's plain values."""
    goal = circumstances.goal
    judged = [t for t in outcome.trials if _point(t, circumstances) is not None]
    kept = [t for t in judged if not t.reason]
    missed = [t for t in judged if t.reason]
    traces = [
        _scatter(kept, circumstances, outcome, "kept the limits", _QUIET, "circle", 9),
        _scatter(missed, circumstances, outcome, "missed the limits", _BAD, "x-thin-open", 8),
    ]
    edge = list(frontier(outcome, goal))
    points = [_point(t, circumstances) or (0.0, 0.0) for t in edge]
    traces.append(
        {
            "type": "scatter", "mode": "lines", "name": "frontier", "hoverinfo": "skip",
            "x": [p[0] for p in points], "y": [p[1] for p in points],
            "line": {"color": _ACCENT, "width": 1.5, "shape": "hv" if goal.minimize != "throughput" else "vh"},
        }
    )  # fmt: skip
    if outcome.best:
        star = _scatter([outcome.best], circumstances, outcome, "best", _GOOD, "star", 17)
        if outcome.best.key == outcome.baseline.key:
            point = _original_point(outcome, judged, goal)
            star |= {"x": [point[0]], "y": [point[1]]} if point else {"x": [], "y": []}
        traces.append(star)
    cost = next((t.evaluation.objective(goal) for t in judged if t.evaluation), None)
    unit = cost.unit if cost else ""
    before = outcome.baseline.evaluation and outcome.baseline.evaluation.objective(goal)
    reached = [x for trace in traces for x in trace["x"]] + ([before.value] if before else [])
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": goal.minimize}, "type": "log", **_ticks(reached, unit)},
        "yaxis": {"title": {"text": _quality_axis(judged)}},
    }
    if before:
        layout["shapes"] = [_vertical(before.value)]
        layout["annotations"] = [
            {
                "x": _log10(before.value),
                "y": 1,
                "yref": "paper",
                "text": "original",
                "showarrow": False,
                "xanchor": "right",
                "xshift": -4,
            }
        ]
    return {"data": [t for t in traces if t["x"]], "layout": layout}


def _ticks(reached: list[float], unit: str) -> dict[str, Any]:
    """Return the marks of a logarithmic axis at 1, 2 and 5, written out with their unit; Plotly's own are bare digits."""
    positive = [value for value in reached if value > 0]
    if not positive:
        return {}
    low, high = min(positive) / 1.5, max(positive) * 1.5
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    marks = [mark for mark in marks if low <= mark <= high]
    return {
        "tickvals": marks,
        "ticktext": [quantity(Measurement.exact(mark, unit)) for mark in marks],
    }


def _log10(value: float) -> float:
    return math.log10(value)


def _vertical(x: float) -> dict[str, Any]:
    return {
        "type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper",
        "line": {"color": _QUIET, "width": 1, "dash": "dot"},
    }  # fmt: skip


def _point(trial: Trial, circumstances: Circumstances) -> tuple[float, float] | None:
    measured = trial.evaluation.objective(circumstances.goal) if trial.evaluation else None
    fidelity = trial.evaluation.fidelity if trial.evaluation else None
    if measured is None or fidelity is None or not fidelity.finite:
        return None
    shown = fidelity.metric.value if fidelity.metric else 1 - fidelity.drop.value
    # An error without bound (the original answers nothing but zeros) has no place in a picture.
    return (measured.value, shown) if math.isfinite(shown) else None


def _original_point(
    outcome: Outcome, judged: Sequence[Trial], goal: Goal
) -> tuple[float, float] | None:
    """Return where the original stands: it is never judged, but its metric is known from those that are."""
    measured = outcome.baseline.evaluation and outcome.baseline.evaluation.objective(goal)
    if not measured:
        return None
    found = [t.evaluation.fidelity for t in judged if t.evaluation and t.evaluation.fidelity]
    metric = next((f.baseline_metric for f in found if f.baseline_metric), None)
    return measured.value, metric.value if metric else 1.0


def _quality_axis(judged: Sequence[Trial]) -> str:
    for trial in judged:
        if trial.evaluation and trial.evaluation.fidelity:
            fidelity = trial.evaluation.fidelity
            if fidelity.metric:
                return fidelity.metric_of
            return (
                "agreement with the original"
                if fidelity.drop_of == TOP1_AGREEMENT
                else "1 − relative error"
            )
    return "quality"


def _scatter(
    trials: Sequence[Trial],
    circumstances: Circumstances,
    outcome: Outcome,
    name: str,
    color: str,
    symbol: str,
    size: int,
) -> dict[str, Any]:
    points = [_point(trial, circumstances) or (0.0, 0.0) for trial in trials]
    return {
        "type": "scatter", "mode": "markers", "name": name,
        "x": [p[0] for p in points], "y": [p[1] for p in points],
        "text": [_hover(trial, circumstances, outcome) for trial in trials],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"color": color, "symbol": symbol, "size": size, "line": {"width": 1.2, "color": color}},
    }  # fmt: skip


def _hover(trial: Trial, circumstances: Circumstances, outcome: Outcome) -> str:
    measured = trial.evaluation.objective(circumstances.goal) if trial.evaluation else None
    better = gain(outcome, trial, circumstances)
    steps = "<br>".join(html.escape(part) for part in str(trial.recipe).split(" > "))
    gained = f" · {better:.2f}×" if better else ""
    return f"<b>{html.escape(quantity(measured))}</b>{gained}<br>{steps}"


_STYLE = """
:root { --ink: #0f172a; --quiet: #64748b; --line: #e2e8f0; --paper: #ffffff; --soft: #f8fafc; --accent: #0f766e; --bad: #b4533c; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e2e8f0; --quiet: #94a3b8; --line: #273449; --paper: #0b1220; --soft: #111a2c; --accent: #2dd4bf; --bad: #f0926f; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 48px 24px 96px; }
header p { margin: 0; color: var(--quiet); }
h1 { font-size: clamp(40px, 7vw, 76px); line-height: 1.05; letter-spacing: -0.03em; margin: 6px 0 10px; font-weight: 680; }
h2 { font-size: 21px; letter-spacing: -0.01em; margin: 64px 0 6px; }
h3 { font-size: 16px; margin: 24px 0 4px; }
.lead { font-size: 19px; color: var(--ink) !important; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 32px 0 0; }
.card { background: var(--soft); border: 1px solid var(--line); border-radius: 12px; padding: 14px 16px; }
.card b { display: block; font-size: 23px; letter-spacing: -0.02em; font-variant-numeric: tabular-nums; }
.card span { display: block; font-size: 13px; color: var(--quiet); }
.card i { display: block; font-size: 13px; color: var(--quiet); font-style: normal; }
.sub { color: var(--quiet); margin: 0 0 8px; }
.chart { height: 440px; }
.chart.steps { min-width: 760px; }
.warning { border-left: 3px solid var(--bad); padding: 2px 14px; margin-top: 28px; }
pre, code { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; overflow-x: auto; position: relative; }
button { font: inherit; font-size: 13px; color: var(--quiet); background: var(--paper); border: 1px solid var(--line); border-radius: 7px; padding: 3px 10px; cursor: pointer; }
pre button { position: absolute; top: 9px; right: 9px; }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--quiet); font-weight: 500; white-space: nowrap; border-bottom: 1px solid var(--line); padding: 8px 10px 8px 0; }
#trials th { cursor: pointer; user-select: none; }
td { vertical-align: top; padding: 8px 10px 8px 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
td.wide { white-space: normal; min-width: 320px; }
td.wide code { overflow-wrap: anywhere; }
td small { display: block; color: var(--quiet); font-size: 12.5px; }
tr.best td { color: var(--accent); font-weight: 600; } tr.best small { font-weight: 400; }
tr.missed td:nth-child(2), tr.failed td:nth-child(2) { color: var(--bad); }
.tools { display: flex; gap: 10px; align-items: center; margin: 8px 0; flex-wrap: wrap; }
input { font: inherit; font-size: 14px; color: var(--ink); background: var(--paper); border: 1px solid var(--line); border-radius: 8px; padding: 6px 12px; width: 280px; max-width: 100%; }
ul.notes { padding-left: 20px; margin: 6px 0; } ul.notes li { margin: 3px 0; }
footer { margin-top: 64px; color: var(--quiet); font-size: 13px; }
@media (max-width: 560px) { main { padding: 28px 16px 64px; } .chart { height: 340px; } }
"""

_SCRIPT = """
const charts = JSON.parse(document.getElementById('charts').textContent);
const ink = getComputedStyle(document.documentElement);
const color = name => ink.getPropertyValue(name).trim();
function draw(id) {
  const element = document.getElementById(id), chart = charts[id];
  if (!element) return;
  if (!chart.data.length) { element.remove(); return; }
  const axis = { gridcolor: color('--line'), zerolinecolor: color('--line'), linecolor: color('--line'), tickfont: { color: color('--quiet'), size: 11 } };
  const layout = Object.assign({
    paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)',
    font: { family: 'system-ui, sans-serif', size: 13, color: color('--ink') },
    margin: { l: 62, r: 16, t: 24, b: 54 }, hoverlabel: { align: 'left' },
    legend: { orientation: 'h', y: 1.08, x: 0 }, showlegend: id === 'tradeoff',
  }, chart.layout);
  layout.xaxis = Object.assign({}, axis, chart.layout.xaxis, { automargin: true });
  layout.yaxis = Object.assign({}, axis, chart.layout.yaxis, { automargin: true });
  Plotly.newPlot(element, chart.data, layout, { displayModeBar: false, responsive: true });
}
draw('tradeoff'); draw('waterfall');
const body = document.querySelector('#trials tbody');
document.querySelectorAll('#trials th').forEach((head, column) => head.addEventListener('click', () => {
  const down = head.dataset.down !== 'yes';
  document.querySelectorAll('#trials th').forEach(other => delete other.dataset.down);
  head.dataset.down = down ? 'yes' : 'no';
  const key = row => { const cell = row.cells[column]; const text = cell.dataset.sort ?? cell.textContent; const number = parseFloat(text); return isNaN(number) ? text : number; };
  [...body.rows].sort((a, b) => { const x = key(a), y = key(b); const order = typeof x === typeof y ? (x > y) - (x < y) : (typeof x === 'number' ? -1 : 1); return down ? order : -order; }).forEach(row => body.append(row));
}));
document.getElementById('filter').addEventListener('input', event => {
  const words = event.target.value.toLowerCase();
  for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(words);
});
document.querySelectorAll('button[data-copy]').forEach(button => button.addEventListener('click', () => {
  navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent).then(() => { button.textContent = 'copied'; });
}));
"""

_STEPS = """<h2>What each step brought</h2>
<p class="sub">From the original to the winner, by the figures of the trials in the table, which were measured one after the other.
What stands together under one bar was not measured apart.</p>
<div class="scroll"><div id="waterfall" class="chart steps"></div></div>"""

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:">
<link rel="icon" href="data:,">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
<header>
<p>$name · $date</p>
<h1>$figure</h1>
<p class="lead">$said</p>
<p><code>$recipe</code></p>
</header>
$warning
<section class="cards">$cards</section>
<h2>The trade-off</h2>
<p class="sub">Every model that was judged. Further $side is better; higher is closer to the original's answers.</p>
<div id="tradeoff" class="chart"></div>
$steps
$beside
<h2>The recipe</h2>
<pre><button data-copy="toml">copy</button><span id="toml">$toml</span></pre>
$left
<h2>Everything that was tried</h2>
<div class="tools"><input id="filter" placeholder="filter $count trials" aria-label="filter"></div>
<div class="scroll"><table id="trials">
<thead><tr><th>#</th><th>state</th><th>time</th><th>gain</th><th>quality (select)</th><th>size</th><th>recipe, and why</th></tr></thead>
<tbody>
$rows
</tbody></table></div>
<h2>How it was measured</h2>
<ul class="notes">$how</ul>
<h2>To do it again</h2>
<pre><button data-copy="command">copy</button><span id="command">$command</span></pre>
<footer>$versions</footer>
</main>
<script type="application/json" id="charts">$charts</script>
<script>$plotly</script>
<script>$script</script>
</body>
</html>
""")
