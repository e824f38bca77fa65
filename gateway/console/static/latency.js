/* Draws the latency page's charts from the JSON that `data-points` names, and again every half minute. */
"use strict";
(() => {
  const latency = document.getElementById("latency-chart");
  if (!latency) return;
  const counts = document.getElementById("count-chart");
  const fault = document.getElementById("chart-fault");
  const EVERY = 30_000;
  const INCREMENTS = [60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800];
  const number = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
  const drawn = [];
  let columns = null;

  /* A canvas knows no custom properties: colours are those of the keys above it, as they are computed. */
  const colour = (selector) => getComputedStyle(document.querySelector(`.key ${selector} i`)).backgroundColor;
  const ink = getComputedStyle(latency);
  const clock = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", hour: "2-digit", minute: "2-digit" });
  const day = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", month: "short", day: "numeric" });
  const time = (seconds) => (seconds % 86_400 ? clock : day).format(new Date(seconds * 1000));
  const shown = (unit) => (_, value) => (value === null ? "-" : number.format(value) + unit);

  const options = (chart, height, series, low) => ({
    width: chart.clientWidth,
    height,
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "UTC"),
    cursor: { sync: { key: "time" }, drag: { x: true, y: false } },
    scales: {
      x: { range: (_, first, last) => [first - columns.step / 2, last + columns.step / 2] },
      y: { range: (_, least, most) => [0, Math.max(most * 1.05, low)] },
    },
    axes: [
      { stroke: ink.color, grid: { stroke: ink.borderTopColor, width: 1 }, ticks: { show: false },
        incrs: INCREMENTS, values: (_, values) => values.map(time) },
      { stroke: ink.color, grid: { stroke: ink.borderTopColor, width: 1 }, ticks: { show: false }, size: 56,
        values: (_, values) => values.map((value) => number.format(value)) },
    ],
    series: [{ label: "UTC", value: "{YYYY}-{MM}-{DD} {HH}:{mm}" }, ...series],
  });

  const line = (name) => ({ label: name, stroke: colour(`.${name}`), width: 1.5, value: shown(" ms") });
  const bar = (label, kind) => ({
    label, stroke: colour(kind), fill: colour(kind), width: 0, points: { show: false }, value: shown(""),
    paths: uPlot.paths.bars({ size: [0.8, 40] }),
  });

  const draw = () => {
    while (drawn.length) drawn.pop().destroy();
    const failed = columns.count.map((count, at) => count && Math.round(count * columns.failed_share[at]));
    drawn.push(
      new uPlot(options(latency, 260, ["p50", "p95", "p99"].map(line), 1),
        [columns.at, columns.p50_ms, columns.p95_ms, columns.p99_ms], latency),
      new uPlot(options(counts, 130, [bar(`${columns.unit}s`, ".counted"), bar("failed", ".lost")], 4),
        [columns.at, columns.count, failed], counts),
    );
  };

  const load = async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch(latency.dataset.points, { headers: { Accept: "application/json" } });
      if (!answer.ok || answer.redirected) throw new Error(`the gateway answered ${answer.status}`);
      columns = await answer.json();
      fault.textContent = columns.fault;
      if (columns.at.length) draw();
    } catch (error) {
      fault.textContent = `The chart could not be brought up to date: ${error.message}.`;
    }
    fault.hidden = !fault.textContent;
  };

  const fit = () => drawn.forEach((chart) => chart.setSize({ width: chart.root.parentNode.clientWidth, height: chart.height }));
  new ResizeObserver(fit).observe(latency);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => columns && draw());
  setInterval(load, EVERY);
  load();
})();
